/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  gt_metrics(): the numbers of this database for Prometheus.
 *
 * Sessions run this, and write nothing but the start of the gauges in shared
 * memory, see observe.c.  What is not counted there is read at the ends of
 * indexes, never by a scan of a table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/transaction.h"
#include "handler/use.h"
#include "report/health.h"
#include "report/overdue.h"
#include "report/ttls.h"
#include "shared/counters.h"
#include "shared/counts.h"
#include "shared/due.h"
#include "shared/margins.h"
#include "shared/observe.h"
#include "shared/renewals.h"
#include "shared/shmem.h"
#include "table/relations.h"
#include "table/scan.h"

PG_FUNCTION_INFO_V1(gt_metrics);

#define STANDBY_COUNTS	(10 * USECS_PER_SEC)	/* on a standby the gauges are at most so old, */
#define STANDBY_FACTOR	20		/* or so many times what it took to count them */
#define STALLED			(5 * USECS_PER_MINUTE)

/* ---------------------------------------------------------------- gauges */

/*
 * All of it as of now, however long it takes to count: what commits meanwhile is added by
 * who does.  Of objects those that are no garbage are not looked at.
 */
static void
count_all(int64 *leases, int64 *garbage, int64 *dead)
{
	GtTable		lease;
	GtTable		object;
	TableScanDesc running;
	GtScan	   *over;
	GtScan	   *due;
	GtRow		row;

	gt_open(&lease, GT_LEASE, AccessShareLock);
	gt_open(&object, GT_OBJECT, AccessShareLock);
	PushActiveSnapshot(GetLatestSnapshot());
	running = table_beginscan(lease.rel, GetActiveSnapshot(), 0, NULL);
	over = gt_scan_begin(&object, GT_OBJECT_DEAD, 0, NULL);
	due = gt_scan_begin(&object, GT_OBJECT_DUE, 0, NULL);

	for (*leases = 0; table_scan_getnextslot(running, ForwardScanDirection, lease.slot); (*leases)++)
		CHECK_FOR_INTERRUPTS();
	*garbage = *dead = gt_scan_count(over, PG_INT64_MAX);
	while (gt_scan_next_brief(due, &row))
	{
		CHECK_FOR_INTERRUPTS();
		*garbage += GT_CHAR(&row, O_STATE) == GT_STATE_WAITING || GT_CHAR(&row, O_STATE) == GT_STATE_CLAIMED;
	}
	gt_scan_end(due);
	gt_scan_end(over);
	table_endscan(running);
	PopActiveSnapshot();
	gt_close(&object);
	gt_close(&lease);
}

/* The current numbers; counted, where nobody has in this server run. */
static void
gauges(int64 *leases, int64 *garbage, int64 *dead)
{
	Oid			extension = gt_extension();
	GtDatabaseEntry *entry;
	GtDatabaseEntry before;
	TimestampTz began = gt_now();

	gt_count_prepared();
	gt_observe_lock();
	before = *gt_database_entry();
	gt_observe_unlock();
	*leases = before.leases;
	*garbage = before.garbage;
	*dead = before.dead;
	if (before.extension == extension ||
		(RecoveryInProgress() && before.counted_at > began - Max(STANDBY_COUNTS, STANDBY_FACTOR * before.count_took)))
		return;

	count_all(leases, garbage, dead);

	/* what this transaction has written is in, and would come in again when it commits */
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	/* the extension was dropped and created again: its handlers are others, whatever their ids */
	if (OidIsValid(before.extension))
		gt_observe_forget(MyDatabaseId);
	gt_observe_lock();
	entry = gt_database_entry();
	if (entry->extension == before.extension)
	{
		entry->leases += *leases - before.leases;
		entry->garbage += *garbage - before.garbage;
		entry->dead += *dead - before.dead;
		/* no commit keeps them on a standby; after its promotion they are counted once more */
		entry->extension = RecoveryInProgress() ? InvalidOid : extension;
		entry->counted_at = gt_now();
		entry->count_took = entry->counted_at - began;
	}
	gt_observe_unlock();
}

/* ---------------------------------------------------------------- gt_metrics */

/* What the rows of one call share. */
typedef struct Output
{
	ReturnSetInfo *rsinfo;
	const char *name;			/* of the metric, without the prefix */
	const char *kind;
	const char *help;
} Output;

/* One sample, of this database. suffix, label and label2: "" or NULL where there is none. */
static void
put(const Output *o, const char *suffix, const char *label, const char *value, const char *label2,
	const char *value2, double number)
{
	StringInfoData labels;
	Datum		v[5];
	bool		nulls[5] = {false, false, false, false, false};

	initStringInfo(&labels);
	appendStringInfoString(&labels, "{\"database\": ");
	escape_json(&labels, get_database_name(MyDatabaseId));
	if (label != NULL)
	{
		appendStringInfoString(&labels, ", ");
		escape_json(&labels, label);
		appendStringInfoString(&labels, ": ");
		escape_json(&labels, value);
	}
	if (label2 != NULL)
	{
		appendStringInfoString(&labels, ", ");
		escape_json(&labels, label2);
		appendStringInfoString(&labels, ": ");
		escape_json(&labels, value2);
	}
	appendStringInfoChar(&labels, '}');

	v[0] = PointerGetDatum(cstring_to_text(psprintf("garbagetruck_%s%s", o->name, suffix)));
	v[1] = CStringGetTextDatum(o->kind);
	v[2] = DirectFunctionCall1(jsonb_in, CStringGetDatum(labels.data));
	v[3] = Float8GetDatum(number);
	v[4] = CStringGetTextDatum(o->help);
	tuplestore_putvalues(o->rsinfo->setResult, o->rsinfo->setDesc, v, nulls);
}

static void
put_one(ReturnSetInfo *rsinfo, const char *name, const char *kind, const char *help, double number)
{
	Output		o = {rsinfo, name, kind, help};

	put(&o, "", NULL, NULL, NULL, NULL, number);
}

static void
put_histogram(const Output *o, const char *label, const char *value, const GtHistogram *h)
{
	uint64		sum = 0;
	int			i;

	for (i = 0; i < GT_NBOUNDS; i++)
	{
		sum += h->bucket[i];
		put(o, "_bucket", label, value, "le", psprintf("%g", gt_bounds[i]), (double) sum);
	}
	put(o, "_bucket", label, value, "le", "+Inf", (double) h->count);
	put(o, "_sum", label, value, NULL, NULL, h->sum);
	put(o, "_count", label, value, NULL, NULL, (double) h->count);
}

static void
put_counters(ReturnSetInfo *rsinfo)
{
	static const struct
	{
		const char *name;
		const char *help;
	}			told[] = {
		{"leases_created_total", "Leases created."},
		{"leases_renewed_total", "Renewals of leases."},
		{"leases_released_total", "Leases ended by release."},
		{"leases_expired_total", "Leases ended past their deadline."},
	};
	GtCounters *counters = &gt_shared->counters[gt_my_database() - gt_shared->databases];
	int			i;

	StaticAssertStmt(lengthof(told) == GT_NCOUNTERS, "each counter has a name");
	for (i = 0; i < GT_NCOUNTERS; i++)
		put_one(rsinfo, told[i].name, "counter", told[i].help, (double) pg_atomic_read_u64(&counters->n[i]));
}

static void
put_handlers(ReturnSetInfo *rsinfo)
{
	List	   *handlers = gt_handler_list();
	int			n = list_length(handlers);
	GtHandlerEntry *entries = palloc0(Max(n, 1) * sizeof(GtHandlerEntry));
	Output		cleanups = {rsinfo, "cleanups_total", "counter", "Attempts to clean an object, by their result."};
	Output		seconds = {rsinfo, "cleanup_seconds", "histogram", "How long attempts took that workers made."};
	Output		paused = {rsinfo, "handler_paused", "gauge", "1 while the handler is paused or suspended."};
	int			i;

	gt_observe_lock();
	for (i = 0; i < n; i++)
	{
		GtHandlerEntry *entry = gt_handler_known(((GtHandler *) list_nth(handlers, i))->id);

		if (entry != NULL)
			entries[i] = *entry;
	}
	gt_observe_unlock();

	for (i = 0; i < n; i++)
	{
		const char *name = ((GtHandler *) list_nth(handlers, i))->name;

		put(&cleanups, "", "handler", name, "result", "cleaned", (double) entries[i].cleaned);
		put(&cleanups, "", "handler", name, "result", "failed", (double) entries[i].failed);
	}
	for (i = 0; i < n; i++)
		put_histogram(&seconds, "handler", ((GtHandler *) list_nth(handlers, i))->name, &entries[i].took);
	for (i = 0; i < n; i++)
	{
		GtHandler  *h = list_nth(handlers, i);

		put(&paused, "", "handler", h->name, NULL, NULL, h->paused || gt_handler_suspended(h) != NULL);
	}
}

static void
put_overdue(ReturnSetInfo *rsinfo)
{
	TimestampTz now = gt_now();
	TimestampTz overdue = RecoveryInProgress() ? GT_NEVER : gt_observe_overdue(true);
	bool		is_overdue = overdue != GT_NEVER && overdue < now;
	TimestampTz progress_at;

	gt_observe_lock();
	progress_at = gt_database_entry()->progress_at;
	gt_observe_unlock();
	put_one(rsinfo, "oldest_overdue_seconds", "gauge",
			"Age of the oldest work that is due and has not begun: leases to end, objects to clean.",
			is_overdue ? (double) (now - overdue) / USECS_PER_SEC : 0);
	put_one(rsinfo, "stalled", "gauge", "1 while something is overdue and nothing was cleaned for 5 minutes.",
			is_overdue && now - Max(overdue, progress_at) > STALLED);
}

static void
put_workers(ReturnSetInfo *rsinfo)
{
	int			workers = 0;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS; i++)
		workers += gt_shared->slots[i].state != GT_SLOT_FREE;
	LWLockRelease(gt_shared->lock);
	put_one(rsinfo, "workers", "gauge", "Workers that run now, in all databases.", workers);
	put_one(rsinfo, "worker_slots_missing_total", "counter",
			"Times that a worker could not be started, since max_worker_processes are in use.",
			(double) pg_atomic_read_u64(&gt_shared->slots_missing));
}

/* Each check of gt_health() as one number: its rows stand together. */
static void
put_health(ReturnSetInfo *rsinfo)
{
	Output		o = {rsinfo, "health", "gauge", "1 while all that gt_health() tells of this check is ok."};
	List	   *rows = gt_health_rows();
	bool		ok = true;
	int			i;

	for (i = 0; i < list_length(rows); i++)
	{
		GtHealthRow *row = list_nth(rows, i);
		GtHealthRow *next = i + 1 < list_length(rows) ? list_nth(rows, i + 1) : NULL;

		ok = ok && row->ok;
		if (next != NULL && strcmp(next->check, row->check) == 0)
			continue;
		put(&o, "", "check", row->check, NULL, NULL, ok);
		ok = true;
	}
}

static void
put_gauges(ReturnSetInfo *rsinfo)
{
	int64		leases;
	int64		garbage;
	int64		dead;

	gauges(&leases, &garbage, &dead);
	put_one(rsinfo, "leases", "gauge", "Leases that have not ended.", (double) Max(leases, 0));
	put_one(rsinfo, "garbage", "gauge", "Objects whose last lease has ended and that are not clean, dead ones too.",
			(double) Max(garbage, 0));
	put_one(rsinfo, "dead", "gauge", "Garbage that used up its attempts.", (double) (Max(dead, 0) + gt_lapsed_claims()));
}

static void
put_lag(ReturnSetInfo *rsinfo)
{
	Output		lag = {rsinfo, "reclaim_lag_seconds", "histogram",
	"From the deadline or release, plus grace, to the start of the first attempt."};
	GtHistogram histogram;

	gt_observe_lock();
	histogram = gt_database_entry()->lag;
	gt_observe_unlock();
	put_histogram(&lag, NULL, NULL, &histogram);
}

static void
put_renewals(ReturnSetInfo *rsinfo)
{
	Output		margin = {rsinfo, "renewal_margin_ratio", "gauge",
	"Smallest part of a lease's duration that was left at a renewal, of the last minutes."};
	ListCell   *lc;

	foreach(lc, gt_observe_margins())
	{
		GtMargin   *m = lfirst(lc);

		put(&margin, "", "service_id", m->service_id, NULL, NULL, m->ratio);
	}
	put_one(rsinfo, "renewal_buffer_entries", "gauge", "Leases that a renewal in shared memory keeps alive.",
			gt_renewals_count(MyDatabaseId));
}

static void
put_ttls(ReturnSetInfo *rsinfo)
{
	Output		total = {rsinfo, "ttl_rows_total", "counter", "Rows deleted because their deadline had passed."};
	Output		overdue = {rsinfo, "ttl_oldest_overdue_seconds", "gauge", "Age of the oldest row that is over and still there."};
	Output		lag = {rsinfo, "ttl_lag_seconds", "histogram", "From the deadline of a row, plus grace, to its end."};
	List	   *ttls = gt_ttl_list();
	GtHistogram histogram;
	ListCell   *lc;

	foreach(lc, ttls)
	{
		GtTtl	   *t = lfirst(lc);
		GtHandlerEntry *entry;
		uint64		rows;

		gt_observe_lock();
		entry = gt_handler_known(t->id);
		rows = entry != NULL ? entry->cleaned : 0;
		gt_observe_unlock();
		put(&total, "", "table", t->type, NULL, NULL, (double) rows);
	}
	foreach(lc, ttls)
	{
		GtTtl	   *t = lfirst(lc);
		GtTtlSeen	seen;

		gt_ttl_see(t, &seen);
		put(&overdue, "", "table", t->type, NULL, NULL,
			seen.oldest == GT_NEVER || TIMESTAMP_NOT_FINITE(seen.oldest) ? 0 : (double) Max(gt_now() - seen.oldest, 0) / USECS_PER_SEC);
	}
	gt_observe_lock();
	histogram = gt_database_entry()->row_lag;
	gt_observe_unlock();
	put_histogram(&lag, NULL, NULL, &histogram);
}

/* Each by itself: where tables cannot be read, its numbers are left out, and those of `health` tell of it. */
static void (*const groups[]) (ReturnSetInfo *rsinfo) = {
	put_gauges, put_counters, put_handlers, put_lag, put_overdue, put_workers, put_health, put_renewals,
	put_ttls
};

typedef struct MetricGroup
{
	ReturnSetInfo *rsinfo;
	void		(*put) (ReturnSetInfo *rsinfo);
} MetricGroup;

static void
put_group(void *arg)
{
	MetricGroup *group = arg;

	group->put(group->rsinfo);
}

Datum
gt_metrics(PG_FUNCTION_ARGS)
{
	MetricGroup group = {(ReturnSetInfo *) fcinfo->resultinfo, NULL};
	int			i;

	gt_check_monitor("gt_metrics()");
	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; i < (int) lengthof(groups); i++)
	{
		group.put = groups[i];
		(void) gt_try(put_group, &group);
	}
	return (Datum) 0;
}
