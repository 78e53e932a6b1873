/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  A run of a row TTL: the oldest rows of its table are deleted.
 *
 * The chain of runs (clean.c) calls this, in its transaction: see ttl.c.  All rows are
 * tried at once.  Where that fails they are deleted one by one, which tells who is to
 * blame: those before it are deleted at once then, it is tried by itself, and put aside
 * where it fails, as garbage that stands for it; the rest goes on one by one.  What
 * fails in the end only, where nothing tells which it was, is tried in quarters.  So many
 * subtransactions as a transaction should have, and a second, are the limit; what is
 * left then begins the next run.
 *
 * Whoever waits or hangs in a delete has all rows of the batch locked: so a batch is
 * cut short soon, and its rows go one by one, each for not much longer than the others
 * take; and so do those of the next ten seconds, from the beginning, with less patience for
 * each that lasts.  A row that does is put aside uncharged, and tried again (aside.c) for
 * as long as a run may last.
 *
 * Putting aside writes our own table only, outside of what has failed; it is undone
 * with the transaction, and then the row is where it was.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/workers.h"
#include "garbage/objects.h"
#include "handler/failures.h"
#include "handler/rates.h"
#include "handler/run.h"
#include "handler/tally.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "shared/rows_due.h"
#include "ttl/batch.h"
#include "ttl/rows.h"

#define MAX_US		USECS_PER_SEC
#define MAX_PARTS	64			/* no more are kept in mind: the rest is for the next run */
#define FAILING_WAYS	4		/* into so many parts goes what fails, and nothing tells why: as many tries as with halves, and less in vain */
#define MAX_BATCH	(300 * INT64CONST(1000))	/* us: of deletes that last longer, each is tried by itself */
#define FIRST_PATIENCE	(50 * INT64CONST(1000))	/* us that one of those may last, at first, */
#define MAX_STRIDE	32			/* rows that go one by one in a subtransaction, or so many of */
#define PARTS		32			/* all of them, */
#define LEAST_STRIDE	8		/* and less where some fail one after the other */
#define LEAST_PATIENCE	(5 * INT64CONST(1000))	/* and when many have lasted for longer */
#define MAX_APART	60			/* rows that are put aside at once, to go by themselves */
#define SOON		(50 * INT64CONST(1000))	/* us until what could not be done is tried again */

/* What is left to be tried, of the victims. */
typedef struct Part
{
	int			first;
	int			n;
	bool		by_row;
} Part;

typedef struct State
{
	GtRowsRun  *run;
	GtBatch		batch;
	GtVictim   *all;			/* what the first try has chosen */
	int			nparts;
	Part		parts[MAX_PARTS];
	TimestampTz began;
	int			tries;			/* subtransactions, */
	bool		overflow;		/* of which this transaction, somebody's block, had too many before */
	int64		lost;			/* us that rows have taken which last */
	int64		patience;		/* us that one may, as the first of those that go one by one */
	bool		suspect;		/* some have lasted lately */
	int			stride;			/* so many go one by one in a subtransaction */
	int			deleted;
	int			aside;
	int			failed;			/* of these, by an error */
	int64	   *lags;
	const char *error;			/* the last one */
	bool		full;			/* there are more than were chosen */
	bool		busy;			/* others have some, or the table */
	bool		awake;			/* the table tells of rows that come */
	bool		suspended;
	bool		stopped;		/* nothing more is tried now, */
	TimestampTz again;			/* but then; 0: when there is more */
	TimestampTz next;			/* the next row is due */
	TimestampTz left_from;		/* the first deadline of a row that was left */
} State;

/* The text that stands for a batch in the log. */
static void
describe(GtItem *item, const GtTtl *ttl, const GtBatch *b)
{
	memset(item, 0, sizeof(GtItem));
	item->attempt = 1;
	GT_SET(&item->row, O_OBJECT_TYPE, CStringGetTextDatum(ttl->type));
	GT_SET(&item->row, O_OBJECT_ID, b->n == 1 && b->victims[0].id != (Datum) 0 ? b->victims[0].id :
		   CStringGetTextDatum(psprintf("%d rows", b->n)));
}

/* One try, of what the batch says. */
static void
try(State *s, GtItem *item)
{
	GtBatch    *b = &s->batch;
	const GtTtl *ttl = s->run->ttl;

	b->why = NULL;
	b->locked_out = false;
	b->busy = b->waiting = 0;
	b->left_from = GT_NEVER;
	b->next = GT_NEVER;
	b->at = -1;
	b->over = 0;
	memset(item, 0, sizeof(GtItem));
	s->tries++;
	b->may_last = b->by_row && s->suspect ? s->patience : MAX_BATCH;
	b->suspect = s->suspect;
	gt_run_body(&ttl->h, item, s->run->in_block, gt_batch_run, b);
	s->run->seen.waits = s->run->seen.waits || b->waiting > 0;
	s->left_from = Min(s->left_from, b->left_from);
}

/* A try went well. */
static void
count(State *s)
{
	GtBatch    *b = &s->batch;
	TimestampTz now = gt_now();
	int			i;

	for (i = 0; i < b->n; i++)
		s->lags[s->deleted++] = gt_row_lag(s->run->ttl, &b->victims[i], now);
}

/*
 * This row could not be deleted, or (error NULL) is to be tried by itself: garbage
 * stands for it from now on.  alone: and nothing else in a crash with it.
 */
static void
put_aside(State *s, const GtVictim *v, const char *error, bool alone)
{
	const GtTtl *ttl = s->run->ttl;
	TimestampTz due_at = gt_now() + (error != NULL ? gt_back_off(ttl->h.retry_delay, 1) : 0);
	GtBirth		birth = {CStringGetTextDatum(ttl->type), v->id, ttl->h.owner, ttl->id, due_at, v->payload, v->metadata,
	error, ttl->h.max_attempts, alone};
	GtTable		objects;
	bool		born;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	born = gt_garbage_born(&objects, &birth);
	gt_close(&objects);
	s->aside += born;
	s->failed += born && error != NULL;
	if (born)
		gt_due_after_commit(due_at);
	else
		s->left_from = Min(s->left_from, v->deadline);
}

/* Is there what is needed to put it aside? */
static bool
is_described(const GtVictim *v)
{
	return v->id != (Datum) 0 && v->payload != (Datum) 0;
}

static void
push(State *s, int first, int n, bool by_row)
{
	if (n <= 0)
		return;
	if (s->nparts < MAX_PARTS)
		s->parts[s->nparts++] = (Part) {first, n, by_row || n == 1};
	else
	{
		s->full = true;			/* the next run finds them */
		s->left_from = Min(s->left_from, s->all[first].deadline);
	}
}

/* Of what was tried the row in hand was to blame: the others are tried without it. */
static void
leave_out(State *s, const Part *part, bool again)
{
	int			at = s->batch.at;

	s->stride = Min(Max(2 * at, LEAST_STRIDE), s->stride);
	push(s, part->first + at + 1, part->n - at - 1, true);
	if (again)
		push(s, part->first + at, 1, true);
	push(s, part->first, at, false);
}

/* It is not known which was: they are tried one by one, and where that does not tell, in so many parts. false: there is one. */
static bool
split(State *s, const Part *part)
{
	int			n = (s->batch.n + FAILING_WAYS - 1) / FAILING_WAYS;
	int			i;

	if (s->batch.n == 0 || (s->batch.n == 1 && part->by_row))
		return false;
	if (!part->by_row)
		push(s, part->first, s->batch.n, true);
	for (i = (s->batch.n - 1) / n * n; part->by_row && i >= 0; i -= n)
		push(s, part->first + i, Min(n, s->batch.n - i), false);
	return true;
}

/* A try lasted for too long: nobody is charged. */
static void
cut_short(State *s, const Part *part, int64 took)
{
	GtBatch    *b = &s->batch;

	s->lost += took;
	if (b->at >= 0 && part->by_row && is_described(&b->victims[b->at]))
	{
		put_aside(s, &b->victims[b->at], NULL, false);
		leave_out(s, part, false);
		if (s->suspect)
			s->patience = Max(s->patience / 2, LEAST_PATIENCE);
	}
	else if (b->at >= 0 && part->by_row && part->n > 1)
		leave_out(s, part, true);
	else if (!split(s, part))
		s->stopped = true;
	s->suspect = true;
	gt_rows_set_patience(s->run->ttl->id, s->patience, true);
}

/* Is it nobody's fault, and yet of one row: a conflict that its triggers meet, or that they asked for time (gt_snooze)? */
static bool
is_put_off(const GtItem *item)
{
	return item->excused && (item->excuse == GT_EXCUSE_CONFLICT || item->retry_after >= 0);
}

/* A try failed, by an error of one of its rows; or was put off by one. */
static void
blame(State *s, const Part *part, const GtItem *item)
{
	GtBatch    *b = &s->batch;

	if (!item->excused)
		s->error = item->error;
	if (b->at == 0 && part->n == 1 && is_described(&b->victims[0]))
	{
		GtItem		told;

		describe(&told, s->run->ttl, b);
		told.error = item->error;
		if (!item->excused)
			gt_run_log_failure(&s->run->ttl->h, &told, 1);
		put_aside(s, &b->victims[0], item->excused ? NULL : item->error, false);
	}
	else if (b->at >= 0 && (part->n > 1 || !part->by_row))
		leave_out(s, part, true);
	else if (!split(s, part))
		s->stopped = true;		/* there is no row that could be put aside */
}

/* Those that were to go by themselves are put aside. */
static void
put_apart(State *s)
{
	GtBatch    *b = &s->batch;
	int			i;

	for (i = 0; i < b->n; i++)
		put_aside(s, &b->victims[i], NULL, true);
	if (!gt_ttl_set_careful(s->run->ttl->id, b->full ? -b->n : -s->run->ttl->careful))
		s->again = gt_now();	/* somebody has its row: some more rows than need be will go so */
}

/* What a try has come to. */
static void
judge(State *s, const Part *part, GtItem *item)
{
	GtBatch    *b = &s->batch;

	if (item->excused && !is_put_off(item))
	{
		s->stopped = true;
		s->again = gt_now() + SOON;
		if (item->cut_short)
			gt_batch_set_limit(s->run->ttl->id, Max(b->n / 2, 1));
	}
	else if (!item->done && item->timed_out)
		cut_short(s, part, item->took);
	else if (!item->done)
		blame(s, part, item);
	else if (b->why != NULL || b->locked_out)
		s->stopped = true;
	else if (b->keep)
		put_apart(s);
	else if (b->only_chosen)
		push(s, 0, b->n, true);
	else
	{
		count(s);
		s->stride = Min(2 * s->stride, Max(s->batch.limit / PARTS, MAX_STRIDE));
		push(s, part->first + b->n, b->over, true);
	}
}

/* One that takes long is smaller the next time. */
static void
adapt(State *s, int64 took)
{
	int			id = s->run->ttl->id;
	int			n = s->deleted + s->aside;

	if (n == 0 && s->nparts > 0)
		gt_batch_set_limit(id, Max(s->parts[s->nparts - 1].n, 1));
	else if (took > GT_TURN)
		gt_batch_set_limit(id, Max(n / 2, 1));
	else if (n > 0 && took < GT_TURN / 2)
		gt_batch_set_limit(id, Max(gt_batch_limit(id), n) * 2);
}

/* What is known of the table from now on. */
static void
tell(State *s, TimestampTz bound)
{
	GtRowsRun  *run = s->run;
	GtRowsSeen *seen = &run->seen;
	TimestampTz now = gt_now();
	int64		nap = (int64) gt_naptime * USECS_PER_SEC;
	int			i;

	for (i = 0; i < s->nparts; i++)
		s->left_from = Min(s->left_from, s->all[s->parts[i].first].deadline);
	run->done = s->deleted + s->aside;
	run->more = !s->stopped && run->done > 0 && (s->full || s->nparts > 0);
	seen->ttl = run->ttl->id;
	seen->next = run->more ? now : s->next;
	if (s->again != 0)
		seen->next = Min(seen->next, s->again);
	if ((s->busy || s->stopped) && run->done > 0)
		seen->next = Min(seen->next, now + SOON);
	if (s->suspended)
		seen->next = now + nap;
	if (!s->awake || !run->ttl->wake || seen->waits)
		seen->next = Min(seen->next, now + nap);
	seen->in_vain = (s->busy || s->stopped || s->full || s->nparts > 0) && !s->suspended && run->done == 0;
	seen->low = s->stopped ? 0 : Min(s->left_from, bound);
	seen->complete = run->low == 0 && !s->stopped && !s->full;
}

static Part
next_part(State *s)
{
	Part		part = s->parts[--s->nparts];

	if (part.by_row && part.n > s->stride)
	{
		push(s, part.first + s->stride, part.n - s->stride, true);
		part.n = s->stride;
	}
	return part;
}

/* The limit of a first try, and what it knows. */
static void
prepare(State *s, GtRowsRun *run)
{
	const GtTtl *ttl = run->ttl;
	GtBatch    *b = &s->batch;
	bool		wary;

	memset(s, 0, sizeof(State));
	memset(&run->seen, 0, sizeof(run->seen));
	s->run = run;
	s->began = gt_now();
	s->overflow = MyProc->subxidStatus.count >= GT_MAX_SQL_ITEMS;
	s->left_from = GT_NEVER;
	wary = gt_rows_wary(ttl->id, &s->patience);
	b->ttl = ttl;
	b->context = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck rows", ALLOCSET_DEFAULT_SIZES);
	b->not_before = run->not_before;
	b->keep = ttl->careful > 0;
	b->low = run->low;
	b->limit = b->keep ? Min(Min(run->limit, ttl->careful), MAX_APART) : run->limit;
	b->by_row = !b->keep && b->limit == 1;
	b->only_chosen = !b->keep && wary && b->limit > 1;
	s->suspect = s->patience > 0;
	s->stride = MAX_STRIDE;
	if (s->patience == 0)
		s->patience = b->limit == 1 ? GT_SLOW : FIRST_PATIENCE;
	b->victims = s->all = palloc0((b->limit + 1) * sizeof(GtVictim));
	s->lags = palloc((b->limit + 1) * sizeof(int64));
}

/* Is there time, and may the transaction have one more subtransaction? */
static bool
may_try(const State *s)
{
	return s->tries < GT_MAX_SQL_ITEMS && (s->overflow || MyProc->subxidStatus.count < GT_MAX_SQL_ITEMS) &&
		gt_now() < s->began + MAX_US;
}

void
gt_rows_run(GtRowsRun *run)
{
	const GtTtl *ttl = run->ttl;
	Part		part = {0, 0, false};
	State		s;
	GtItem		item;
	TimestampTz wait;
	TimestampTz bound = gt_rows_bound(ttl, run->not_before, &wait);

	prepare(&s, run);
	try(&s, &item);
	s.full = s.batch.full || (!item.done && (!item.excused || is_put_off(&item)));
	s.next = s.batch.next;
	s.awake = s.batch.awake;
	s.busy = s.batch.busy > 0 || s.batch.locked_out;
	s.suspended = s.batch.why != NULL;
	if (s.batch.full || !item.done)
		bound = s.batch.n > 0 ? s.all[s.batch.n - 1].deadline : 0;	/* beyond that nothing was looked at */
	part.n = s.batch.n;
	part.by_row = s.batch.by_row;
	judge(&s, &part, &item);
	while (s.nparts > 0 && !s.stopped && may_try(&s))
	{
		part = next_part(&s);
		MemoryContextReset(s.batch.context);
		s.batch.only_chosen = false;
		s.batch.which = GT_BATCH_THESE;
		s.batch.victims = s.all + part.first;
		s.batch.n = part.n;
		s.batch.by_row = part.by_row;
		try(&s, &item);
		s.busy = s.busy || s.batch.busy > 0 || s.batch.locked_out;
		judge(&s, &part, &item);
	}
	tell(&s, bound);
	if (s.failed > 0 || s.deleted > 0)
		gt_rows_failed(ttl->id, s.failed > 0);
	adapt(&s, gt_now() - s.began - s.lost);
	if (s.deleted > 0 || s.error != NULL)
		gt_tally(&ttl->h, s.deleted, s.failed, s.error);
	gt_observe_rows(ttl->id, ttl->h.owner, s.deleted, s.lags);
	gt_handler_ran(&ttl->h, gt_now() - s.began - s.lost > GT_SLOW);
	gt_rate_give_back(&ttl->h, GT_RUNS, run->limit - s.deleted);	/* all were taken when it was chosen */
}
