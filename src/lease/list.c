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
#include "shared/renewals.h"
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

	gt_must_be_allowed("gt_lease_get");
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	id = PG_GETARG_DATUM(0);
	gt_open(&leases, GT_LEASE, AccessShareLock);
	if (gt_fetch(&leases, GT_LEASE_PKEY, 1, &id, &row) && gt_acts_for(GT_OID(&row, L_OWNER)) &&
		gt_caller_covers(TextDatumGetCString(row.v[L_SERVICE_ID])))
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

static int
rows_by_id(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP((*(GtRow *const *) a)->v[L_ID]),
				  DatumGetUUIDP((*(GtRow *const *) b)->v[L_ID]), sizeof(pg_uuid_t));
}

/* Adds the leases of the object with this key, (type, id). */
static List *
add_rows_of(List *rows, GtTable *leases, const Datum *key, const Filter *f)
{
	GtScan	   *scan = gt_scan_begin(leases, GT_LEASE_OBJECT, 2, key);
	GtRow		row;

	while (gt_scan_next(scan, &row))
		if (matches(leases, &row, f))
			rows = lappend(rows, memcpy(palloc(sizeof(GtRow)), &row, sizeof(GtRow)));
	gt_scan_end(scan);
	return rows;
}

/*
 * The leases of one object; of every type that has one of this name, where no type
 * is given.  Those are asked of the objects: of types there may be any number.
 */
static List *
rows_of_object(GtTable *leases, const Filter *f)
{
	List	   *rows = NIL;
	Datum		key[2];
	GtTable		objects;
	GtScan	   *scan;
	GtRow		object;

	key[1] = CStringGetTextDatum(f->object);
	if (f->type != NULL)
	{
		key[0] = CStringGetTextDatum(f->type);
		return add_rows_of(rows, leases, key, f);
	}
	gt_open(&objects, GT_OBJECT, AccessShareLock);
	scan = gt_scan_begin(&objects, GT_OBJECT_PKEY, 1, &key[1]);
	while (gt_scan_next(scan, &object))
	{
		CHECK_FOR_INTERRUPTS();
		key[0] = object.v[O_OBJECT_TYPE];
		rows = add_rows_of(rows, leases, key, f);
	}
	gt_scan_end(scan);
	gt_close(&objects);
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
	{
		List	   *list = rows_of_object(&leases, &f);
		GtRow	  **rows = palloc(Max(list_length(list), 1) * sizeof(GtRow *));
		ListCell   *cell;

		foreach(cell, list)
			rows[n++] = lfirst(cell);
		qsort(rows, n, sizeof(GtRow *), rows_by_id);
		for (i = 0; i < Min(n, f.max_rows); i++)
		{
			lease_columns(&leases, rows[f.newest_first ? n - 1 - i : i], values, nulls);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	else
	{
		MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
		pg_uuid_t	end;
		Datum		service = f.service != NULL ? CStringGetTextDatum(f.service) : (Datum) 0;
		GtScan	   *scan;
		GtRow		row;
		bool		found;

		memset(&end, f.newest_first ? 0xff : 0, sizeof(end));
		scan = gt_scan_begin_bound(&leases, f.service != NULL ? GT_LEASE_SERVICE : GT_LEASE_PKEY,
								   f.service != NULL ? 1 : 0, &service,
								   f.newest_first ? BTLessStrategyNumber : BTGreaterStrategyNumber,
								   UUIDPGetDatum(f.after != NULL ? f.after : &end));
		if (f.newest_first)
			gt_scan_backward(scan);
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
