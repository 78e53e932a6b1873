/*-------------------------------------------------------------------------
 *
 * failures.h
 *	  The log of runs that failed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_FAILURES_H
#define GT_FAILURES_H

#include "handler/run.h"

extern void gt_run_log_failure(const GtHandler *h, const GtItem *items, int n);	/* of one run, unless there are too many lines */

#endif
