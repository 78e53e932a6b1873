/*-------------------------------------------------------------------------
 *
 * clean.c
 *	  Chooses garbage that is due, runs its handler, writes what came of it.
 *
 * Workers and gt_reclaim() run this as a chain of transactions:
 *
 *		T(n)	locks the objects of run n again: still garbage?
 *				runs them (run.c, notify.c), each in its own subtransaction
 *				writes each outcome (garbage.c) and the tally of the handler
 *				chooses run n+1 and writes its record over that of n (record.c)
 *
 * One commit carries the outcome of n and the intent of n+1.  Between the two
 * nothing is locked: a create that comes in between takes the object back, and
 * T(n+1) passes over it.  Handlers are served in turn.  Which objects are chosen
 * is no promise, only the row lock at the run is; but processes tell each other
 * through shared memory (slots.c), so that they rarely choose the same.
 *
 * When a sql_batch fails nobody is charged: its halves are run next, by the same
 * process, until the culprit is by itself.  A process that ends meanwhile forgets
 * the halves: whoever comes next begins with a new batch.
 *
 * A run may also be a pass that ends leases, and cleans in the same transaction
 * what would become garbage: optimistic.c.
 *
 * Locks: object rows with SKIP LOCKED, so their order does not matter; then our
 * own rows.  External kinds are never chosen here: only gt_claim() starts those.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/point.h"
#include "clean/busy.h"
#include "clean/choose.h"
#include "clean/clean.h"
#include "clean/cleaner.h"
#include "clean/marks.h"
#include "clean/optimistic.h"
#include "clean/record.h"
#include "clean/rows.h"
#include "garbage/garbage.h"
#include "garbage/notify.h"
#include "handler/rates.h"
#include "handler/run.h"
#include "handler/slots.h"
#include "handler/tally.h"
#include "handler/turns.h"
#include "handler/use.h"
#include "shared/counts.h"
#include "shared/shmem.h"
#include "table/low.h"
#include "table/records.h"
#include "table/relations.h"
#include "table/scan.h"
#include "table/versions.h"
#include "ttl/ttl.h"

#define NO_HANDLER	0			/* of what is only forgotten, in its queue */
#define FORGET_AGAIN (10 * 1000)	/* us for each object to be forgotten that others have locked, until the next look */

/* `worker`: of a worker process, else of a session. */
GtCleaner *
gt_cleaner_create(bool worker)
{
	GtCleaner  *c = MemoryContextAllocZero(worker ? TopMemoryContext : CurrentMemoryContext, sizeof(GtCleaner));

	c->run_context = AllocSetContextCreate(worker ? TopMemoryContext : CurrentMemoryContext,
										   "garbagetruck run", ALLOCSET_DEFAULT_SIZES);
	c->current_part = -1;
	return c;
}

void
gt_clean_committed(GtCleaner *c)
{
	gt_clean_rows_committed(c);
	c->durable = gt_clean_pending(c) && !c->unrecorded;
	c->begun = false;
	if (gt_clean_pending(c))
		gt_slot_committed();
	else if (!gt_clean_has_failed(c))
		gt_slot_release();
}

/* ---------------------------------------------------------------- the run */

/* Where it was when it was chosen (NULL: that is not known), if it still is there; else by its id. */
static GtLockResult
lock_item(GtTable *objects, int64 id, ItemPointer tid, GtRow *row)
{
	Datum		key = Int64GetDatum(id);

	if (tid != NULL && ItemPointerIsValid(tid) && gt_fetch_version(objects, tid, row) &&
		!row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == id)
		return gt_lock(objects, row, LockTupleExclusive, true);
	return gt_fetch_lock(objects, GT_OBJECT_CLEANUP, 1, &key, row, LockTupleExclusive, true);
}

/* Is this row still the garbage that was chosen, to be run now? */
static bool
is_to_be_run(const GtRow *row, const GtHandler *h, int64 id, TimestampTz now)
{
	return !row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == id &&
		!row->isnull[O_HANDLER] && GT_INT32(row, O_HANDLER) == h->id &&
		!row->isnull[O_DUE_AT] && GT_TIME(row, O_DUE_AT) <= now &&
		(GT_CHAR(row, O_STATE) == GT_STATE_WAITING || h->kind == GT_KIND_NOTIFY);
}

/* Locks what of the chosen objects is still to be run. Returns how many that are. */
static int
lock_items(GtCleaner *c, const GtHandler *h, GtTable *objects, int n, GtItem *items)
{
	TimestampTz now = gt_now();
	int64	   *busy = palloc(n * sizeof(int64));
	int			nbusy = 0;
	int			locked = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		GtItem	   *item = &items[locked];
		GtRow	   *row = &item->row;
		GtLockResult result = lock_item(objects, c->items[i], c->changes == gt_table_changes ? &c->tids[i] : NULL, row);

		if (result == GT_BUSY)
			busy[nbusy++] = c->items[i];
		if (result != GT_LOCKED || !is_to_be_run(row, h, c->items[i], now) || (GT_BOOL(row, O_ALONE) && n > 1))
			continue;
		item->cleanup_id = c->items[i];
		item->attempt = GT_INT32(row, O_ATTEMPTS) + 1;
		locked++;
	}
	gt_busy_note(c, c->items, n, busy, nbusy);
	return locked;
}

/* A batch failed: its halves come next. Nobody is charged. */
static void
split(GtCleaner *c, const int64 *ids, int n)
{
	int			start = c->current_part;
	int			half = n / 2;

	if (start < 0)
	{
		start = 0;
		c->nparts = 0;
		memcpy(c->part_items, ids, n * sizeof(int64));
	}
	c->part_start[c->nparts] = start + half;
	c->part_n[c->nparts++] = n - half;
	c->part_start[c->nparts] = start;
	c->part_n[c->nparts++] = half;
}

/* An object that was in a crash has been run by itself, and all lived: it was not the cause, or no longer. */
static void
forget_crashes(const GtHandler *h)
{
	GtTable		handlers;
	GtRow		row;
	Datum		key = Int32GetDatum(h->id);

	if (h->crashes == 0)
		return;
	if (h->rows)
	{
		(void) gt_ttl_crashed(h->id, false, NULL);
		return;
	}
	gt_open(&handlers, GT__HANDLER, RowExclusiveLock);
	/* where a user has its row, the next run by itself will do */
	if (gt_fetch_lock(&handlers, GT__HANDLER_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, true) == GT_LOCKED)
	{
		GT_SET(&row, HANDLER_CRASHES, Int32GetDatum(0));
		gt_update(&handlers, &row);
	}
	gt_close(&handlers);
}

/* What a run is asked before each of its items, and what its outcomes are written by. */
typedef struct Run
{
	const GtHandler *h;
	GtTable    *objects;
	uint64		writes;			/* gt_object_writes when they were locked */
} Run;

/* Reads and locks the row again, which a handler may have written: is it still what was chosen? */
static bool
still_ours(Run *run, GtItem *item)
{
	Datum		key = Int64GetDatum(item->cleanup_id);

	return gt_fetch_lock(run->objects, GT_OBJECT_CLEANUP, 1, &key, &item->row, LockTupleExclusive, false) == GT_LOCKED &&
		is_to_be_run(&item->row, run->h, item->cleanup_id, GT_NEVER);
}

/* For gt_run_sql(): what came before in this batch may have leased, ended or acknowledged it. */
static bool
judge_again(GtItem *item, void *arg)
{
	Run		   *run = arg;

	if (run->writes == gt_object_writes)
		return true;
	if (!still_ours(run, item))
		return false;
	item->attempt = GT_INT32(&item->row, O_ATTEMPTS) + 1;
	return true;
}

/* A conflict is excused only so often; of a batch it takes all of its objects. */
static void
limit_excuses(GtItem *items, int n, bool one_run)
{
	bool		enough = false;
	int			i;

	for (i = 0; i < n; i++)
	{
		bool		over = items[i].excused && items[i].excuse == GT_EXCUSE_CONFLICT &&
			!gt_garbage_may_conflict(&items[i].row);

		if (over && !one_run)
			items[i].excused = false;
		enough = enough || over;
	}
	for (i = 0; enough && one_run && i < n; i++)
		items[i].excused = false;
}

/* Writes what came of one item; its row is ours. */
static void
write_outcome(Run *run, GtItem *item)
{
	GtRow	   *row = &item->row;

	if (item->done)
		gt_garbage_cleaned(run->objects, row, run->h, item);
	else if (item->excused)
		gt_garbage_excused(run->objects, row, run->h, item->error, item->excuse, item->retry_after);
	else
	{
		if (!item->conflict)
			GT_SET_NULL(row, O_CONFLICTS);
		gt_garbage_failed(run->objects, row, run->h, item->attempt, item->error, GT_BACK_OFF, item->took);
	}
}

/* How long after it could first be cleaned its first attempt began; -1: it was not the first. */
static int64
lag_of(const GtItem *item, const GtHandler *h, TimestampTz start)
{
	if (item->excused || GT_INT32(&item->row, O_ATTEMPTS) > 0)
		return -1;
	return Max(start - (GT_TIME(&item->row, O_SINCE) + h->grace), 0);
}

/*
 * Writes what came of the items, beginning at `start`.  Returns how many of them
 * that was: those of a batch that is halved have their turn to come.
 */
static int
write_outcomes(GtCleaner *c, Run *run, GtItem *items, int n, TimestampTz start)
{
	const GtHandler *h = run->h;
	bool		one_run = h->kind == GT_KIND_SQL_BATCH;
	bool		touched = gt_object_writes != run->writes;
	const char *error = NULL;
	bool		cut_short = false;
	int64		longest = 0;
	int			runs = 0;
	int			failures = 0;
	int			i;

	limit_excuses(items, n, one_run);
	if (one_run && n > 1 && !items[0].done && !items[0].excused)
	{
		int64	   *ids = palloc(n * sizeof(int64));

		for (i = 0; i < n; i++)
			ids[i] = items[i].cleanup_id;
		split(c, ids, n);
		gt_tally(h, 0, 0, items[0].error);
		gt_handler_proved(h, false);
		gt_handler_ran(h, items[0].took > GT_SLOW);
		return 0;
	}
	for (i = 0; i < n; i++)
	{
		GtItem	   *item = &items[i];
		int64		lag = lag_of(item, h, start);

		if (item->gone)
			continue;
		longest = Max(longest, item->took);
		cut_short = cut_short || item->cut_short;
		if (!one_run)
			start += item->took;
		if (!item->done && (!item->excused || item->excuse != GT_EXCUSE_PLAIN))
			error = item->error;
		if (!item->excused)
		{
			runs++;
			failures += !item->done;
			gt_observe_cleanup(h->id, h->owner, item->done, item->took, lag);
		}
		/* the handler may have leased the object, or ended it, by itself */
		if (!touched || still_ours(run, item))
			write_outcome(run, item);
	}
	gt_tally(h, h->rows ? 0 : runs, failures, error);	/* of a row TTL rows are counted, where they are deleted */
	gt_handler_proved(h, runs > 0 && failures == 0 && error == NULL);
	if ((longest > GT_SLOW || !cut_short) && !h->apart)
		gt_handler_ran(h, longest > GT_SLOW);
	if (one_run && n > 0 && items[0].done)
		gt_batch_set_limit(h->id, 2 * gt_batch_limit(h->id));
	return n;
}

/* May this handler be run at all, and by this process? It may have been replaced since it was chosen. */
static bool
may_run(const GtHandler *h)
{
	if (h->rows && gt_ttl_suspended(gt_ttl_by_id(h->id)) != NULL)
		return false;
	return !GT_KIND_IS_EXTERNAL(h->kind) && !h->paused && gt_slot_is_for(gt_handler_role(h)) &&
		gt_handler_suspended(h) == NULL;
}

/* Runs what the transaction before has recorded. */
static void
run_recorded(GtCleaner *c, GtPass *pass)
{
	int			n = c->nitems;
	GtHandler	h;
	GtTable		objects;
	GtItem	   *items;
	int			locked;

	c->nitems = 0;
	if (c->rows > 0 && !gt_database_paused())
	{
		gt_clean_rows_run(c, pass);
		return;
	}
	if (gt_database_paused() || !(gt_handler_by_id(c->handler, &h) || gt_ttl_handler(c->handler, &h)) || !may_run(&h))
	{
		c->nparts = c->rows = 0;
		return;
	}
	items = palloc0(n * sizeof(GtItem));
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	locked = lock_items(c, &h, &objects, n, items);
	GT_POINT("run_locked");
	gt_slot_set_state(GT_SLOT_CLEANING);
	if (locked > 0 && (h.kind == GT_KIND_NOTIFY || h.kind == GT_KIND_NOTIFY_ONLY))
	{
		gt_notify_items(&h, items, locked);
		/* to announce garbage that stays is no attempt */
		if (h.kind == GT_KIND_NOTIFY_ONLY)
			gt_tally(&h, locked, 0, NULL);
		gt_handler_ran(&h, false);
		pass->done += locked;
	}
	else if (locked > 0)
	{
		TimestampTz start = gt_now();
		Run			run = {&h, &objects, gt_object_writes};

		locked = h.rows ? gt_clean_rows_try_again(c, &h, &objects, items, locked, judge_again, &run) :
			gt_run_sql(&h, items, locked, c->own_only, judge_again, &run);
		GT_POINT("run_done");
		pass->done += write_outcomes(c, &run, items, locked, start);
	}
	gt_close(&objects);
	if (c->alone && locked > 0)
		forget_crashes(&h);
	GT_POINT("outcome_written");
}

/* Objects of which only regrant_at was left, and that from there on. Returns how many others have locked. */
static int
forget_from(GtTable *objects, TimestampTz from, TimestampTz now, TimestampTz *first, TimestampTz *next)
{
	int			limit = gt_batch_size;
	int			busy = 0;
	GtScan	   *scan = gt_scan_begin_null(objects, GT_OBJECT_DUE, from);
	GtRow		row;

	while (gt_scan_next(scan, &row))
	{
		GtLockResult result;

		*first = Min(*first, GT_TIME(&row, O_DUE_AT));
		if (GT_TIME(&row, O_DUE_AT) > now || --limit < 0)
		{
			*next = Min(*next, GT_TIME(&row, O_DUE_AT));
			break;
		}
		/* it may have been leased meanwhile, and forgotten again until another time */
		result = gt_lock(objects, &row, LockTupleExclusive, true);
		busy += result == GT_BUSY;
		if (result == GT_LOCKED && GT_CHAR(&row, O_STATE) == GT_STATE_FORGOTTEN && GT_TIME(&row, O_DUE_AT) <= now)
			gt_delete(objects, &row);
	}
	gt_scan_end(scan);
	return busy;
}

/*
 * They go when that is past.  What others have locked is not looked at again at
 * once, the less so the more there is of it; and dead entries of those that have gone
 * are not walked over each time (low.c).
 */
static void
forget_forgotten(GtPass *pass)
{
	static TimestampTz not_before = 0;
	TimestampTz now = gt_now();
	TimestampTz next = GT_NEVER;
	TimestampTz first = GT_NEVER;
	TimestampTz from;
	bool		all;
	int			busy;
	GtLow		low;
	GtTable		objects;

	if (now < not_before)
	{
		pass->next = Min(pass->next, not_before);
		return;
	}
	gt_low_recall(&low, GT_OBJECT_DUE, NO_HANDLER);
	all = gt_low_all_is_due(&low, now);
	from = all ? PG_INT64_MIN : low.low;
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	busy = forget_from(&objects, from, now, &first, &next);
	if (first == GT_NEVER && !all)
	{
		all = now >= gt_low_all_from(&low);
		if (all)
			busy = forget_from(&objects, from = PG_INT64_MIN, now, &first, &next);
		else
			next = gt_low_all_from(&low);
	}
	else if (!all)
		next = Min(next, gt_low_late_from(&low));
	gt_close(&objects);
	if (all)
		gt_low_looked_at_all(&low, now);
	gt_low_found(&low, from, first, now);
	gt_low_remember(&low);
	not_before = now + busy * FORGET_AGAIN;
	pass->next = Min(pass->next, Max(next, not_before));
}

/*
 * Nothing more is chosen.  Whoever comes next begins anew with a batch that is
 * being halved: with as few objects as came next here, or where each turn ends
 * before the culprit is found, it never is.
 */
static void
choose_nothing(GtCleaner *c)
{
	if (c->nparts > 0)
		gt_batch_set_limit(c->handler, c->part_n[c->nparts - 1]);
	c->nparts = 0;
	c->proposed = 0;
}

void
gt_clean_step(GtCleaner *c, int max_items, const GtChoosing *choosing, GtPass *pass)
{
	bool		turn_over;
	MemoryContext old;

	MemoryContextReset(c->run_context);
	old = MemoryContextSwitchTo(c->run_context);
	pass->done = 0;
	pass->more = false;
	pass->next = GT_NEVER;
	pass->waits = InvalidOid;
	pass->looked_at = 0;
	c->seen.ttl = 0;			/* of a transaction that has failed */
	c->attended = false;
	if (gt_clean_has_failed(c))
	{
		/* our own record is to be judged first */
		pass->next = gt_now() + GT_BUSY_FIRST;
		MemoryContextSwitchTo(old);
		return;
	}
	c->begun = gt_clean_pending(c);
	c->choosing = max_items > 0 ? choosing : NULL;
	if (c->optimistic)
		gt_optimistic_pass(c, pass);
	else if (c->nitems > 0)
		run_recorded(c, pass);
	max_items -= pass->done;
	if (max_items > 0 && !c->own_only)
		forget_forgotten(pass);
	if (!c->own_only)
		gt_ttl_forget_gone();
	turn_over = c->begun && gt_slot_turn_over();
	if (turn_over)
		pass->next = gt_now();	/* for others, or for us where nobody needs the slot any more */
	if (gt_database_paused() || max_items <= 0 || turn_over)
		choose_nothing(c);
	else
	{
		gt_clean_choose(c, max_items, pass);
		gt_optimistic_choose(c, pass);
	}
	gt_clean_write_record(c);
	pass->more = gt_clean_pending(c);
	GT_POINT("clean_chosen");
	MemoryContextSwitchTo(old);
}
