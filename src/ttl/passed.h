/*-------------------------------------------------------------------------
 *
 * passed.h
 *	  Rows that are over and have to be left: a worker passes them over for a while.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PASSED_H
#define GT_PASSED_H

#include "utils/rel.h"

/* Why a row is left. */
typedef enum
{
	GT_NOT_LEFT,
	GT_LEFT_ASIDE,				/* it could not be deleted, and is tried by itself */
	GT_LEFT_WAITING,			/* there is an object of its name */
	GT_LEFT_BUSY				/* somebody has it locked */
} GtLeft;

extern void gt_passed_begin(void);	/* a batch is chosen */
extern GtLeft gt_passed_over(Relation rel, ItemPointer tid);	/* why it was left, if it need not be looked at again now */
extern void gt_passed_note(Relation rel, ItemPointer tid, GtLeft why);	/* it was looked at */

#endif
