/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Values: false, and why, for what is 22023.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CHECK_H
#define GT_CHECK_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "base/fail.h"

extern Interval *gt_us_interval(int64 us);
extern void *gt_alloc_array(int n, Size size);	/* zeroed; of what a caller has named, however much that is */

#define GT_MAX_MAX_ATTEMPTS 1000
#define GT_MAX_RETRY_DELAY	USECS_PER_DAY
#define GT_RETRY_DELAY_RANGE "between 0 and 24 hours"

extern bool gt_check_interval(const char *what, Interval *i, int64 min, int64 max, const char *range, int64 *us,
							  GtFail *f);
extern bool gt_check_max_attempts(int max_attempts, GtFail *f);
extern bool gt_check_retry_delay(Interval *retry_delay, int64 *us, GtFail *f);
extern bool gt_check_duration(Interval *duration, int64 *us, GtFail *f);
extern bool gt_check_regrant_delay(Interval *delay, int64 *us, GtFail *f);
/* Bytes of a value as text; more than `enough`: not counted on. */
extern size_t gt_json_length(Jsonb *json, size_t enough);
extern bool gt_check_payload(Jsonb *payload, Jsonb *metadata, GtFail *f);

#endif
