/*-------------------------------------------------------------------------
 *
 * counts.h
 *	  What is counted when a transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_COUNTS_H
#define GT_COUNTS_H

#include "shared/observe.h"

extern void gt_observe_forget(Oid database);	/* it was dropped, or the extension in it */
extern void gt_observe_dropped(int handler);	/* if this (sub)transaction commits; 0: the extension and all of them */
extern void gt_observe_cleanup(int handler, Oid owner, bool ok, int64 took, int64 lag); /* lag < 0: not a first attempt */
extern void gt_observe_lag(int64 lag);	/* of an attempt that gt_claim starts; gt_observe_cleanup() has its own */
extern void gt_observe_rows(int ttl, Oid owner, int n, const int64 *lags);	/* deleted, so long after their deadlines, us */
extern void gt_observe_gauges(int leases, int garbage, int dead);	/* so many more, if this (sub)transaction commits */
extern void gt_count_created(int n);	/* counters, and the gauge of leases with them, if this (sub)transaction commits */
extern void gt_count_renewed(int n);
extern void gt_count_renewed_now(int n);	/* whatever becomes of the transaction */
extern void gt_count_released(int n);
extern void gt_count_expired(int n);
extern void gt_count_prepared(void);	/* what prepared transactions of this database have done that have committed */
extern const double gt_bounds[GT_NBOUNDS];

#endif
