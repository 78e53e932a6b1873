/*-------------------------------------------------------------------------
 *
 * leftovers.h
 *	  What a run must not leave behind in its session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LEFTOVERS_H
#define GT_LEFTOVERS_H

#include "nodes/pg_list.h"
#include "storage/lock.h"

extern void gt_constraints_immediate(void); /* fires what was deferred, and from here on nothing is */
extern void gt_constraints_as_defined(void);	/* in a block: those are deferred again that are so by their definition */
extern LockData *gt_advisory_locks(void);	/* everybody's locks, if this session holds advisory ones; else NULL */
extern void gt_release_advisory_locks(const LockData *before);	/* this session's that were not there */
extern List *gt_open_cursors(void); /* their names. Connected to the SPI */
extern void gt_close_cursors(bool in_block, List *before);	/* in_block: but those with these names */
extern void gt_reseed(void);	/* random() goes on from where no handler has put it */

#endif
