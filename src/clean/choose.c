/*-------------------------------------------------------------------------
 *
 * choose.c
 *	  Which objects are run next.
 *
 * Which handlers have garbage at all is read from the index of what is due, so
 * that those without cost nothing.  Their order is made of what is remembered of
 * them in shared memory, and only the rows of those that are considered are read:
 * thousands of one role would else make each choice of all others slow.  Roles are
 * served in turn, and the handlers of each: what was served longest ago comes
 * first.  A worker runs the SQL of one role only (slots.c), that of its first run.
 * The first of the handlers that it may run which has due garbage, and may be
 * started by the rules of admit.c, is chosen with as many objects as one run may
 * have.  Then the rest is looked at, until something is found that another process
 * may start now: it is told of, a role that nobody serves first.
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

#include "clean/busy.h"
#include "clean/choose.h"
#include "clean/cleaner.h"
#include "clean/record.h"
#include "clean/rows.h"
#include "handler/admit.h"
#include "handler/others.h"
#include "handler/plan.h"
#include "handler/rates.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "handler/use.h"
#include "rights/rights.h"
#include "shared/ids.h"
#include "shared/observe.h"
#include "shared/shmem.h"
#include "table/low.h"
#include "table/relations.h"
#include "table/scan.h"
#include "ttl/ttl.h"

#define COST_FACTOR 20			/* all of a queue is looked at only after so many times what the last such look took, */
#define CHEAP 1000				/* us: unless that was as little */

#define LONG	(5 * USECS_PER_SEC)	/* a role whose runs others have in progress waits behind those without for so long at most */

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

/* A handler that may have due garbage. */
typedef struct Candidate
{
	int			id;
	bool		rows;			/* of a row TTL, whose rows may be due; its garbage is another candidate */
	bool		read;			/* from its row: h is valid */
	GtHandler	h;
	Oid			role;			/* whose SQL it runs; InvalidOid: none. Until it is read that is what is remembered */
	Oid			whose;			/* turn it is; where it runs none, its owner's */
	bool		ours;			/* this process may run it */
	int			workers;		/* others that serve its role */
	TimestampTz turn;			/* when that was served last, */
	TimestampTz served_at;		/* and the handler itself */
	TimestampTz rest;			/* chosen: when what was left of it is due; 0: not chosen */
} Candidate;

/* What all looks of one choice have in common. */
typedef struct Choice
{
	GtCleaner  *c;
	GtTable		objects;
	int			max_items;
	TimestampTz until;
	int			nothers;
	int64	   *others;			/* in hand elsewhere */
	GtPass	   *pass;
} Choice;

static bool
contains(const int64 *ids, int n, int64 id)
{
	return n > 0 && bsearch(&id, ids, n, sizeof(int64), gt_by_id) != NULL;
}

/* Looks at the queue of a handler from due time `low` on. *first: due time of the first object there. */
static void
look_from(Choice *choice, const GtHandler *h, TimestampTz low, int limit, Look *look, TimestampTz *first)
{
	GtCleaner  *c = choice->c;
	TimestampTz until = choice->until;
	Datum		key = Int32GetDatum(h->id);
	GtScan	   *scan;
	GtRow		row;

	look->n = 0;
	look->alone = false;
	look->rest = GT_NEVER;
	*first = GT_NEVER;
	scan = gt_scan_begin_bound(&choice->objects, GT_OBJECT_DUE, 1, &key, BTGreaterEqualStrategyNumber,
							   TimestampTzGetDatum(low));
	while (gt_scan_next_brief(scan, &row))
	{
		TimestampTz due_at = GT_TIME(&row, O_DUE_AT);
		TimestampTz busy_until;
		int64		id;

		*first = Min(*first, due_at);
		if (due_at > until)
		{
			look->rest = Min(look->rest, due_at);
			break;
		}
		if (row.isnull[O_CLEANUP_ID] || (GT_CHAR(&row, O_STATE) != GT_STATE_WAITING && h->kind != GT_KIND_NOTIFY))
			continue;
		id = GT_INT64(&row, O_CLEANUP_ID);
		if (contains(choice->others, choice->nothers, id))
			continue;			/* in hand elsewhere */
		busy_until = gt_busy_until(c, h->id, id);
		if (busy_until > until)
		{
			look->rest = Min(look->rest, busy_until);
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
 * The same from where on there was anything when it was looked at last (low.c).
 * What others have in hand comes before the rest, too.
 */
static void
collect(Choice *choice, const GtHandler *h, int limit, Look *look)
{
	TimestampTz now = gt_now();
	/* of rows that were put aside a run may leave many for the next one: they are in front of what others have in hand, too */
	TimestampTz upto = h->apart ? PG_INT64_MIN : gt_slot_others_upto(h->id);
	TimestampTz from;
	TimestampTz first;
	bool		all;
	GtLow		low;

	gt_low_recall(&low, GT_OBJECT_DUE, h->id);
	all = gt_low_all_is_due(&low, now);
	from = first = low.low;
	look->found = palloc(limit * sizeof(Found));
	look->n = 0;
	look->rest = GT_NEVER;
	if (!all)
	{
		TimestampTz beyond;

		if (upto > low.low)
			look_from(choice, h, upto, limit, look, &beyond);
		else
			look_from(choice, h, low.low, limit, look, &first);
	}
	if (look->n == 0 && (all || now >= gt_low_all_from(&low)))
	{
		from = PG_INT64_MIN;
		look_from(choice, h, from, limit, look, &first);
		gt_low_looked_at_all(&low, now);
	}
	else if (look->n == 0)
		look->rest = Min(look->rest, gt_low_all_from(&low));
	gt_low_found(&low, from, first, now);
	gt_low_remember(&low);
	qsort(look->found, look->n, sizeof(Found), gt_by_id);
}

/* How many objects one run of this handler may have now; 0: none before *when. */
static int
run_limit(const GtHandler *h, int max_items, TimestampTz *when)
{
	int			limit = h->kind == GT_KIND_SQL ? GT_MAX_SQL_ITEMS : Min(gt_batch_size, GT_MAX_ITEMS);

	limit = Min(limit, max_items);
	if (h->kind == GT_KIND_SQL_BATCH)
		return gt_rate_allows(h, GT_RUNS, 1, when) > 0 ? Min(limit, gt_batch_limit(h->id)) : 0;
	return gt_rate_allows(h, GT_RUNS, limit, when);
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
	for (i = 0; i < n; i++)
		c->tids[i] = ((Found *) bsearch(&c->items[i], look->found, look->n, sizeof(Found), gt_by_id))->tid;
	c->nitems = n;
	c->changes = gt_table_changes;
	c->handler = h->id;
	c->alone = look->alone;
	c->current_part = -1;
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

/* ---------------------------------------------------------------- who is next */

static int
by_turn(const void *a, const void *b)
{
	const Candidate *x = *(Candidate *const *) a;
	const Candidate *y = *(Candidate *const *) b;

	if (x->ours != y->ours)
		return x->ours ? -1 : 1;
	if (x->workers != y->workers)
		return x->workers < y->workers ? -1 : 1;
	if (x->turn != y->turn)
		return x->turn < y->turn ? -1 : 1;
	if (x->whose != y->whose)
		return x->whose < y->whose ? -1 : 1;
	if (x->served_at != y->served_at)
		return x->served_at < y->served_at ? -1 : 1;
	if (x->id == y->id)
		return x->rows ? -1 : y->rows;	/* those that could not be deleted come after the others */
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Enters the turns of their roles, and sorts. */
static void
put_in_order(Candidate **candidates, int n)
{
	TimestampTz now = gt_now();
	bool		bound = gt_my_slot != NULL && OidIsValid(gt_my_slot->role);
	Oid		   *roles = palloc((n + 1) * sizeof(Oid));
	GtTurn	   *turns = palloc((n + 1) * sizeof(GtTurn));
	int			nroles = 0;
	int			i;
	int			j;

	for (i = 0; i < n; i++)
	{
		for (j = 0; j < nroles && roles[j] != candidates[i]->whose; j++)
			;
		if (j == nroles)
			roles[nroles++] = candidates[i]->whose;
	}
	gt_slot_turns(nroles, roles, turns);
	for (i = 0; i < n; i++)
	{
		for (j = 0; roles[j] != candidates[i]->whose; j++)
			;
		candidates[i]->turn = turns[j].at;
		/* who has a role serves it in turn with what is of none, whoever else does; and so is one that has waited for long */
		candidates[i]->workers = !OidIsValid(candidates[i]->role) || (bound && candidates[i]->ours) ||
			turns[j].at < now - LONG ? 0 : turns[j].workers;
	}
	qsort(candidates, n, sizeof(Candidate *), by_turn);
}

static int
by_first(const void *a, const void *b)
{
	const GtKey *x = a;
	const GtKey *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* What has garbage by the index, sorted by time. */
static GtKey *
find_keys(Choice *choice, int *n)
{
	GtKey	   *keys = gt_scan_keys(&choice->objects, GT_OBJECT_DUE, n);

	qsort(keys, *n, sizeof(GtKey), by_first);
	return keys;
}

/* In a block of the caller's: is this handler the caller's own, and its SQL nobody else's? */
static bool
is_own(const GtHandler *h)
{
	return gt_acts_for(h->owner) && (!GT_KIND_IS_SQL(h->kind) || h->run_as == GetUserId());
}

/* The handler, if it is one whose garbage is run here. */
static bool
find_handler(Choice *choice, int id, GtHandler *h)
{
	GtCleaner  *c = choice->c;

	if (c->current_part >= 0 && id == c->handler)
		return false;			/* of a batch that is being halved the rest is in hand */
	return (gt_handler_by_id(id, h) || gt_ttl_handler(id, h)) && !GT_KIND_IS_EXTERNAL(h->kind) && !h->paused && (!c->own_only || is_own(h));
}

/* The same of a candidate, whose role is known then, and remembered. */
static bool
read_candidate(Choice *choice, Candidate *candidate)
{
	Oid			before = candidate->role;

	if (candidate->read)
		return true;
	if (!find_handler(choice, candidate->id, &candidate->h))
		return false;
	candidate->read = true;
	candidate->role = gt_handler_role(&candidate->h);
	candidate->whose = gt_handler_whose(&candidate->h);
	candidate->ours = gt_slot_is_for(candidate->role);
	if (candidate->role != before)
		gt_handler_remember(candidate->h.id, candidate->h.owner, gt_handler_role(&candidate->h));
	return true;
}

/* Tables whose rows may be due are candidates, too. */
static Candidate **
add_rows(Choice *choice, Candidate **candidates, int *n)
{
	List	   *ttls = gt_ttl_list();
	GtHandlerHint *hints = palloc((list_length(ttls) + 1) * sizeof(GtHandlerHint));
	ListCell   *lc;

	foreach(lc, ttls)
		hints[foreach_current_index(lc)].handler = ((GtTtl *) lfirst(lc))->id;
	gt_handler_hint(hints, list_length(ttls));
	if (ttls != NIL)
		candidates = repalloc(candidates, (*n + list_length(ttls) + 1) * sizeof(Candidate *));
	foreach(lc, ttls)
	{
		GtTtl	   *t = lfirst(lc);
		TimestampTz due = gt_clean_rows_due(choice->c, t->id);
		Candidate  *candidate;

		if (t->h.paused || (choice->c->own_only && !is_own(&t->h)))
			continue;
		if (due > choice->until)
		{
			choice->pass->next = Min(choice->pass->next, due);
			continue;
		}
		candidate = palloc0(sizeof(Candidate));
		candidate->id = t->id;
		candidate->rows = candidate->read = true;
		candidate->h = t->h;
		candidate->role = candidate->whose = t->h.run_as;
		candidate->ours = gt_slot_is_for(candidate->role);
		candidate->served_at = hints[foreach_current_index(lc)].served_at;
		candidates[(*n)++] = candidate;
	}
	return candidates;
}

/* Those whose garbage may be due, in the order in which they are to be looked at; when that of the others is, is noted. */
static Candidate **
find_candidates(Choice *choice, int *n)
{
	int			nkeys;
	GtKey	   *keys = find_keys(choice, &nkeys);
	Candidate **result = palloc((nkeys + 1) * sizeof(Candidate *));
	GtHandlerHint *hints = palloc((nkeys + 1) * sizeof(GtHandlerHint));
	int			ndue;
	int			i;

	for (ndue = 0; ndue < nkeys && keys[ndue].first <= choice->until; ndue++)
		hints[ndue].handler = (int) keys[ndue].key;
	gt_handler_hint(hints, ndue);
	*n = 0;
	for (i = 0; i < ndue; i++)
	{
		Candidate  *candidate = palloc0(sizeof(Candidate));

		candidate->id = hints[i].handler;
		candidate->role = hints[i].role;
		candidate->whose = candidate->role;
		candidate->ours = gt_slot_is_for(candidate->role);
		candidate->served_at = hints[i].served_at;
		/* of thousands only those that are considered are read, where it is known whose they are */
		if (OidIsValid(candidate->role) || read_candidate(choice, candidate))
			result[(*n)++] = candidate;
	}
	for (; i < nkeys && keys[i].first < choice->pass->next; i++)
	{
		GtHandler	h;
		Look		look;

		if (!find_handler(choice, (int) keys[i].key, &h))
			continue;
		collect(choice, &h, 1, &look);
		choice->pass->next = Min(choice->pass->next, look.n > 0 ? keys[i].first : look.rest);
	}
	result = add_rows(choice, result, n);
	put_in_order(result, *n);
	return result;
}

/* Takes a run of this table's rows, if it may start; else notes when. */
static bool
consider_rows(Choice *choice, Candidate *candidate)
{
	TimestampTz when = GT_NEVER;

	if (gt_ttl_suspended(gt_ttl_by_id(candidate->id)) != NULL)
	{
		when = choice->until + (int64) gt_naptime * USECS_PER_SEC;
		gt_rows_put_off(candidate->id, candidate->h.owner, when);
	}
	else if (gt_clean_rows_take(choice->c, &candidate->h, choice->max_items, choice->until, &when))
	{
		candidate->rest = GT_NEVER;
		/* who is not back by then is slow, and others go on */
		choice->pass->next = Min(choice->pass->next, choice->until + GT_SLOW);
		return true;
	}
	choice->pass->next = Min(choice->pass->next, when);
	return false;
}

/* Takes a run of this handler, if there is one that may start; else notes when. */
static bool
consider(Choice *choice, Candidate *candidate)
{
	const GtHandler *h = &candidate->h;
	TimestampTz when = GT_NEVER;
	int			limit;
	Look		look;

	if (!read_candidate(choice, candidate) || !candidate->ours)
		return false;
	if (candidate->rows)
		return consider_rows(choice, candidate);
	limit = run_limit(h, choice->max_items, &when);
	collect(choice, h, Max(limit, 1), &look);
	if (look.n == 0)
		when = look.rest;
	else if (gt_handler_suspended(h) != NULL)
		when = choice->until + (int64) gt_naptime * USECS_PER_SEC;	/* or sooner: see changes_rights() */
	else if (limit > 0 && take(choice->c, h, &look, &when))
	{
		candidate->rest = look.rest;
		if (look.rest > choice->until)
			choice->pass->next = Min(choice->pass->next, look.rest);
		return true;
	}
	choice->pass->next = Min(choice->pass->next, when);
	return false;
}

/* May another process start a run of this handler now? Else notes when. */
static bool
another_may(Choice *choice, Candidate *candidate)
{
	const GtHandler *h = &candidate->h;
	TimestampTz when = GT_NEVER;
	Look		look;
	bool		result = false;

	if (!read_candidate(choice, candidate) ||
		candidate->rest > choice->until || (candidate->rest != 0 && h->concurrency == 1))
		return false;			/* what we have chosen is all, or we are the one */
	if (run_limit(h, 1, &when) > 0 && gt_slot_allows(h, false, &when))
	{
		if (candidate->rows)
			return true;
		look.n = 0;
		if (candidate->rest == 0)
			collect(choice, h, 1, &look);
		if (candidate->rest == 0 && look.n == 0)
			when = look.rest;
		else if (gt_handler_suspended(h) != NULL)
			when = choice->until + (int64) gt_naptime * USECS_PER_SEC;
		else
			result = candidate->rest != 0 || !look.alone || gt_slot_allows(h, true, &when);
	}
	choice->pass->next = Min(choice->pass->next, when);
	return result;
}

/* Looks for something that another process may start now: of a role that nobody serves first. */
static void
find_for_others(Choice *choice, Candidate **candidates, int n)
{
	int			round;
	int			i;

	if (gt_my_slot == NULL)
		return;
	for (round = 0; round < 2; round++)
		for (i = 0; i < n; i++)
		{
			Candidate  *candidate = candidates[i];
			bool		served = candidate->workers > 0 ||
				(OidIsValid(candidate->role) && candidate->role == gt_my_slot->role);

			if (served != (round > 0) || (candidate->ours && choice->c->nitems == 0) || !another_may(choice, candidate))
				continue;
			if (OidIsValid(candidate->role))
				choice->pass->waits = candidate->role;
			else
				choice->pass->next = choice->until;
			return;
		}
}

/* Chooses the next run, at most max_items objects; pass->next: when what is left is due. */
void
gt_clean_choose(GtCleaner *c, int max_items, GtPass *pass)
{
	Choice		choice;
	Candidate **candidates;
	int			n;
	int			i;

	pass->looked_at = gt_now();
	gt_plans_keep();
	gt_busy_recall(c);
	choice.c = c;
	choice.max_items = max_items;
	choice.until = c->until != 0 ? c->until : pass->looked_at;
	choice.pass = pass;
	choice.others = gt_slot_others(&choice.nothers);
	gt_clean_add_unjudged(c, &choice.others, &choice.nothers);
	c->rows = 0;
	c->current_part = -1;
	c->alone_from = gt_slot_alone_from();
	if (c->nparts > 0)
		take_part(c);
	gt_open(&choice.objects, GT_OBJECT, RowExclusiveLock);
	candidates = find_candidates(&choice, &n);
	for (i = 0; i < n && c->nitems == 0 && candidates[i]->ours; i++)
		if (consider(&choice, candidates[i]))
			break;
	find_for_others(&choice, candidates, n);
	gt_close(&choice.objects);

	/* nothing for us: whatever it is, it is not to be looked at without end */
	if (c->nitems == 0 && pass->next <= choice.until)
		pass->next = choice.until + GT_BUSY_FIRST;
}
