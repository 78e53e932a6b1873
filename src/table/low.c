/*-------------------------------------------------------------------------
 *
 * low.c
 *	  The low end of a queue: from where on there was anything.
 *
 * The entries of what has been ended or cleaned stay at the low end of an index
 * until they are vacuumed, and one long snapshot elsewhere keeps them there.  So it
 * is remembered from where on there was anything.  All of it is looked at once in
 * a while, and where nothing would be found else; and where something has come in
 * below: what was committed over a second after it was due, and what a prepared
 * transaction wrote, which may be days old (GtDatabase.late tells of both).  But no more
 * often than in proportion to what such a look costs.
 *
 * Workers share what they know, in GtShared.lows under GtShared.lock: where many
 * roles wait one is there for a few passes only, and would begin each time with a
 * look at all.  A session knows of its own looks alone, since it sees what its
 * transaction has done, and that can be undone.  All of it is a hint: what is lost
 * (two queues contend for a place, two workers write) costs a look at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "shared/due.h"
#include "table/low.h"
#include "table/relations.h"

#define LOOK_AT_ALL (10 * USECS_PER_SEC)	/* all of a queue is looked at as often, */
#define COST_FACTOR 20			/* and where nothing was found after so many times what that took, */
#define CHEAP		1000		/* us: unless it was as little */
#define PROBES		8			/* places in which a queue may be */
#define OWN_LOWS	64			/* places of a session; a power of two */

static GtLow *
places(int *n)
{
	static GtLow *own = NULL;

	if (gt_my_slot != NULL)
	{
		*n = GT_LOWS;
		return gt_shared->lows;
	}
	if (own == NULL)
		own = MemoryContextAllocZero(TopMemoryContext, OWN_LOWS * sizeof(GtLow));
	*n = OWN_LOWS;
	return own;
}

static void
lock(LWLockMode mode)
{
	if (gt_my_slot != NULL)
		LWLockAcquire(gt_shared->lock, mode);
}

static void
unlock(void)
{
	if (gt_my_slot != NULL)
		LWLockRelease(gt_shared->lock);
}

/* The tables are others, or are where they were in another order: nothing is known. */
static void
forget_old(void)
{
	static uint64 changes = PG_UINT64_MAX;	/* what they were before our first look is told by the time of the last look at all */
	GtLow	   *lows;
	int			n;
	int			i;

	if (changes == PG_UINT64_MAX)
		changes = gt_table_changes;
	if (changes == gt_table_changes)
		return;
	lows = places(&n);
	lock(LW_EXCLUSIVE);
	for (i = 0; i < n; i++)
		if (lows[i].database == MyDatabaseId)
			lows[i].database = InvalidOid;
	unlock();
	changes = gt_table_changes;
}

/* The place of this queue, or that which it may take. Lock held. */
static GtLow *
place_of(GtIndexId index, uint32 key)
{
	uint32		hash = hash_combine(murmurhash32(MyDatabaseId), murmurhash32(key + (uint32) index));
	GtLow	   *oldest = NULL;
	int			n;
	GtLow	   *lows = places(&n);
	int			i;

	for (i = 0; i < PROBES; i++)
	{
		GtLow	   *low = &lows[(hash + i) % n];

		if (low->database == MyDatabaseId && low->index == (int) index && low->key == key)
			return low;
		if (oldest == NULL || !OidIsValid(low->database) ||
			(OidIsValid(oldest->database) && low->looked_at < oldest->looked_at))
			oldest = low;
	}
	return oldest;
}

static uint64
late_here(void)
{
	GtDatabase *db = gt_my_database();

	return db == NULL ? 0 : pg_atomic_read_u64(&db->late);
}

void
gt_low_recall(GtLow *low, GtIndexId index, uint32 key)
{
	uint64		late = late_here();
	const GtLow *known;

	forget_old();
	lock(LW_SHARED);
	known = place_of(index, key);
	*low = *known;
	unlock();
	low->late_now = late;
	if (low->database == MyDatabaseId && low->index == (int) index && low->key == key)
		return;
	memset(low, 0, sizeof(GtLow));
	low->database = MyDatabaseId;
	low->index = (int) index;
	low->key = key;
	low->late_now = late;
	low->low = PG_INT64_MIN;
	low->after.check_at = GT_NOWHERE;
}

void
gt_low_remember(const GtLow *low)
{
	lock(LW_EXCLUSIVE);
	*place_of((GtIndexId) low->index, low->key) = *low;
	unlock();
}

bool
gt_low_all_is_due(const GtLow *low, TimestampTz now)
{
	return low->looked_at == 0 || now >= low->looked_at + LOOK_AT_ALL || now >= gt_low_late_from(low);
}

TimestampTz
gt_low_all_from(const GtLow *low)
{
	return low->cost < CHEAP ? 0 : low->looked_at + Min(LOOK_AT_ALL, COST_FACTOR * low->cost);
}

TimestampTz
gt_low_late_from(const GtLow *low)
{
	return low->late == low->late_now ? GT_NEVER : gt_low_all_from(low);
}

void
gt_low_looked_at_all(GtLow *low, TimestampTz began)
{
	low->late = low->late_now;
	low->looked_at = gt_now();
	low->cost = low->looked_at - began;
}

void
gt_low_found(GtLow *low, TimestampTz from, TimestampTz first, TimestampTz began)
{
	/* what commits meanwhile was written a moment ago */
	low->low = Max(from, Min(first, began - GT_LATE));
}
