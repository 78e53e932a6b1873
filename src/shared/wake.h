/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Who is woken, and what a worker keeps to itself meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WAKE_H
#define GT_WAKE_H

#include "datatype/timestamp.h"

extern void gt_wake_launcher(void);
extern void gt_wake_procno(int procno);
/*
 * Wakes the first worker that is idle in a database: it is the one that sleeps
 * until next_due.  So who was that and is idle no longer calls this.  false: there
 * is none.
 */
extern bool gt_wake_idle(Oid database);
/* What this worker's commits have asked for, for it to publish: the earliest, and the earliest that was not due at once. */
extern TimestampTz gt_worker_due;
extern TimestampTz gt_worker_later;

#endif
