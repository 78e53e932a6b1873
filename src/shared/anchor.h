/*-------------------------------------------------------------------------
 *
 * anchor.h
 *	  What the clock keeps in shared memory and in a file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ANCHOR_H
#define GT_ANCHOR_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

/* In shared memory, part of GtShared; without preload there is none. */
typedef struct GtClock
{
	int64		run;			/* this server run: random, drawn when shared memory is initialised */
	int64		base;			/* gt_clock() = base + CLOCK_MONOTONIC. Under the lock of GtShared */
	TimestampTz before;			/* of the run before, as far as it is known; 0 */
	int64		ended;			/* that run, if it went down in order and the clock goes on from there; 0 */
	bool		settled;		/* base will not be changed any more. Under that lock */
} GtClock;

extern void gt_clock_share(GtClock *shared, LWLock *lock, bool first);	/* when shared memory is there; first: the postmaster, who makes it */
extern void gt_clock_settle(void);	/* after a recovery, before anything is judged or granted */
extern void gt_clock_record(void);	/* keeps gt_clock() in a file for the next start; at most each 10 s, but for the launcher's exit */

#endif
