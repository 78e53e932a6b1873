/*-------------------------------------------------------------------------
 *
 * renew.c
 *	  What a holder writes to a lease that lives: renewals, and notes on progress.
 *
 * A renewal locks the lease's row FOR NO KEY UPDATE, reads the clock, judges and
 * writes: an ending that was first has deleted the row, one that comes later
 * sees the new deadline.  It leaves check_at and all indexed columns alone, so
 * that it is a HOT update.  Of many leases the rows are locked in the order of
 * their ids.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "lease.h"

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
	if (!gt_lease_check_rights(&row, service, false, &r->fail))
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
	over_at = gt_least_deadline(&row);
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
	n = gt_lease_ids_of(PG_GETARG_ARRAYTYPE_P(0), &ids);
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
	if (!gt_lease_check_rights(&row, gt_text_arg(fcinfo, 3), false, &f))
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
