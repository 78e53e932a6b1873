/*-------------------------------------------------------------------------
 *
 * list.c
 *	  Showing leases: one by its id, or pages of them.
 *
 * These functions write and lock nothing, and work on a standby too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/caller.h"
#include "base/check.h"
#include "base/text.h"
#include "handler/handler.h"
#include "lease/lease.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "shared/renewed.h"
#include "table/scan.h"

PG_FUNCTION_INFO_V1(gt_lease_get);
PG_FUNCTION_INFO_V1(gt_lease_list);

#define LEASE_COLUMNS 19		/* of gt_lease_get */

/* The columns of gt_lease_get. */
static void
lease_columns(GtTable *leases, const GtRow *row, Datum *v, bool *nulls)
{
	GtHandler	h;
	TimestampTz until = gt_lease_shown_until(leases, row);
	TimestampTz renewed_at = GT_TIME(row, L_RENEWED_AT);
	int64		renewals = GT_INT64(row, L_RENEWALS);
	bool		has_handler = !row->isnull[L_HANDLER] && gt_handler_by_id(GT_INT32(row, L_HANDLER), &h);

	gt_renewal_shown(DatumGetUUIDP(row->v[L_ID]), &renewed_at, &renewals);
	memset(nulls, 0, LEASE_COLUMNS * sizeof(bool));
	v[0] = row->v[L_ID];
	v[1] = row->v[L_OBJECT_ID];
	v[2] = row->v[L_OBJECT_TYPE];
	v[3] = row->v[L_SERVICE_ID];
	v[4] = CStringGetTextDatum(gt_lease_running(leases, row, gt_now()) ? "active" : "expired");
	v[5] = row->v[L_CREATED_AT];
	v[6] = TimestampTzGetDatum(renewed_at);
	nulls[7] = (until == 0);
	v[7] = TimestampTzGetDatum(until);
	nulls[8] = row->isnull[L_DURATION];
	v[8] = nulls[8] ? (Datum) 0 : IntervalPGetDatum(gt_us_interval(GT_INT64(row, L_DURATION)));
	v[9] = Int64GetDatum(renewals);
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

static void
put_lease(ReturnSetInfo *rsinfo, GtTable *leases, const GtRow *row)
{
	Datum		values[LEASE_COLUMNS];
	bool		nulls[LEASE_COLUMNS];

	lease_columns(leases, row, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* gt_lease_get(lease_id): one row, or none: unknown, or another role's */
Datum
gt_lease_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	GtRow		row;
	Datum		id;

	gt_must_be_allowed("gt_lease_get");
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	id = PG_GETARG_DATUM(0);
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (gt_fetch(&leases, GT_LEASE_PKEY, 1, &id, &row) && gt_acts_for(GT_OID(&row, L_OWNER)) &&
		gt_caller_covers(TextDatumGetCString(row.v[L_SERVICE_ID])))
		put_lease(rsinfo, &leases, &row);
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
	bool		newest_first;	/* garbagetruck.newest_first: `after` is in that order, too */
} Filter;

static bool
matches(GtTable *leases, const GtRow *row, const Filter *f)
{
	int			order = f->after == NULL ? 1 : memcmp(DatumGetUUIDP(row->v[L_ID]), f->after, sizeof(pg_uuid_t));

	if (f->after != NULL && (f->newest_first ? order >= 0 : order <= 0))
		return false;
	if (f->service != NULL && strcmp(TextDatumGetCString(row->v[L_SERVICE_ID]), f->service) != 0)
		return false;
	if (f->type != NULL && strcmp(TextDatumGetCString(row->v[L_OBJECT_TYPE]), f->type) != 0)
		return false;
	if (f->object != NULL && strcmp(TextDatumGetCString(row->v[L_OBJECT_ID]), f->object) != 0)
		return false;
	if (!gt_acts_for(GT_OID(row, L_OWNER)) || !gt_caller_covers(TextDatumGetCString(row->v[L_SERVICE_ID])))
		return false;
	return f->state == NULL ||
		gt_lease_running(leases, row, gt_now()) == (strcmp(f->state, "active") == 0);
}

/* Of the leases of an object, which may be any number, the ids alone. */
typedef struct Ids
{
	pg_uuid_t  *v;
	int			n;
	int			room;
} Ids;

static int
by_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

static void
add_id(Ids *ids, const pg_uuid_t *id)
{
	if (ids->n == ids->room)
		ids->v = repalloc_huge(ids->v, (ids->room *= 2) * sizeof(pg_uuid_t));
	ids->v[ids->n++] = *id;
}

/* Adds those of the leases of the object with this key, (type, id). */
static void
add_ids_of(Ids *ids, GtTable *leases, const Datum *key, const Filter *f)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
	GtScan	   *scan = gt_scan_begin(leases, GT_LEASE_OBJECT, 2, key);
	MemoryContext old = MemoryContextSwitchTo(per_row);
	GtRow		row;

	while (gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		if (matches(leases, &row, f))
			add_id(ids, DatumGetUUIDP(row.v[L_ID]));
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
	MemoryContextDelete(per_row);
}

/*
 * The leases of one object; of every type that has one of this name, where no type
 * is given.  Those are asked of the objects: of types there may be any number.
 */
static void
find_ids(Ids *ids, GtTable *leases, const Filter *f)
{
	Datum		key[2];
	GtTable		objects;
	GtScan	   *scan;
	GtRow		object;

	key[1] = CStringGetTextDatum(f->object);
	if (f->type != NULL)
	{
		key[0] = CStringGetTextDatum(f->type);
		add_ids_of(ids, leases, key, f);
		return;
	}
	gt_open(&objects, GT_OBJECT, AccessShareLock);
	scan = gt_scan_begin(&objects, GT_OBJECT_PKEY, 1, &key[1]);
	while (gt_scan_next(scan, &object))
	{
		CHECK_FOR_INTERRUPTS();
		key[0] = object.v[O_OBJECT_TYPE];
		add_ids_of(ids, leases, key, f);
	}
	gt_scan_end(scan);
	gt_close(&objects);
}

/* A page of the leases of an object. */
static void
list_object(ReturnSetInfo *rsinfo, GtTable *leases, const Filter *f)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Ids			ids = {palloc(16 * sizeof(pg_uuid_t)), 0, 16};
	int			n = 0;
	int			i;

	find_ids(&ids, leases, f);
	qsort(ids.v, ids.n, sizeof(pg_uuid_t), by_id);
	old = MemoryContextSwitchTo(per_row);
	for (i = 0; i < ids.n && n < f->max_rows; i++)
	{
		Datum		id = UUIDPGetDatum(&ids.v[f->newest_first ? ids.n - 1 - i : i]);
		GtRow		row;

		CHECK_FOR_INTERRUPTS();
		if (gt_fetch(leases, GT_LEASE_PKEY, 1, &id, &row) && matches(leases, &row, f))
		{
			put_lease(rsinfo, leases, &row);
			n++;
		}
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(per_row);
}

/* A page of all that the caller may see, or of a service. */
static void
list_all(ReturnSetInfo *rsinfo, GtTable *leases, const Filter *f)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	pg_uuid_t	end;
	Datum		service = f->service != NULL ? CStringGetTextDatum(f->service) : (Datum) 0;
	GtScan	   *scan;
	GtRow		row;
	int			n = 0;

	memset(&end, f->newest_first ? 0xff : 0, sizeof(end));
	scan = gt_scan_begin_bound(leases, f->service != NULL ? GT_LEASE_SERVICE : GT_LEASE_PKEY,
							   f->service != NULL ? 1 : 0, &service,
							   f->newest_first ? BTLessStrategyNumber : BTGreaterStrategyNumber,
							   UUIDPGetDatum(f->after != NULL ? f->after : &end));
	if (f->newest_first)
		gt_scan_backward(scan);
	old = MemoryContextSwitchTo(per_row);
	while (n < f->max_rows && gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		if (matches(leases, &row, f))
		{
			put_lease(rsinfo, leases, &row);
			n++;
		}
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
	MemoryContextDelete(per_row);
}

/* gt_lease_list(...): pages in the order of ids */
Datum
gt_lease_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	Filter		f;

	gt_must_be_allowed("gt_lease_list");
	f.service = gt_text_arg(fcinfo, 0);
	f.type = gt_text_arg(fcinfo, 1);
	f.state = gt_text_arg(fcinfo, 2);
	f.max_rows = PG_ARGISNULL(3) ? 100 : PG_GETARG_INT32(3);
	f.after = PG_ARGISNULL(4) ? NULL : PG_GETARG_UUID_P(4);
	f.object = gt_text_arg(fcinfo, 5);
	f.newest_first = gt_newest_first;
	if (f.state != NULL && strcmp(f.state, "active") != 0 && strcmp(f.state, "expired") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state \"%s\" is not known: it must be active or expired", gt_shown(f.state))));
	if (f.max_rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows %d is out of range: it must be at least 1", f.max_rows)));

	InitMaterializedSRF(fcinfo, 0);
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (f.object != NULL)
		list_object(rsinfo, &leases, &f);
	else
		list_all(rsinfo, &leases, &f);
	gt_close(&leases);
	return (Datum) 0;
}
