/*-------------------------------------------------------------------------
 *
 * lease.c
 *	  Renewing, releasing, reading leases; what a transaction that created some
 *	  does when it commits.
 *
 * A renewal locks the lease's row FOR NO KEY UPDATE, reads the clock, judges and
 * writes: an ending that was first has deleted the row, one that comes later
 * sees the new deadline.  It leaves check_at and all indexed columns alone, so
 * that it is a HOT update.
 *
 * A transaction remembers the leases that it has created.  They are not over
 * before it commits, whatever the clock says; just before the commit those with
 * less than half of their duration left get a new deadline.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "lease.h"

PG_FUNCTION_INFO_V1(gt_renew);
PG_FUNCTION_INFO_V1(gt_renew_many);
PG_FUNCTION_INFO_V1(gt_release);
PG_FUNCTION_INFO_V1(gt_release_many);
PG_FUNCTION_INFO_V1(gt_lease_update);
PG_FUNCTION_INFO_V1(gt_lease_get);
PG_FUNCTION_INFO_V1(gt_lease_list);
PG_FUNCTION_INFO_V1(gt_fence);
PG_FUNCTION_INFO_V1(gt_fence_check);
PG_FUNCTION_INFO_V1(gt__running);

#define UNIX_EPOCH_US ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)
#define LEASE_COLUMNS 19		/* of gt_lease_get */

/* a lease that this transaction has created */
typedef struct Created
{
	pg_uuid_t	id;
	TimestampTz at;				/* GT_NEVER: a child */
	int64		duration;
	SubTransactionId subid;
} Created;

/* sorted by id, since the ids of a process grow; in TopTransactionContext */
static Created *created;
static int	ncreated;
static int	created_room;

static bool wrote;				/* this transaction has called a function that writes */

/* ---- ids ---- */

char *
gt_uuid_cstring(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

int64
gt_unique_us(void)
{
	static int64 last = 0;
	int64		now = gt_now() + UNIX_EPOCH_US;

	last = now > last ? now : last + 1;
	return last;
}

/*
 * UUID version 7 (RFC 9562): 48 bits of milliseconds, then, as its method 3
 * allows, 12 bits of the fraction of the millisecond, then 62 random bits.
 */
void
gt_uuid_v7(pg_uuid_t *id)
{
	int64		us = gt_unique_us();
	uint64		ms = us / 1000;
	uint32		fraction = (us % 1000) * 4096 / 1000;

	if (!pg_strong_random(&id->data[8], 8))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	id->data[0] = ms >> 40;
	id->data[1] = ms >> 32;
	id->data[2] = ms >> 24;
	id->data[3] = ms >> 16;
	id->data[4] = ms >> 8;
	id->data[5] = ms;
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction;
	id->data[8] = 0x80 | (id->data[8] & 0x3f);
}

/* ---- the transaction ---- */

static int
compare_created(const void *key, const void *element)
{
	return memcmp(key, &((const Created *) element)->id, sizeof(pg_uuid_t));
}

bool
gt_created_here(const pg_uuid_t *id)
{
	return ncreated > 0 &&
		bsearch(id, created, ncreated, sizeof(Created), compare_created) != NULL;
}

/* Before the commit: leases with less than half of their life left start it now. */
static void
re_stamp(void)
{
	GtTable		leases;
	bool		opened = false;
	int			i;

	for (i = 0; i < ncreated; i++)
	{
		Created    *c = &created[i];
		Datum		id = UUIDPGetDatum(&c->id);
		TimestampTz now;
		GtRow		row;

		if (c->at == GT_NEVER || gt_now() <= c->at + c->duration / 2)
			continue;
		if (!OidIsValid(gt_extension()))
			return;				/* dropped since */
		if (!opened)
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			gt_open(&leases, GT_LEASE, RowExclusiveLock);
			opened = true;
		}
		/* it may have been released, or renewed */
		if (gt_fetch_lock(&leases, GT_LEASE_PKEY, 1, &id, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED)
			continue;
		now = gt_now();
		c->duration = GT_INT64(&row, L_DURATION);
		if (GT_TIME(&row, L_DEADLINE) - now >= c->duration / 2)
			continue;
		GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(now + c->duration));
		GT_SET(&row, L_CHECK_AT, row.v[L_DEADLINE]);
		gt_update(&leases, &row);
	}
	if (opened)
	{
		gt_close(&leases);
		PopActiveSnapshot();
	}
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			re_stamp();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (wrote)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed leases or garbage")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			created = NULL;
			ncreated = created_room = 0;
			wrote = false;
			break;
		default:
			break;
	}
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			i;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (ncreated > 0 && created[ncreated - 1].subid >= mine)
			ncreated--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (i = ncreated - 1; i >= 0 && created[i].subid == mine; i--)
			created[i].subid = parent;
}

void
gt_mark_write(const char *function)
{
	static bool registered = false;

	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	if (!registered)
	{
		RegisterXactCallback(at_end_of_transaction, NULL);
		RegisterSubXactCallback(at_end_of_subtransaction, NULL);
		registered = true;
	}
	wrote = true;
}

void
gt_lease_created(const pg_uuid_t *id, TimestampTz now, int64 duration)
{
	Created    *c;

	if (ncreated == created_room)
	{
		created_room = Max(created_room * 2, 16);
		if (created == NULL)
			created = MemoryContextAlloc(TopTransactionContext, created_room * sizeof(Created));
		else
			created = repalloc_huge(created, created_room * sizeof(Created));
	}
	c = &created[ncreated++];
	c->id = *id;
	c->at = now;
	c->duration = duration;
	c->subid = GetCurrentSubTransactionId();
	gt_count_created(1);
	if (now != GT_NEVER)
		gt_due_after_commit(now + duration);
}

/* ---- judging ---- */

TimestampTz
gt_lease_over_at(GtTable *leases, const GtRow *lease)
{
	GtRow		parent;

	if (lease->isnull[L_PARENT])
		return gt_effective_deadline(lease);
	if (!gt_fetch(leases, GT_LEASE_PKEY, 1, &lease->v[L_PARENT], &parent))
		return 0;
	return gt_effective_deadline(&parent);
}

bool
gt_lease_running(GtTable *leases, const GtRow *lease, TimestampTz now)
{
	TimestampTz over_at = gt_lease_over_at(leases, lease);

	if (now < over_at)
		return true;
	return over_at != 0 && gt_created_here(DatumGetUUIDP(lease->v[lease->isnull[L_PARENT] ? L_ID : L_PARENT]));
}

TimestampTz
gt_shown_deadline(TimestampTz over_at)
{
	return over_at == GT_NEVER ? gt_now() + (int64) gt_restart_grace * 1000 : over_at;
}

/* gt__running(id, deadline): for views; of a child, its parent's id and deadline */
Datum
gt__running(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(gt_now() < PG_GETARG_TIMESTAMPTZ(1) || gt_created_here(PG_GETARG_UUID_P(0)));
}

/* ---- arguments ---- */

bool
gt_fail_not_found(const pg_uuid_t *id, GtFail *f)
{
	gt_fail(f, ERRCODE_GT_NOT_FOUND, "lease %s does not exist", id == NULL ? "NULL" : gt_uuid_cstring(id));
	f->detail = pstrdup("It has ended, or there never was one.");
	f->hint = pstrdup("A lease can be renewed or released by others once the transaction that creates it has committed.");
	return false;
}

/* A text argument; NULL for NULL. */
char *
gt_text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* May the caller change this lease, acting for this service (NULL: not said)? An administrator may only release others'. */
static bool
check_rights(const GtRow *lease, const char *service, bool releasing, GtFail *f)
{
	const char *id = gt_uuid_cstring(DatumGetUUIDP(lease->v[L_ID]));

	if (!gt_acts_for(GT_OID(lease, L_OWNER)) && !(releasing && gt_is_admin()))
		return gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for lease %s", id);
	if (service != NULL && strcmp(TextDatumGetCString(lease->v[L_SERVICE_ID]), service) != 0)
		return gt_fail(f, ERRCODE_GT_OTHER_SERVICE, "lease %s belongs to service \"%s\", not \"%s\"",
					   id, TextDatumGetCString(lease->v[L_SERVICE_ID]), service);
	return true;
}

/* The elements of an array of ids; NULL elements are unknown ids. */
static int
ids_of(ArrayType *array, pg_uuid_t ***ids)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int			i;

	deconstruct_array(array, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &values, &nulls, &n);
	*ids = palloc(Max(n, 1) * sizeof(pg_uuid_t *));
	for (i = 0; i < n; i++)
		(*ids)[i] = nulls[i] ? NULL : DatumGetUUIDP(values[i]);
	return n;
}

/* ---- renewals ---- */

typedef struct Renewal
{
	const pg_uuid_t *id;
	bool		ok;
	bool		child;
	TimestampTz now;
	TimestampTz deadline;
	GtFail		fail;
} Renewal;

/* A child is kept by its parent: says so, or that it is over. */
static bool
fail_child(GtTable *leases, const GtRow *lease, Renewal *r)
{
	TimestampTz over_at = gt_lease_over_at(leases, lease);
	const char *id = gt_uuid_cstring(r->id);

	if (over_at == 0)
		return gt_fail_not_found(r->id, &r->fail);
	if (!gt_lease_running(leases, lease, gt_now()))
		return gt_fail(&r->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", id);
	r->child = true;
	return gt_fail(&r->fail, ERRCODE_INVALID_PARAMETER_VALUE, "lease %s lives as long as its parent: renew %s",
				   id, gt_uuid_cstring(DatumGetUUIDP(lease->v[L_PARENT])));
}

/* Renews r->id by `duration` (us; 0: its own), or says in r->fail why not. */
static bool
renew(GtTable *leases, Renewal *r, int64 duration, const char *service)
{
	Datum		id = UUIDPGetDatum(r->id);
	GtRow		row;
	TimestampTz over_at;
	int64		own;

	r->child = false;
	if (r->id == NULL || !gt_fetch(leases, GT_LEASE_PKEY, 1, &id, &row))
		return gt_fail_not_found(r->id, &r->fail);
	if (!check_rights(&row, service, false, &r->fail))
		return false;
	if (!row.isnull[L_PARENT])
		return fail_child(leases, &row, r);
	if (gt_lock(leases, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED)
		return gt_fail_not_found(r->id, &r->fail);

	r->now = gt_now();
	if (!gt_lease_running(leases, &row, r->now))
		return gt_fail(&r->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(r->id));

	over_at = gt_effective_deadline(&row);
	own = GT_INT64(&row, L_DURATION);
	gt_observe_renewal(TextDatumGetCString(row.v[L_SERVICE_ID]),
					   over_at == GT_NEVER ? own : over_at - r->now, own);
	if (over_at == GT_NEVER)
		over_at = Max(GT_TIME(&row, L_DEADLINE), r->now) + gt_grace_of(own);	/* what it would have at least */
	if (duration == 0)
		duration = own;
	r->deadline = Max(over_at, r->now + duration);

	/*
	 * Were this commit lost with the server, the grace after the restart would
	 * cover a renewal by no more than that: beyond it the commit is flushed,
	 * whatever synchronous_commit says.
	 */
	if (r->deadline > GT_TIME(&row, L_DEADLINE) + gt_grace_of(own))
		ForceSyncCommit();
	GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(r->deadline));
	GT_SET(&row, L_DURATION, Int64GetDatum(Max(own, duration)));
	GT_SET(&row, L_RENEWED_AT, TimestampTzGetDatum(r->now));
	GT_SET(&row, L_RENEWALS, Int64GetDatum(GT_INT64(&row, L_RENEWALS) + 1));
	GT_SET(&row, L_RUN, Int64GetDatum(gt_run()));
	gt_update(leases, &row);
	gt_count_renewed(1);
	return true;
}

/* The duration argument of a renewal, 0 where there is none. */
static int64
duration_arg(FunctionCallInfo fcinfo, int n)
{
	int64		us = 0;
	GtFail		f;

	if (!PG_ARGISNULL(n) && !gt_check_duration(PG_GETARG_INTERVAL_P(n), &us, &f))
		gt_raise(&f);
	return us;
}

/* gt_renew(lease_id, duration, service_id) returns the new deadline */
Datum
gt_renew(PG_FUNCTION_ARGS)
{
	GtTable		leases;
	Renewal		r;
	int64		duration = duration_arg(fcinfo, 1);
	char	   *service = gt_text_arg(fcinfo, 2);

	gt_mark_write("gt_renew()");
	gt_start_ensure();
	r.id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	if (!renew(&leases, &r, duration, service))
		gt_raise(&r.fail);
	gt_close(&leases);
	PG_RETURN_TIMESTAMPTZ(r.deadline);
}

static int
by_id(const void *a, const void *b)
{
	const pg_uuid_t *x = (*(Renewal *const *) a)->id;
	const pg_uuid_t *y = (*(Renewal *const *) b)->id;

	if (x == NULL || y == NULL)
		return (x != NULL) - (y != NULL);
	return memcmp(x, y, sizeof(pg_uuid_t));
}

static const char *
status_of(const Renewal *r)
{
	if (r->ok)
		return "renewed";
	if (r->child)
		return "child";
	if (r->fail.sqlstate == ERRCODE_GT_EXPIRED)
		return "expired";
	return r->fail.sqlstate == ERRCODE_GT_NOT_FOUND ? "not_found" : "denied";
}

/* gt_renew_many(lease_ids, duration, service_id) returns (lease_id, status, ttl, expires_at), in input order */
Datum
gt_renew_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	pg_uuid_t **ids;
	Renewal    *renewals;
	Renewal   **sorted;
	int64		duration = duration_arg(fcinfo, 1);
	char	   *service = gt_text_arg(fcinfo, 2);
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("lease_ids must not be null")));
	gt_mark_write("gt_renew_many()");
	gt_start_ensure();
	InitMaterializedSRF(fcinfo, 0);
	n = ids_of(PG_GETARG_ARRAYTYPE_P(0), &ids);
	renewals = palloc0(Max(n, 1) * sizeof(Renewal));
	sorted = palloc(Max(n, 1) * sizeof(Renewal *));
	for (i = 0; i < n; i++)
	{
		renewals[i].id = ids[i];
		sorted[i] = &renewals[i];
	}
	qsort(sorted, n, sizeof(Renewal *), by_id);

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && by_id(&sorted[i], &sorted[i - 1]) == 0)
			*sorted[i] = *sorted[i - 1];
		else
			sorted[i]->ok = renew(&leases, sorted[i], duration, service);
	}
	gt_close(&leases);

	for (i = 0; i < n; i++)
	{
		Renewal    *r = &renewals[i];
		Datum		values[4] = {0};
		bool		nulls[4] = {false};

		nulls[0] = (r->id == NULL);
		if (r->id != NULL)
			values[0] = UUIDPGetDatum(r->id);
		values[1] = CStringGetTextDatum(status_of(r));
		nulls[2] = nulls[3] = !r->ok;
		if (r->ok)
		{
			values[2] = IntervalPGetDatum(gt_us_interval(r->deadline - r->now));
			values[3] = TimestampTzGetDatum(r->deadline);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- releases ---- */

/* Ends the leases, each unless it has ended or is not there; returns how many. */
static int64
release(pg_uuid_t **ids, int n, bool keep, const char *service)
{
	GtTable		leases;
	GtTable		objects;
	GtLeaseKey *keys = palloc(Max(n, 1) * sizeof(GtLeaseKey));
	int			nkeys = 0;
	int64		ended = 0;
	int			i;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (i = 0; i < n; i++)
	{
		Datum		id = UUIDPGetDatum(ids[i]);
		Datum		key[2];
		GtRow		lease;
		GtRow		object;
		GtFail		f;

		if (ids[i] == NULL || !gt_fetch(&leases, GT_LEASE_PKEY, 1, &id, &lease))
		{
			if (!keep)
				continue;
			gt_fail_not_found(ids[i], &f);
			f.detail = pstrdup("It has ended, and its object may have been cleaned: it was not kept.");
			gt_raise(&f);
		}
		if (!check_rights(&lease, service, true, &f))
			gt_raise(&f);
		key[0] = lease.v[L_OBJECT_ID];
		key[1] = lease.v[L_OBJECT_TYPE];
		if (keep && gt_fetch(&objects, GT_OBJECT_PKEY, 2, key, &object) &&
			!gt_acts_for(GT_OID(&object, O_OWNER)) && !gt_is_admin())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to keep object \"%s\" of type \"%s\"",
							TextDatumGetCString(object.v[O_OBJECT_ID]), TextDatumGetCString(object.v[O_OBJECT_TYPE])),
					 errdetail("It belongs to another role.")));
		gt_lease_key(&lease, &keys[nkeys++]);
	}
	gt_close(&objects);
	gt_close(&leases);

	gt_end(keys, nkeys, keep ? GT_END_KEPT : GT_END_RELEASED, false);
	for (i = 0; i < nkeys; i++)
	{
		if (keys[i].ended)
			ended++;
		else if (keep && !(i > 0 && memcmp(&keys[i].id, &keys[i - 1].id, sizeof(pg_uuid_t)) == 0))
		{
			GtFail		f;

			gt_fail_not_found(&keys[i].id, &f);
			gt_raise(&f);
		}
	}
	return ended;
}

static bool
keep_arg(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("keep must not be null")));
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

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("lease_ids must not be null")));
	gt_mark_write("gt_release_many()");
	gt_start_ensure();
	n = ids_of(PG_GETARG_ARRAYTYPE_P(0), &ids);
	PG_RETURN_INT64(release(ids, n, keep_arg(fcinfo, 1), gt_text_arg(fcinfo, 2)));
}

/* gt_lease_update(lease_id, payload, metadata, service_id): NULL leaves as it is */
Datum
gt_lease_update(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	Jsonb	   *payload = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	Jsonb	   *metadata = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	Datum		key = UUIDPGetDatum(id);
	GtTable		leases;
	GtRow		row;
	GtFail		f;

	gt_mark_write("gt_lease_update()");
	gt_start_ensure();
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	if (id == NULL || !gt_fetch(&leases, GT_LEASE_PKEY, 1, &key, &row))
	{
		gt_fail_not_found(id, &f);
		gt_raise(&f);
	}
	if (!check_rights(&row, gt_text_arg(fcinfo, 3), false, &f))
		gt_raise(&f);
	if (gt_lock(&leases, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED)
	{
		gt_fail_not_found(id, &f);
		gt_raise(&f);
	}
	if (!gt_lease_running(&leases, &row, gt_now()))
	{
		gt_fail(&f, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(id));
		gt_raise(&f);
	}
	if (!gt_check_payload(payload != NULL || row.isnull[L_PAYLOAD] ? payload : DatumGetJsonbP(row.v[L_PAYLOAD]),
						  metadata != NULL || row.isnull[L_METADATA] ? metadata : DatumGetJsonbP(row.v[L_METADATA]),
						  &f))
		gt_raise(&f);
	if (payload != NULL)
		GT_SET(&row, L_PAYLOAD, JsonbPGetDatum(payload));
	if (metadata != NULL)
		GT_SET(&row, L_METADATA, JsonbPGetDatum(metadata));
	gt_update(&leases, &row);
	gt_close(&leases);
	PG_RETURN_VOID();
}

/* ---- reading ---- */

/* The columns of gt_lease_get. */
static void
lease_columns(GtTable *leases, const GtRow *row, Datum *v, bool *nulls)
{
	GtHandler	h;
	TimestampTz over_at = gt_lease_over_at(leases, row);
	bool		has_handler = !row->isnull[L_HANDLER] && gt_handler_by_id(GT_INT32(row, L_HANDLER), &h);

	memset(nulls, 0, LEASE_COLUMNS * sizeof(bool));
	v[0] = row->v[L_ID];
	v[1] = row->v[L_OBJECT_ID];
	v[2] = row->v[L_OBJECT_TYPE];
	v[3] = row->v[L_SERVICE_ID];
	v[4] = CStringGetTextDatum(gt_lease_running(leases, row, gt_now()) ? "active" : "expired");
	v[5] = row->v[L_CREATED_AT];
	v[6] = row->v[L_RENEWED_AT];
	nulls[7] = (over_at == 0);
	v[7] = TimestampTzGetDatum(gt_shown_deadline(over_at));
	nulls[8] = row->isnull[L_DURATION];
	v[8] = nulls[8] ? (Datum) 0 : IntervalPGetDatum(gt_us_interval(GT_INT64(row, L_DURATION)));
	v[9] = row->v[L_RENEWALS];
	v[10] = row->v[L_FENCE];
	v[11] = row->v[L_EXCLUSIVE];
	nulls[12] = row->isnull[L_PARENT];
	v[12] = row->v[L_PARENT];
	nulls[13] = !has_handler;
	v[13] = has_handler ? CStringGetTextDatum(h.name) : (Datum) 0;
	nulls[14] = row->isnull[L_PAYLOAD];
	v[14] = row->v[L_PAYLOAD];
	nulls[15] = row->isnull[L_METADATA];
	v[15] = row->v[L_METADATA];
	v[16] = row->v[L_ATTEMPTS];
	nulls[17] = row->isnull[L_MAX_ATTEMPTS] && !has_handler;
	v[17] = row->isnull[L_MAX_ATTEMPTS] ? Int32GetDatum(has_handler ? h.max_attempts : 0) : row->v[L_MAX_ATTEMPTS];
	nulls[18] = row->isnull[L_RETRY_DELAY] && !has_handler;
	v[18] = nulls[18] ? (Datum) 0 :
		IntervalPGetDatum(gt_us_interval(row->isnull[L_RETRY_DELAY] ? h.retry_delay : GT_INT64(row, L_RETRY_DELAY)));
}

/* gt_lease_get(lease_id): one row, or none: unknown, or another role's */
Datum
gt_lease_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	GtRow		row;
	Datum		id;
	Datum		values[LEASE_COLUMNS];
	bool		nulls[LEASE_COLUMNS];

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	id = PG_GETARG_DATUM(0);
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (gt_fetch(&leases, GT_LEASE_PKEY, 1, &id, &row) && gt_acts_for(GT_OID(&row, L_OWNER)))
	{
		lease_columns(&leases, &row, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	gt_close(&leases);
	return (Datum) 0;
}

/* what gt_lease_list looks for */
typedef struct Filter
{
	char	   *service;
	char	   *type;
	char	   *state;
	char	   *object;
	pg_uuid_t  *after;
	int			max_rows;
} Filter;

static bool
matches(GtTable *leases, const GtRow *row, const Filter *f)
{
	if (f->after != NULL && memcmp(DatumGetUUIDP(row->v[L_ID]), f->after, sizeof(pg_uuid_t)) <= 0)
		return false;
	if (f->service != NULL && strcmp(TextDatumGetCString(row->v[L_SERVICE_ID]), f->service) != 0)
		return false;
	if (f->type != NULL && strcmp(TextDatumGetCString(row->v[L_OBJECT_TYPE]), f->type) != 0)
		return false;
	if (f->object != NULL && strcmp(TextDatumGetCString(row->v[L_OBJECT_ID]), f->object) != 0)
		return false;
	if (!gt_acts_for(GT_OID(row, L_OWNER)))
		return false;
	return f->state == NULL ||
		gt_lease_running(leases, row, gt_now()) == (strcmp(f->state, "active") == 0);
}

static int
rows_by_id(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP((*(GtRow *const *) a)->v[L_ID]),
				  DatumGetUUIDP((*(GtRow *const *) b)->v[L_ID]), sizeof(pg_uuid_t));
}

/* The leases of one object; of every type that has one of this name, where no type is given. */
static List *
rows_of_object(GtTable *leases, const Filter *f)
{
	List	   *rows = NIL;
	Datum		key[2];
	bool		more = true;

	key[0] = CStringGetTextDatum(f->type != NULL ? f->type : "");
	key[1] = CStringGetTextDatum(f->object);
	while (more)
	{
		GtRow		row;
		GtScan	   *scan;

		if (f->type == NULL)
		{
			/* the next type there is */
			scan = gt_scan_begin_bound(leases, GT_LEASE_OBJECT, 0, NULL, BTGreaterStrategyNumber, key[0]);
			more = gt_scan_next(scan, &row);
			gt_scan_end(scan);
			if (!more)
				break;
			key[0] = row.v[L_OBJECT_TYPE];
		}
		else
			more = false;
		scan = gt_scan_begin(leases, GT_LEASE_OBJECT, 2, key);
		while (gt_scan_next(scan, &row))
			if (matches(leases, &row, f))
			{
				GtRow	   *copy = palloc(sizeof(GtRow));

				*copy = row;
				rows = lappend(rows, copy);
			}
		gt_scan_end(scan);
	}
	return rows;
}

/* gt_lease_list(...): pages in the order of ids */
Datum
gt_lease_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	Filter		f;
	Datum		values[LEASE_COLUMNS];
	bool		nulls[LEASE_COLUMNS];
	int			n = 0;
	int			i;

	f.service = gt_text_arg(fcinfo, 0);
	f.type = gt_text_arg(fcinfo, 1);
	f.state = gt_text_arg(fcinfo, 2);
	f.max_rows = PG_ARGISNULL(3) ? 100 : PG_GETARG_INT32(3);
	f.after = PG_ARGISNULL(4) ? NULL : PG_GETARG_UUID_P(4);
	f.object = gt_text_arg(fcinfo, 5);
	if (f.state != NULL && strcmp(f.state, "active") != 0 && strcmp(f.state, "expired") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state \"%s\" is not known: it must be active or expired", f.state)));
	if (f.max_rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows %d is out of range: it must be at least 1", f.max_rows)));

	InitMaterializedSRF(fcinfo, 0);
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (f.object != NULL)
	{
		List	   *list = rows_of_object(&leases, &f);
		GtRow	  **rows = palloc(Max(list_length(list), 1) * sizeof(GtRow *));
		ListCell   *cell;

		foreach(cell, list)
			rows[n++] = lfirst(cell);
		qsort(rows, n, sizeof(GtRow *), rows_by_id);
		for (i = 0; i < Min(n, f.max_rows); i++)
		{
			lease_columns(&leases, rows[i], values, nulls);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	else
	{
		MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
		pg_uuid_t	zero = {{0}};
		Datum		service = f.service != NULL ? CStringGetTextDatum(f.service) : (Datum) 0;
		GtScan	   *scan;
		GtRow		row;
		bool		found;

		scan = gt_scan_begin_bound(&leases, f.service != NULL ? GT_LEASE_SERVICE : GT_LEASE_PKEY,
								   f.service != NULL ? 1 : 0, &service, BTGreaterStrategyNumber,
								   UUIDPGetDatum(f.after != NULL ? f.after : &zero));
		while (n < f.max_rows)
		{
			MemoryContext old = MemoryContextSwitchTo(per_row);

			CHECK_FOR_INTERRUPTS();
			found = gt_scan_next(scan, &row);
			if (found && matches(&leases, &row, &f))
			{
				lease_columns(&leases, &row, values, nulls);
				tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
				n++;
			}
			MemoryContextSwitchTo(old);
			MemoryContextReset(per_row);
			if (!found)
				break;
		}
		gt_scan_end(scan);
	}
	gt_close(&leases);
	return (Datum) 0;
}

/* gt_fence(lease_id): of a running lease of one's own */
Datum
gt_fence(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	Datum		key = UUIDPGetDatum(id);
	GtTable		leases;
	GtRow		row;
	GtFail		f;

	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (id == NULL || !gt_fetch(&leases, GT_LEASE_PKEY, 1, &key, &row))
	{
		gt_fail_not_found(id, &f);
		gt_raise(&f);
	}
	if (!check_rights(&row, NULL, false, &f))
		gt_raise(&f);
	if (!gt_lease_running(&leases, &row, gt_now()))
	{
		gt_fail(&f, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(id));
		gt_raise(&f);
	}
	gt_close(&leases);
	PG_RETURN_INT64(GT_INT64(&row, L_FENCE));
}

/* gt_fence_check(object_id, object_type, fence): share-locks the object, so that no grant comes before our commit */
Datum
gt_fence_check(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtTable		leases;
	GtRow		row;
	GtScan	   *scan;
	Datum		key[2];
	Datum		object_key[2];
	int64		fence;
	bool		found = false;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "object_id" : PG_ARGISNULL(1) ? "object_type" : "fence")));
	fence = PG_GETARG_INT64(2);
	gt_mark_write("gt_fence_check()");
	gt_start_ensure();
	key[0] = CStringGetTextDatum(gt_text_arg(fcinfo, 1));
	key[1] = CStringGetTextDatum(gt_text_arg(fcinfo, 0));
	gt_open(&objects, GT_OBJECT, RowShareLock);
	gt_open(&leases, GT_LEASE, AccessShareLock);

	/* rights before the lock: a stranger must not keep owners waiting */
	object_key[0] = key[1];
	object_key[1] = key[0];
	if (gt_fetch(&objects, GT_OBJECT_PKEY, 2, object_key, &row) &&
		!gt_acts_for(GT_OID(&row, O_OWNER)) &&
		!gt_shared_with(GT_OID(&row, O_OWNER), TextDatumGetCString(key[0]), GetUserId()) &&
		!gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for object \"%s\" of type \"%s\"",
						TextDatumGetCString(key[1]), TextDatumGetCString(key[0]))));
	if (gt_fetch_lock(&objects, GT_OBJECT_PKEY, 2, object_key, &row, LockTupleShare, false) == GT_LOCKED &&
		GT_CHAR(&row, O_STATE) == 'h' && fence <= GT_INT64(&row, O_FENCE))
	{
		GtRow		lease;

		scan = gt_scan_begin(&leases, GT_LEASE_OBJECT, 2, key);
		while (!found && gt_scan_next(scan, &lease))
			found = GT_INT64(&lease, L_FENCE) == fence && gt_lease_running(&leases, &lease, gt_now());
		gt_scan_end(scan);
	}
	gt_close(&leases);
	gt_close(&objects);
	PG_RETURN_BOOL(found);
}
