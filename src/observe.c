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
 * The tables of handlers and of services have an end.  Where one is full, what was
 * used longest ago makes room: what is whoever asks' own, if that is a good part of
 * the table already (one role of one database), else anybody's.  So nobody's are
 * pushed out by one role, however many handlers it makes and names it invents, nor
 * by what its open transactions have claimed, which can not be taken out.
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
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "garbagetruck.h"
#include "observe.h"

#define LOCAL_HANDLERS	64		/* without preload */
#define MAX_SERVICES	1000	/* whose renewal margin is kept, of all databases */
#define SHARE			8		/* whoever has this part of a full table gets no more of it, but for what was its own */
#define SERVICE_SIZE	256
#define MARGIN_WINDOW	(5 * USECS_PER_MINUTE)	/* the smallest margin of this one and the one before is shown */
#define WHOLE			1000	/* margins are thousandths of the duration */
#define UNSEEN			1001

const double gt_bounds[GT_NBOUNDS] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600
};

typedef struct ServiceKey
{
	Oid			database;
	char		name[SERVICE_SIZE]; /* filled up with zeros */
} ServiceKey;

typedef struct Service
{
	ServiceKey	key;			/* first, for the hash */
	Oid			role;			/* that renewed first */
	TimestampTz used_at;
	int64		window;			/* number of the current one */
	int			margin[2];		/* smallest, thousandths of the duration: of this window and the one before */
} Service;

typedef struct Observe
{
	LWLock		lock;			/* of all below */
	GtDatabaseEntry databases[GT_MAX_DATABASES];
} Observe;

static Observe *observe = NULL;

static HTAB *handlers = NULL;	/* of GtHandlerEntry; without preload of this session */
static HTAB *services;			/* of Service */

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
static Dropped *dropped = NULL; /* likewise */

/* ---------------------------------------------------------------- shared memory */

static Size
shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(Observe)),
					add_size(hash_estimate_size(GT_MAX_HANDLERS, sizeof(GtHandlerEntry)),
							 hash_estimate_size(MAX_SERVICES, sizeof(Service))));
}

static void
describe_handlers(HASHCTL *control)
{
	memset(control, 0, sizeof(HASHCTL));
	control->keysize = sizeof(GtHandlerKey);
	control->entrysize = sizeof(GtHandlerEntry);
}

static void
start(bool first)
{
	bool		found;
	static int	tranche = 0;
	HASHCTL		control;

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
	describe_handlers(&control);
	handlers = ShmemInitHash("garbagetruck_handlers", GT_MAX_HANDLERS, GT_MAX_HANDLERS, &control,
							 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	control.keysize = sizeof(ServiceKey);
	control.entrysize = sizeof(Service);
	services = ShmemInitHash("garbagetruck_services", MAX_SERVICES, MAX_SERVICES, &control,
							 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

void
gt_observe_init(void)
{
	gt_shmem_part(shmem_size(), start);
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

static HTAB *
handler_table(void)
{
	HASHCTL		control;

	if (handlers == NULL)
	{
		describe_handlers(&control);
		handlers = hash_create("garbagetruck handlers", LOCAL_HANDLERS, &control, HASH_ELEM | HASH_BLOBS);
	}
	return handlers;
}

static void *
find_handler(int handler, HASHACTION action)
{
	GtHandlerKey key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.handler = handler;
	return hash_search(handler_table(), &key, action, NULL);
}

/* See observe.h. */
GtHandlerEntry *
gt_handler_known(int handler)
{
	return find_handler(handler, HASH_FIND);
}

/* The table of handlers is full: takes out what has been unused for longest. false: the owner's are all in use. */
static bool
make_room(Oid owner)
{
	HASH_SEQ_STATUS scan;
	GtHandlerEntry *entry;
	GtHandlerEntry *own = NULL;
	GtHandlerEntry *oldest = NULL;
	int			nown = 0;

	hash_seq_init(&scan, handlers);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		bool		is_own = entry->owner == owner && entry->key.database == MyDatabaseId;

		nown += is_own;
		if (entry->pending > 0)
			continue;			/* its limit counts on it */
		if (is_own && (own == NULL || entry->used_at < own->used_at))
			own = entry;
		if (oldest == NULL || entry->used_at < oldest->used_at)
			oldest = entry;
	}
	if (nown >= GT_MAX_HANDLERS / SHARE)
		oldest = own;
	if (oldest != NULL)
		(void) hash_search(handlers, &oldest->key, HASH_REMOVE, NULL);
	return oldest != NULL;
}

/* See observe.h. Nothing is counted as long as there is room for everybody. */
bool
gt_handler_may_be_held(const GtHandlerEntry *entry)
{
	HASH_SEQ_STATUS scan;
	GtHandlerEntry *other;
	int			held = 0;

	if (observe == NULL || entry->pending > 0 || hash_get_num_entries(handlers) < GT_MAX_HANDLERS / 2)
		return true;
	hash_seq_init(&scan, handlers);
	while ((other = hash_seq_search(&scan)) != NULL)
		held += other->pending > 0 && other->owner == entry->owner && other->key.database == MyDatabaseId;
	return held < GT_MAX_HANDLERS / SHARE;
}

/* See observe.h. */
GtHandlerEntry *
gt_handler_entry(const GtHandler *h)
{
	GtHandlerEntry *entry = gt_handler_known(h->id);
	TimestampTz now = gt_now();

	if (entry == NULL)
	{
		GtHandlerKey key;

		if (observe != NULL && hash_get_num_entries(handlers) >= GT_MAX_HANDLERS && !make_room(h->owner))
			return NULL;
		entry = find_handler(h->id, HASH_ENTER);
		key = entry->key;
		memset(entry, 0, sizeof(GtHandlerEntry));
		entry->key = key;
		entry->owner = h->owner;
		entry->tokens = 1;
		entry->refilled_at = now;
	}
	entry->used_at = now;
	return entry;
}

/* A database was dropped, or the extension in it. */
void
gt_observe_forget(Oid database)
{
	HASH_SEQ_STATUS scan;
	GtHandlerEntry *entry;
	Service    *service;

	if (observe == NULL)
		return;
	gt_observe_lock();
	hash_seq_init(&scan, handlers);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->key.database == database)
			(void) hash_search(handlers, &entry->key, HASH_REMOVE, NULL);
	hash_seq_init(&scan, services);
	while ((service = hash_seq_search(&scan)) != NULL)
		if (service->key.database == database)
			(void) hash_search(services, &service->key, HASH_REMOVE, NULL);
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
		database->leases += done->leases;
		database->garbage += done->garbage;
		database->dead += done->dead;
		add_histogram(&database->lag, &done->lag);
	}
	gt_observe_unlock();
}

static void
forget_dropped(void)
{
	for (; dropped != NULL; dropped = dropped->next)
	{
		if (dropped->handler == 0)
		{
			gt_observe_forget(MyDatabaseId);
			continue;
		}
		gt_observe_lock();
		(void) find_handler(dropped->handler, HASH_REMOVE);
		gt_observe_unlock();
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
	if (observe == NULL)
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
	gt_observe_lock();
	(void) gt_handler_entry(h);	/* made now, and not in the callback */
	gt_observe_unlock();
	if (ok)
		r->cleaned++;
	else
		r->failed++;
	if (took >= 0)
		observe_value(&r->took, took);
}

/* ---------------------------------------------------------------- renewals */

/* The table of services is full: takes out what has been unused for longest. */
static void
make_room_for_service(void)
{
	HASH_SEQ_STATUS scan;
	Service    *service;
	Service    *own = NULL;
	Service    *oldest = NULL;
	int			nown = 0;

	hash_seq_init(&scan, services);
	while ((service = hash_seq_search(&scan)) != NULL)
	{
		bool		is_own = service->role == GetUserId() && service->key.database == MyDatabaseId;

		nown += is_own;
		if (is_own && (own == NULL || service->used_at < own->used_at))
			own = service;
		if (oldest == NULL || service->used_at < oldest->used_at)
			oldest = service;
	}
	if (nown >= MAX_SERVICES / SHARE)
		oldest = own;
	(void) hash_search(services, &oldest->key, HASH_REMOVE, NULL);
}

/* The entry of a service. Lock held. */
static Service *
service_entry(const char *name)
{
	Service    *service;
	ServiceKey	key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	strlcpy(key.name, name, SERVICE_SIZE);
	service = hash_search(services, &key, HASH_FIND, NULL);
	if (service != NULL)
		return service;
	if (hash_get_num_entries(services) >= MAX_SERVICES)
		make_room_for_service();
	service = hash_search(services, &key, HASH_ENTER, NULL);
	service->role = GetUserId();
	service->window = 0;
	service->margin[0] = service->margin[1] = UNSEEN;
	return service;
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
	service->used_at = gt_now();
	move_window(service, service->used_at / MARGIN_WINDOW);
	service->margin[0] = Min(service->margin[0], margin);
	gt_observe_unlock();
}

/* What services of this database renewed with lately, at worst. */
List *
gt_observe_margins(void)
{
	List	   *result = NIL;
	int64		window = gt_now() / MARGIN_WINDOW;
	GtMargin   *found = palloc(MAX_SERVICES * sizeof(GtMargin));
	char	   *names = palloc(MAX_SERVICES * SERVICE_SIZE);
	HASH_SEQ_STATUS scan;
	Service    *service;
	int			n = 0;
	int			i;

	/* memory first: nothing may fail under the lock, in the middle of a look at the table */
	gt_observe_lock();
	hash_seq_init(&scan, services);
	while ((service = hash_seq_search(&scan)) != NULL)
	{
		int			margin;

		if (service->key.database != MyDatabaseId)
			continue;
		move_window(service, window);
		margin = Min(service->margin[0], service->margin[1]);
		if (margin < 0 || margin > WHOLE)
			continue;
		found[n].service_id = strcpy(names + n * SERVICE_SIZE, service->key.name);
		found[n++].ratio = (double) margin / WHOLE;
	}
	gt_observe_unlock();
	for (i = 0; i < n; i++)
		result = lappend(result, &found[i]);
	return result;
}
