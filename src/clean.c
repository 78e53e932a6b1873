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
 *				chooses run n+1 and writes its record over that of n (crash.c)
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

#include "clean.h"
#include "compat.h"

#define BUSY_LAST	(2 * USECS_PER_SEC)

/* See garbagetruck.h. `worker`: of a worker process, else of a session. */
GtCleaner *
gt_cleaner_create(bool worker)
{
	GtCleaner  *c = MemoryContextAllocZero(worker ? TopMemoryContext : CurrentMemoryContext, sizeof(GtCleaner));

	c->run_context = AllocSetContextCreate(worker ? TopMemoryContext : CurrentMemoryContext,
										   "garbagetruck run", ALLOCSET_DEFAULT_SIZES);
	c->current_part = -1;
	return c;
}

bool
gt_clean_pending(GtCleaner *c)
{
	return c->nitems > 0;
}

/* See garbagetruck.h. */
void
gt_clean_committed(GtCleaner *c)
{
	c->durable = c->nitems > 0 && !c->unrecorded;
	if (c->nitems > 0)
		gt_slot_committed();
	else
		gt_slot_release();
}

/* ---------------------------------------------------------------- the run */

int
gt_by_id(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* Others have these objects locked: they are passed over for a while, longer each time. */
static void
note_busy(GtCleaner *c, const int64 *ids, int n)
{
	TimestampTz now = gt_now();

	if (now >= c->busy_until)
		c->nbusy = 0;
	if (n == 0)
	{
		if (c->nbusy == 0)
			c->busy_delay = 0;
		return;
	}
	n = Min(n, GT_MAX_ITEMS - c->nbusy);
	memcpy(c->busy + c->nbusy, ids, n * sizeof(int64));
	c->nbusy += n;
	qsort(c->busy, c->nbusy, sizeof(int64), gt_by_id);
	c->busy_delay = c->busy_delay == 0 ? GT_BUSY_FIRST : Min(2 * c->busy_delay, BUSY_LAST);
	c->busy_until = now + c->busy_delay;
}

/* Where it was when it was chosen, if it still is there; else by its id. */
static GtLockResult
lock_item(GtTable *objects, int64 id, ItemPointer tid, GtRow *row)
{
	Datum		key = Int64GetDatum(id);

	if (ItemPointerIsValid(tid) && gt_fetch_version(objects, tid, row) &&
		!row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == id)
		return gt_lock(objects, row, LockTupleExclusive, true);
	return gt_fetch_lock(objects, GT_OBJECT_CLEANUP, 1, &key, row, LockTupleExclusive, true);
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
		GtLockResult result = lock_item(objects, c->items[i], &c->tids[i], row);

		if (result == GT_BUSY)
			busy[nbusy++] = c->items[i];
		if (result != GT_LOCKED ||
			row->isnull[O_CLEANUP_ID] || GT_INT64(row, O_CLEANUP_ID) != c->items[i] ||
			row->isnull[O_HANDLER] || GT_INT32(row, O_HANDLER) != h->id ||
			row->isnull[O_DUE_AT] || GT_TIME(row, O_DUE_AT) > now ||
			(GT_CHAR(row, O_STATE) != 'w' && h->kind != GT_KIND_NOTIFY) ||
			(GT_BOOL(row, O_ALONE) && n > 1))
			continue;
		item->cleanup_id = c->items[i];
		item->attempt = GT_INT32(row, O_ATTEMPTS) + 1;
		locked++;
	}
	note_busy(c, busy, nbusy);
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
	gt_open(&handlers, GT__HANDLER, RowExclusiveLock);
	if (gt_fetch_lock(&handlers, GT__HANDLER_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, false) == GT_LOCKED)
	{
		GT_SET(&row, H_CRASHES, Int32GetDatum(0));
		gt_update(&handlers, &row);
	}
	gt_close(&handlers);
}

/* Writes what came of the items that were run, beginning at `start`. touched: the handler has written gt_object. */
static void
write_outcomes(GtCleaner *c, const GtHandler *h, GtTable *objects, GtItem *items, int n, TimestampTz start,
			   bool touched)
{
	bool		one_run = h->kind == GT_KIND_SQL_BATCH;
	bool		halve = one_run && n > 1 && !items[0].done && !items[0].excused;
	const char *error = NULL;
	int64		longest = 0;
	int			failures = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		GtItem	   *item = &items[i];
		GtRow	   *row = &item->row;
		int64		lag = GT_INT32(row, O_ATTEMPTS) > 0 ? -1 :
			Max(start - (GT_TIME(row, O_SINCE) + h->grace), 0);

		longest = Max(longest, item->took);
		if (!one_run)
			start += item->took;
		if (!item->done && item->error != NULL)
			error = item->error;
		if (halve)
			continue;

		/* the handler may have leased the object, or ended it, by itself */
		if (touched &&
			(gt_lock(objects, row, LockTupleExclusive, false) != GT_LOCKED ||
			 row->isnull[O_CLEANUP_ID] || GT_INT64(row, O_CLEANUP_ID) != item->cleanup_id ||
			 GT_CHAR(row, O_STATE) != 'w'))
			continue;
		if (item->done)
			gt_garbage_done(objects, row, h, item->attempt, item->took);
		else if (item->excused)
			gt_garbage_excused(objects, row, h, item->error, item->evicted, -1);
		else
		{
			gt_garbage_failed(objects, row, h, item->attempt, item->error, GT_BACK_OFF, item->took);
			failures++;
		}
		if (!item->excused)
			gt_observe_cleanup(h, item->done, item->took, lag);
	}
	if (halve)
	{
		int64	   *ids = palloc(n * sizeof(int64));

		for (i = 0; i < n; i++)
			ids[i] = items[i].cleanup_id;
		split(c, ids, n);
	}
	if (n > 0)
	{
		gt_tally(h, halve ? 0 : n, failures, error);
		gt_handler_ran(h, longest > GT_SLOW);
	}
}

/* May this handler be run at all? */
static bool
may_run(const GtHandler *h)
{
	return !GT_KIND_IS_EXTERNAL(h->kind) && !h->paused && gt_handler_suspended(h) == NULL;
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
	if (gt_database_paused() || !gt_handler_by_id(c->handler, &h) || !may_run(&h))
	{
		c->nparts = 0;
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
		uint64		writes = gt_object_writes;

		locked = gt_run_sql(&h, items, locked);
		GT_POINT("run_done");
		write_outcomes(c, &h, &objects, items, locked, start, gt_object_writes != writes);
		pass->done += locked;
	}
	gt_close(&objects);
	if (c->alone && locked > 0)
		forget_crashes(&h);
	GT_POINT("outcome_written");
}

/* Objects of which only regrant_at was left go when that is past. */
static void
forget_forgotten(GtPass *pass)
{
	TimestampTz now = gt_now();
	int			limit = gt_batch_size;
	GtTable		objects;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	scan = gt_scan_begin_null(&objects, GT_OBJECT_DUE);
	while (gt_scan_next(scan, &row))
	{
		if (GT_TIME(&row, O_DUE_AT) > now || --limit < 0)
		{
			pass->next = Min(pass->next, GT_TIME(&row, O_DUE_AT));
			break;
		}
		if (gt_lock(&objects, &row, LockTupleExclusive, true) == GT_LOCKED && GT_CHAR(&row, O_STATE) == 'f')
			gt_delete(&objects, &row);
	}
	gt_scan_end(scan);
	gt_close(&objects);
}

/* See garbagetruck.h. */
void
gt_clean_step(GtCleaner *c, int max_items, GtPass *pass)
{
	MemoryContext old;

	MemoryContextReset(c->run_context);
	old = MemoryContextSwitchTo(c->run_context);
	pass->done = 0;
	pass->next = GT_NEVER;
	max_items -= c->nitems;
	if (c->nitems > 0)
		run_recorded(c, pass);
	if (max_items > 0)
		forget_forgotten(pass);
	if (gt_database_paused() || max_items <= 0)
		c->nparts = 0;
	else
		gt_clean_choose(c, max_items, pass);
	gt_clean_write_record(c);
	pass->more = c->nitems > 0;
	GT_POINT("clean_chosen");
	MemoryContextSwitchTo(old);
}
