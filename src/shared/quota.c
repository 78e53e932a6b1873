/*-------------------------------------------------------------------------
 *
 * quota.c
 *	  How many leases a role has for a service, where that is limited.
 *
 * To count them takes the longer, the more there are.  So the number is kept in
 * shared memory from when it was counted first, under the lock of observe.c, and
 * whoever creates leases or ends them adds what has come of that, at the commit.
 * Nothing is kept where nobody has asked, as there is no limit.
 *
 * What commits while the leases are counted may be in twice or not at all, and what
 * is prepared counts as if it had committed, but for what it ends.  So nobody is
 * refused by a number that was not counted lately, as measured by what that costs,
 * and it is counted anew now and then.  Without preload it is counted each time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "base/transaction.h"
#include "shared/clock.h"
#include "shared/margins.h"
#include "shared/observe_lock.h"
#include "shared/parts.h"
#include "shared/quota.h"

#define MAX_COUNTS	4096		/* of all databases; what was asked for longest ago makes room */
#define FRESH		USECS_PER_SEC	/* one that is no older may refuse; or 20 times what it cost to count */
#define OLD			(10 * USECS_PER_MINUTE) /* one that is older is not believed; or 1000 times that */

typedef struct Count
{
	GtQuotaKey	key;			/* first, for the hash */
	int64		n;
	int64		added;			/* by those who have committed, since: */
	TimestampTz made_at;
	bool		more;			/* than could be counted */
	TimestampTz counted_at;
	int64		cost;			/* how long that took, us */
	TimestampTz used_at;
} Count;

/* What this transaction has done. */
typedef struct Change
{
	GtQuotaKey	key;			/* first, for the hash */
	int64		n;
} Change;

/* The same, of a subtransaction, to be taken back if that aborts. */
typedef struct Step
{
	GtQuotaKey	key;
	int			n;
	SubTransactionId subid;
} Step;

static HTAB *counts = NULL;		/* of Count; in shared memory */
static HTAB *changes = NULL;	/* of Change; in TopTransactionContext, like: */
static Step *steps = NULL;
static int	nsteps = 0;
static int	steps_room = 0;

/* ---------------------------------------------------------------- shared memory */

static void
start(bool first)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(GtQuotaKey);
	control.entrysize = sizeof(Count);
	counts = ShmemInitHash("garbagetruck_quota", MAX_COUNTS, MAX_COUNTS, &control, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/* See quota.h. */
void
gt_quota_init(void)
{
	gt_shmem_part(hash_estimate_size(MAX_COUNTS, sizeof(Count)), start);
}

/* See quota.h. */
void
gt_quota_forget(Oid database)
{
	gt_observe_remove(counts, database);
}

/* Whoever it is of: what was asked for longest ago goes. */
static GtUse
use_of_count(const void *entry, Oid asker)
{
	return (GtUse) {((const Count *) entry)->used_at, false, false};
}

static GtQuotaKey
key_of(Oid owner, Datum service)
{
	char	   *name = TextDatumGetCString(service);
	GtQuotaKey	key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.owner = owner;
	key.service = gt_service_hash(name);
	pfree(name);
	return key;
}

/* ---------------------------------------------------------------- this transaction */

/* It has committed, or was prepared: what it creates then may come to be, and what it ends may not. */
static void
add_changes(bool prepared)
{
	HASH_SEQ_STATUS scan;
	Change	   *change;

	gt_observe_lock();
	hash_seq_init(&scan, changes);
	while ((change = hash_seq_search(&scan)) != NULL)
	{
		Count	   *count = hash_search(counts, &change->key, HASH_FIND, NULL);

		if (count != NULL && (change->n > 0 || !prepared))
		{
			count->n += change->n;
			count->added += change->n;
		}
	}
	gt_observe_unlock();
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (changes != NULL && event != XACT_EVENT_ABORT)
		add_changes(event == XACT_EVENT_PREPARE);
	changes = NULL;
	steps = NULL;
	nsteps = steps_room = 0;
}

static void
take_back(const Step *step)
{
	Change	   *change = hash_search(changes, &step->key, HASH_FIND, NULL);

	if (change != NULL)
		change->n -= step->n;
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			i;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nsteps > 0 && steps[nsteps - 1].subid >= mine)
			take_back(&steps[--nsteps]);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (i = nsteps - 1; i >= 0 && steps[i].subid == mine; i--)
			steps[i].subid = parent;
}

static Change *
change_of(const GtQuotaKey *key)
{
	Change	   *change;
	bool		found;

	if (changes == NULL)
	{
		HASHCTL		control;

		memset(&control, 0, sizeof(control));
		control.keysize = sizeof(GtQuotaKey);
		control.entrysize = sizeof(Change);
		control.hcxt = TopTransactionContext;
		changes = hash_create("gt_quota", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		gt_at_end(GT_AT_END_QUOTA, at_end_of_transaction, at_end_of_subtransaction);
	}
	change = hash_search(changes, key, HASH_ENTER, &found);
	if (!found)
		change->n = 0;
	return change;
}

/* Those of a row of steps of the same kind are one. */
static void
add_step(const GtQuotaKey *key, int n)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Step	   *last = nsteps > 0 ? &steps[nsteps - 1] : NULL;

	if (last != NULL && last->subid == subid && memcmp(&last->key, key, sizeof(GtQuotaKey)) == 0)
	{
		last->n += n;
		return;
	}
	if (nsteps == steps_room)
		steps = gt_more_notes(steps, &steps_room, sizeof(Step));
	steps[nsteps++] = (Step) {*key, n, subid};
}

/* See quota.h. */
void
gt_quota_note(Oid owner, Datum service, int n)
{
	GtQuotaKey	key;
	Change	   *change;

	if (counts == NULL || hash_get_num_entries(counts) == 0)
		return;
	key = key_of(owner, service);
	change = change_of(&key);
	if (GetCurrentTransactionNestLevel() > 1)
		add_step(&key, n);
	change->n += n;
}

/* ---------------------------------------------------------------- the number */

static int64
changed_here(const GtQuotaKey *key)
{
	const Change *change = changes == NULL ? NULL : hash_search(changes, key, HASH_FIND, NULL);

	return change == NULL ? 0 : change->n;
}

/* Is it good enough to let a lease be created, or to refuse it? */
static bool
is_believed(const Count *count, int64 n, int64 limit, TimestampTz now)
{
	int64		age = now - count->counted_at;

	if (n >= limit)
		return age < Max(FRESH, 20 * count->cost);
	return !count->more && age < Max(OLD, 1000 * count->cost);
}

/* See quota.h. */
bool
gt_quota_known(GtQuota *quota, Oid owner, Datum service, int64 limit)
{
	Count	   *count;
	bool		known;

	memset(quota, 0, sizeof(GtQuota));
	if (counts == NULL)
		return false;
	quota->key = key_of(owner, service);
	quota->since = gt_now();
	gt_observe_lock();
	count = hash_search(counts, &quota->key, HASH_FIND, NULL);
	if (count != NULL)
	{
		count->used_at = quota->since;
		quota->made_at = count->made_at;
		quota->added = count->added;
		quota->n = count->n + changed_here(&quota->key);
	}
	known = count != NULL && is_believed(count, quota->n, limit, quota->since);
	gt_observe_unlock();
	return known;
}

/* See quota.h. */
void
gt_quota_counted(GtQuota *quota, int64 n, bool more)
{
	Count	   *count;
	bool		found;

	quota->n = n;
	if (counts == NULL)
		return;
	gt_observe_lock();
	count = hash_search(counts, &quota->key, HASH_FIND, NULL);
	if (count == NULL && hash_get_num_entries(counts) >= MAX_COUNTS)
		(void) gt_observe_make_room(counts, use_of_count, InvalidOid);
	count = hash_search(counts, &quota->key, HASH_ENTER, &found);
	count->counted_at = count->used_at = gt_now();
	if (!found)
	{
		count->made_at = count->counted_at;
		count->added = 0;
	}
	/* what others have committed meanwhile counts, too */
	count->n = n - changed_here(&quota->key) + count->added - (count->made_at == quota->made_at ? quota->added : 0);
	count->more = more;
	count->cost = count->counted_at - quota->since;
	gt_observe_unlock();
}
