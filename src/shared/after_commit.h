/*-------------------------------------------------------------------------
 *
 * after_commit.h
 *	  What will be due once a transaction has committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_AFTER_COMMIT_H
#define GT_AFTER_COMMIT_H

#include "shared/clock.h"

/*
 * There is work at this time (gt_clock) once the current transaction has
 * committed: wakes the worker of this database, or the launcher, if it is the
 * earliest known.  Forgotten when the (sub)transaction aborts.
 */
extern void gt_due_after_commit(TimestampTz when);
extern void gt_garbage_due_after_commit(TimestampTz when);	/* and of leases there is nothing new */
extern void gt_garbage_queued_after_commit(TimestampTz when);	/* likewise, and nobody is to be woken: who looks for it comes by himself */
extern void gt_wake_after_commit(TimestampTz when);	/* the work is in none of our queues */

#endif
