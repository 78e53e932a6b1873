/*-------------------------------------------------------------------------
 *
 * command.h
 *	  The command of an SQL handler; all as the handler's role, under its search_path.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_COMMAND_H
#define GT_COMMAND_H

#include "handler/handler.h"

#define GT_NPARAMS			9

/* $1 to $9: what they are in our tables, and in a set of them */
extern const Oid gt_natural_types[GT_NPARAMS];
extern const Oid gt_batch_types[GT_NPARAMS];

/* Which of $1 to $9 there are in it, as bits; more than that where one is in a comment or the like. */
extern uint32 gt_command_mentions(const char *command);
#define GT_MENTIONS(number)	(UINT32_C(1) << (number))
#define GT_MENTIONS_CLEANUP_ID GT_MENTIONS(9)
extern void gt_command_types(const GtHandler *h, Oid *types);	/* of $1 to $9, as the command wants them */
extern void gt_command_check(const GtHandler *h);	/* raises what is wrong with it */

#endif
