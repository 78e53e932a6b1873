/*-------------------------------------------------------------------------
 *
 * lease.h
 *	  What the files about leases share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LEASE_H
#define GT_LEASE_H

#include "utils/array.h"
#include "utils/jsonb.h"

#include "garbagetruck.h"

/* Why something was refused: to be raised, or shown in a row. */
typedef struct GtFail
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* or NULL */
	char	   *hint;			/* or NULL */
	const char *holder;			/* the service that stands in the way (GT005); or NULL */
	int64		retry_after;	/* us; 0: not known */
} GtFail;

/* lease.c */
extern TimestampTz gt_lease_shown_until(GtTable *leases, const GtRow *lease);	/* as gt_lease_over_at(), but never GT_NEVER */
extern bool gt_fail(GtFail *f, int sqlstate, const char *fmt,...) pg_attribute_printf(3, 4);
extern void gt_raise(const GtFail *f);	/* does not return */
extern bool gt_fail_not_found(const pg_uuid_t *id, GtFail *f);	/* GT001 */
extern bool gt_lease_check_rights(const GtRow *lease, const char *service, bool releasing, GtFail *f);	/* 42501, GT003 */
extern char *gt_text_arg(FunctionCallInfo fcinfo, int n);	/* NULL for NULL */
extern int	gt_lease_ids_of(ArrayType *array, pg_uuid_t ***ids);

/* ids.c */
extern char *gt_uuid_cstring(const pg_uuid_t *id);
extern int64 gt_unique_us(void);	/* microseconds since 1970, never twice in a process */
extern void gt_uuid_v7(pg_uuid_t *id);
extern int	gt_by_id(const void *a, const void *b); /* for qsort() and bsearch() of int64 */

/* check.c: false, and why, for what is 22023 */
extern char *gt_shown(const char *value);	/* in an error: no more of it than helps */
#define GT_MAX_MAX_ATTEMPTS 1000
#define GT_MAX_RETRY_DELAY	USECS_PER_DAY
#define GT_RETRY_DELAY_RANGE "between 0 and 24 hours"
extern bool gt_check_interval(const char *what, Interval *i, int64 min, int64 max, const char *range, int64 *us,
							  GtFail *f);
extern bool gt_check_max_attempts(int max_attempts, GtFail *f);
extern bool gt_check_retry_delay(Interval *retry_delay, int64 *us, GtFail *f);
extern bool gt_check_name(const char *what, const char *value, int max_bytes, GtFail *f);
extern bool gt_check_duration(Interval *duration, int64 *us, GtFail *f);
extern bool gt_check_regrant_delay(Interval *delay, int64 *us, GtFail *f);
extern bool gt_check_payload(Jsonb *payload, Jsonb *metadata, GtFail *f);

/* transaction.c */
extern void gt_orphan_add(Datum parent, bool expired, TimestampTz ended_at);	/* its children are to be ended by the worker */
extern void gt_lease_restarted(const pg_uuid_t *id, TimestampTz now, int64 duration);	/* it has been given this duration, from now on */
/* This transaction has created a lease; now: GT_NEVER for a child, which has no deadline */
extern void gt_lease_created(const pg_uuid_t *id, TimestampTz now, int64 duration);

/* ending.c */
extern void gt_lease_key(const GtRow *lease, GtLeaseKey *key);
/* Of a locked lease that is not over yet: it is looked at again then. 1: it can not be judged yet. */
extern int	gt_re_arm(GtTable *leases, GtRow *lease, TimestampTz over_at);

#endif
