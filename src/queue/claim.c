/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  gt_claim(): starts attempts that the caller will make.
 *
 * Sessions run this.  Rows are chosen in the order in which they are due, one
 * from each handler in turn, passing over what others have locked; each is
 * locked, judged again and becomes claimed by this transaction.  Its commit is
 * the durable count of the attempt.  A claim lapses at claimed_until without
 * anybody's doing: such a row is simply due.
 *
 * Limits.  How many claims of a handler run is counted in the table, for claims
 * outlive the server.  What open transactions have claimed is not seen there,
 * so shared memory adds it up: it is reserved there before the table is looked
 * at and given back when the transaction has ended (a prepared one: prepared.c), so
 * that a claim is counted twice for a moment, never not at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/arguments.h"
#include "base/transaction.h"
#include "garbage/garbage.h"
#include "handler/rates.h"
#include "handler/run.h"
#include "handler/use.h"
#include "lease/created.h"
#include "lease/start.h"
#include "queue/queue.h"
#include "rights/place.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "shared/ids.h"
#include "shared/observe.h"
#include "shared/prepared.h"
#include "table/low.h"
#include "table/relations.h"
#include "table/scan.h"

PG_FUNCTION_INFO_V1(gt_claim);

#define MAX_CLAIM		10000	/* max_items at most */

/* One handler of a call. */
typedef struct Source
{
	GtHandler  *h;
	GtScan	   *scan;			/* NULL: not begun, or at its end */
	int			allowed;		/* how many more may start; -1: not asked yet */
	bool		ended;
	GtLow		low;			/* of its queue */
	bool		all;			/* all of that is looked at */
	TimestampTz from;			/* it was begun there; what lies below comes at last */
	bool		below;			/* that is what is looked at now */
	bool		any;			/* something was seen in this scan */
} Source;

/* Claims of this transaction that are in GtHandlerEntry.pending. */
typedef struct Pending
{
	int			handler;
	int			n;
	int			prepared;		/* of them count on, until the transaction that is prepared has ended */
	struct Pending *next;
} Pending;

static Pending *pending = NULL; /* in TopTransactionContext */

/* Claims that run by this very transaction: neither answered in it, nor undone by a savepoint. */
static int
count_own(GtTable *objects, int handler)
{
	Datum		key = Int32GetDatum(handler);
	GtScan	   *scan = gt_scan_begin_bound(objects, GT_OBJECT_CLAIMED, 1, &key, BTGreaterStrategyNumber,
										   TimestampTzGetDatum(gt_now()));
	GtRow		row;
	int			n = 0;

	while (gt_scan_next_brief(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		n += TransactionIdIsCurrentTransactionId(row.xmin);
	}
	gt_scan_end(scan);
	return n;
}

/* Before PREPARE TRANSACTION, which an error still prevents. */
static void
before_prepare(void)
{
	GtTable		objects;
	Pending    *p;

	if (pending == NULL || !OidIsValid(gt_extension()))
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (p = pending; p != NULL; p = p->next)
		p->prepared = Min(p->n, count_own(&objects, p->handler));
	gt_close(&objects);
	PopActiveSnapshot();
}

static void
give_back_pending(XactEvent event, void *arg)
{
	Pending    *p;

	if (event == XACT_EVENT_PRE_PREPARE)
		before_prepare();
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (pending == NULL)
		return;
	gt_observe_lock();
	for (p = pending; p != NULL; p = p->next)
	{
		GtHandlerEntry *entry = gt_handler_known(p->handler);

		if (event == XACT_EVENT_PREPARE && p->prepared > 0 && gt_prepared_claims(p->handler, p->prepared))
			p->n -= p->prepared;
		if (entry != NULL)
			entry->pending = Max(entry->pending - p->n, 0);	/* forgotten meanwhile with a dropped extension */
	}
	gt_observe_unlock();
	pending = NULL;
}

static Pending *
pending_of(int handler)
{
	Pending    *p;

	for (p = pending; p != NULL; p = p->next)
		if (p->handler == handler)
			return p;
	gt_at_end(GT_AT_END_CLAIMS, give_back_pending, NULL);
	p = MemoryContextAllocZero(TopTransactionContext, sizeof(Pending));
	p->handler = handler;
	p->next = pending;
	pending = p;
	return p;
}

/* ---------------------------------------------------------------- limits */

/* How many claims of the handler run, as the table has it. */
static int
count_running(GtTable *objects, const GtHandler *h, TimestampTz now)
{
	Datum		key = Int32GetDatum(h->id);
	GtScan	   *scan = gt_scan_begin_bound(objects, GT_OBJECT_CLAIMED, 1, &key, BTGreaterStrategyNumber, TimestampTzGetDatum(now));
	int			n = (int) gt_scan_count(scan, h->concurrency);

	gt_scan_end(scan);
	return n;
}

/* Starts that were reserved and not made. */
static void
give_back(const GtHandler *h, int n)
{
	GtHandlerEntry *entry;
	Pending    *p;

	gt_rate_give_back(h, GT_CLAIMS, n);
	if (n <= 0 || h->concurrency == 0)
		return;
	gt_observe_lock();
	entry = gt_handler_known(h->id);
	if (entry != NULL)
	{
		entry->pending = Max(entry->pending - n, 0);
		for (p = pending; p != NULL; p = p->next)
			if (p->handler == h->id)
				p->n -= n;
	}
	gt_observe_unlock();
}

/* Reserves up to `want` starts of the handler and returns how many it may have. */
static int
reserve(GtTable *objects, const GtHandler *h, int want, TimestampTz now)
{
	/* memory first: nothing may fail between the reservation and the note of it */
	Pending    *mine = h->concurrency > 0 ? pending_of(h->id) : NULL;
	TimestampTz when;
	int			n = gt_rate_take(h, GT_CLAIMS, want, &when);
	GtHandlerEntry *entry;
	int			room = 0;

	gt_observe_lock();
	entry = gt_handler_entry(h->id, h->owner);
	if (entry != NULL)
		entry->claimed_at = now;
	if (mine != NULL && (entry == NULL || !gt_handler_may_be_held(entry)))
	{
		gt_observe_unlock();
		gt_rate_give_back(h, GT_CLAIMS, n);
		return 0;				/* who has so many in use waits until some are not */
	}
	if (mine != NULL)
	{
		room = h->concurrency - (entry->pending - mine->n);
		entry->pending += n;
		mine->n += n;
	}
	gt_observe_unlock();
	if (mine == NULL || n == 0)
		return n;

	room = Max(room - count_running(objects, h, now), 0);
	if (room < n)
		give_back(h, n - room);
	return Min(n, room);
}

/* ---------------------------------------------------------------- which rows */

/* May an attempt start on this garbage now? */
static bool
may_start(const GtRow *row, const GtHandler *h, TimestampTz now, bool any_time)
{
	if (row->isnull[O_CLEANUP_ID] || row->isnull[O_HANDLER] || GT_INT32(row, O_HANDLER) != h->id)
		return false;
	if (gt_garbage_has_lapsed(row, now))
		return true;
	if (GT_CHAR(row, O_STATE) != GT_STATE_WAITING)
		return false;
	/* once announced, it waits for somebody to come, not for a time: due_at is when it is announced again */
	return any_time || GT_TIME(row, O_DUE_AT) <= now ||
		(h->kind == GT_KIND_NOTIFY && GT_INT32(row, O_SENDS) > 0);
}

/* Locks and judges a row. Others' are passed over. */
static bool
take(GtTable *objects, GtRow *row, const GtHandler *h, TimestampTz now, bool any_time)
{
	if (!may_start(row, h, now, any_time) ||
		gt_lock(objects, row, LockTupleNoKeyExclusive, true) != GT_LOCKED ||
		!may_start(row, h, now, any_time))
		return false;
	return GT_CHAR(row, O_STATE) != GT_STATE_CLAIMED || gt_garbage_lapsed(objects, row, h);
}

/* Begins to look at the queue from a due time on, or at what is before that. */
static void
begin_scan(GtTable *objects, Source *source, bool below)
{
	Datum		key = Int32GetDatum(source->h->id);

	source->below = below;
	source->any = false;
	source->scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key,
									   below ? BTLessStrategyNumber : BTGreaterEqualStrategyNumber,
									   TimestampTzGetDatum(source->from));
}

/*
 * The next row that may be claimed by its time, of kind notify also one that was
 * announced; false: there is none.  The queue is looked at from where there was
 * something when this session last looked: before that lie the entries of what
 * has been cleaned, until they are vacuumed.  It need not be so any more: where
 * there is not enough, and now and then, all of it is looked at.
 */
static bool
next_due(GtTable *objects, Source *source, TimestampTz now, GtRow *row)
{
	for (;;)
	{
		if (gt_scan_next(source->scan, row))
		{
			TimestampTz due_at = GT_TIME(row, O_DUE_AT);

			if (!source->any)
				source->low.low = Min(due_at, source->below ? source->low.low : now - USECS_PER_SEC);
			source->any = true;
			if (due_at <= now || source->h->kind == GT_KIND_NOTIFY)
				return true;
		}
		if (!source->any && !source->below)
			source->low.low = now - USECS_PER_SEC;
		gt_scan_end(source->scan);
		source->scan = NULL;
		if (source->below || source->from == PG_INT64_MIN)
			return false;
		begin_scan(objects, source, true);
	}
}

/* The next row of a handler, locked. */
static bool
take_next(GtTable *objects, Source *source, int max, TimestampTz now, GtRow *row)
{
	if (source->ended)
		return false;
	if (source->scan == NULL)
	{
		source->allowed = reserve(objects, source->h, max, now);
		gt_low_recall(&source->low, GT_OBJECT_DUE, source->h->id);
		source->from = source->low.low;
		if (gt_low_all_is_due(&source->low, now))
		{
			source->from = PG_INT64_MIN;
			source->all = true;
		}
		begin_scan(objects, source, false);
	}
	while (source->allowed > 0 && next_due(objects, source, now, row))
	{
		CHECK_FOR_INTERRUPTS();
		if (take(objects, row, source->h, now, false))
		{
			source->allowed--;
			return true;
		}
	}
	source->ended = true;
	return false;
}

/* One row of each handler in turn, beginning anywhere, until there are enough. */
static int
choose(GtTable *objects, List *sources, int max, TimestampTz now, GtItem *items, Source **of)
{
	int			nsources = list_length(sources);
	int			start = nsources > 1 ? (int) pg_prng_uint64_range(&pg_global_prng_state, 0, nsources - 1) : 0;
	int			n = 0;
	bool		any = true;
	ListCell   *lc;
	int			i;

	while (any && n < max)
	{
		any = false;
		for (i = 0; i < nsources && n < max; i++)
		{
			Source	   *source = list_nth(sources, (start + i) % nsources);

			if (take_next(objects, source, max, now, &items[n].row))
			{
				of[n++] = source;
				any = true;
			}
		}
	}
	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);

		if (source->scan != NULL)
			gt_scan_end(source->scan);
		if (source->all)
			gt_low_looked_at_all(&source->low, now);
		if (source->low.looked_at != 0)
			gt_low_remember(&source->low);
	}
	return n;
}

/* A handler of this call; NULL where no attempt of it may start: it is stopped. */
static Source *
add_source(List **sources, GtHandler *h)
{
	Source	   *source;

	if (h->paused || gt_handler_suspended(h) != NULL)
		return NULL;
	source = palloc0(sizeof(Source));
	source->h = h;
	source->allowed = -1;
	*sources = lappend(*sources, source);
	return source;
}

static Source *
find_source(List *sources, int id)
{
	ListCell   *lc;

	foreach(lc, sources)
		if (((Source *) lfirst(lc))->h->id == id)
			return lfirst(lc);
	return NULL;
}

/*
 * The handler of garbage that was named by its id; any: by nothing else, so that
 * it is whichever the caller may claim.
 */
static Source *
source_of(const GtRow *row, List **sources, bool any, GtKnown *known)
{
	const GtHandler *h = gt_claim_handler_of(row, known);
	Source	   *source = h == NULL ? NULL : find_source(*sources, h->id);

	if (source == NULL && h != NULL && any && GT_KIND_IS_CLAIMABLE(h->kind))
		source = add_source(sources, (GtHandler *) h);
	return source;
}

/* The rows with these cleanup ids, whenever they are due. */
static int
choose_by_id(GtTable *objects, List **sources, bool any, ArrayType *ids, int max, TimestampTz now,
			 GtItem *items, Source **of)
{
	GtKnown		known = {CurrentMemoryContext, NIL};
	int64	   *id;
	int			nids = gt_int8_array(ids, &id);
	int			n = 0;
	int			i;

	qsort(id, nids, sizeof(int64), gt_by_id);
	for (i = 0; i < nids && n < max; i++)
	{
		Datum		key = Int64GetDatum(id[i]);
		GtRow	   *row = &items[n].row;
		Source	   *source = NULL;

		CHECK_FOR_INTERRUPTS();
		if ((i == 0 || id[i] != id[i - 1]) && gt_fetch(objects, GT_OBJECT_CLEANUP, 1, &key, row))
			source = source_of(row, sources, any, &known);
		if (source == NULL)
			continue;
		if (source->allowed < 0)
			source->allowed = reserve(objects, source->h, Min(max, nids), now);
		if (source->allowed > 0 && take(objects, row, source->h, now, true))
		{
			source->allowed--;
			of[n++] = source;
		}
	}
	return n;
}

/* ---------------------------------------------------------------- the claim */

/* Writes the claim. */
static void
claim(GtTable *objects, GtItem *item, const GtHandler *h, TimestampTz now, int64 visibility)
{
	GtRow	   *row = &item->row;
	TimestampTz until = now + visibility;

	if (GT_INT32(row, O_ATTEMPTS) == 0 && GT_INT32(row, O_SENDS) == 0)
		gt_observe_lag(gt_garbage_lag(row, h, gt_now()));
	gt_garbage_pass_over_announced(row);
	item->cleanup_id = GT_INT64(row, O_CLEANUP_ID);
	item->attempt = GT_INT32(row, O_ATTEMPTS) + 1;
	GT_SET(row, O_ATTEMPTS, Int32GetDatum(item->attempt));
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	row->v[O_FLIGHT_BEFORE] = row->v[O_FLIGHT_UNTIL];
	row->isnull[O_FLIGHT_BEFORE] = row->isnull[O_FLIGHT_UNTIL];
	gt_garbage_claimed(row, until, visibility);
	gt_update(objects, row);
	gt_garbage_due(h, until);	/* to be announced again (notify), or claimed */
}

static void
put(ReturnSetInfo *rsinfo, const GtItem *item, const GtHandler *h)
{
	static const int columns[] = {O_OBJECT_ID, O_OBJECT_TYPE, -1, -1, -1, O_PAYLOAD, O_METADATA, O_LEASE_ID,
	O_SERVICE_ID, O_FENCE, O_CLAIMED_UNTIL};
	const GtRow *row = &item->row;
	Datum		v[13];
	bool		nulls[13];
	int			i;

	memset(nulls, 0, sizeof(nulls));
	v[0] = Int64GetDatum(item->cleanup_id);
	v[1] = Int32GetDatum(item->attempt);
	for (i = 0; i < (int) lengthof(columns); i++)
	{
		if (columns[i] < 0)
			continue;
		v[i + 2] = row->v[columns[i]];
		nulls[i + 2] = row->isnull[columns[i]];
	}
	v[4] = CStringGetTextDatum(h->name);
	v[5] = CStringGetTextDatum(gt_kind_names[h->kind]);
	nulls[6] = (h->command == NULL);
	v[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(h->command);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
}

/* The handlers that a call names, or the caller's own; without those that are stopped. */
static List *
find_sources(ArrayType *names)
{
	List	   *sources = NIL;
	ListCell   *lc;

	foreach(lc, gt_claimable_handlers(names))
		(void) add_source(&sources, lfirst(lc));
	return sources;
}

Datum
gt_claim(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			max;
	int64		visibility;
	char	   *why;
	GtTable		objects;
	GtItem	   *items;
	List	   *sources = NIL;
	Source	  **of;
	bool		by_id = !PG_ARGISNULL(3);
	TimestampTz now;
	ListCell   *lc;
	int			n;
	int			i;

	gt_mark_write("gt_claim");
	InitMaterializedSRF(fcinfo, 0);
	gt_must_not_be_null(fcinfo, 1, "max_items");
	max = PG_GETARG_INT32(1);
	if (max < 1 || max > MAX_CLAIM)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_items %d is out of range: it must be between 1 and %d", max, MAX_CLAIM)));
	visibility = gt_visibility_argument(fcinfo, 2);
	if (!PG_ARGISNULL(0) || !by_id)
		sources = find_sources(PG_ARGISNULL(0) ? NULL : PG_GETARG_ARRAYTYPE_P(0));
	if (gt_place(&why) == GT_PLACE_COPY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy: its garbage is not claimed"),
				 errdetail_internal("%s", why),
				 errhint("If its objects are its own: SELECT gt_resume(adopt => true);")));
	gt_start_ensure();
	if ((sources == NIL && !(PG_ARGISNULL(0) && by_id)) || gt_database_paused())
		return (Datum) 0;

	if (by_id)
		max = Min(max, Max(ArrayGetNItems(ARR_NDIM(PG_GETARG_ARRAYTYPE_P(3)), ARR_DIMS(PG_GETARG_ARRAYTYPE_P(3))), 1));
	items = palloc_extended(max * sizeof(GtItem), MCXT_ALLOC_HUGE);
	of = palloc(max * sizeof(Source *));
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	now = gt_now();
	n = !by_id ? choose(&objects, sources, max, now, items, of) :
		choose_by_id(&objects, &sources, PG_ARGISNULL(0), PG_GETARG_ARRAYTYPE_P(3), max, now, items, of);
	foreach(lc, sources)
		give_back(((Source *) lfirst(lc))->h, ((Source *) lfirst(lc))->allowed);

	now = gt_now();
	for (i = 0; i < n; i++)
	{
		claim(&objects, &items[i], of[i]->h, now, visibility);
		put(rsinfo, &items[i], of[i]->h);
	}
	if (n > 0)
		gt_commit_flushed();	/* the token is out: were the commit lost, another would be given the same */
	gt_close(&objects);
	return (Datum) 0;
}
