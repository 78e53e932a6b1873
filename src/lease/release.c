/*-------------------------------------------------------------------------
 *
 * release.c
 *	  Releasing leases, with or without keeping their objects.
 *
 * Rights are judged by the rows as they are read, before anything is locked: a
 * lease never changes its owner, its service or its object.  gt_end() does the
 * rest, with its locks and in their order.
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
#include "base/check.h"
#include "lease/ending.h"
#include "lease/lease.h"
#include "lease/start.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "rights/writing.h"

PG_FUNCTION_INFO_V1(gt_release);
PG_FUNCTION_INFO_V1(gt_release_many);

/* Raises that a lease is not there, as who wants to keep its object must be told. */
static void
not_kept(const pg_uuid_t *id)
{
	GtFail		f;

	gt_fail_not_found(id, &f);
	f.detail = pstrdup("It has ended, and its object may have been cleaned: it was not kept.");
	gt_raise(&f);
}

/* May the caller release this lease, and keep its object? */
static void
check_release(GtTable *objects, const GtRow *lease, bool keep, const char *service)
{
	Datum		key[2];
	GtRow		object;
	GtFail		f;

	if (!gt_lease_check_rights(lease, service, true, &f))
		gt_raise(&f);
	key[0] = lease->v[L_OBJECT_ID];
	key[1] = lease->v[L_OBJECT_TYPE];
	if (keep && gt_fetch(objects, GT_OBJECT_PKEY, 2, key, &object) &&
		!gt_acts_for_object(&object) && (gt_caller[0] != '\0' || !gt_is_admin()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to keep object \"%s\" of type \"%s\"",
						TextDatumGetCString(object.v[O_OBJECT_ID]), TextDatumGetCString(object.v[O_OBJECT_TYPE])),
				 gt_caller[0] != '\0' ? errdetail("It belongs to another caller.") : errdetail("It belongs to another role.")));
}

/* Ends the leases, each unless it has ended or is not there; returns how many. */
static int64
release(pg_uuid_t **ids, int n, bool keep, const char *service)
{
	MemoryContext batch = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(batch, "gt_release", ALLOCSET_DEFAULT_SIZES);
	GtLeaseKey *keys = gt_alloc_array(n, sizeof(GtLeaseKey));
	GtTable		leases;
	GtTable		objects;
	int			nkeys = 0;
	int64		ended = 0;
	int			i;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (i = 0; i < n; i++)
	{
		Datum		id = UUIDPGetDatum(ids[i]);
		GtRow		lease;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		if (ids[i] != NULL && gt_fetch(&leases, GT_LEASE_PKEY, 1, &id, &lease))
		{
			check_release(&objects, &lease, keep, service);
			MemoryContextSwitchTo(batch);
			gt_lease_key(&lease, &keys[nkeys++]);
		}
		else if (keep)
			not_kept(ids[i]);
		MemoryContextSwitchTo(batch);
		MemoryContextReset(scratch);
	}
	gt_close(&objects);
	gt_close(&leases);
	MemoryContextDelete(scratch);

	gt_end(keys, nkeys, keep ? GT_END_KEPT : GT_END_RELEASED, false);
	for (i = 0; i < nkeys; i++)
	{
		if (keys[i].ended)
			ended++;
		else if (keep && !(i > 0 && memcmp(&keys[i].id, &keys[i - 1].id, sizeof(pg_uuid_t)) == 0))
			not_kept(&keys[i].id);
	}
	return ended;
}

static bool
keep_arg(FunctionCallInfo fcinfo, int n)
{
	gt_must_not_be_null(fcinfo, n, "keep");
	return PG_GETARG_BOOL(n);
}

/* gt_release(lease_id, keep, service_id) returns false where it had ended */
Datum
gt_release(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);

	gt_mark_write("gt_release()");
	gt_start_ensure();
	PG_RETURN_BOOL(release(&id, 1, keep_arg(fcinfo, 1), gt_text_arg(fcinfo, 2)) > 0);
}

/* gt_release_many(lease_ids, keep, service_id) returns how many had not ended; another role's: 42501, service's: GT003 */
Datum
gt_release_many(PG_FUNCTION_ARGS)
{
	pg_uuid_t **ids;
	int			n;

	gt_must_not_be_null(fcinfo, 0, "lease_ids");
	gt_mark_write("gt_release_many()");
	gt_start_ensure();
	n = gt_lease_ids_of(PG_GETARG_ARRAYTYPE_P(0), &ids);
	PG_RETURN_INT64(release(ids, n, keep_arg(fcinfo, 1), gt_text_arg(fcinfo, 2)));
}
