/*-------------------------------------------------------------------------
 *
 * history.c
 *	  gt_history: what has become of objects, as far as the setting wants to know.
 *
 * Whoever makes or cleans garbage adds an event in the same transaction.  What is
 * too old is deleted by trim.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/check.h"
#include "base/settings.h"
#include "base/text.h"
#include "garbage/history.h"
#include "shared/clock.h"
#include "table/records.h"
#include "table/scan.h"
#include "table/versions.h"

/* Is this event kept, by the setting? */
static bool
history_wants(const char *event)
{
	static const char *const errors[] = {"failed", "dead", "redriven", "discarded"};
	int			i;

	if (gt_history != GT_HISTORY_ERRORS)
		return gt_history == GT_HISTORY_ALL;
	for (i = 0; i < (int) lengthof(errors); i++)
		if (strcmp(event, errors[i]) == 0)
			return true;
	return false;
}

static void
set_interval(GtRow *row, int column, int64 us)
{
	if (us >= 0)
		GT_SET(row, column, PointerGetDatum(gt_us_interval(us)));
}

static void
copy_column(GtRow *to, int column, const GtRow *from, int source)
{
	to->v[column] = from->v[source];
	to->isnull[column] = from->isnull[source];
}

/* The row of an event that is kept. */
static void
make_row(GtRow *row, TimestampTz at, const char *event, const GtRow *object, const char *handler, int attempt, int64 lag, int64 took)
{
	gt_row_init(row);
	GT_SET(row, HISTORY_AT, TimestampTzGetDatum(at));
	GT_SET(row, HISTORY_EVENT, CStringGetTextDatum(event));
	copy_column(row, HISTORY_OBJECT_TYPE, object, O_OBJECT_TYPE);
	copy_column(row, HISTORY_OBJECT_ID, object, O_OBJECT_ID);
	copy_column(row, HISTORY_OWNER, object, O_OWNER);
	copy_column(row, HISTORY_CLEANUP_ID, object, O_CLEANUP_ID);
	copy_column(row, HISTORY_LEASE_ID, object, O_LEASE_ID);
	copy_column(row, HISTORY_SERVICE_ID, object, O_SERVICE_ID);
	copy_column(row, HISTORY_HANDLER_ID, object, O_HANDLER);
	if (attempt >= 0)
		GT_SET(row, HISTORY_ATTEMPT, Int32GetDatum(attempt));
	if (handler != NULL)
		GT_SET(row, HISTORY_HANDLER, CStringGetTextDatum(handler));
	GT_SET(row, HISTORY_ID, gt_random_id());
	set_interval(row, HISTORY_LAG, lag);
	set_interval(row, HISTORY_TOOK, took);
}

static void
set_run(GtRow *row, const GtHandler *h, int64 rows)
{
	GT_SET(row, HISTORY_HANDLER_VERSION, Int32GetDatum(h->version));
	if (rows >= 0)
		GT_SET(row, HISTORY_AFFECTED, Int64GetDatum(rows));
}

void
gt_history_add_attempt(const char *event, const GtRow *object, const char *handler, int attempt,
					   int64 lag, int64 took, const char *error, const GtHandler *h, int64 rows)
{
	GtTable		history;
	GtRow		row;

	if (!history_wants(event))
		return;
	make_row(&row, gt_now(), event, object, handler, attempt, lag, took);
	if (error != NULL)
		GT_SET(&row, HISTORY_ERROR, gt_error_text(error));
	if (h != NULL)
		set_run(&row, h, rows);

	gt_open(&history, GT__HISTORY, RowExclusiveLock);
	gt_insert(&history, &row);
	gt_close(&history);
}

/* ---------------------------------------------------------------- many events */

struct GtEvents
{
	int			n;
	GtRow		rows[FLEXIBLE_ARRAY_MEMBER];
};

GtEvents *
gt_events_begin(int room)
{
	GtEvents   *events = gt_history != GT_HISTORY_ALL ? NULL :
		MemoryContextAllocHuge(CurrentMemoryContext, offsetof(GtEvents, rows) + room * sizeof(GtRow));

	if (events != NULL)
		events->n = 0;
	return events;
}

void
gt_events_add(GtEvents *events, TimestampTz at, const char *event, const GtRow *object)
{
	if (events != NULL)
		make_row(&events->rows[events->n++], at, event, object, NULL, -1, -1, -1);
}

void
gt_events_add_run(GtEvents *events, const char *event, const GtHandler *h, const GtItem *item, int64 lag)
{
	GtRow	   *row;

	if (events == NULL)
		return;
	row = &events->rows[events->n++];
	make_row(row, gt_now(), event, &item->row, h->name, item->attempt, lag, item->took);
	set_run(row, h, item->rows);
}

void
gt_events_write(GtEvents *events)
{
	GtTable		history;

	if (events == NULL || events->n == 0)
		return;
	gt_open(&history, GT__HISTORY, RowExclusiveLock);
	gt_insert_many(&history, events->rows, events->n);
	gt_close(&history);
	events->n = 0;
}

/*
 * Keeps an event in gt_history, if the setting says so.  lease_id and service_id
 * are those of the object's row; handler NULL, attempt < 0, times < 0, error
 * NULL: do not apply.
 */
void
gt_history_add(const char *event, const GtRow *object, const char *handler, int attempt,
			   int64 lag, int64 took, const char *error)
{
	gt_history_add_attempt(event, object, handler, attempt, lag, took, error, NULL, -1);
}

TimestampTz
gt_history_newest(TimestampTz upto)
{
	GtTable		history;
	GtScan	   *scan;
	GtRow		row;
	TimestampTz result = 0;

	gt_open(&history, GT__HISTORY, AccessShareLock);
	scan = gt_scan_begin_bound(&history, GT__HISTORY_PKEY, 0, NULL, BTLessEqualStrategyNumber, TimestampTzGetDatum(upto));
	if (gt_scan_last(scan, &row))
		result = GT_TIME(&row, HISTORY_AT);
	gt_scan_end(scan);
	gt_close(&history);
	return result;
}
