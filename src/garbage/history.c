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
#include "utils/datum.h"
#include "utils/timestamp.h"

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

/* < 0: does not apply. */
static void
set_number(GtRow *row, int column, int64 number)
{
	if (number >= 0)
		GT_SET(row, column, Int64GetDatum(number));
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
	set_number(row, HISTORY_LAG, lag);
	set_number(row, HISTORY_TOOK, took);
}

static void
set_run(GtRow *row, const GtHandler *h, int64 rows)
{
	GT_SET(row, HISTORY_HANDLER_VERSION, Int32GetDatum(h->version));
	set_number(row, HISTORY_AFFECTED, rows);
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
	GtTable		history;
	const GtHandler *h;			/* that has run */
	Datum		handler;
	Datum		cleaned;
	Datum		expired;
	int64		id;				/* of the next row */
	int			n;				/* rows that are to be inserted together */
	GtRow		rows[GT_MANY];
};

GtEvents *
gt_events_begin(const GtHandler *h)
{
	GtEvents   *events;

	if (gt_history != GT_HISTORY_ALL)
		return NULL;
	events = palloc(sizeof(GtEvents));
	gt_open(&events->history, GT__HISTORY, RowExclusiveLock);
	events->h = h;
	events->handler = CStringGetTextDatum(h->name);
	events->cleaned = CStringGetTextDatum("cleaned");
	events->expired = CStringGetTextDatum("expired");
	events->id = DatumGetInt64(gt_random_id()) / 2;
	events->n = 0;
	return events;
}

static void
write_rows(GtEvents *events)
{
	gt_insert_many(&events->history, events->rows, events->n);
	events->n = 0;
}

static GtRow *
add_event(GtEvents *events, TimestampTz at, Datum event, const GtRow *object, int attempt, int64 lag, int64 took)
{
	GtRow	   *row;

	if (events->n == GT_MANY)
		write_rows(events);
	row = &events->rows[events->n++];
	make_row(row, at, event, object, attempt, lag, took);
	GT_SET(row, HISTORY_ID, Int64GetDatum(events->id++));
	return row;
}

/* Is the lease of the service that the object's cleanup is of, so that one row tells of both? */
static bool
is_of_one_service(const GtRow *object, Datum service)
{
	return !object->isnull[O_SERVICE_ID] && datumIsEqual(object->v[O_SERVICE_ID], service, false, -1);
}

void
gt_events_add(GtEvents *events, TimestampTz expired_at, Datum service, TimestampTz cleaned_at, const GtItem *item, int64 lag)
{
	bool		one = is_of_one_service(&item->row, service);
	GtRow	   *row;

	if (!one)
	{
		row = add_event(events, expired_at, events->expired, &item->row, -1, -1, -1);
		GT_SET_NULL(row, HISTORY_CLEANUP_ID);
		GT_SET(row, HISTORY_SERVICE_ID, service);
	}
	row = add_event(events, cleaned_at, events->cleaned, &item->row, item->attempt, lag, item->took);
	GT_SET(row, HISTORY_HANDLER, events->handler);
	set_run(row, events->h, item->rows);
	if (one)
		GT_SET(row, HISTORY_EXPIRED_AT, TimestampTzGetDatum(expired_at));
}

void
gt_events_end(GtEvents *events)
{
	if (events->n > 0)
		write_rows(events);
	gt_close(&events->history);
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
