/*-------------------------------------------------------------------------
 *
 * counts.c
 *	  What a transaction has done, counted when it commits.
 *
 * Every process keeps what it counts until the transaction in progress, or the
 * subtransaction, has ended, and adds it then to what observe.c has in shared memory:
 * so nothing rolled back is counted.  What is prepared is handed over to prepared.c, and
 * counted by whoever finds that it has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/transaction.h"
#include "shared/counters.h"
#include "shared/counts.h"
#include "shared/due.h"
#include "shared/margins.h"
#include "shared/observe.h"
#include "shared/prepared.h"
#include "shared/quota.h"
#include "shared/renewals.h"
#include "shared/shmem.h"

const double gt_bounds[GT_NBOUNDS] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600
};

/* What this transaction did with one handler, whose entry there is. */
typedef struct Ran
{
	int			handler;
	uint64		cleaned;
	uint64		failed;
	GtHistogram took;
	struct Ran *next;
} Ran;

/* A handler that this transaction has dropped; 0: all of this database, with the extension. */
typedef struct Dropped
{
	int			handler;
	int			level;
	struct Dropped *next;
} Dropped;

/* What a (sub)transaction has done: it counts for the one around it when it commits, and for nothing when it aborts. */
typedef struct Delta
{
	int			level;
	GtCounted	counted;
	Ran		   *ran;
	struct Delta *next;			/* of the one around it */
} Delta;

static Delta *deltas = NULL;	/* the innermost; in TopTransactionContext */
static Dropped *dropped = NULL; /* likewise */

static void
observe_value(GtHistogram *histogram, int64 us)
{
	double		seconds = (double) us / USECS_PER_SEC;
	int			i = 0;

	while (i < GT_NBOUNDS && seconds > gt_bounds[i])
		i++;
	histogram->bucket[i]++;
	histogram->count++;
	histogram->sum += seconds;
}

static void
add_histogram(GtHistogram *to, const GtHistogram *from)
{
	int			i;

	for (i = 0; i <= GT_NBOUNDS; i++)
		to->bucket[i] += from->bucket[i];
	to->count += from->count;
	to->sum += from->sum;
}

static void
add_up(const Delta *done)
{
	GtDatabase *mine = gt_my_database();	/* may make the entry, under another lock */
	GtDatabaseEntry *database;
	Ran		   *r;
	int			i;

	if (mine != NULL)
	{
		GtCounters *counters = &gt_shared->counters[mine - gt_shared->databases];

		for (i = 0; i < GT_NCOUNTERS; i++)
			pg_atomic_fetch_add_u64(&counters->n[i], done->counted.n[i]);
	}
	if (done->ran == NULL && done->counted.lag.count == 0 && done->counted.leases == 0 && done->counted.garbage == 0 &&
		done->counted.dead == 0)
		return;
	gt_observe_lock();
	database = gt_database_entry();
	for (r = done->ran; r != NULL; r = r->next)
	{
		GtHandlerEntry *entry = gt_handler_known(r->handler);

		if (database != NULL && r->cleaned > 0)
			database->progress_at = gt_now();
		if (entry == NULL)
			continue;
		entry->cleaned += r->cleaned;
		entry->failed += r->failed;
		add_histogram(&entry->took, &r->took);
	}
	if (database != NULL)
	{
		database->leases += done->counted.leases;
		database->garbage += done->counted.garbage;
		database->dead += done->counted.dead;
		add_histogram(&database->lag, &done->counted.lag);
		add_histogram(&database->row_lag, &done->counted.row_lag);
	}
	gt_observe_unlock();
}

/* The transaction is prepared: it is counted when it has committed, by somebody else. */
static void
hand_over(const Delta *done)
{
	GtPrepared *to = gt_prepared_mine();
	const Ran  *r;

	if (to == NULL)
		return;
	to->counted = done->counted;
	for (r = done->ran; r != NULL; r = r->next)
	{
		GtPreparedHandler *handler = gt_prepared_handler(to, r->handler);

		if (handler == NULL)
			break;
		handler->cleaned = r->cleaned;
		handler->failed = r->failed;
		handler->took = r->took;
	}
}

/* The opposite. */
static void
add_up_prepared(const GtPrepared *from)
{
	Ran			ran[GT_PREPARED_HANDLERS];
	Delta		done;
	int			i;

	memset(&done, 0, sizeof(done));
	done.counted = from->counted;
	for (i = 0; i < from->nhandlers; i++)
	{
		const GtPreparedHandler *h = &from->handlers[i];

		ran[i] = (Ran) {h->handler, h->cleaned, h->failed, h->took, done.ran};
		done.ran = &ran[i];
	}
	add_up(&done);
}

/* Claims of a transaction that has ended no longer count twice, or at all. */
static void
give_back_claims(const GtPrepared *from)
{
	int			i;

	gt_observe_lock();
	for (i = 0; i < from->nhandlers; i++)
	{
		GtHandlerEntry *entry = gt_handler_known(from->handlers[i].handler);

		if (entry != NULL)
			entry->pending = Max(entry->pending - from->handlers[i].claims, 0);
	}
	gt_observe_unlock();
}

/* See counts.h. */
void
gt_count_prepared(void)
{
	GtPrepared	ended;
	bool		committed;

	while (gt_prepared_take(&ended, &committed))
	{
		if (committed)
			add_up_prepared(&ended);
		give_back_claims(&ended);
	}
}

/* A database was dropped, or the extension in it. */
void
gt_observe_forget(Oid database)
{
	gt_handlers_forget(database);
	gt_margins_forget(database);
	gt_quota_forget(database);
}

static void
forget_dropped(void)
{
	for (; dropped != NULL; dropped = dropped->next)
	{
		if (dropped->handler == 0)
		{
			gt_observe_forget(MyDatabaseId);
			gt_renewals_forget(MyDatabaseId);
		}
		else
			gt_handler_forget(dropped->handler);
	}
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
		forget_dropped();
	dropped = NULL;
	if (event == XACT_EVENT_COMMIT && deltas != NULL)
		add_up(deltas);
	else if (event == XACT_EVENT_PREPARE && deltas != NULL)
		hand_over(deltas);
	deltas = NULL;
}

static Ran *
find_ran(const Delta *delta, int handler)
{
	Ran		   *r;

	for (r = delta->ran; r != NULL && r->handler != handler; r = r->next)
		;
	return r;
}

/* What was done with one handler, in this delta. */
static Ran *
ran_of(Delta *delta, int handler)
{
	Ran		   *r = find_ran(delta, handler);

	if (r == NULL)
	{
		r = MemoryContextAllocZero(TopTransactionContext, sizeof(Ran));
		r->handler = handler;
		r->next = delta->ran;
		delta->ran = r;
	}
	return r;
}

static void
merge(Delta *to, const Delta *from)
{
	const Ran  *r;
	int			i;

	to->counted.leases += from->counted.leases;
	to->counted.garbage += from->counted.garbage;
	to->counted.dead += from->counted.dead;
	for (i = 0; i < GT_NCOUNTERS; i++)
		to->counted.n[i] += from->counted.n[i];
	add_histogram(&to->counted.lag, &from->counted.lag);
	add_histogram(&to->counted.row_lag, &from->counted.row_lag);
	for (r = from->ran; r != NULL; r = r->next)
	{
		Ran		   *sum = ran_of(to, r->handler);

		sum->cleaned += r->cleaned;
		sum->failed += r->failed;
		add_histogram(&sum->took, &r->took);
	}
}

static void
follow_dropped(SubXactEvent event, int level)
{
	Dropped    *d;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (dropped != NULL && dropped->level >= level)
			dropped = dropped->next;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (d = dropped; d != NULL && d->level >= level; d = d->next)
			d->level = level - 1;
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	Delta	   *done = deltas;

	follow_dropped(event, GetCurrentTransactionNestLevel());
	if (done == NULL || done->level < GetCurrentTransactionNestLevel())
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB && (done->next == NULL || done->next->level < done->level - 1))
		done->level--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB || event == SUBXACT_EVENT_ABORT_SUB)
	{
		deltas = done->next;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			merge(deltas, done);
		while (done->ran != NULL)
		{
			Ran		   *r = done->ran;

			done->ran = r->next;
			pfree(r);
		}
		pfree(done);
	}
}

/* false: there is nowhere to add up to. */
static bool
want_callbacks(void)
{
	if (gt_shared == NULL)
		return false;
	gt_at_end(GT_AT_END_COUNTS, at_end_of_transaction, at_end_of_subtransaction);
	return true;
}

/* What is known of this handler goes when this (sub)transaction commits; 0: of all, with the extension. */
void
gt_observe_dropped(int handler)
{
	Dropped    *d;

	if (!want_callbacks())
		return;
	d = MemoryContextAlloc(TopTransactionContext, sizeof(Dropped));
	d->handler = handler;
	d->level = GetCurrentTransactionNestLevel();
	d->next = dropped;
	dropped = d;
}

/* Of the current (sub)transaction; NULL: there is nowhere to add it up to. */
static Delta *
delta_here(void)
{
	int			level = GetCurrentTransactionNestLevel();

	if (!want_callbacks())
		return NULL;
	if (deltas == NULL || deltas->level < level)
	{
		Delta	   *delta = MemoryContextAllocZero(TopTransactionContext, sizeof(Delta));

		delta->level = level;
		delta->next = deltas;
		deltas = delta;
	}
	return deltas;
}

/* So many more leases, so much more garbage, so much more of it dead, if this (sub)transaction commits. */
void
gt_observe_gauges(int leases, int garbage, int dead)
{
	Delta	   *delta = leases == 0 && garbage == 0 && dead == 0 ? NULL : delta_here();

	if (delta == NULL)
		return;
	delta->counted.leases += leases;
	delta->counted.garbage += garbage;
	delta->counted.dead += dead;
}

void
gt_count_created(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->counted.n[GT_LEASES_CREATED] += n;
	delta->counted.leases += n;
}

void
gt_count_renewed(int n)
{
	Delta	   *delta = delta_here();

	if (delta != NULL)
		delta->counted.n[GT_LEASES_RENEWED] += n;
}

void
gt_count_renewed_now(int n)
{
	GtDatabase *mine = gt_my_database();

	if (mine != NULL)
		pg_atomic_fetch_add_u64(&gt_shared->counters[mine - gt_shared->databases].n[GT_LEASES_RENEWED], n);
}

void
gt_count_released(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->counted.n[GT_LEASES_RELEASED] += n;
	delta->counted.leases -= n;
}

void
gt_count_expired(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->counted.n[GT_LEASES_EXPIRED] += n;
	delta->counted.leases -= n;
}

/* An attempt starts, so long after it could have. */
void
gt_observe_lag(int64 lag)
{
	Delta	   *delta = delta_here();

	if (delta != NULL)
		observe_value(&delta->counted.lag, Max(lag, 0));
}

/* An attempt is over. took < 0: not known; lag < 0: it was not the first, or has been observed already. */
void
gt_observe_cleanup(int handler, Oid owner, bool ok, int64 took, int64 lag)
{
	Delta	   *delta = delta_here();
	Ran		   *r;

	if (delta == NULL)
		return;
	if (lag >= 0)
		observe_value(&delta->counted.lag, lag);
	r = find_ran(delta, handler);
	if (r == NULL)
	{
		r = ran_of(delta, handler);
		gt_observe_lock();
		(void) gt_handler_entry(handler, owner);	/* made now, and not in the callback; once for all of a batch */
		gt_observe_unlock();
	}
	if (ok)
		r->cleaned++;
	else
		r->failed++;
	if (took >= 0)
		observe_value(&r->took, took);
}

void
gt_observe_rows(int ttl, Oid owner, int n, const int64 *lags)
{
	Delta	   *delta = n > 0 ? delta_here() : NULL;
	int			i;

	if (delta == NULL)
		return;
	gt_observe_lock();
	(void) gt_handler_entry(ttl, owner);
	gt_observe_unlock();
	ran_of(delta, ttl)->cleaned += n;
	for (i = 0; i < n; i++)
		observe_value(&delta->counted.row_lag, Max(lags[i], 0));
}
