/*-------------------------------------------------------------------------
 *
 * lease.c
 *	  What all functions on leases share: when a lease is over, and who may change it.
 *
 * Every process that serves SQL, and the workers, run this.  Nothing is locked
 * here, so who must be sure has locked the lease's row before he asks, but for
 * the parent of a child, by which others than its holders judge.  A renewal of it
 * that is on its way may have been in time: it has locked the row before it read
 * the clock.  So a parent is over for good when its deadline is past and its row,
 * as it was judged, could be locked; and while it runs nobody is kept from it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/garbagetruck.h"
#include "base/text.h"
#include "lease/created.h"
#include "lease/deadline.h"
#include "lease/lease.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "table/records.h"

/* ---- judging ---- */

/* The deadline of a lease or its parent, as `read` reads it; 0: a child whose parent has ended. */
static TimestampTz
deadline_of(GtTable *leases, const GtRow *lease, TimestampTz (*read) (const GtRow *))
{
	GtRow		parent;

	if (lease->isnull[L_PARENT])
		return read(lease);
	if (!gt_fetch(leases, GT_LEASE_PKEY, 1, &lease->v[L_PARENT], &parent))
		return 0;
	return read(&parent);
}

TimestampTz
gt_lease_over_at(GtTable *leases, const GtRow *lease)
{
	return deadline_of(leases, lease, gt_effective_deadline);
}

bool
gt_lease_is_over(const GtRow *lease)
{
	TimestampTz now = gt_now();	/* before the deadline is read: see buffered.c */

	return now >= gt_effective_deadline(lease) && !gt_created_here(DatumGetUUIDP(lease->v[L_ID]));
}

bool
gt_lease_running(GtTable *leases, const GtRow *lease, TimestampTz now)
{
	TimestampTz over_at = gt_lease_over_at(leases, lease);

	if (now < over_at)
		return true;
	return over_at != 0 && gt_created_here(DatumGetUUIDP(lease->v[lease->isnull[L_PARENT] ? L_ID : L_PARENT]));
}

/* How the lease ended, whose children the worker has not ended yet; false: nothing tells of it. */
static bool
fetch_orphan(const pg_uuid_t *parent, TimestampTz *ended_at, bool *expired)
{
	Datum		key = UUIDPGetDatum(parent);
	GtTable		orphans;
	GtRow		row;
	bool		found;

	gt_open(&orphans, GT__ORPHAN, AccessShareLock);
	found = gt_fetch(&orphans, GT__ORPHAN_PKEY, 1, &key, &row);
	if (found)
	{
		*ended_at = GT_TIME(&row, ORPHAN_ENDED_AT);
		*expired = GT_BOOL(&row, ORPHAN_EXPIRED);
	}
	gt_close(&orphans);
	return found;
}

static bool
judge_parent(const GtRow *lease, void *arg)
{
	return gt_lease_is_over(lease);
}

bool
gt_parent_is_over(GtTable *leases, const pg_uuid_t *parent, bool wait, bool for_good, TimestampTz *over_at, bool *expired)
{
	Datum		key = UUIDPGetDatum(parent);
	LockTupleMode mode = for_good ? LockTupleNoKeyExclusive : LockTupleShare;
	GtRow		row;

	*expired = true;
	switch (gt_fetch_lock_if(leases, GT_LEASE_PKEY, 1, &key, &row, mode, !wait, judge_parent, NULL))
	{
		case GT_LOCKED:
			*over_at = gt_effective_deadline(&row);
			if (for_good && GT_INT64(&row, L_RUN) != GT_RUN_OVER)
			{
				GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(*over_at));
				GT_SET(&row, L_RUN, Int64GetDatum(GT_RUN_OVER));
				gt_update(leases, &row);
			}
			return true;
		case GT_REFUSED:
		case GT_BUSY:
			return false;
		default:
			if (!fetch_orphan(parent, over_at, expired))
				*over_at = gt_now();
			return true;
	}
}

TimestampTz
gt_lease_shown_until(GtTable *leases, const GtRow *lease)
{
	return deadline_of(leases, lease, gt_least_deadline);
}

/* ---- refusing ---- */

bool
gt_fail_not_found(const pg_uuid_t *id, GtFail *f)
{
	gt_fail(f, ERRCODE_GT_NOT_FOUND, "lease %s does not exist", id == NULL ? "NULL" : gt_uuid_cstring(id));
	f->detail = pstrdup("It has ended, or there never was one.");
	f->hint = pstrdup("A lease can be renewed or released by others once the transaction that creates it has committed.");
	return false;
}

bool
gt_fail_other_role(const pg_uuid_t *id, GtFail *f)
{
	gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for lease %s", gt_uuid_cstring(id));
	f->detail = pstrdup("It was made by another role.");
	f->hint = pstrdup("Members of that role may renew it, release it and give it children; gt_share() lends objects, not leases.");
	return false;
}

/* May the caller change this lease, acting for this service (NULL: not said)? An administrator may only release others'. */
bool
gt_lease_check_rights(const GtRow *lease, const char *service, bool releasing, GtFail *f)
{
	pg_uuid_t  *id = DatumGetUUIDP(lease->v[L_ID]);

	if (!gt_acts_for(GT_OID(lease, L_OWNER)) && !(releasing && gt_is_admin()))
		return gt_fail_other_role(id, f);
	if (!gt_caller_covers(TextDatumGetCString(lease->v[L_SERVICE_ID])))
		return gt_fail(f, ERRCODE_GT_OTHER_SERVICE, "lease %s belongs to another service", gt_uuid_cstring(id));
	if (service != NULL && strcmp(TextDatumGetCString(lease->v[L_SERVICE_ID]), service) != 0)
		return gt_fail(f, ERRCODE_GT_OTHER_SERVICE, "lease %s belongs to service \"%s\", not \"%s\"",
					   gt_uuid_cstring(id), TextDatumGetCString(lease->v[L_SERVICE_ID]), gt_shown(service));
	return true;
}
