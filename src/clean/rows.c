/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Runs of row TTLs in a chain of runs.
 *
 * For who may start what when (slots, rates, turns of roles) a row TTL is a handler,
 * and a batch of its rows one run of it; a number that nobody else draws stands for
 * the rows where cleanup ids would.  Which rows those are is found in the transaction
 * that deletes them: see ttl.c.
 *
 * Workers go by what shared memory has of each table (rows_due.c), and tell it what they
 * have seen once that is committed.  A session in gt_reclaim() looks at each table,
 * until nothing more is due there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "base/point.h"
#include "clean/cleaner.h"
#include "clean/rows.h"
#include "handler/rates.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "lease/start.h"
#include "shared/due.h"
#include "shared/observe.h"
#include "ttl/rows.h"

#define FIRST_BATCH 100			/* rows, of a table of which nobody knows how long it takes */

TimestampTz
gt_clean_rows_due(GtCleaner *c, int ttl)
{
	if (gt_my_slot == NULL)
		return list_member_int(c->looked_at, ttl) ? GT_NEVER : 0;
	return c->seen.ttl == ttl ? c->seen.next : gt_rows_due(ttl);
}

/* How many rows one run may have; 0: none before *when. */
static int
rows_limit(const GtHandler *h, int max_items, TimestampTz *when)
{
	GtTtl	   *t = gt_ttl_by_id(h->id);
	int			limit = t != NULL && t->batch_size > 0 ? t->batch_size : gt_batch_size;
	int			known = gt_batch_limit(h->id);

	if (known < GT_MAX_ITEMS)
		limit = Min(limit, known);
	if (gt_handler_speed(h) == GT_SPEED_UNKNOWN)
		limit = Min(limit, FIRST_BATCH);
	return gt_rate_allows(h, GT_RUNS, Min(limit, max_items), when);
}

bool
gt_clean_rows_take(GtCleaner *c, const GtHandler *h, int max_items, TimestampTz until, TimestampTz *when)
{
	int			limit = rows_limit(h, max_items, when);
	int64		item = -(int64) (pg_prng_uint64(&pg_global_prng_state) >> 2) - 1;
	TimestampTz later;
	int			n = 1;

	if (limit == 0 || !gt_slot_reserve(h, false, &item, &n, PG_INT64_MIN, when) || n == 0)
		return false;
	if (limit > 1)
		limit = 1 + gt_rate_take(h, GT_RUNS, limit - 1, &later);
	c->items[0] = item;
	c->nitems = 1;
	c->rows = limit;
	c->handler = h->id;
	c->alone = false;
	c->current_part = -1;
	return true;
}

/* In a session: what the rows have become is due in this call, too. */
static void
go_on_until_now(GtCleaner *c, const GtTtl *t)
{
	if (c->until != 0 && t->cleanup != 0)
		c->until = gt_now();
}

/* What a session has seen. */
static void
note_looked_at(GtCleaner *c, const GtRowsRun *run)
{
	MemoryContext old;

	c->rows_low = run->seen.low;
	c->rows_low_of = run->ttl->id;
	if (run->more)
		return;
	old = MemoryContextSwitchTo(GetMemoryChunkContext(c));
	c->looked_at = lappend_int(c->looked_at, run->ttl->id);
	MemoryContextSwitchTo(old);
}

void
gt_clean_rows_run(GtCleaner *c, GtPass *pass)
{
	GtTtl	   *t = gt_ttl_by_id(c->handler);
	GtRowsRun	run;
	TimestampTz taken = gt_now() + GT_SLOW;

	memset(&run, 0, sizeof(run));
	run.limit = c->rows;
	c->rows = 0;
	if (t == NULL || t->h.paused || !gt_slot_is_for(t->h.run_as) || gt_ttl_suspended(t) != NULL)
	{
		if (t != NULL)
			gt_rate_give_back(&t->h, GT_RUNS, run.limit);
		return;
	}
	run.ttl = t;
	run.in_block = c->own_only;
	run.not_before = gt_start_after_outage();
	run.low = c->rows_low_of == t->id ? c->rows_low : 0;
	if (gt_my_slot != NULL)
		gt_rows_take(t->id, t->h.owner, taken, &run.low);
	gt_slot_set_state(GT_SLOT_CLEANING);
	gt_rows_run(&run);
	GT_POINT("rows_done");
	pass->done += run.done;
	if (run.done > 0)
		go_on_until_now(c, t);
	run.seen.taken = taken;
	if (gt_my_slot != NULL)
		c->seen = run.seen;
	else
		note_looked_at(c, &run);
}

/* A worker's. */
void
gt_clean_rows_committed(GtCleaner *c)
{
	if (c->seen.ttl != 0)
		gt_due_at(gt_my_database(), gt_rows_seen(&c->seen));
	c->seen.ttl = 0;
}

int
gt_clean_rows_try_again(GtCleaner *c, const GtHandler *h, GtTable *objects, GtItem *items, int n,
						bool (*judge) (GtItem *item, void *arg), void *arg)
{
	GtTtl	   *t = gt_ttl_by_id(h->id);
	int			tried;

	if (t == NULL)
		return 0;
	tried = gt_rows_try_again(t, objects, items, n, c->own_only, gt_start_after_outage(), judge, arg);
	go_on_until_now(c, t);
	return tried;
}
