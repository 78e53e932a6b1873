/*-------------------------------------------------------------------------
 *
 * ending.c
 *	  The one way in which a lease ends.
 *
 * Workers, gt_release(), an exclusive create that passes over an expired lease
 * and the reuse of a request_key all come through gt_end().
 *
 * Locks, in this order: object rows by (type, id), FOR NO KEY UPDATE: whoever
 * creates or ends a lease on an object holds its row to the commit; then lease
 * rows by id, FOR UPDATE, which waits for creators of children (they hold the
 * parent's row FOR KEY SHARE), and with them, in the same order, the parents of
 * children that are to be judged (lease.c).  The clock is read after a row is locked, so a
 * renewal that was first counts, and one that comes later finds no row: either
 * the renewal or the ending wins, never both.  A worker judges by the row as it
 * chose it, and deletes that very version: where it is no longer the newest, or
 * somebody has it locked, nothing is deleted, and it goes the longer way.
 *
 * An ended lease is a deleted row, a smaller count in its object's row and, by
 * the last one, garbage: one transaction.  A crash before its commit leaves a
 * running lease, after it garbage.  Whoever acts on an expiry does it durably:
 * were the commit lost, the lease would run again.  Children have no deadline; of
 * an ended lease that had some a gt__orphan row tells when it ended and how, and
 * the worker ends them in batches, then and so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "consistency.h"
#include "garbagetruck.h"
#include "lease.h"

#define LOOK_AT_ALL (10 * USECS_PER_SEC)	/* the low end of an index is looked at as often, */
#define COST_FACTOR 20			/* and where nothing was found after so many times what that took, */
#define CHEAP		1000		/* us: unless it was as little */
#define FEW			16			/* leases, of each of which it is looked whether it has children */
#define BUSY_FACTOR	4			/* of children that others have locked a pass looks at so many times its limit */

/* one object of a batch */
typedef struct EndGroup
{
	bool		locked;
	bool		busy;			/* another has it locked */
	bool		changed;
	GtRow		row;
	pg_uuid_t	last;			/* of its leases that this batch ended */
	TimestampTz ended_at;
	GtEndReason reason;
} EndGroup;

/* a lease row to be locked: to be ended, or of the parent of one that is to be judged */
typedef struct EndStep
{
	pg_uuid_t	id;
	GtLeaseKey *key;
	EndGroup   *group;			/* NULL: the parent */
} EndStep;

static int
by_object(const void *a, const void *b)
{
	const GtLeaseKey *x = a;
	const GtLeaseKey *y = b;
	int			order = strcmp(x->object_type, y->object_type);

	if (order == 0)
		order = strcmp(x->object_id, y->object_id);
	if (order == 0)
		order = memcmp(&x->id, &y->id, sizeof(pg_uuid_t));
	return order;
}

static int
by_lease(const void *a, const void *b)
{
	return memcmp(&((const EndStep *) a)->id, &((const EndStep *) b)->id, sizeof(pg_uuid_t));
}

static void
keep_column(GtRow *object, int column, const GtRow *lease, int source, MemoryContext context, bool by_value, int length)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	object->isnull[column] = lease->isnull[source];
	object->v[column] = lease->isnull[source] ? (Datum) 0 : datumCopy(lease->v[source], by_value, length);
	MemoryContextSwitchTo(old);
}

/* What the handler will be given is that of this lease, which ends: the object keeps it. */
static void
keep_spec(GtRow *object, const GtRow *lease, MemoryContext context)
{
	keep_column(object, O_SERVICE_ID, lease, L_SERVICE_ID, context, false, -1);
	keep_column(object, O_PAYLOAD, lease, L_PAYLOAD, context, false, -1);
	keep_column(object, O_METADATA, lease, L_METADATA, context, false, -1);
	keep_column(object, O_MAX_ATTEMPTS, lease, L_MAX_ATTEMPTS, context, true, sizeof(int32));
	keep_column(object, O_RETRY_DELAY, lease, L_RETRY_DELAY, context, FLOAT8PASSBYVAL, sizeof(int64));
	GT_SET_NULL(object, O_SPEC_LEASE);
}

/* See lease.h. */
void
gt_orphan_add(Datum parent, bool expired, TimestampTz ended_at)
{
	GtTable		orphans;
	GtRow		row;

	gt_open(&orphans, GT__ORPHAN, RowExclusiveLock);
	gt_row_init(&row);
	GT_SET(&row, P_PARENT, parent);
	GT_SET(&row, P_EXPIRED, BoolGetDatum(expired));
	GT_SET(&row, P_ENDED_AT, TimestampTzGetDatum(ended_at));
	(void) gt_insert_unique(&orphans, &row, GT__ORPHAN_PKEY);
	gt_close(&orphans);
	gt_due_after_commit(gt_now());
}

static bool orphaned;			/* the pass in progress has left children to be ended */

/* The lease has ended: children that it has will be ended by the worker. */
static void
orphan_children(GtTable *leases, const pg_uuid_t *parent, bool expired, TimestampTz ended_at)
{
	Datum		id = UUIDPGetDatum(parent);
	GtRow		row;

	if (!gt_fetch(leases, GT_LEASE_PARENT, 1, &id, &row))
		return;
	gt_orphan_add(id, expired, ended_at);
	orphaned = true;
}

/* The worker's `check_at` was a lower bound: the lease lives on. Returns 1 where nobody may judge it yet. */
int
gt_re_arm(GtTable *leases, GtRow *lease, TimestampTz over_at)
{
	if (over_at == GT_NEVER)
		return 1;				/* this run is not recorded */
	GT_SET(lease, L_DEADLINE, TimestampTzGetDatum(over_at));
	GT_SET(lease, L_CHECK_AT, TimestampTzGetDatum(over_at));
	GT_SET(lease, L_RUN, Int64GetDatum(gt_run()));
	gt_update(leases, lease);
	gt_due_after_commit(over_at);
	return 0;
}

/* Tells gt_history of it, where that keeps everything. */
static void
record(const GtRow *object, const GtRow *lease, GtEndReason reason)
{
	GtRow		event = *object;

	if (gt_history != GT_HISTORY_ALL || reason == GT_END_KEPT)
		return;					/* what is kept is told of when the last lease has ended */
	GT_SET(&event, O_LEASE_ID, lease->v[L_ID]);
	GT_SET(&event, O_SERVICE_ID, lease->v[L_SERVICE_ID]);
	gt_history_add(reason == GT_END_EXPIRED ? "expired" : "released", &event, NULL, -1, -1, -1, NULL);
}

/* By the row where the caller has just read it, else by id. */
static GtLockResult
lock_lease(GtTable *leases, GtLeaseKey *key, GtRow *lease, bool skip)
{
	Datum		id = UUIDPGetDatum(&key->id);

	if (key->row == NULL)
		return gt_fetch_lock(leases, GT_LEASE_PKEY, 1, &id, lease, LockTupleExclusive, skip);
	*lease = *key->row;
	return gt_lock(leases, lease, LockTupleExclusive, skip);
}

/* A child that is to be judged: what its parent's row says of it stays true from here on. */
static void
judge_child(GtTable *leases, GtLeaseKey *key)
{
	bool		expired;

	if (key->over || !gt_parent_is_over(leases, &key->parent, true, &key->ended_at, &expired))
		return;
	key->over = true;
	if (!expired)
		key->reason = GT_END_RELEASED;
}

/* May it end now? *over_at: since when it is over, or when it will be. */
static bool
is_over(const GtLeaseKey *key, const GtRow *lease, TimestampTz *over_at)
{
	TimestampTz now = gt_now();

	if (key->over)
		*over_at = key->ended_at;
	else if (key->reason == GT_END_EXPIRED)
		*over_at = gt_effective_deadline(lease);
	else
		*over_at = now;
	return key->over || now >= *over_at;
}

/* An expiry keeps others from the object for a while, if the lease or else the setting says so. */
static void
hold_back(GtRow *object, const GtRow *lease, TimestampTz over_at)
{
	int64		delay = lease->isnull[L_REGRANT_DELAY] ? (int64) gt_regrant_delay * 1000 : GT_INT64(lease, L_REGRANT_DELAY);

	if (delay > 0 && (object->isnull[O_REGRANT_AT] || GT_TIME(object, O_REGRANT_AT) < over_at + delay))
		GT_SET(object, O_REGRANT_AT, TimestampTzGetDatum(over_at + delay));
}

/*
 * Ends one lease, whose object is locked; what the object keeps of it is put into
 * `context`.  Returns 0, or 1 where it must be looked at again soon.
 */
static int
end_one(GtTable *leases, GtLeaseKey *key, EndGroup *group, bool skip, MemoryContext context)
{
	GtRow		lease;
	TimestampTz over_at;

	if (key->child && key->reason == GT_END_EXPIRED && !key->over)
	{
		/* judged already, but where ids do not tell parents from children */
		judge_child(leases, key);
		if (!key->over)
			return 0;
	}
	if (key->row != NULL)
		lease = *key->row;
	if (key->row == NULL || !is_over(key, &lease, &over_at) || !gt_try_delete(leases, &lease))
	{
		switch (lock_lease(leases, key, &lease, skip))
		{
			case GT_BUSY:
				return 1;
			case GT_GONE:
			case GT_REFUSED:
				return 0;
			case GT_LOCKED:
				break;
		}
		if (!is_over(key, &lease, &over_at))
			return gt_re_arm(leases, &lease, over_at);
		gt_delete(leases, &lease);
	}

	if (key->reason == GT_END_EXPIRED)
		hold_back(&group->row, &lease, over_at);
	if (!group->row.isnull[O_SPEC_LEASE] &&
		memcmp(DatumGetUUIDP(group->row.v[O_SPEC_LEASE]), &key->id, sizeof(pg_uuid_t)) == 0)
		keep_spec(&group->row, &lease, context);
	if (key->reason == GT_END_KEPT)
		GT_SET(&group->row, O_KEEP, BoolGetDatum(true));
	GT_SET(&group->row, O_LEASES, Int32GetDatum(GT_INT32(&group->row, O_LEASES) - 1));

	record(&group->row, &lease, key->reason);

	group->changed = true;
	group->last = key->id;
	group->ended_at = Max(group->ended_at, over_at);
	group->reason = key->reason;
	key->ended_at = over_at;
	key->ended = true;
	return 0;
}

static bool
same_object(const GtLeaseKey *a, const GtLeaseKey *b)
{
	return strcmp(a->object_type, b->object_type) == 0 && strcmp(a->object_id, b->object_id) == 0;
}

/*
 * The object of a lease has no row.  As a rule the lease has ended meanwhile, too.
 * If it has not, somebody has deleted the row: a caller is told, and a worker makes
 * it anew, or it would meet this lease again and again.  Returns whether it has.
 */
static bool
object_is_missing(GtTable *objects, GtTable *leases, const GtLeaseKey *key, bool skip, GtRow *row)
{
	Datum		id = UUIDPGetDatum(&key->id);
	GtRow		lease;

	if (!gt_fetch(leases, GT_LEASE_PKEY, 1, &id, &lease))
		return false;
	if (!skip)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("object \"%s\" of type \"%s\" is missing, though lease %s on it has not ended",
						gt_shown(key->object_id), gt_shown(key->object_type), gt_uuid_cstring(&key->id)),
				 errhint("An administrator can have that mended: SELECT * FROM gt_check(repair => true);")));
	return gt_object_rebuild(objects, leases, key->object_type, key->object_id, row);
}

/* Locks the objects of sorted keys; those of the same object share a group. Returns how many others have. */
static int
lock_objects(GtTable *objects, GtTable *leases, const GtLeaseKey *keys, EndGroup **groups, int nkeys, bool skip)
{
	int			busy = 0;
	int			i;

	for (i = 0; i < nkeys; i++)
	{
		Datum		key[2];
		GtLockResult result;

		CHECK_FOR_INTERRUPTS();
		if (i > 0 && same_object(&keys[i], &keys[i - 1]))
		{
			groups[i] = groups[i - 1];
			continue;
		}
		groups[i] = palloc0(sizeof(EndGroup));
		key[0] = CStringGetTextDatum(keys[i].object_id);
		key[1] = CStringGetTextDatum(keys[i].object_type);
		result = gt_fetch_lock(objects, GT_OBJECT_PKEY, 2, key, &groups[i]->row, LockTupleNoKeyExclusive, skip);
		groups[i]->locked = result == GT_LOCKED ||
			(result == GT_GONE && object_is_missing(objects, leases, &keys[i], skip, &groups[i]->row));
		groups[i]->busy = result == GT_BUSY;
		busy += groups[i]->busy;
		pfree(DatumGetPointer(key[0]));
		pfree(DatumGetPointer(key[1]));
	}
	return busy;
}

/* Ends the leases of locked objects, in the order of ids. Returns how many must be looked at again soon. */
static int
end_leases(GtTable *leases, GtLeaseKey *keys, EndGroup **groups, int nkeys, bool skip)
{
	MemoryContext batch = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(batch, "gt_end", ALLOCSET_DEFAULT_SIZES);
	EndStep    *steps = gt_alloc_array(nkeys, 2 * sizeof(EndStep));
	int			nsteps = 0;
	int			busy = 0;
	int			i;

	for (i = 0; i < nkeys; i++)
	{
		GtLeaseKey *key = &keys[i];

		key->busy = groups[i]->busy;
		if (!groups[i]->locked)
			continue;
		steps[nsteps++] = (EndStep) {key->id, key, groups[i]};
		if (key->child && key->reason == GT_END_EXPIRED && !key->over)
			steps[nsteps++] = (EndStep) {key->parent, key, NULL};
	}
	qsort(steps, nsteps, sizeof(EndStep), by_lease);
	MemoryContextSwitchTo(scratch);
	for (i = 0; i < nsteps; i++)
	{
		CHECK_FOR_INTERRUPTS();
		/* a batch may hold the same lease twice, next to each other: the second finds no row */
		if (steps[i].group == NULL)
			judge_child(leases, steps[i].key);
		else if (end_one(leases, steps[i].key, steps[i].group, skip, batch) > 0)
		{
			steps[i].key->busy = true;
			busy++;
		}
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(batch);
	MemoryContextDelete(scratch);
	pfree(steps);
	return busy;
}

/* What has become of the objects. */
static void
write_objects(GtTable *objects, EndGroup **groups, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		EndGroup   *group = groups[i];

		CHECK_FOR_INTERRUPTS();
		if (!group->changed)
			continue;
		group->changed = false;
		if (GT_INT32(&group->row, O_LEASES) > 0)
			gt_update(objects, &group->row);
		else
			gt_garbage_make(objects, &group->row, &group->last, group->reason, group->ended_at);
	}
}

/* Returns how many leases have ended. */
static int
count_ended(const GtLeaseKey *keys, int n)
{
	int			expired = 0;
	int			released = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (keys[i].ended && keys[i].reason == GT_END_EXPIRED)
			expired++;
		else if (keys[i].ended)
			released++;
	if (expired > 0)
	{
		gt_commit_flushed();
		gt_count_expired(expired);
	}
	if (released > 0)
		gt_count_released(released);
	return expired + released;
}

/* See garbagetruck.h. Reorders keys by object. */
int
gt_end(GtLeaseKey *keys, int nkeys, GtEndReason reason, bool skip)
{
	GtTable		objects;
	GtTable		leases;
	EndGroup  **groups;
	GtRow		child;
	int			busy;
	int			i;

	if (nkeys == 0)
		return 0;
	for (i = 0; i < nkeys; i++)
	{
		keys[i].ended = false;
		keys[i].reason = reason;
	}
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	groups = gt_alloc_array(nkeys, sizeof(EndGroup *));

	qsort(keys, nkeys, sizeof(GtLeaseKey), by_object);
	busy = lock_objects(&objects, &leases, keys, groups, nkeys, skip);
	busy += end_leases(&leases, keys, groups, nkeys, skip);

	/*
	 * A child has no children.  Most databases have none at all, which one look
	 * tells of a whole batch; of a few leases that look is not worth it: it walks
	 * over all dead children.
	 */
	if (count_ended(keys, nkeys) > 0 && (nkeys <= FEW || gt_fetch(&leases, GT_LEASE_PARENT, 0, NULL, &child)))
		for (i = 0; i < nkeys; i++)
			if (keys[i].ended && !keys[i].child)
				orphan_children(&leases, &keys[i].id, reason == GT_END_EXPIRED, keys[i].ended_at);

	write_objects(&objects, groups, nkeys);
	gt_close(&leases);
	gt_close(&objects);
	pfree(groups);
	return busy;
}

/* Fills in what gt_end() needs of a lease row. */
void
gt_lease_key(const GtRow *lease, GtLeaseKey *key)
{
	memset(key, 0, sizeof(GtLeaseKey));
	key->id = *DatumGetUUIDP(lease->v[L_ID]);
	key->object_type = TextDatumGetCString(lease->v[L_OBJECT_TYPE]);
	key->object_id = TextDatumGetCString(lease->v[L_OBJECT_ID]);
	key->child = !lease->isnull[L_PARENT];
	if (key->child)
		key->parent = *DatumGetUUIDP(lease->v[L_PARENT]);
}

/* Is the object of this lease one of current_user's? */
static bool
is_on_own_object(GtTable *objects, const GtRow *lease)
{
	Datum		key[2];
	GtRow		object;

	key[0] = lease->v[L_OBJECT_ID];
	key[1] = lease->v[L_OBJECT_TYPE];
	return gt_fetch(objects, GT_OBJECT_PKEY, 2, key, &object) && gt_acts_for(GT_OID(&object, O_OWNER));
}

/*
 * Rows that are dead but not yet vacuumed stand at the low end of an index, and one
 * long snapshot elsewhere keeps them there; so a process remembers from where on
 * there was anything.  It looks at all of it once in a while, and where it would
 * find nothing: what was slow to commit may have come in below.  But no more often
 * than in proportion to what such a look costs.
 */
typedef struct LowEnd
{
	TimestampTz looked_at;		/* the last look at all; 0: none */
	int64		cost;			/* of it */
	uint64		changes;		/* gt_table_changes then */
} LowEnd;

/*
 * One role can hold any number of its own leases, more than a pass looks at, and
 * those of others are not to wait for that.  So where all of the oldest are locked
 * a round begins: each pass goes on after the one before, to the end of what is due.
 */
typedef struct Round
{
	bool		begun;
	GtPlaceInQueue after;
	int			busy;			/* that were locked, until there; */
	TimestampTz busy_from;		/* when the newest of those was over */
} Round;

static Round lease_round;
static bool behind = false;		/* more leases were due than the last pass could have */

/* When all may be looked at, because nothing was found. */
static TimestampTz
all_from(const LowEnd *end)
{
	return end->changes != gt_table_changes || end->cost < CHEAP ? 0 :
		end->looked_at + Min(LOOK_AT_ALL, COST_FACTOR * end->cost);
}

/* Must it be looked at, whatever is found? */
static bool
all_is_due(const LowEnd *end, TimestampTz now)
{
	return end->looked_at == 0 || end->changes != gt_table_changes || now >= end->looked_at + LOOK_AT_ALL;
}

static void
looked_at_all(LowEnd *end, TimestampTz began)
{
	end->looked_at = gt_now();
	end->cost = end->looked_at - began;
	end->changes = gt_table_changes;
}

/* Others have so many locked of what was to be looked at then. */
static void
note_busy(GtExpiry *result, int n, TimestampTz from)
{
	result->busy += n;
	if (n > 0)
		result->busy_from = Max(result->busy_from, from);
}

/*
 * Ends up to `limit` children of leases that have ended, of those from `low` on.
 * Those that others have locked do not count, for one role can hold any number of
 * its own; but a pass looks at so many only: then *last is where the next one goes
 * on, else zero.  Returns how many leases that have ended it saw.
 */
static int
expire_orphans_from(const pg_uuid_t *low, int limit, bool own, pg_uuid_t *first, pg_uuid_t *last, GtExpiry *result)
{
	GtTable		objects;
	GtTable		orphans;
	GtTable		leases;
	GtRow		orphan;
	GtScan	   *scan;
	int			seen = 0;
	int			room = BUSY_FACTOR * limit;

	memset(last, 0, sizeof(pg_uuid_t));
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&orphans, GT__ORPHAN, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	scan = gt_scan_begin_bound(&orphans, GT__ORPHAN_PKEY, 0, NULL, BTGreaterEqualStrategyNumber, UUIDPGetDatum(low));
	while (limit > 0 && gt_scan_next(scan, &orphan))
	{
		GtLeaseKey *keys;
		GtScan	   *children;
		GtRow		child;
		int			n = 0;
		int			others = 0;
		int			ended = 0;
		int			busy;
		int			i;

		if (seen++ == 0)
			*first = *DatumGetUUIDP(orphan.v[P_PARENT]);
		if (room <= 0)
		{
			*last = *DatumGetUUIDP(orphan.v[P_PARENT]);
			result->more = true;
			break;
		}
		if (gt_lock(&orphans, &orphan, LockTupleExclusive, true) != GT_LOCKED)
		{
			note_busy(result, 1, GT_TIME(&orphan, P_ENDED_AT));	/* another worker is at it */
			continue;
		}
		keys = palloc(limit * sizeof(GtLeaseKey));
		children = gt_scan_begin(&leases, GT_LEASE_PARENT, 1, &orphan.v[P_PARENT]);
		while (n < limit && gt_scan_next(children, &child))
		{
			if (own && !is_on_own_object(&objects, &child))
			{
				others++;
				continue;
			}
			gt_lease_key(&child, &keys[n]);
			keys[n].over = true;
			keys[n].ended_at = GT_TIME(&orphan, P_ENDED_AT);
			n++;
		}
		gt_scan_end(children);
		busy = gt_end(keys, n, GT_BOOL(&orphan, P_EXPIRED) ? GT_END_EXPIRED : GT_END_RELEASED, true);
		note_busy(result, busy, GT_TIME(&orphan, P_ENDED_AT));
		for (i = 0; i < n; i++)
			ended += keys[i].ended;
		result->ended += ended;
		if (n == limit && busy < n)
			result->more = true;
		else if (n < limit && busy == 0 && others == 0)
			gt_delete(&orphans, &orphan);
		limit -= ended;
		room -= n - ended;
		pfree(keys);
	}
	gt_scan_end(scan);
	gt_close(&leases);
	gt_close(&orphans);
	gt_close(&objects);
	return seen;
}

/* The same of all; own: only those on objects of current_user. */
static void
expire_orphans(int limit, bool own, GtExpiry *result)
{
	static LowEnd end;
	static pg_uuid_t low;
	static pg_uuid_t last;		/* what comes before it was locked by others; zero: all is looked at */
	static const pg_uuid_t least;
	TimestampTz now = gt_now();
	bool		all = own || all_is_due(&end, now);
	pg_uuid_t	first;

	if (!own && memcmp(&last, &least, sizeof(least)) != 0)
	{
		(void) expire_orphans_from(&last, limit, own, &first, &last, result);
		note_busy(result, 1, result->busy_from);	/* those before */
		return;
	}
	if (!all && expire_orphans_from(&low, limit, own, &low, &last, result) > 0)
		return;
	if (all || now >= all_from(&end))
	{
		if (expire_orphans_from(&least, limit, own, &low, own ? &first : &last, result) == 0)
			memset(&low, 0xff, sizeof(low));
		looked_at_all(&end, now);
	}
	else
		result->next = Min(result->next, all_from(&end));
}

/* The order of the queue; of equal times it is that of the index. */
static int
compare_places(const GtPlaceInQueue *a, const GtPlaceInQueue *b)
{
	if (a->check_at != b->check_at)
		return a->check_at < b->check_at ? -1 : 1;
	return ItemPointerCompare((ItemPointer) &a->tid, (ItemPointer) &b->tid);
}

static GtPlaceInQueue
place_of(const GtRow *lease)
{
	GtPlaceInQueue place;

	place.check_at = GT_TIME(lease, L_CHECK_AT);
	place.tid = lease->tid;
	return place;
}

/* The state of one choice. */
typedef struct Choice
{
	GtTable		leases;
	GtTable		objects;
	bool		own;
	TimestampTz now;
	GtInHand	in_hand;		/* of others at first, then with what we have chosen */
	GtLeaseKey *keys;
	int			n;
	TimestampTz first;			/* check_at of the first lease that was seen from the low end; GT_NEVER */
	GtExpiry   *result;
} Choice;

/* May this pass end it at all? */
static bool
concerns_us(Choice *choice, const GtRow *lease)
{
	return choice->own ? is_on_own_object(&choice->objects, lease) :
		!gt_created_here(DatumGetUUIDP(lease->v[L_ID]));
}

static void
add_lease(Choice *choice, const GtRow *lease)
{
	GtLeaseKey *key = &choice->keys[choice->n++];

	gt_lease_key(lease, key);
	/* under our caller's snapshot it stays in its place */
	key->row = palloc(sizeof(GtRow));
	*key->row = *lease;
}

/*
 * What this process remembers of the low end is what the one before it has found:
 * where many roles wait a worker is there for a few passes only, and each would
 * begin with a look at all.
 */
static void
inherit_low(LowEnd *end, TimestampTz *low)
{
	GtDatabase *db = gt_my_database();

	if (end->looked_at != 0 || db == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	end->looked_at = db->lease_looked_at;
	end->cost = db->lease_cost;
	*low = db->lease_looked_at != 0 ? db->lease_low : PG_INT64_MIN;
	LWLockRelease(gt_shared->lock);
	end->changes = gt_table_changes;
}

static void
leave_low(const LowEnd *end, TimestampTz low)
{
	GtDatabase *db = gt_my_database();

	if (db == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (end->looked_at >= db->lease_looked_at)
	{
		db->lease_looked_at = end->looked_at;
		db->lease_cost = end->cost;
		db->lease_low = low;
	}
	LWLockRelease(gt_shared->lock);
}

/* Is it between bottom and top of what is in hand? There may be nothing. */
static bool
is_in_hand(const GtInHand *in_hand, const GtPlaceInQueue *place)
{
	return in_hand->bottom.check_at != GT_NEVER && compare_places(place, &in_hand->bottom) >= 0 &&
		compare_places(place, &in_hand->top) <= 0;
}

/* Collects due leases from the oldest on, beginning at `low` and after what is in hand there, until there are `limit`. */
static void
choose_oldest(Choice *choice, TimestampTz low, int limit)
{
	GtPlaceInQueue after = choice->in_hand.upto;
	GtScan	   *scan;
	GtRow		lease;

	scan = gt_scan_begin_bound(&choice->leases, GT_LEASE_CHECK, 0, NULL, BTGreaterEqualStrategyNumber,
							   TimestampTzGetDatum(Max(low, after.check_at)));
	while (gt_scan_next(scan, &lease))
	{
		GtPlaceInQueue place = place_of(&lease);

		choice->first = Min(choice->first, place.check_at);
		if (place.check_at > choice->now)
		{
			choice->result->next = Min(choice->result->next, place.check_at);
			break;
		}
		/* a renewal moves a row, so these are hints: who asks looks again */
		if (!concerns_us(choice, &lease) || compare_places(&place, &after) <= 0 || is_in_hand(&choice->in_hand, &place))
			continue;
		if (choice->n == limit)
		{
			choice->result->more = true;
			break;
		}
		choice->in_hand.upto = place;
		add_lease(choice, &lease);
	}
	gt_scan_end(scan);
}

/* From a time on backwards, down to the oldest that have been chosen. Returns whether it came upon what is in hand. */
static bool
choose_newest(Choice *choice, TimestampTz from, int limit)
{
	GtPlaceInQueue down_to = choice->in_hand.upto;
	GtInHand	in_hand = choice->in_hand;
	bool		met = false;
	GtScan	   *scan;
	GtRow		lease;

	scan = gt_scan_begin_bound(&choice->leases, GT_LEASE_CHECK, 0, NULL, BTLessEqualStrategyNumber,
							   TimestampTzGetDatum(from));
	gt_scan_backward(scan);
	while (choice->n < limit && gt_scan_next(scan, &lease))
	{
		GtPlaceInQueue place = place_of(&lease);

		if (compare_places(&place, &down_to) <= 0)
			break;
		met = is_in_hand(&in_hand, &place);
		if (met && place.check_at > in_hand.bottom.check_at)
			break;
		if (met || !concerns_us(choice, &lease))
			continue;
		if (choice->in_hand.bottom.check_at == GT_NEVER || compare_places(&place, &choice->in_hand.top) > 0)
			choice->in_hand.top = place;
		if (choice->in_hand.bottom.check_at == GT_NEVER || compare_places(&place, &choice->in_hand.bottom) < 0)
			choice->in_hand.bottom = place;
		add_lease(choice, &lease);
	}
	gt_scan_end(scan);
	return met;
}

/*
 * Chooses the leases of a pass: the oldest, and where there are more than it may
 * have, half of them backwards from now.  So those that end now do not wait until
 * a million that ended before are done.
 */
static int
choose(int limit, bool own, const GtInHand *in_hand, GtLeaseKey *keys, GtExpiry *result)
{
	static LowEnd end;
	static TimestampTz low = PG_INT64_MIN;
	TimestampTz now = gt_now();
	bool		all;
	int			half = Max(limit / 2, 1);
	bool		more = result->more;
	Choice		choice;

	inherit_low(&end, &low);
	all = own || all_is_due(&end, now);
	memset(&choice, 0, sizeof(choice));
	choice.own = own;
	choice.now = now;
	choice.keys = keys;
	choice.first = GT_NEVER;
	choice.result = result;
	choice.in_hand.upto.check_at = PG_INT64_MIN;
	choice.in_hand.bottom.check_at = GT_NEVER;
	if (in_hand != NULL)
		choice.in_hand = *in_hand;
	else if (lease_round.begun && !own)
		choice.in_hand.upto = lease_round.after;
	result->more = false;
	gt_open(&choice.objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&choice.leases, GT_LEASE, RowExclusiveLock);
	choose_oldest(&choice, all ? PG_INT64_MIN : low, half);
	if (choice.n == 0 && !all && in_hand == NULL && now >= all_from(&end))
	{
		all = true;
		choice.first = GT_NEVER;
		choose_oldest(&choice, PG_INT64_MIN, half);
	}
	else if (choice.n == 0 && !all)
		result->next = Min(result->next, all_from(&end));
	if (in_hand == NULL && (own || !lease_round.begun))
	{
		if (all)
			looked_at_all(&end, now);
		low = Max(all ? PG_INT64_MIN : low, Min(choice.first, now - USECS_PER_SEC));
		leave_low(&end, low);
	}
	/* what is beyond is not looked at here: the next pass, if it finds nothing, tells when that is due */
	if (result->more && half < limit && choose_newest(&choice, now, limit))
		(void) choose_newest(&choice, choice.in_hand.bottom.check_at, limit);
	result->more = result->more || more;
	gt_close(&choice.leases);
	gt_close(&choice.objects);
	result->in_hand = choice.in_hand;
	return choice.n;
}

/* Where does the pass after this one begin?  At the end of a round all that were locked are told of. */
static void
go_round(const GtLeaseKey *keys, int n, GtExpiry *result)
{
	bool		stuck = true;
	int			i;

	for (i = 0; i < n && stuck; i++)
	{
		GtPlaceInQueue place = place_of(keys[i].row);

		stuck = !keys[i].ended || compare_places(&place, &result->in_hand.upto) > 0;
	}
	if (n == 0 || !behind)
	{
		note_busy(result, lease_round.busy, lease_round.busy_from);
		memset(&lease_round, 0, sizeof(lease_round));
	}
	else if (stuck || lease_round.begun)
	{
		lease_round.begun = true;
		lease_round.after = result->in_hand.upto;
		lease_round.busy += result->busy;
		lease_round.busy_from = Max(lease_round.busy_from, result->busy_from);
	}
}

/* See garbagetruck.h. */
void
gt_expire_pass(int limit, bool own, const GtInHand *in_hand, void (*on_more) (GtExpiry *), GtExpiry *result)
{
	GtLeaseKey *keys;
	int			n;
	int			i;

	memset(result, 0, sizeof(GtExpiry));
	result->next = GT_NEVER;
	gt_start_ensure();
	expire_orphans(Max(limit / 2, 1), own, result);
	limit = Max(limit - result->ended, 1);

	keys = palloc(limit * sizeof(GtLeaseKey));
	PushActiveSnapshot(GetTransactionSnapshot());	/* the rows that are chosen stay where they are */
	n = choose(limit, own, in_hand, keys, result);
	if (n == limit && result->more && on_more != NULL)
		on_more(result);

	GT_POINT("lease_chosen");
	result->looked_at = n;
	orphaned = false;
	gt_end(keys, n, GT_END_EXPIRED, true);
	if (orphaned)
		result->more = true;
	PopActiveSnapshot();
	for (i = 0; i < n; i++)
	{
		result->ended += keys[i].ended;
		note_busy(result, keys[i].busy, GT_TIME(keys[i].row, L_CHECK_AT));
	}
	if (!own && in_hand == NULL)
		go_round(keys, n, result);
	GT_POINT("ended");
}
