/*-------------------------------------------------------------------------
 *
 * ending.c
 *	  The one way in which a lease ends.
 *
 * Workers, gt_release(), an exclusive create that passes over an expired lease
 * and the reuse of a request_key all come through gt_end(); but who cleans the object in
 * the same subtransaction ends it by clean/take.c, by the same rules and waiting for nobody.
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
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/check.h"
#include "base/settings.h"
#include "base/text.h"
#include "garbage/history.h"
#include "garbage/order.h"
#include "lease/created.h"
#include "lease/deadline.h"
#include "lease/ending.h"
#include "lease/lease.h"
#include "lease/rebuild.h"
#include "lease/start.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "shared/ids.h"
#include "shared/quota.h"
#include "shared/renewed.h"
#include "table/records.h"

#define FEW			16			/* leases, of each of which it is looked whether it has children */

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
	int			order = gt_object_order(x->object_type, x->object_id, y->object_type, y->object_id);

	return order != 0 ? order : memcmp(&x->id, &y->id, sizeof(pg_uuid_t));
}

/* Of the same lease the first comes first: that is the one that ends it. */
static int
by_lease(const void *a, const void *b)
{
	const EndStep *x = a;
	const EndStep *y = b;
	int			order = memcmp(&x->id, &y->id, sizeof(pg_uuid_t));

	return order != 0 ? order : (x->key > y->key) - (x->key < y->key);
}

static void
keep_column(GtRow *object, int column, const GtRow *lease, int source, MemoryContext context, bool by_value, int length)
{
	MemoryContext old;

	object->isnull[column] = lease->isnull[source];
	object->v[column] = lease->v[source];
	if (lease->isnull[source] || context == NULL)
		return;
	old = MemoryContextSwitchTo(context);
	object->v[column] = datumCopy(lease->v[source], by_value, length);
	MemoryContextSwitchTo(old);
}

void
gt_keep_spec(GtRow *object, const GtRow *lease, MemoryContext context)
{
	keep_column(object, O_SERVICE_ID, lease, L_SERVICE_ID, context, false, -1);
	keep_column(object, O_PAYLOAD, lease, L_PAYLOAD, context, false, -1);
	keep_column(object, O_METADATA, lease, L_METADATA, context, false, -1);
	keep_column(object, O_MAX_ATTEMPTS, lease, L_MAX_ATTEMPTS, context, true, sizeof(int32));
	keep_column(object, O_RETRY_DELAY, lease, L_RETRY_DELAY, context, FLOAT8PASSBYVAL, sizeof(int64));
	GT_SET_NULL(object, O_SPEC_LEASE);
}

void
gt_orphan_add(Datum parent, Oid owner, bool expired, TimestampTz ended_at)
{
	GtTable		orphans;
	GtRow		row;

	gt_open(&orphans, GT__ORPHAN, RowExclusiveLock);
	gt_row_init(&row);
	GT_SET(&row, ORPHAN_PARENT, parent);
	GT_SET(&row, ORPHAN_EXPIRED, BoolGetDatum(expired));
	GT_SET(&row, ORPHAN_ENDED_AT, TimestampTzGetDatum(ended_at));
	GT_SET(&row, ORPHAN_OWNER, ObjectIdGetDatum(owner));
	GT_SET(&row, ORPHAN_QUEUED_AT, TimestampTzGetDatum(gt_now()));
	(void) gt_insert_unique(&orphans, &row, GT__ORPHAN_PKEY);
	gt_close(&orphans);
	gt_due_after_commit(gt_now());
}

/* The lease has ended: children that it has will be ended by the worker. Returns whether it has any. */
static bool
orphan_children(GtTable *leases, const pg_uuid_t *parent, bool expired, TimestampTz ended_at)
{
	Datum		id = UUIDPGetDatum(parent);
	GtRow		row;

	if (!gt_fetch(leases, GT_LEASE_PARENT, 1, &id, &row))
		return false;
	gt_orphan_add(id, GT_OID(&row, L_OWNER), expired, ended_at);
	return true;
}

/* What is shown of renewals that were not written is, with what they came to. */
static void
keep_renewals(GtRow *lease)
{
	TimestampTz renewed_at = GT_TIME(lease, L_RENEWED_AT);
	int64		renewals = GT_INT64(lease, L_RENEWALS);

	gt_renewal_shown(DatumGetUUIDP(lease->v[L_ID]), &renewed_at, &renewals);
	GT_SET(lease, L_RENEWED_AT, TimestampTzGetDatum(renewed_at));
	GT_SET(lease, L_RENEWALS, Int64GetDatum(renewals));
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
	keep_renewals(lease);
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

/* A child that is to be judged: what its parent's row says of it stays true from here on, whatever becomes of the server. */
static void
judge_child(GtTable *leases, GtLeaseKey *key)
{
	bool		expired;

	if (key->over || !gt_parent_is_over(leases, &key->parent, true, true, &key->ended_at, &expired))
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
	gt_quota_note(GT_OID(&lease, L_OWNER), lease.v[L_SERVICE_ID], -1);
	if (!key->child)
		gt_renewal_ended(&key->id);

	if (key->reason == GT_END_EXPIRED)
		hold_back(&group->row, &lease, over_at);
	if (!group->row.isnull[O_SPEC_LEASE] &&
		memcmp(DatumGetUUIDP(group->row.v[O_SPEC_LEASE]), &key->id, sizeof(pg_uuid_t)) == 0)
		gt_keep_spec(&group->row, &lease, context);
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
	return gt_object_order(a->object_type, a->object_id, b->object_type, b->object_id) == 0;
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
	const pg_uuid_t *last = NULL;
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
		if (steps[i].group == NULL)
			judge_child(leases, steps[i].key);
		/* it may be there twice: by name, or as it was before and after a renewal. What was to be done with it is done */
		else if (last == NULL || memcmp(last, &steps[i].id, sizeof(pg_uuid_t)) != 0)
		{
			last = &steps[i].id;
			steps[i].key->busy = end_one(leases, steps[i].key, steps[i].group, skip, batch) > 0;
			busy += steps[i].key->busy;
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

/* Can any of these have children? Of what lies before them in the index nothing is looked at: dead children, for the most part. */
static bool
may_have_children(GtTable *leases, const GtLeaseKey *keys, int n)
{
	const pg_uuid_t *first = &keys[0].id;
	const pg_uuid_t *last = &keys[0].id;
	GtScan	   *scan;
	GtRow		child;
	bool		found;
	int			i;

	for (i = 1; i < n; i++)
	{
		first = memcmp(&keys[i].id, first, sizeof(pg_uuid_t)) < 0 ? &keys[i].id : first;
		last = memcmp(&keys[i].id, last, sizeof(pg_uuid_t)) > 0 ? &keys[i].id : last;
	}
	scan = gt_scan_begin_bound(leases, GT_LEASE_PARENT, 0, NULL, BTGreaterEqualStrategyNumber, UUIDPGetDatum(first));
	found = gt_scan_next(scan, &child) && memcmp(DatumGetUUIDP(child.v[L_PARENT]), last, sizeof(pg_uuid_t)) <= 0;
	gt_scan_end(scan);
	return found;
}

/*
 * Ended leases leave children behind for the worker.  A child has none.  Most
 * databases have none at all, which one look tells of a whole batch; for a few
 * leases that look is not worth it.
 */
static void
leave_children(GtTable *leases, GtLeaseKey *keys, int n)
{
	int			i;

	if (n > FEW && !may_have_children(leases, keys, n))
		return;
	for (i = 0; i < n; i++)
		if (keys[i].ended && !keys[i].child)
			keys[i].orphans = orphan_children(leases, &keys[i].id, keys[i].reason == GT_END_EXPIRED, keys[i].ended_at);
}

void
gt_end_finish(GtTable *leases, GtLeaseKey *keys, int n)
{
	if (count_ended(keys, n) > 0)
		leave_children(leases, keys, n);
}

static void
name_object(GtLeaseKey *key, const GtRow *lease)
{
	key->object_type = TextDatumGetCString(lease->v[L_OBJECT_TYPE]);
	key->object_id = TextDatumGetCString(lease->v[L_OBJECT_ID]);
}

static void
set_key(const GtRow *lease, GtLeaseKey *key)
{
	memset(key, 0, sizeof(GtLeaseKey));
	key->id = *DatumGetUUIDP(lease->v[L_ID]);
	key->child = !lease->isnull[L_PARENT];
	if (key->child)
		key->parent = *DatumGetUUIDP(lease->v[L_PARENT]);
}

void
gt_lease_key_of_row(GtRow *lease, GtLeaseKey *key)
{
	set_key(lease, key);
	key->row = lease;
}

void
gt_lease_key(const GtRow *lease, GtLeaseKey *key)
{
	set_key(lease, key);
	name_object(key, lease);
}

/* Reorders keys by object. */
int
gt_end(GtLeaseKey *keys, int nkeys, GtEndReason reason, bool skip)
{
	GtTable		objects;
	GtTable		leases;
	EndGroup  **groups;
	int			busy;
	int			i;

	if (nkeys == 0)
		return 0;
	for (i = 0; i < nkeys; i++)
	{
		keys[i].ended = keys[i].orphans = false;
		keys[i].reason = reason;
		if (keys[i].object_id == NULL)
			name_object(&keys[i], keys[i].row);
	}
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	groups = gt_alloc_array(nkeys, sizeof(EndGroup *));

	qsort(keys, nkeys, sizeof(GtLeaseKey), by_object);
	busy = lock_objects(&objects, &leases, keys, groups, nkeys, skip);
	busy += end_leases(&leases, keys, groups, nkeys, skip);

	gt_end_finish(&leases, keys, nkeys);
	write_objects(&objects, groups, nkeys);
	gt_close(&leases);
	gt_close(&objects);
	pfree(groups);
	return busy;
}
