/*-------------------------------------------------------------------------
 *
 * observe.c
 *	  What was seen since the server started: the numbers behind gt_metrics() and
 *	  gt_health().
 *
 * Every process adds to them, by counts.c and margins.c.  All of it lies in shared
 * memory, under one lock held for a few stores, and is lost with the server; without
 * preload there is none, but for what gt_claim() must know of a session's own rates.
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
#include "utils/timestamp.h"

#include "shared/due.h"
#include "shared/observe.h"
#include "shared/observe_lock.h"
#include "shared/parts.h"
#include "shared/shmem.h"

#define LOCAL_HANDLERS	64		/* without preload */
#define SHARE			8		/* whoever has this part of a full table gets no more of it, but for what was its own */

typedef struct Observe
{
	LWLock		lock;			/* of all below */
	GtDatabaseEntry databases[GT_MAX_DATABASES];
} Observe;

static Observe *observe = NULL;

static HTAB *handlers = NULL;	/* of GtHandlerEntry; without preload of this session */

/* ---------------------------------------------------------------- shared memory */

static Size
shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(Observe)), hash_estimate_size(GT_MAX_HANDLERS, sizeof(GtHandlerEntry)));
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

void
gt_observe_remove(HTAB *entries, Oid database)
{
	HASH_SEQ_STATUS scan;
	const Oid  *key;

	if (entries == NULL)
		return;
	gt_observe_lock();
	hash_seq_init(&scan, entries);
	while ((key = hash_seq_search(&scan)) != NULL)
		if (*key == database)
			(void) hash_search(entries, key, HASH_REMOVE, NULL);
	gt_observe_unlock();
}

bool
gt_observe_make_room(HTAB *entries, GtUse (*use_of) (const void *entry, Oid asker), Oid asker)
{
	HASH_SEQ_STATUS scan;
	const void *entry;
	const void *own = NULL;
	const void *oldest = NULL;
	TimestampTz own_used_at = 0;
	TimestampTz oldest_used_at = 0;
	int			nown = 0;

	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		GtUse		use = use_of(entry, asker);

		nown += use.own;
		if (use.held)
			continue;
		if (use.own && (own == NULL || use.used_at < own_used_at))
		{
			own = entry;
			own_used_at = use.used_at;
		}
		if (oldest == NULL || use.used_at < oldest_used_at)
		{
			oldest = entry;
			oldest_used_at = use.used_at;
		}
	}
	if (nown >= hash_get_num_entries(entries) / SHARE)
		oldest = own;
	if (oldest != NULL)
		(void) hash_search(entries, oldest, HASH_REMOVE, NULL);
	return oldest != NULL;
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

GtHandlerEntry *
gt_handler_known(int handler)
{
	return find_handler(handler, HASH_FIND);
}

static GtUse
use_of_handler(const void *entry, Oid owner)
{
	const GtHandlerEntry *handler = entry;
	bool		own = handler->owner == owner && handler->key.database == MyDatabaseId;

	return (GtUse) {handler->used_at, own, handler->pending > 0};	/* whose limit counts on it stays */
}

/* Nothing is counted as long as there is room for everybody. */
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

GtHandlerEntry *
gt_handler_entry(int handler, Oid owner)
{
	GtHandlerEntry *entry = gt_handler_known(handler);

	if (entry == NULL)
	{
		GtHandlerKey key;

		if (observe != NULL && hash_get_num_entries(handlers) >= GT_MAX_HANDLERS &&
			!gt_observe_make_room(handlers, use_of_handler, owner))
			return NULL;
		entry = find_handler(handler, HASH_ENTER);
		key = entry->key;
		memset(entry, 0, sizeof(GtHandlerEntry));
		entry->key = key;
		entry->owner = owner;
	}
	entry->used_at = gt_now();
	return entry;
}

void
gt_handler_forget(int handler)
{
	gt_observe_lock();
	(void) find_handler(handler, HASH_REMOVE);
	gt_observe_unlock();
}

/* Nothing is taken out for it. */
void
gt_handler_remember(int handler, Oid owner, Oid role)
{
	gt_observe_lock();
	if (gt_handler_known(handler) != NULL || observe == NULL || hash_get_num_entries(handlers) < GT_MAX_HANDLERS)
		gt_handler_entry(handler, owner)->role = role;
	gt_observe_unlock();
}

void
gt_handlers_stir(TimestampTz when)
{
	HASH_SEQ_STATUS scan;
	GtHandlerEntry *entry;

	if (handlers == NULL)
		return;
	gt_observe_lock();
	hash_seq_init(&scan, handlers);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->key.database == MyDatabaseId)
		{
			entry->row_due = Min(entry->row_due, when);
			entry->row_low = 0;
		}
	gt_observe_unlock();
}

/* A database was dropped, or the extension in it. */
void
gt_handlers_forget(Oid database)
{
	if (observe != NULL)
		gt_observe_remove(handlers, database);
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

void
gt_observe_recount(void)
{
	GtDatabaseEntry *entry;

	gt_observe_lock();
	entry = gt_database_entry();
	if (entry != NULL)
		entry->extension = InvalidOid;
	gt_observe_unlock();
}
