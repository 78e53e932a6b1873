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

#include "access/stratnum.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"

#define BUSY_FIRST	(20 * 1000)	/* us until an object that was locked is tried again; doubles */
#define BUSY_LAST	(2 * USECS_PER_SEC)
#define LOOK_AT_ALL (10 * USECS_PER_SEC)	/* the low end of a queue is looked at as often */

/* What one look at a handler's queue found. */
typedef struct Look
{
	int			n;
	int64	   *items;
	bool		alone;
	TimestampTz rest;			/* when what was not taken is due */
} Look;

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

static int
by_id(const void *a, const void *b)
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
	qsort(c->busy, c->nbusy, sizeof(int64), by_id);
	c->busy_delay = c->busy_delay == 0 ? BUSY_FIRST : Min(2 * c->busy_delay, BUSY_LAST);
	c->busy_until = now + c->busy_delay;
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
		Datum		key = Int64GetDatum(c->items[i]);
		GtLockResult result;

		result = gt_fetch_lock(objects, GT_OBJECT_CLEANUP, 1, &key, row, LockTupleExclusive, true);
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

/* Adds to what is known of the handler's runs; each writer has its own row. */
void
gt_clean_tally(const GtHandler *h, int runs, int failures, const char *error)
{
	int			slot = gt_my_slot != NULL ? (int) (gt_my_slot - gt_shared->slots) : 1000 + MyProcPid % 16;
	Datum		now = TimestampTzGetDatum(gt_now());
	GtTable		tally;
	GtRow		row;
	Datum		key[2];

	key[0] = Int32GetDatum(h->id);
	key[1] = Int32GetDatum(slot);
	gt_open(&tally, GT__TALLY, RowExclusiveLock);
	while (gt_fetch_lock(&tally, GT__TALLY_PKEY, 2, key, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED)
	{
		gt_row_init(&row);
		GT_SET(&row, T_HANDLER, key[0]);
		GT_SET(&row, T_SLOT, key[1]);
		GT_SET(&row, T_RUNS, Int64GetDatum(0));
		GT_SET(&row, T_FAILURES, Int64GetDatum(0));
		(void) gt_insert_unique(&tally, &row, GT__TALLY_PKEY);
	}
	GT_SET(&row, T_RUNS, Int64GetDatum(GT_INT64(&row, T_RUNS) + runs));
	GT_SET(&row, T_FAILURES, Int64GetDatum(GT_INT64(&row, T_FAILURES) + failures));
	GT_SET(&row, T_LAST_RUN_AT, now);
	if (error != NULL)
	{
		GT_SET(&row, T_LAST_ERROR, CStringGetTextDatum(error));
		GT_SET(&row, T_LAST_ERROR_AT, now);
	}
	gt_update(&tally, &row);
	gt_close(&tally);
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

/* Writes what came of the items that were run, beginning at `start`. */
static void
write_outcomes(GtCleaner *c, const GtHandler *h, GtTable *objects, GtItem *items, int n, TimestampTz start)
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
		if (gt_lock(objects, row, LockTupleExclusive, false) != GT_LOCKED ||
			row->isnull[O_CLEANUP_ID] || GT_INT64(row, O_CLEANUP_ID) != item->cleanup_id ||
			GT_CHAR(row, O_STATE) != 'w')
			continue;
		if (item->done)
			gt_garbage_done(objects, row, h, item->attempt, item->took);
		else if (item->excused)
			gt_garbage_excused(objects, row, h, item->error, item->evicted, -1);
		else
		{
			gt_garbage_failed(objects, row, h, item->attempt, item->error, -1, item->took);
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
		gt_clean_tally(h, halve ? 0 : n, failures, error);
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
		gt_clean_tally(&h, locked, 0, NULL);
		gt_handler_ran(&h, false);
		pass->done += locked;
	}
	else if (locked > 0)
	{
		TimestampTz start = gt_now();

		locked = gt_run_sql(&h, items, locked);
		GT_POINT("run_done");
		write_outcomes(c, &h, &objects, items, locked, start);
		pass->done += locked;
	}
	gt_close(&objects);
	if (c->alone && locked > 0)
		forget_crashes(&h);
	GT_POINT("outcome_written");
}

/* ---------------------------------------------------------------- the choice */

static bool
contains(const int64 *ids, int n, int64 id)
{
	return n > 0 && bsearch(&id, ids, n, sizeof(int64), by_id) != NULL;
}

static GtLow *
low_of(GtCleaner *c, int handler)
{
	GtLow	   *oldest = &c->lows[0];
	int			i;

	for (i = 0; i < GT_LOWS; i++)
	{
		if (c->lows[i].handler == handler)
			return &c->lows[i];
		if (c->lows[i].looked_at_all < oldest->looked_at_all)
			oldest = &c->lows[i];
	}
	oldest->handler = handler;
	oldest->low = PG_INT64_MIN;
	oldest->looked_at_all = 0;
	return oldest;
}

/* Looks at the queue of a handler from due time `low` on. *first: due time of the first object there. */
static void
look_from(GtCleaner *c, GtTable *objects, const GtHandler *h, TimestampTz low, int limit, TimestampTz until,
		  const int64 *others, int nothers, Look *look, TimestampTz *first)
{
	Datum		key = Int32GetDatum(h->id);
	GtScan	   *scan;
	GtRow		row;

	look->n = 0;
	look->alone = false;
	look->rest = GT_NEVER;
	*first = GT_NEVER;
	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTGreaterEqualStrategyNumber,
							   TimestampTzGetDatum(low));
	while (gt_scan_next(scan, &row))
	{
		TimestampTz due_at = GT_TIME(&row, O_DUE_AT);
		int64		id;

		*first = Min(*first, due_at);
		if (due_at > until)
		{
			look->rest = Min(look->rest, due_at);
			break;
		}
		if (row.isnull[O_CLEANUP_ID] || (GT_CHAR(&row, O_STATE) != 'w' && h->kind != GT_KIND_NOTIFY))
			continue;
		id = GT_INT64(&row, O_CLEANUP_ID);
		if (contains(others, nothers, id))
			continue;			/* in hand elsewhere */
		if (c->busy_until > until && contains(c->busy, c->nbusy, id))
		{
			look->rest = Min(look->rest, c->busy_until);
			continue;
		}
		if (look->n >= limit || look->alone || (GT_BOOL(&row, O_ALONE) && look->n > 0))
		{
			look->rest = Min(look->rest, due_at);
			if (look->n >= limit || look->alone)
				break;
			continue;
		}
		look->alone = GT_BOOL(&row, O_ALONE);
		look->items[look->n++] = id;
	}
	gt_scan_end(scan);
}

/*
 * The same from where on there was anything when we last looked: the entries of
 * what has been cleaned stay at the low end until they are vacuumed, and a long
 * snapshot elsewhere keeps them there.
 */
static void
collect(GtCleaner *c, GtTable *objects, const GtHandler *h, int limit, TimestampTz until,
		const int64 *others, int nothers, Look *look)
{
	GtLow	   *low = low_of(c, h->id);
	TimestampTz now = gt_now();
	TimestampTz first;

	look->items = palloc(limit * sizeof(int64));
	look->n = 0;
	if (now < low->looked_at_all + LOOK_AT_ALL)
		look_from(c, objects, h, low->low, limit, until, others, nothers, look, &first);
	if (look->n == 0)
	{
		low->looked_at_all = now;
		look_from(c, objects, h, PG_INT64_MIN, limit, until, others, nothers, look, &first);
	}
	low->low = Min(first, now - USECS_PER_SEC);
	qsort(look->items, look->n, sizeof(int64), by_id);
}

/* How many objects one run of this handler may have now; 0: none before *when. */
static int
run_limit(const GtHandler *h, int max_items, TimestampTz *when)
{
	int			limit = h->kind == GT_KIND_SQL ? GT_MAX_SQL_ITEMS : Min(gt_batch_size, GT_MAX_ITEMS);

	limit = Min(limit, max_items);
	if (h->kind == GT_KIND_SQL_BATCH)
		return gt_rate_allows(h, 1, when) > 0 ? limit : 0;
	return gt_rate_allows(h, limit, when);
}

/* Takes the run, if the rules allow it. */
static bool
take(GtCleaner *c, const GtHandler *h, Look *look, TimestampTz *when)
{
	if (!gt_slot_reserve(h, look->alone, look->items, &look->n, when) || look->n == 0)
		return false;
	gt_rate_take(h, h->kind == GT_KIND_SQL_BATCH ? 1 : look->n);
	memcpy(c->items, look->items, look->n * sizeof(int64));
	c->nitems = look->n;
	c->handler = h->id;
	c->alone = look->alone;
	c->current_part = -1;
	c->last_handler = h->id;
	return true;
}

/* What is left of a failed batch comes first; its handler and its slot are ours already. */
static void
take_part(GtCleaner *c)
{
	int			part = --c->nparts;

	c->nitems = c->part_n[part];
	c->current_part = c->part_start[part];
	memcpy(c->items, c->part_items + c->current_part, c->nitems * sizeof(int64));
	c->alone = false;
}

/* Looks at one handler in its turn: takes a run of it, if none is chosen yet, and tells when others are due. */
static void
consider(GtCleaner *c, GtTable *objects, const GtHandler *h, int max_items, TimestampTz until,
		 const int64 *others, int nothers, GtPass *pass)
{
	TimestampTz when = GT_NEVER;
	bool		chosen = c->nitems > 0;
	int			limit = run_limit(h, max_items, &when);
	Look		look;

	collect(c, objects, h, chosen ? 1 : Max(limit, 1), until, others, nothers, &look);
	if (look.n == 0)
	{
		pass->next = Min(pass->next, look.rest);
		return;
	}
	if (gt_handler_suspended(h) != NULL)
		when = until + (int64) gt_naptime * USECS_PER_SEC;	/* nobody tells when its role comes back */
	else if (chosen && limit > 0)
		when = gt_slot_allows(h, look.alone, &when) ? until : when;
	else if (limit > 0 && take(c, h, &look, &when))
		when = look.rest <= until && h->concurrency == 1 ? GT_NEVER : look.rest;
	pass->next = Min(pass->next, when);
}

static void
choose(GtCleaner *c, int max_items, GtPass *pass)
{
	TimestampTz until = c->until != 0 ? c->until : gt_now();
	List	   *handlers = gt_handler_list();
	int			n = list_length(handlers);
	int			first = 0;
	int			nothers;
	int64	   *others = gt_slot_others(&nothers);
	GtTable		objects;
	int			i;

	c->current_part = -1;
	if (c->nparts > 0)
		take_part(c);
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	while (first < n && ((GtHandler *) list_nth(handlers, first))->id <= c->last_handler)
		first++;
	for (i = 0; i < n && !(c->nitems > 0 && pass->next <= until); i++)
	{
		GtHandler  *h = list_nth(handlers, (first + i) % n);

		if (GT_KIND_IS_EXTERNAL(h->kind) || h->paused || (c->current_part >= 0 && h->id == c->handler))
			continue;			/* of a batch that is being halved the rest is in hand */
		consider(c, &objects, h, max_items, until, others, nothers, pass);
	}
	gt_close(&objects);

	/* nothing for us: whatever it is, it is not to be looked at without end */
	if (c->nitems == 0 && pass->next <= until)
		pass->next = until + BUSY_FIRST;
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
	if (gt_database_paused())
		c->nparts = 0;
	else if (max_items > 0)
		choose(c, max_items, pass);
	gt_clean_write_record(c);
	pass->more = c->nitems > 0;
	GT_POINT("clean_chosen");
	MemoryContextSwitchTo(old);
}
