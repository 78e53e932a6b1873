/*-------------------------------------------------------------------------
 *
 * place.h
 *	  Where this database lives.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PLACE_H
#define GT_PLACE_H

#include "shared/where.h"

extern GtPlace gt_place(char **why);	/* why: of a copy; may be NULL */
extern void gt_place_ensure(void);	/* from create: stamps an empty database */
extern void gt_place_stamp(bool adopted);	/* writes that we live here */
extern int64 gt_note_restore(void); /* at the postmaster's start: GtShared.restored */

#endif
