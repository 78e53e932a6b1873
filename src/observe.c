/*-------------------------------------------------------------------------
 *
 * observe.c
 *	  What was seen since the server started: the numbers behind gt_metrics() and
 *	  gt_health().
 *
 * Every process adds to them.  What a transaction did is kept in the process and
 * added at its commit, so that nothing rolled back is counted; renewal margins
 * are noted at once.  All of it lies in shared memory, under one lock held for a
 * few stores, and is lost with the server; without preload there is none, but
 * for what gt_claim() must know of a session's own rates.
 *
 * The gauges leases, garbage and dead start with one counting pass over the
 * tables in each server run, by whoever asks first, and are kept by the commits
 * from then on.  A commit that falls into the pass may be counted twice or not
 * at all; the next start counts anew.
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

#include "garbagetruck.h"
#include "observe.h"

#define MAX_SERVICES	1000	/* whose renewal margin is kept, of all databases */
#define SERVICE_SIZE	256
#define MARGIN_WINDOW	(5 * USECS_PER_MINUTE)	/* the smallest margin of this one and the one before is shown */
#define WHOLE			1000	/* margins are thousandths of the duration */
#define UNSEEN			1001
#define TAKEN_OUT		(-1)	/* handler of an entry that is free, but was not always */

const double gt_bounds[GT_NBOUNDS] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600
};

typedef struct Service
{
	Oid			database;		/* InvalidOid: free */
	char		name[SERVICE_SIZE];
	int64		window;			/* number of the current one */
	int			margin[2];		/* smallest, thousandths of the duration: of this window and the one before */
} Service;

typedef struct Observe
{
	LWLock		lock;			/* of all below */
	GtDatabaseEntry databases[GT_MAX_DATABASES];
	GtHandlerEntry handlers[GT_MAX_HANDLER_ENTRIES];
	Service		services[MAX_SERVICES];
} Observe;

static Observe *observe = NULL;

/* Without preload: what this session knows of handlers. */
static GtHandlerEntry local_handlers[64];

/* What this transaction did with one handler. */
typedef struct Ran
{
	int			handler;
	uint64		cleaned;
	uint64		failed;
	GtHistogram took;
	struct Ran *next;
} Ran;

/* What a (sub)transaction has done: it counts for the one around it when it commits, and for nothing when it aborts. */
typedef struct Delta
{
	int			level;
	int64		leases;			/* to the gauges */
	int64		garbage;
	int64		dead;
	uint64		created;		/* counters */
	uint64		renewed;
	uint64		released;
	uint64		expired;
	GtHistogram lag;
	Ran		   *ran;
	struct Delta *next;			/* of the one around it */
} Delta;

static Delta *deltas = NULL;	/* the innermost; in TopTransactionContext */

/* ---------------------------------------------------------------- shared memory */

Size
gt_observe_shmem_size(void)
{
	return MAXALIGN(sizeof(Observe));
}

void
gt_observe_init(void)
{
	bool		found;
	static int	tranche = 0;

	observe = ShmemInitStruct("garbagetruck_observe", sizeof(Observe), &found);
	if (!found)
	{
		memset(observe, 0, sizeof(Observe));
		/* the postmaster comes by again after a crash */
		if (tranche == 0)
			tranche = LWLockNewTrancheId();
		LWLockInitialize(&observe->lock, tranche);
		LWLockRegisterTranche(tranche, "garbagetruck_observe");
	}
}

void
gt_observe_lock(void)
{
	if (observe != NULL)
		LWLockAcquire(&observe->lock, LW_EXCLUSIVE);
}

void
gt_observe_unlock(void)
{
	if (observe != NULL)
		LWLockRelease(&observe->lock);
}

/* Probing with open addresses: what was taken out leaves a place that is passed over, and used again. */
GtHandlerEntry *
gt_handler_entry(int handler)
{
	GtHandlerEntry *entries = observe != NULL ? observe->handlers : local_handlers;
	int			n = observe != NULL ? GT_MAX_HANDLER_ENTRIES : (int) lengthof(local_handlers);
	uint32		start = ((uint32) handler * 31 + (uint32) MyDatabaseId) % n;
	GtHandlerEntry *unused = NULL;
	int			i;

	for (i = 0; i < n; i++)
	{
		GtHandlerEntry *entry = &entries[(start + i) % n];

		if (entry->database == MyDatabaseId && entry->handler == handler)
			return entry;
		if (OidIsValid(entry->database))
			continue;
		if (unused == NULL)
			unused = entry;
		if (entry->handler != TAKEN_OUT)
			break;
	}
	if (unused != NULL)
	{
		memset(unused, 0, sizeof(GtHandlerEntry));
		unused->database = MyDatabaseId;
		unused->handler = handler;
	}
	return unused;
}

/* A database was dropped. */
void
gt_observe_forget(Oid database)
{
	int			i;

	if (observe == NULL)
		return;
	gt_observe_lock();
	for (i = 0; i < GT_MAX_HANDLER_ENTRIES; i++)
		if (observe->handlers[i].database == database)
		{
			observe->handlers[i].database = InvalidOid;
			observe->handlers[i].handler = TAKEN_OUT;
		}
	for (i = 0; i < MAX_SERVICES; i++)
		if (observe->services[i].database == database)
		{
			observe->services[i].database = InvalidOid;
			strcpy(observe->services[i].name, "-");
		}
	gt_observe_unlock();
}

GtDatabaseEntry *
gt_database_entry(void)
{
	GtDatabase *db;
	GtDatabaseEntry *entry;

	if (observe == NULL)
		return NULL;
	db = gt_my_database();
	if (db == NULL)
		return NULL;
	entry = &observe->databases[db - gt_shared->databases];
	if (entry->database != MyDatabaseId)
	{
		/* the place was a dropped database's */
		memset(entry, 0, sizeof(GtDatabaseEntry));
		entry->database = MyDatabaseId;
		entry->progress_at = gt_now();
	}
	return entry;
}

/* ---------------------------------------------------------------- histograms */

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

/* ---------------------------------------------------------------- at the end of the transaction */

static void
add_up(const Delta *done)
{
	GtDatabase *mine = gt_my_database();	/* may make the entry, under another lock */
	GtDatabaseEntry *database;
	Ran		   *r;

	if (mine != NULL)
	{
		GtCounters *counters = &gt_shared->counters[mine - gt_shared->databases];

		pg_atomic_fetch_add_u64(&counters->created, done->created);
		pg_atomic_fetch_add_u64(&counters->renewed, done->renewed);
		pg_atomic_fetch_add_u64(&counters->released, done->released);
		pg_atomic_fetch_add_u64(&counters->expired, done->expired);
	}
	if (done->ran == NULL && done->lag.count == 0 && done->leases == 0 && done->garbage == 0 && done->dead == 0)
		return;
	gt_observe_lock();
	database = gt_database_entry();
	for (r = done->ran; r != NULL; r = r->next)
	{
		GtHandlerEntry *entry = gt_handler_entry(r->handler);

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
		database->leases += done->leases;
		database->garbage += done->garbage;
		database->dead += done->dead;
		add_histogram(&database->lag, &done->lag);
	}
	gt_observe_unlock();
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && deltas != NULL)
		add_up(deltas);
	deltas = NULL;
}

/* What was done with one handler, in this delta. */
static Ran *
ran_of(Delta *delta, int handler)
{
	Ran		   *r;

	for (r = delta->ran; r != NULL && r->handler != handler; r = r->next)
		;
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

	to->leases += from->leases;
	to->garbage += from->garbage;
	to->dead += from->dead;
	to->created += from->created;
	to->renewed += from->renewed;
	to->released += from->released;
	to->expired += from->expired;
	add_histogram(&to->lag, &from->lag);
	for (r = from->ran; r != NULL; r = r->next)
	{
		Ran		   *sum = ran_of(to, r->handler);

		sum->cleaned += r->cleaned;
		sum->failed += r->failed;
		add_histogram(&sum->took, &r->took);
	}
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	Delta	   *done = deltas;

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
	static bool registered = false;

	if (observe == NULL)
		return false;
	if (!registered)
	{
		RegisterXactCallback(at_end_of_transaction, NULL);
		RegisterSubXactCallback(at_end_of_subtransaction, NULL);
		registered = true;
	}
	return true;
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
	delta->leases += leases;
	delta->garbage += garbage;
	delta->dead += dead;
}

void
gt_count_created(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->created += n;
	delta->leases += n;
}

void
gt_count_renewed(int n)
{
	Delta	   *delta = delta_here();

	if (delta != NULL)
		delta->renewed += n;
}

void
gt_count_released(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->released += n;
	delta->leases -= n;
}

void
gt_count_expired(int n)
{
	Delta	   *delta = delta_here();

	if (delta == NULL)
		return;
	delta->expired += n;
	delta->leases -= n;
}

/* An attempt starts, so long after it could have. */
void
gt_observe_lag(int64 lag)
{
	Delta	   *delta = delta_here();

	if (delta != NULL)
		observe_value(&delta->lag, Max(lag, 0));
}

/* An attempt is over. took < 0: not known; lag < 0: it was not the first, or has been observed already. */
void
gt_observe_cleanup(const GtHandler *h, bool ok, int64 took, int64 lag)
{
	Delta	   *delta = delta_here();
	Ran		   *r;

	if (delta == NULL)
		return;
	if (lag >= 0)
		gt_observe_lag(lag);
	r = ran_of(delta, h->id);
	if (ok)
		r->cleaned++;
	else
		r->failed++;
	if (took >= 0)
		observe_value(&r->took, took);
}

/* ---------------------------------------------------------------- renewals */

/* The entry of a service; made where there is room. Lock held. */
static Service *
service_entry(const char *name)
{
	uint32		start = MyDatabaseId;
	Service    *unused = NULL;
	const char *p;
	int			i;

	for (p = name; *p; p++)
		start = start * 31 + (unsigned char) *p;
	for (i = 0; i < MAX_SERVICES; i++)
	{
		Service    *service = &observe->services[(start + i) % MAX_SERVICES];

		if (service->database == MyDatabaseId && strcmp(service->name, name) == 0)
			return service;
		if (OidIsValid(service->database))
			continue;
		if (unused == NULL)
			unused = service;
		if (service->name[0] == '\0')
			break;				/* it was never used: nobody is beyond it */
	}
	if (unused != NULL)
	{
		unused->database = MyDatabaseId;
		strlcpy(unused->name, name, SERVICE_SIZE);
		unused->window = 0;
		unused->margin[0] = unused->margin[1] = UNSEEN;
	}
	return unused;
}

static void
move_window(Service *service, int64 window)
{
	if (service->window == window)
		return;
	service->margin[1] = service->window == window - 1 ? service->margin[0] : UNSEEN;
	service->margin[0] = UNSEEN;
	service->window = window;
}

/* A lease of this service was renewed with so much of its duration left, us. */
void
gt_observe_renewal(const char *service_id, int64 left, int64 duration)
{
	int			margin;
	Service    *service;

	if (observe == NULL || duration <= 0)
		return;
	margin = (int) (Max(Min((double) left / duration, 1.0), 0.0) * WHOLE);
	gt_observe_lock();
	service = service_entry(service_id);
	if (service != NULL)
	{
		move_window(service, gt_now() / MARGIN_WINDOW);
		service->margin[0] = Min(service->margin[0], margin);
	}
	gt_observe_unlock();
}

/* What services of this database renewed with lately, at worst. */
List *
gt_observe_margins(void)
{
	List	   *result = NIL;
	int64		window = gt_now() / MARGIN_WINDOW;
	int			i;

	for (i = 0; i < MAX_SERVICES; i++)
	{
		char		name[SERVICE_SIZE];
		int			margin = -1;

		gt_observe_lock();
		if (observe->services[i].database == MyDatabaseId)
		{
			move_window(&observe->services[i], window);
			margin = Min(observe->services[i].margin[0], observe->services[i].margin[1]);
			strlcpy(name, observe->services[i].name, SERVICE_SIZE);
		}
		gt_observe_unlock();
		if (margin >= 0 && margin <= WHOLE)
		{
			GtMargin   *m = palloc(sizeof(GtMargin));

			m->service_id = pstrdup(name);
			m->ratio = (double) margin / WHOLE;
			result = lappend(result, m);
		}
	}
	return result;
}
