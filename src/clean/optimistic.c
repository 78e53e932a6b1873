/*-------------------------------------------------------------------------
 *
 * optimistic.c
 *	  Leases are ended and their objects cleaned in one transaction.
 *
 * The ordinary way ends leases in one transaction and cleans in others: the garbage
 * that it writes in between, for most of it to be deleted a moment later, is the
 * greater part of what a reclaimed lease costs.  Workers save that for handlers of
 * whose runs it is to be expected that they go well and soon, in a pass of its own:
 *
 *		T(n-1)	commits, with the outcome of what it was at, a record (record.c): this
 *				worker is going to make a pass over leases of this handler
 *		T(n)	chooses leases that are due, as an expiry pass does, and at once lets
 *				others choose; of these it takes those of its handler only
 *				in one subtransaction: ends them and takes their objects away (take.c),
 *				and runs the handler, to which they are garbage
 *				success: history, counters, what the runs came to; leaves children behind
 *				failure: the subtransaction is rolled back, and all of them become
 *				garbage, uncharged: the ordinary way finds the culprit.  So it is, too,
 *				when somebody locks an object after its lease is deleted
 *				what did not fit (other leases on the object, not over any more) goes the
 *				ordinary way of gt_end(), after the run
 *				chooses what is next, and writes its record over its own
 *
 * Garbage comes first: between two passes the queues are looked at, and only where
 * there is nothing of another handler for this process to run it goes on so.  What
 * the same handler has there takes turns with its leases.  While a run of
 * another handler is on record leases end in the ordinary way, and have their turn as
 * garbage: so a pass is never more than what a run would be.
 *
 * What a crash leaves:
 *		before T(n-1) commits		leases that are over, and nothing on record
 *		between the two, or in T(n)	the same leases and the record: nobody was ended,
 *									nothing was cleaned, nobody is charged.  Whoever finds
 *									a record without its process (crash.c) says, in a row
 *									beside the records, that the handler is to be handled
 *									with care: for ten minutes all of it goes the ordinary
 *									way, where crashes are judged, and objects run alone.
 *									After a shutdown, or whatever else is nobody's doing, the
 *									record just goes.
 *		after T(n) commits			nothing: objects, leases and the handler's work are one
 *
 * A transaction that fails outside of the handler's subtransaction is as a crash.
 *
 * Who may not make one more, for as many as may are at it and none of them lasts, leaves the
 * leases to those: were they ended beside them in the ordinary way, each would cost more
 * than with them, and be cleaned no sooner.
 *
 * Which handlers: sql and sql_batch, without grace, limits or a ramp after a resume;
 * not paused, not suspended, with no crash on their account; whose last run went well,
 * in less than a second, and that this worker may start (slots.c).  Where a pass
 * fails the handler rests for a while, so that one bad object does not cost each
 * batch twice.  Within a run its object has to be garbage, which is not written here:
 * a run that asks for anything of leases or garbage is rolled back, and its handler goes
 * the ordinary way for long.
 *
 * Others: who waits for the row of an object or a lease (a create, gt_release())
 * finds it gone.  The token of choosing is handed on before the handler runs, and
 * what is in hand is a hint that counts only while the run is quick (worker.c).
 * Only leases of this handler are locked while it runs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/point.h"
#include "base/settings.h"
#include "clean/cleaner.h"
#include "clean/marks.h"
#include "clean/optimistic.h"
#include "clean/record.h"
#include "clean/take.h"
#include "garbage/garbage.h"
#include "garbage/history.h"
#include "handler/admit.h"
#include "handler/beside.h"
#include "handler/command.h"
#include "handler/rates.h"
#include "handler/run.h"
#include "handler/slots.h"
#include "handler/tally.h"
#include "handler/turns.h"
#include "handler/use.h"
#include "shared/counts.h"

#define REST			USECS_PER_SEC	/* of a handler, after a pass that failed, at least, */
#define REST_FACTOR		20		/* and so many times what that took; */
#define BUSY_REST		(10 * USECS_PER_SEC)	/* after one that found nothing but what others have locked, and no other worker was at it, */
#define LONG_REST		(10 * USECS_PER_MINUTE) /* and after one that asked for what is not there */
#define MAX_VERDICTS	8		/* handlers of one pass that are asked for */

/* ---------------------------------------------------------------- whose leases */

/* May leases of this handler be ended and their objects cleaned in one, by this process, now? */
static bool
is_eligible(GtCleaner *c, int id, GtHandler *h)
{
	TimestampTz when;

	return gt_handler_by_id(id, h) && GT_KIND_IS_SQL(h->kind) && h->grace == 0 && !h->paused && h->crashes == 0 &&
		h->rate_limit == 0 && h->concurrency == 0 && gt_slot_is_for(gt_handler_role(h)) &&
		gt_handler_is_reliable(h) && gt_rate_allows(h, GT_RUNS, GT_MAX_ITEMS, &when) == GT_MAX_ITEMS &&
		gt_handler_suspended(h) == NULL && !gt_clean_is_careful(c, id);
}

/* By its row alone, which says what it was created for. */
static bool
is_lease_of(const GtLeaseKey *key, int handler)
{
	return !key->row->isnull[L_HANDLER] && GT_INT32(key->row, L_HANDLER) == handler && gt_may_take_object(key);
}

/* What has been found out of the handlers of one pass. */
typedef struct Verdicts
{
	int			n;
	int			handler[MAX_VERDICTS];
	bool		eligible[MAX_VERDICTS];
} Verdicts;

/* The handler in a pass of which this lease can end; 0: none. */
static int
handler_for(GtCleaner *c, Verdicts *v, const GtLeaseKey *key)
{
	int			id = key->row->isnull[L_HANDLER] ? 0 : GT_INT32(key->row, L_HANDLER);
	GtHandler	h;
	int			i;

	if (id == 0 || !is_lease_of(key, id))
		return 0;
	for (i = 0; i < v->n && v->handler[i] != id; i++)
		;
	if (i == MAX_VERDICTS)
		return 0;
	if (i == v->n)
	{
		v->handler[i] = id;
		v->eligible[i] = is_eligible(c, id, &h);
		v->n++;
	}
	return v->eligible[i] ? id : 0;
}

static void
swap(GtLeaseKey *a, GtLeaseKey *b)
{
	GtLeaseKey	save = *a;

	*a = *b;
	*b = save;
}

/* ---------------------------------------------------------------- what an expiry pass leaves */

static int
leave(GtLeaseKey *keys, int n, GtExpiry *result, void *arg)
{
	GtCleaner  *c = arg;
	Verdicts	verdicts = {0};
	bool		none = c->declined || gt_clean_has_failed(c) || n == 0 || gt_database_paused();
	int			m = 0;
	int			i;

	c->declined = false;
	c->proposed = 0;
	if (none)
		return n;
	for (i = 0; i < n; i++)
	{
		int			handler = handler_for(c, &verdicts, &keys[i]);

		keys[i].left = handler != 0 && (c->nitems == 0 || handler == c->handler);
		if (!keys[i].left)
			swap(&keys[i], &keys[m++]);
		else if (c->proposed == 0)
			c->proposed = handler;
	}
	return m;
}

void
gt_optimistic_division(GtCleaner *c, GtDivision *division)
{
	memset(division, 0, sizeof(*division));
	division->divide = leave;
	division->arg = c;
}

/* ---------------------------------------------------------------- the pass */

typedef struct Whole
{
	GtCleaner  *c;
	GtHandler	h;
	GtTable		objects;
	GtTable		leases;
	GtLeaseKey *keys;			/* of the handler */
	int			nkeys;
	int			next;			/* of them, to be taken */
	bool		numbered;		/* somebody is to see the cleanup ids */
	bool		lost;			/* an object was not to be had: it is all to be undone */
	bool		others;			/* there are leases that are due and not of the handler */
	int			other;			/* whose those can be; 0: an expiry pass is to end some */
	bool		rest;			/* and some of the handler */
} Whole;

/* In the subtransaction of the run. */
static int
take(GtItem *items, int want, void *arg)
{
	Whole	   *w = arg;
	GtTaking	taking = {&w->objects, &w->leases, w->h.id, w->keys, w->nkeys, w->next};
	GtRow	  **rows = palloc(want * sizeof(GtRow *));
	int			n;
	int			i;

	for (i = 0; i < want; i++)
		rows[i] = &items[i].row;
	n = gt_take(&taking, rows, want);
	w->next = taking.next;
	w->lost = n < 0;
	if (w->numbered && n > 0)
		gt_garbage_number(items, n);
	for (i = 0; i < n; i++)
		items[i].attempt = 1;
	pfree(rows);
	GT_POINT("whole_taken");
	return n;
}

/* What the history is to tell of the items, whose leases have ended at that time. */
static void
write_history(Whole *w, const GtItem *items, int n, TimestampTz at)
{
	GtEvents   *events = gt_events_begin(&w->h);
	TimestampTz now = gt_now();
	int			told = 0;
	int			i;

	if (events == NULL)
		return;
	for (i = 0; i < w->next && told < n; i++)
		if (w->keys[i].ended)
		{
			const GtItem *item = &items[told++];

			gt_events_add(events, at, w->keys[i].row->v[L_SERVICE_ID], now, item, gt_garbage_lag(&item->row, &w->h, now));
		}
	gt_events_end(events);
}

/* All have gone well. */
static void
write_success(Whole *w, GtItem *items, int n, TimestampTz start)
{
	int64		longest = 0;
	int			i;

	write_history(w, items, n, start);
	for (i = 0; i < n; i++)
	{
		GtItem	   *item = &items[i];

		longest = Max(longest, item->took);
		gt_observe_cleanup(w->h.id, w->h.owner, true, item->took, Max(start - GT_TIME(&item->row, O_SINCE), 0));
		if (w->h.kind == GT_KIND_SQL)
			start += item->took;
	}
	gt_end_finish(&w->leases, w->keys, w->next);
	gt_tally(&w->h, n, 0, NULL);
	gt_handler_ran(&w->h, longest > GT_SLOW);
	if (w->h.kind == GT_KIND_SQL_BATCH)
		gt_batch_set_limit(w->h.id, 2 * gt_batch_limit(w->h.id));
}

/* Nothing was done: what has been taken is to become garbage. */
static void
write_failure(Whole *w, TimestampTz start, bool looked)
{
	int64		took = gt_now() - start;
	int			i;

	for (i = 0; i < w->nkeys; i++)
		w->keys[i].ended = false;
	if (w->lost)
		return;					/* it was not the handler's doing */
	gt_handler_proved(&w->h, false);
	gt_handler_rests(&w->h, looked ? LONG_REST : Max(REST, REST_FACTOR * took));
	if (took > GT_SLOW)
		gt_handler_ran(&w->h, true);
}

/* Which of the chosen are of the handler? They come first. */
static void
sort_out(Whole *w, GtLeaseKey *keys, int n)
{
	Verdicts	verdicts = {0};
	int			i;

	w->keys = keys;
	for (i = 0; i < n; i++)
	{
		if (is_lease_of(&keys[i], w->h.id))
		{
			swap(&keys[i], &keys[w->nkeys++]);
			continue;
		}
		keys[i].left = true;
		if (!w->others)
			w->other = handler_for(w->c, &verdicts, &keys[i]);
		else if (w->other != 0 && handler_for(w->c, &verdicts, &keys[i]) == 0)
			w->other = 0;
		w->others = true;
	}
}

/*
 * Lets others choose, and wakes somebody for what they can do: for leases of the handler
 * only where it may have one more pass.
 */
static void
hand_on(Whole *w, GtExpiry *chosen)
{
	bool		more = chosen->more || w->others;

	chosen->more = w->others || (more && !gt_slot_passes_are_full(&w->h));
	w->c->choosing->hand_on(chosen);
	chosen->more = more;
}

static int
end_and_clean(GtLeaseKey *keys, int n, GtExpiry *result, void *arg)
{
	Whole	   *w = arg;
	int			room;
	int			ran;
	GtItem	   *items;
	TimestampTz start;
	bool		looked;
	int			m = 0;
	int			i;

	sort_out(w, keys, n);
	hand_on(w, result);
	GT_POINT("whole_chosen");
	if (w->nkeys == 0)
		return 0;
	room = w->h.kind == GT_KIND_SQL_BATCH ? Min(w->nkeys, gt_batch_limit(w->h.id)) : w->nkeys;
	items = palloc0(room * sizeof(GtItem));
	w->numbered = gt_history == GT_HISTORY_ALL || (gt_command_mentions(w->h.command) & GT_MENTIONS_CLEANUP_ID) != 0;
	start = gt_now();
	ran = gt_run_whole(&w->h, items, room, take, w, &looked);
	GT_POINT("whole_run");
	if (ran < 0)
	{
		write_failure(w, start, looked);
		return w->nkeys;
	}
	if (ran > 0)
		write_success(w, items, ran, start);
	for (i = 0; i < w->nkeys; i++)
	{
		keys[i].left = i >= w->next;
		w->rest = w->rest || keys[i].left;
		if (!keys[i].left && !keys[i].ended)
			swap(&keys[i], &keys[m++]);
	}
	return m;
}

void
gt_optimistic_pass(GtCleaner *c, GtPass *pass)
{
	Whole	   *w = palloc0(sizeof(Whole));
	GtDivision	division = {end_and_clean, w, true};
	bool		beside;
	GtExpiry   *expiry;

	c->optimistic = false;
	c->in_turn = true;
	w->c = c;
	if (c->choosing == NULL || gt_database_paused() || !is_eligible(c, c->handler, &w->h))
	{
		c->declined = true;
		pass->next = gt_now();
		return;
	}
	expiry = c->choosing->expiry;
	beside = gt_beside_runs();
	gt_open(&w->objects, GT_OBJECT, RowExclusiveLock);
	gt_open_index(&w->objects, GT_OBJECT_PKEY);
	gt_open(&w->leases, GT_LEASE, RowExclusiveLock);
	gt_expire_pass(c->choosing->limit, false, NULL, &division, expiry);
	gt_close(&w->leases);
	gt_close(&w->objects);
	GT_POINT("whole_written");
	pass->done += expiry->ended;
	if (!w->others && (w->rest || expiry->more))
		c->proposed = w->h.id;
	else
		c->proposed = w->other;
	pass->next = Min(pass->next, w->others && w->other == 0 ? gt_now() : expiry->next);
	if (expiry->busy > 0)
		pass->next = Min(pass->next, gt_now() + GT_BUSY_FIRST);
	/* expiry passes wait ever longer for that; but another worker, held up for more than a turn, has soon done */
	if (expiry->busy > 0 && expiry->ended == 0)
		gt_handler_rests(&w->h, beside ? REST : BUSY_REST);
}

/* Garbage that was chosen of the same handler stays where it is, if some was run in this step. */
void
gt_optimistic_choose(GtCleaner *c, GtPass *pass)
{
	bool		first = c->nitems == 0 || (c->handler == c->proposed && !c->in_turn && !c->alone && c->nparts == 0 && c->current_part < 0);
	GtHandler	h;
	bool		may;

	c->in_turn = false;
	if (c->proposed == 0)
		return;
	may = first && c->choosing != NULL && is_eligible(c, c->proposed, &h);
	c->optimistic = may && gt_slot_reserve_pass(&h);
	c->attended = may && !c->optimistic && c->nitems == 0 && gt_slot_passes_are_full(&h);
	c->declined = !c->optimistic && !c->attended && (c->nitems == 0 || c->handler != c->proposed);
	if (c->optimistic)
	{
		c->handler = h.id;
		c->alone = false;
		c->nitems = 0;
	}
	else if (c->attended)
		pass->next = Min(pass->next, gt_now() + GT_BUSY_FIRST);
	else
		pass->next = gt_now();	/* they are to be ended by whoever comes first */
	c->proposed = 0;
}
