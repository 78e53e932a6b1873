/*-------------------------------------------------------------------------
 *
 * renew.c
 *	  What a holder writes to a lease that lives: renewals, and notes on progress.
 *
 * With garbagetruck.renewals = buffered a renewal is kept in shared memory where that
 * is enough: buffered.c says when, and why no ending passes it by.  Any other one
 * locks the lease's row FOR NO KEY UPDATE, reads the clock, judges and writes: an
 * ending that was first has deleted the row, one that comes later sees the new
 * deadline.  It leaves check_at and all indexed columns alone, so that it is a HOT
 * update; but where buffered renewals have come to check_at, the worker is about to
 * write the row too, and this one does it in its place.  Of many leases the rows
 * are locked in the order of their ids.  Rights are judged by the row as it is read,
 * before it is locked.
 *
 * Were the commit of a renewal lost with the server, what it promised would have
 * to be kept by the grace after the restart: min(duration, restart_grace) from
 * then on.  So it must be no more than that, and the duration must be in the row
 * by a commit that was flushed; any other renewal has its own commit flushed,
 * whatever synchronous_commit says.  How far the row's deadline is from the new
 * one tells nothing: it may be unflushed itself.
 *
 * gt_lease_update() with a duration is a renewal that may also shorten: the old
 * deadline binds until it commits, so check_at becomes the lesser of the two.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/check.h"
#include "base/garbagetruck.h"
#include "lease/buffered.h"
#include "lease/created.h"
#include "lease/deadline.h"
#include "lease/lease.h"
#include "lease/start.h"
#include "rights/writing.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "shared/ids.h"
#include "shared/margins.h"
#include "shared/renewed.h"

PG_FUNCTION_INFO_V1(gt_renew);
PG_FUNCTION_INFO_V1(gt_renew_many);
PG_FUNCTION_INFO_V1(gt_lease_update);

typedef struct Renewal
{
	const pg_uuid_t *id;
	bool		ok;
	bool		child;
	TimestampTz now;
	TimestampTz deadline;
	GtFail		fail;
} Renewal;

/* A child has no duration of its own. */
static bool
fail_parent(const GtRow *lease, GtFail *f)
{
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "lease %s lives as long as its parent: renew %s",
				   gt_uuid_cstring(DatumGetUUIDP(lease->v[L_ID])), gt_uuid_cstring(DatumGetUUIDP(lease->v[L_PARENT])));
}

/*
 * A child is kept by its parent: says so, or that it is over for good.  A renewal
 * of the parent that is on its way may have been in time.  It is waited for, but
 * not by who holds other leases, whose renewals must not hang on it: the child is
 * over for nobody yet, and is called a child.
 */
static bool
fail_child(GtTable *leases, const GtRow *lease, Renewal *r, bool wait)
{
	TimestampTz over_at;
	bool		expired;

	if (!gt_lease_running(leases, lease, gt_now()) &&
		gt_parent_is_over(leases, DatumGetUUIDP(lease->v[L_PARENT]), wait, false, &over_at, &expired))
	{
		if (gt_lease_over_at(leases, lease) == 0)
			return gt_fail_not_found(r->id, &r->fail);
		return gt_fail(&r->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(r->id));
	}
	r->child = true;
	return fail_parent(lease, &r->fail);
}

/* May the caller write to this lease? Neither its owner nor its service ever changes. */
typedef struct MayWrite
{
	const char *service;
	GtFail	   *fail;
} MayWrite;

static bool
may_write(const GtRow *lease, void *arg)
{
	MayWrite   *may = arg;

	return gt_lease_check_rights(lease, may->service, false, may->fail);
}

/* Rights, and whether it is a lease that can be renewed. */
static bool
may_renew(const GtRow *lease, void *arg)
{
	return may_write(lease, arg) && lease->isnull[L_PARENT];
}

/* The lease has ended, or will in a moment: it is not to be renewed any more. */
static bool
fail_expired(Renewal *r)
{
	return gt_fail(&r->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(r->id));
}

/* In memory: the lease, which runs and is locked, lives until `deadline` at least. */
static void
set_deadline(GtRow *lease, TimestampTz now, TimestampTz deadline, int64 duration)
{
	int64		own = GT_INT64(lease, L_DURATION);
	TimestampTz over_at = gt_effective_deadline(lease);

	gt_observe_renewal(TextDatumGetCString(lease->v[L_SERVICE_ID]), over_at == GT_NEVER ? own : over_at - now, own);
	if (duration != own || deadline > now + gt_grace_of(own))
		gt_commit_flushed();
	GT_SET(lease, L_DEADLINE, TimestampTzGetDatum(deadline));
	GT_SET(lease, L_DURATION, Int64GetDatum(duration));
	GT_SET(lease, L_RENEWED_AT, TimestampTzGetDatum(now));
	GT_SET(lease, L_RENEWALS, Int64GetDatum(gt_renewal_written(DatumGetUUIDP(lease->v[L_ID]), GT_INT64(lease, L_RENEWALS))));
	GT_SET(lease, L_RUN, Int64GetDatum(gt_run()));
	gt_count_renewed(1);
}

/* The worker is to look at it then. */
static void
look_at(GtRow *lease, TimestampTz when)
{
	GT_SET(lease, L_CHECK_AT, TimestampTzGetDatum(when));
	gt_due_after_commit(when);
}

/* Why there is no row that could be renewed: see gt_fetch_lock_if(). */
static bool
fail_without(GtTable *leases, const GtRow *row, bool refused, Renewal *r, bool wait)
{
	if (!refused)
		return gt_fail_not_found(r->id, &r->fail);
	return r->fail.sqlstate != 0 ? false : fail_child(leases, row, r, wait);
}

/* Writes it to the table. */
static bool
write_renewal(GtTable *leases, Renewal *r, int64 duration, MayWrite *may, bool wait)
{
	Datum		id = UUIDPGetDatum(r->id);
	GtRow		row;
	GtLockResult result;
	int64		own;

	result = gt_fetch_lock_if(leases, GT_LEASE_PKEY, 1, &id, &row, LockTupleNoKeyExclusive, false, may_renew, may);
	if (result != GT_LOCKED)
		return fail_without(leases, &row, result == GT_REFUSED, r, wait);
	r->now = gt_now();
	if (!gt_lease_running(leases, &row, r->now))
		return fail_expired(r);
	own = GT_INT64(&row, L_DURATION);
	if (duration == 0)
		duration = own;
	r->deadline = Max(gt_least_deadline(&row), r->now + duration);
	set_deadline(&row, r->now, r->deadline, Max(own, duration));
	if (gt_renewals_buffered() && r->now >= GT_TIME(&row, L_CHECK_AT))
		look_at(&row, r->deadline);
	gt_update(leases, &row);
	return true;
}

/*
 * Renews r->id by `duration` (us; 0: its own), or says in r->fail why not. wait: see
 * fail_child().  Where it is kept in shared memory, no row is locked: who has it is
 * waited for, but not to be told that the lease is over.
 */
static bool
renew(GtTable *leases, Renewal *r, int64 duration, const char *service, bool wait)
{
	MayWrite	may = {service, &r->fail};
	Datum		id = UUIDPGetDatum(r->id);
	GtVersion	version;
	GtRow		row;

	r->child = false;
	if (r->id == NULL)
		return gt_fail_not_found(r->id, &r->fail);
	r->fail.sqlstate = 0;
	if (!gt_renewals_buffered())
		return write_renewal(leases, r, duration, &may, wait);
	for (;;)
	{
		TimestampTz now = gt_now(); /* before the look at who has it: his clock is not earlier */
		bool		found = gt_fetch(leases, GT_LEASE_PKEY, 1, &id, &row);

		CHECK_FOR_INTERRUPTS();
		if (!found || !may_renew(&row, &may))
			return fail_without(leases, &row, found, r, wait);
		switch (gt_look_at(leases, &row, &version))
		{
			case GT_FREE:
				break;
			case GT_ENDING:
				if (!gt_lease_running(leases, &row, now))
					return fail_expired(r);
				/* FALLTHROUGH */
			case GT_HELD:
				gt_wait_for_holders(leases, &row);
				continue;
			case GT_REPLACED:
				continue;
		}
		switch (gt_buffered_renew(leases, &row, &version, duration, &r->now, &r->deadline))
		{
			case GT_BUFFERED_DONE:
				return true;
			case GT_BUFFERED_EXPIRED:
				return fail_expired(r);
			case GT_BUFFERED_WRITE:
				return write_renewal(leases, r, duration, &may, wait);
			case GT_BUFFERED_CHANGED:
				break;
		}
	}
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
	GtTry		try;
	Renewal		r;
	int64		duration = duration_arg(fcinfo, 1);
	char	   *service = gt_text_arg(fcinfo, 2);

	gt_mark_write("gt_renew()");
	gt_start_ensure();
	r.id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	try.id = r.id;
	try.ok = false;
	if (gt_buffered_try(&try, 1, duration, service) > 0)
		PG_RETURN_TIMESTAMPTZ(try.deadline);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	if (!renew(&leases, &r, duration, service, true))
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

/* Those that can be renewed without a look at their rows are; returns how many are left, sorted. */
static int
renew_some(Renewal *renewals, int n, int64 duration, const char *service, Renewal **left)
{
	GtTry	   *tries = gt_alloc_array(n, sizeof(GtTry));
	int			nleft = 0;
	int			i;

	for (i = 0; i < n; i++)
		tries[i].id = renewals[i].id;
	(void) gt_buffered_try(tries, n, duration, service);
	for (i = 0; i < n; i++)
	{
		renewals[i].ok = tries[i].ok;
		renewals[i].now = tries[i].now;
		renewals[i].deadline = tries[i].deadline;
		if (!tries[i].ok)
			left[nleft++] = &renewals[i];
	}
	pfree(tries);
	qsort(left, nleft, sizeof(Renewal *), by_id);
	return nleft;
}

/* The rest of them, in the order of their ids. */
static void
renew_rest(Renewal **sorted, int n, int64 duration, const char *service, bool wait)
{
	MemoryContext batch = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(batch, "gt_renew_many", ALLOCSET_DEFAULT_SIZES);
	GtTable		leases;
	int			i;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		/* of a failure only its SQLSTATE is told: its texts can go */
		if (i > 0 && by_id(&sorted[i], &sorted[i - 1]) == 0)
			*sorted[i] = *sorted[i - 1];
		else
			sorted[i]->ok = renew(&leases, sorted[i], duration, service, wait);
		MemoryContextSwitchTo(batch);
		MemoryContextReset(scratch);
	}
	gt_close(&leases);
	MemoryContextDelete(scratch);
}

/* What became of each, in input order. */
static void
put_renewals(ReturnSetInfo *rsinfo, const Renewal *renewals, int n)
{
	MemoryContext batch = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(batch, "gt_renew_many", ALLOCSET_DEFAULT_SIZES);
	Datum		renewed = CStringGetTextDatum("renewed");
	int			i;

	MemoryContextSwitchTo(scratch);
	for (i = 0; i < n; i++)
	{
		const Renewal *r = &renewals[i];
		Datum		values[4] = {0};
		bool		nulls[4] = {false};

		nulls[0] = (r->id == NULL);
		if (r->id != NULL)
			values[0] = UUIDPGetDatum(r->id);
		values[1] = r->ok ? renewed : CStringGetTextDatum(status_of(r));
		nulls[2] = nulls[3] = !r->ok;
		if (r->ok)
		{
			values[2] = IntervalPGetDatum(gt_us_interval(r->deadline - r->now));
			values[3] = TimestampTzGetDatum(r->deadline);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		if (i % 100 == 99)
			MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(batch);
	MemoryContextDelete(scratch);
}

/* gt_renew_many(lease_ids, duration, service_id) returns (lease_id, status, ttl, expires_at), in input order */
Datum
gt_renew_many(PG_FUNCTION_ARGS)
{
	pg_uuid_t **ids;
	Renewal    *renewals;
	Renewal   **left;
	int64		duration = duration_arg(fcinfo, 1);
	char	   *service = gt_text_arg(fcinfo, 2);
	int			nleft;
	int			n;
	int			i;

	gt_must_not_be_null(fcinfo, 0, "lease_ids");
	gt_mark_write("gt_renew_many()");
	gt_start_ensure();
	InitMaterializedSRF(fcinfo, 0);
	n = gt_lease_ids_of(PG_GETARG_ARRAYTYPE_P(0), &ids);
	renewals = gt_alloc_array(n, sizeof(Renewal));
	left = gt_alloc_array(n, sizeof(Renewal *));
	for (i = 0; i < n; i++)
		renewals[i].id = ids[i];
	nleft = renew_some(renewals, n, duration, service, left);
	if (nleft > 0)
		renew_rest(left, nleft, duration, service, n == 1);
	put_renewals((ReturnSetInfo *) fcinfo->resultinfo, renewals, n);
	return (Datum) 0;
}

/*
 * The row of a running lease, locked; raises what is wrong with it.  A child's
 * parent is judged before, for good: who is told that the lease has expired takes
 * it for lost.
 */
static void
lock_running(GtTable *leases, const pg_uuid_t *id, const char *service, GtRow *row)
{
	GtFail		f;
	MayWrite	may = {service, &f};
	Datum		key = UUIDPGetDatum(id);
	TimestampTz over_at;
	bool		expired;

	if (id == NULL || !gt_fetch(leases, GT_LEASE_PKEY, 1, &key, row))
	{
		gt_fail_not_found(id, &f);
		gt_raise(&f);
	}
	if (!may_write(row, &may))
		gt_raise(&f);
	if (!row->isnull[L_PARENT] && !gt_lease_running(leases, row, gt_now()) &&
		gt_parent_is_over(leases, DatumGetUUIDP(row->v[L_PARENT]), true, false, &over_at, &expired))
	{
		gt_fail(&f, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(id));
		gt_raise(&f);
	}
	switch (gt_fetch_lock_if(leases, GT_LEASE_PKEY, 1, &key, row, LockTupleNoKeyExclusive, false, may_write, &may))
	{
		case GT_LOCKED:
			break;
		case GT_REFUSED:
			gt_raise(&f);
			break;
		default:
			gt_fail_not_found(id, &f);
			gt_raise(&f);
	}
	if (row->isnull[L_PARENT] && gt_lease_is_over(row))
	{
		gt_fail(&f, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(id));
		gt_raise(&f);
	}
}

/* The lease lasts so long from now on, sooner or later over than it was to be. */
static void
change_duration(GtRow *lease, int64 duration)
{
	pg_uuid_t  *id = DatumGetUUIDP(lease->v[L_ID]);
	TimestampTz now = gt_renewal_changed(id);

	set_deadline(lease, now, now + duration, duration);
	gt_commit_flushed();
	if (now + duration < GT_TIME(lease, L_CHECK_AT))
		look_at(lease, now + duration);
	gt_lease_restarted(id, now, duration);
}

/* gt_lease_update(lease_id, payload, metadata, service_id, duration): NULL leaves as it is */
Datum
gt_lease_update(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0);
	Jsonb	   *payload = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	Jsonb	   *metadata = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	int64		duration = duration_arg(fcinfo, 4);
	GtTable		leases;
	GtRow		row;
	GtFail		f;

	gt_mark_write("gt_lease_update()");
	gt_start_ensure();
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	lock_running(&leases, id, gt_text_arg(fcinfo, 3), &row);
	if (duration != 0 && !row.isnull[L_PARENT])
	{
		fail_parent(&row, &f);
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
	if (duration != 0)
		change_duration(&row, duration);
	gt_update(&leases, &row);
	gt_close(&leases);
	PG_RETURN_VOID();
}
