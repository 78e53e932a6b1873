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

/* The row of an event that is kept; event: text. */
static void
make_row(GtRow *row, TimestampTz at, Datum event, const GtRow *object, int attempt, int64 lag, int64 took)
{
	gt_row_init(row);
	GT_SET(row, HISTORY_AT, TimestampTzGetDatum(at));
	GT_SET(row, HISTORY_EVENT, event);
	copy_column(row, HISTORY_OBJECT_TYPE, object, O_OBJECT_TYPE);
	copy_column(row, HISTORY_OBJECT_ID, object, O_OBJECT_ID);
	copy_column(row, HISTORY_OWNER, object, O_OWNER);
	copy_column(row, HISTORY_CLEANUP_ID, object, O_CLEANUP_ID);
	copy_column(row, HISTORY_LEASE_ID, object, O_LEASE_ID);
	copy_column(row, HISTORY_SERVICE_ID, object, O_SERVICE_ID);
	copy_column(row, HISTORY_HANDLER_ID, object, O_HANDLER);
	if (attempt >= 0)
		GT_SET(row, HISTORY_ATTEMPT, Int32GetDatum(attempt));
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
	make_row(&row, gt_now(), CStringGetTextDatum(event), object, attempt, lag, took);
	GT_SET(&row, HISTORY_ID, gt_random_id());
	if (handler != NULL)
		GT_SET(&row, HISTORY_HANDLER, CStringGetTextDatum(handler));
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
	const char *event;			/* the last one, */
	Datum		event_text;
	Datum		handler_text;	/* and whose runs are told of; 0: no run yet */
	int			n;
	GtRow		rows[FLEXIBLE_ARRAY_MEMBER];
};

GtEvents *
gt_events_begin(int room)
{
	GtEvents   *events = gt_history != GT_HISTORY_ALL ? NULL :
		MemoryContextAllocHuge(CurrentMemoryContext, offsetof(GtEvents, rows) + room * sizeof(GtRow));

	if (events != NULL)
		memset(events, 0, offsetof(GtEvents, rows));
	return events;
}

static GtRow *
add_event(GtEvents *events, TimestampTz at, const char *event, const GtRow *object, int attempt, int64 lag, int64 took)
{
	GtRow	   *row = &events->rows[events->n++];

	if (events->event != event)
		events->event_text = CStringGetTextDatum(event);
	events->event = event;
	make_row(row, at, events->event_text, object, attempt, lag, took);
	return row;
}

void
gt_events_add(GtEvents *events, TimestampTz at, const char *event, const GtRow *object)
{
	if (events != NULL)
		(void) add_event(events, at, event, object, -1, -1, -1);
}

void
gt_events_add_run(GtEvents *events, TimestampTz at, const char *event, const GtHandler *h, const GtItem *item, int64 lag)
{
	GtRow	   *row;

	if (events == NULL)
		return;
	if (events->handler_text == (Datum) 0)
		events->handler_text = CStringGetTextDatum(h->name);
	row = add_event(events, at, event, &item->row, item->attempt, lag, item->took);
	GT_SET(row, HISTORY_HANDLER, events->handler_text);
	set_run(row, h, item->rows);
}

/* In the order in which they were added: in that of their times each new entry of the primary key is behind all others. */
void
gt_events_write(GtEvents *events)
{
	GtTable		history;
	int64		id;
	int			i;

	if (events == NULL || events->n == 0)
		return;
	id = DatumGetInt64(gt_random_id()) / 2;
	for (i = 0; i < events->n; i++)
		GT_SET(&events->rows[i], HISTORY_ID, Int64GetDatum(id + i));
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
