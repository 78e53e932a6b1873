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
#include "report/page.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "shared/renewed.h"

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

/* Those of the page that are still there, up to `room`; returns how many. */
static int
put_page(ReturnSetInfo *rsinfo, const GtPage *page, int room)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(per_row);
	int			n = 0;
	int64		i;

	for (i = 0; i < page->n && n < room; i++)
	{
		Datum		id = UUIDPGetDatum(&page->ids[i]);
		GtRow		row;

		CHECK_FOR_INTERRUPTS();
		if (gt_fetch(page->leases, GT_LEASE_PKEY, 1, &id, &row) && gt_filter_matches(page->filter, page->leases, &row))
		{
			put_lease(rsinfo, page->leases, &row);
			n++;
		}
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(per_row);
	return n;
}

/* As many rows as there are, up to max_rows: a page with fewer is the last one. */
static void
put_pages(ReturnSetInfo *rsinfo, GtTable *leases, GtFilter *f)
{
	GtPage		page = {.leases = leases, .filter = f};
	int			n = 0;

	for (;;)
	{
		gt_page_find(&page);
		n += put_page(rsinfo, &page, f->max_rows - n);
		if (!page.full || n == f->max_rows)
			break;
		f->after = page.ids[page.n - 1];	/* some have ended meanwhile */
	}
}

/* gt_lease_list(...): pages in the order of ids */
Datum
gt_lease_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtTable		leases;
	GtFilter	f;

	gt_must_be_allowed("gt_lease_list");
	f.service = gt_text_arg(fcinfo, 0);
	f.type = gt_text_arg(fcinfo, 1);
	f.state = gt_text_arg(fcinfo, 2);
	f.max_rows = PG_ARGISNULL(3) ? 100 : PG_GETARG_INT32(3);
	f.object = gt_text_arg(fcinfo, 5);
	f.newest_first = gt_newest_first;
	memset(&f.after, f.newest_first ? 0xff : 0, sizeof(f.after));
	if (!PG_ARGISNULL(4))
		f.after = *PG_GETARG_UUID_P(4);
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
	if (f.service == NULL || gt_caller_covers(f.service))
		put_pages(rsinfo, &leases, &f);
	gt_close(&leases);
	return (Datum) 0;
}
