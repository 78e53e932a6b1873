/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  Who may start which runs, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_SLOTS_H
#define GT_SLOTS_H

#include "handler/handler.h"
#include "shared/shmem.h"

#define GT_IDLE_LIMIT (10 * USECS_PER_SEC)	/* a worker with nothing due gives its slot up */
#define GT_SLOW (1 * USECS_PER_SEC) /* a run that took longer makes its handler slow */

/* May another process start a run of h now? Says nothing of rates. */
extern bool gt_slot_allows(const GtHandler *h, bool alone, TimestampTz *when);
/* May we? As gt_slot_allows(), and takes it, with the rate: the items are ours until gt_slot_release(). Some are others': they are taken out. */
extern bool gt_slot_reserve(const GtHandler *h, bool alone, int64 *items, int *nitems, TimestampTz upto,
							TimestampTz *when);
/* Of a worker, for a pass over leases of a quick handler: its items are not known yet. */
extern bool gt_slot_reserve_pass(const GtHandler *h);
extern void gt_slot_committed(void);	/* the items of the run before are nobody's any more */
extern void gt_slot_release(void);	/* this process runs nothing */
extern void gt_slot_run_begins(void);
extern void gt_slot_set_state(GtSlotState state);
extern bool gt_foreground_enter(void);	/* false: no slot, and nothing is held to */
extern void gt_foreground_leave(void);

#endif
