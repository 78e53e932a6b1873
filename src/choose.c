/*-------------------------------------------------------------------------
 *
 * choose.c
 *	  Which objects are run next.
 *
 * Handlers are asked in turn, beginning after the one that was served last: the
 * first that has due garbage, and may be started by the rules of slots.c, is
 * chosen with as many objects as one run may have.  Those after it are asked when
 * they are due: somebody else may have to begin with them while we run.
 *
 * Nothing is locked and nothing written: see clean.c for why that is enough.
 * Objects that other processes have in hand are passed over, and so are for a
 * while those that were locked when we tried.  An object that was in a crashed
 * run is chosen by itself, and passed over while it may not start (slots.c): those
 * behind it do not wait for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"
#include "handler.h"

typedef struct Found
{
	int64		id;				/* first, for gt_by_id() */
	ItemPointerData tid;
} Found;

/* What one look at a handler's queue found. */
typedef struct Look
{
	int			n;
	Found	   *found;
	bool		alone;
	TimestampTz upto;			/* due time of the last of them */
	TimestampTz rest;			/* when what was not taken is due */
} Look;

static bool
contains(const int64 *ids, int n, int64 id)
{
	return n > 0 && bsearch(&id, ids, n, sizeof(int64), gt_by_id) != NULL;
}

/* See clean.h. */
GtLow *
gt_low_of(GtLow *lows, int handler)
{
	GtLow	   *oldest = &lows[0];
	int			i;

	for (i = 0; i < GT_LOWS; i++)
	{
		if (lows[i].handler == handler)
			return &lows[i];
		if (lows[i].looked_at_all < oldest->looked_at_all)
			oldest = &lows[i];
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
	while (gt_scan_next_brief(scan, &row))
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
		if (GT_BOOL(&row, O_ALONE) && c->alone_from > until)
		{
			look->rest = Min(look->rest, c->alone_from);
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
		look->found[look->n].id = id;
		look->found[look->n++].tid = row.tid;
		look->upto = due_at;
	}
	gt_scan_end(scan);
}

/*
 * The same from where on there was anything when we last looked: the entries of
 * what has been cleaned stay at the low end until they are vacuumed, and a long
 * snapshot elsewhere keeps them there.  What others have in hand comes before the
 * rest, too.  Where that leaves nothing to run, or the last look at all of it was
 * a while ago, all of it is looked at.
 */
static void
collect(GtCleaner *c, GtTable *objects, const GtHandler *h, int limit, TimestampTz until,
		const int64 *others, int nothers, Look *look)
{
	GtLow	   *low = gt_low_of(c->lows, h->id);
	TimestampTz now = gt_now();
	TimestampTz upto = gt_slot_others_upto(h->id);
	TimestampTz first = low->low;

	look->found = palloc(limit * sizeof(Found));
	look->n = 0;
	if (now < low->looked_at_all + GT_LOOK_AT_ALL && upto > low->low)
	{
		TimestampTz beyond;

		look_from(c, objects, h, upto, limit, until, others, nothers, look, &beyond);
	}
	else if (now < low->looked_at_all + GT_LOOK_AT_ALL)
		look_from(c, objects, h, low->low, limit, until, others, nothers, look, &first);
	if (look->n == 0)
	{
		low->looked_at_all = now;
		look_from(c, objects, h, PG_INT64_MIN, limit, until, others, nothers, look, &first);
	}
	low->low = Min(first, now - USECS_PER_SEC);
	qsort(look->found, look->n, sizeof(Found), gt_by_id);
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
	int			n = look->n;
	int			i;

	for (i = 0; i < n; i++)
		c->items[i] = look->found[i].id;
	if (!gt_slot_reserve(h, look->alone, c->items, &n, look->upto, when) || n == 0)
		return false;
	gt_rate_take(h, h->kind == GT_KIND_SQL_BATCH ? 1 : n);
	for (i = 0; i < n; i++)
		c->tids[i] = ((Found *) bsearch(&c->items[i], look->found, look->n, sizeof(Found), gt_by_id))->tid;
	c->nitems = n;
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
	int			i;

	c->nitems = c->part_n[part];
	c->current_part = c->part_start[part];
	memcpy(c->items, c->part_items + c->current_part, c->nitems * sizeof(int64));
	for (i = 0; i < c->nitems; i++)
		ItemPointerSetInvalid(&c->tids[i]);
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

/* In a block of the caller's: is this handler the caller's own, and its SQL nobody else's? */
static bool
is_own(const GtHandler *h)
{
	return gt_acts_for(h->owner) && (!GT_KIND_IS_SQL(h->kind) || h->run_as == GetUserId());
}

/* Chooses the next run, at most max_items objects; pass->next: when what is left is due. */
void
gt_clean_choose(GtCleaner *c, int max_items, GtPass *pass)
{
	TimestampTz until = c->until != 0 ? c->until : gt_now();
	List	   *handlers = gt_handler_list();
	int			n = list_length(handlers);
	int			first = 0;
	int			nothers;
	int64	   *others = gt_slot_others(&nothers);
	GtTable		objects;
	int			i;

	gt_plans_keep(handlers);
	c->current_part = -1;
	c->alone_from = gt_slot_alone_from();
	if (c->nparts > 0)
		take_part(c);
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	while (first < n && ((GtHandler *) list_nth(handlers, first))->id <= c->last_handler)
		first++;
	for (i = 0; i < n && !(c->nitems > 0 && pass->next <= until); i++)
	{
		GtHandler  *h = list_nth(handlers, (first + i) % n);

		if (c->own_only && !is_own(h))
			continue;
		if (GT_KIND_IS_EXTERNAL(h->kind) || h->paused || (c->current_part >= 0 && h->id == c->handler))
			continue;			/* of a batch that is being halved the rest is in hand */
		consider(c, &objects, h, max_items, until, others, nothers, pass);
	}
	gt_close(&objects);

	/* nothing for us: whatever it is, it is not to be looked at without end */
	if (c->nitems == 0 && pass->next <= until)
		pass->next = until + GT_BUSY_FIRST;
}
