/*-------------------------------------------------------------------------
 *
 * admit.h
 *	  Which run may start beside those that are in progress.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ADMIT_H
#define GT_ADMIT_H

#include "handler/handler.h"
#include "shared/observe.h"
#include "shared/shmem.h"
#include "shared/turn.h"

extern GtTurn *gt_my_turn;		/* of the role that we run something of: not the oldest, so it stays where it is; NULL: of none yet */
/*
 * May a run of h start that is of this speed?  mine: the slot of who asks; NULL:
 * somebody who runs nothing.  *when: look again then, if no run ends before.  Lock held.
 */
extern bool gt_admits(const GtHandler *h, GtSpeed speed, bool alone, const GtSlot *mine, TimestampTz *when);
/* As when it was chosen last, but for a run of it that has become slow since. Lock held. */
extern GtSpeed gt_admit_speed(const GtHandler *h, GtSpeed speed);
/* From when on a run of an object that was in a crash may start; other objects need not wait for it. */
extern TimestampTz gt_slot_alone_from(void);
/* Has it all the workers for passes over leases that it may have, by others or with ours, of which none lasts? */
extern bool gt_slot_passes_are_full(const GtHandler *h);
/* The run of this worker, which has lasted a turn, must end: it would take the last slot, or more than its role may have. */
extern bool gt_slot_gives_back(void);

#endif
