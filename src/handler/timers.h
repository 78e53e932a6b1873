/*-------------------------------------------------------------------------
 *
 * timers.h
 *	  How long a run may last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TIMERS_H
#define GT_TIMERS_H

#include <signal.h>

#include "c.h"

#define GT_KILL_AFTER_MS	5000	/* after it was canceled, and again */

extern void gt_timers_begin(void);	/* before the runs of one call */
extern void gt_timers_reset(void);	/* before a run: nothing has fired */
extern void gt_timers_start(int64 timeout); /* us */
extern void gt_timers_shorten(int64 timeout);	/* of the run in progress: so long from now on */
extern void gt_timers_stop(void);	/* a cancellation that was not noticed is withdrawn */

/* What has become of the run since gt_timers_reset(). */
extern volatile sig_atomic_t gt_timed_out;
extern volatile sig_atomic_t gt_given_back; /* canceled for others, to be run again */
extern bool gt_caller_has_gone(void);	/* the statement_timeout of gt_reclaim()'s caller has fired; the handler may have caught that */

/* This process was terminated because a handler did not heed its timeout: not an eviction. */
extern volatile sig_atomic_t gt_run_overran;

#endif
