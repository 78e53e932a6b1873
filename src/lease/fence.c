/*-------------------------------------------------------------------------
 *
 * fence.c
 *	  Fences: which number a lease has, and whether it still counts.
 *
 * gt_fence() locks nothing.  gt_fence_check() locks the object's row FOR SHARE
 * to the end of the transaction, which every create and end on that object
 * would have to lock FOR NO KEY UPDATE.  It does so only where the fence counts:
 * an answer of false keeps nobody waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/caller.h"
#include "base/garbagetruck.h"
#include "base/text.h"
#include "lease/lease.h"
#include "lease/start.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/ids.h"

PG_FUNCTION_INFO_V1(gt_fence);
PG_FUNCTION_INFO_V1(gt_fence_check);

/* gt_fence(lease_id): of a running lease of one's own */
Datum
gt_fence(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	Datum		key = UUIDPGetDatum(id);
	GtTable		leases;
	GtRow		row;
	GtFail		f;

	gt_must_be_allowed("gt_fence");
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (id == NULL || !gt_fetch(&leases, GT_LEASE_PKEY, 1, &key, &row))
	{
		gt_fail_not_found(id, &f);
		gt_raise(&f);
	}
	if (!gt_lease_check_rights(&row, NULL, false, &f))
		gt_raise(&f);
	if (!gt_lease_running(&leases, &row, gt_now()))
	{
		gt_fail(&f, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(id));
		gt_raise(&f);
	}
	gt_close(&leases);
	PG_RETURN_INT64(GT_INT64(&row, L_FENCE));
}

/* The fence that is asked about, of which object. */
typedef struct Asked
{
	GtTable    *leases;
	Datum		key[2];			/* of GT_LEASE_OBJECT */
	int64		fence;
} Asked;

/* May the caller ask for this object's fence, and so share-lock it? Raises if not: a stranger must not keep owners waiting. */
static void
may_check(const GtRow *object)
{
	Oid			owner = GT_OID(object, O_OWNER);
	char	   *type = TextDatumGetCString(object->v[O_OBJECT_TYPE]);

	/* To callers nothing is shared: a role that shares with the server's shares with the server. */
	if (gt_caller[0] != '\0' && gt_acts_for(owner) && !gt_acts_for_object(object))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for object \"%s\" of type \"%s\"",
						gt_shown(TextDatumGetCString(object->v[O_OBJECT_ID])), gt_shown(type)),
				 errdetail("It belongs to another caller.")));
	if (!gt_acts_for(owner) && !gt_shared_with(owner, type, GetUserId()) && !gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for object \"%s\" of type \"%s\"",
						gt_shown(TextDatumGetCString(object->v[O_OBJECT_ID])), gt_shown(type)),
				 errdetail("It belongs to another role."),
				 errhint("Its owner can share it: SELECT gt_share(%s).",
						 quote_literal_cstr(GetUserNameFromId(GetUserId(), false)))));
}

/* Is it the fence of a lease that runs, on this object as it is? */
static bool
counts(const GtRow *object, Asked *asked)
{
	MemoryContext per_row;
	MemoryContext old;
	GtScan	   *scan;
	GtRow		lease;
	bool		found = false;

	if (GT_CHAR(object, O_STATE) != GT_STATE_HELD || asked->fence > GT_INT64(object, O_FENCE))
		return false;
	scan = gt_scan_begin(asked->leases, GT_LEASE_OBJECT, 2, asked->key);
	per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_fence_check", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(per_row);
	while (!found && gt_scan_next(scan, &lease))
	{
		CHECK_FOR_INTERRUPTS();
		found = GT_INT64(&lease, L_FENCE) == asked->fence && gt_lease_running(asked->leases, &lease, gt_now());
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(per_row);
	gt_scan_end(scan);
	return found;
}

/* Is the object to be locked?  Whose fence counts no more keeps nobody from it. */
static bool
may_lock(const GtRow *object, void *arg)
{
	may_check(object);
	return counts(object, arg);
}

/* gt_fence_check(object_id, object_type, fence): share-locks the object, so that no grant comes before our commit */
Datum
gt_fence_check(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtTable		leases;
	GtRow		row;
	Asked		asked;
	Datum		object_key[2];
	bool		found;

	gt_must_not_be_null(fcinfo, 0, "object_id");
	gt_must_not_be_null(fcinfo, 1, "object_type");
	gt_must_not_be_null(fcinfo, 2, "fence");
	gt_mark_write("gt_fence_check()");
	gt_start_ensure();
	gt_open(&objects, GT_OBJECT, RowShareLock);
	gt_open(&leases, GT_LEASE, AccessShareLock);

	asked.leases = &leases;
	asked.fence = PG_GETARG_INT64(2);
	object_key[1] = asked.key[0] = CStringGetTextDatum(gt_text_arg(fcinfo, 1));
	object_key[0] = asked.key[1] = CStringGetTextDatum(gt_text_arg(fcinfo, 0));
	found = gt_fetch_lock_if(&objects, GT_OBJECT_PKEY, 2, object_key, &row, LockTupleShare, false, may_lock, &asked) == GT_LOCKED &&
		counts(&row, &asked);
	gt_close(&leases);
	gt_close(&objects);
	PG_RETURN_BOOL(found);
}
