/*-------------------------------------------------------------------------
 *
 * take.c
 *	  Leases end, and their objects go with them.
 *
 * Workers run this, in the subtransaction of a handler that cleans the objects at
 * once (optimistic.c).  It is gt_end() for leases that are each the only one of an object
 * of that handler: what is left of the two is deleted, page by page.
 *
 * Locks: none on what nobody else has locked.  The object is read and then the lease
 * judged, by rows as they were read; the very versions that were judged are deleted, the
 * leases first.  Where one of these is no longer the newest, or somebody has it locked,
 * it is left.  Where somebody is quicker with an object whose lease is deleted, which is
 * a matter of moments, all is undone.  An object that was not free when it was read is locked
 * (SKIP LOCKED).  A lease that is over by its row and by what renewals have added to it
 * stays over: who renews it afterwards reads the clock later.  So it may be judged some
 * time before it is deleted.
 *
 * A crash, or an error, leaves leases that run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/point.h"
#include "base/settings.h"
#include "clean/take.h"
#include "lease/deadline.h"
#include "shared/clock.h"
#include "shared/quota.h"
#include "shared/renewed.h"
#include "table/delete.h"
#include "table/find.h"

/* A lease that is to end with its object. */
typedef struct Take
{
	GtLeaseKey *key;
	bool		untouched;		/* nobody had the object locked, nor have we */
} Take;

bool
gt_may_take_object(const GtLeaseKey *key)
{
	int64		delay = key->row->isnull[L_REGRANT_DELAY] ? (int64) gt_regrant_delay : GT_INT64(key->row, L_REGRANT_DELAY);

	return !key->child && delay == 0;
}

/* Is the lease the only one of an object that this handler cleans, with nothing to be kept of either? */
static bool
is_all_of_object(const GtLeaseKey *key, const GtRow *object, int handler)
{
	return GT_CHAR(object, O_STATE) == GT_STATE_HELD && GT_INT32(object, O_LEASES) == 1 && !GT_BOOL(object, O_KEEP) &&
		!object->isnull[O_HANDLER] && GT_INT32(object, O_HANDLER) == handler &&
		(object->isnull[O_REGRANT_AT] || GT_TIME(object, O_REGRANT_AT) <= gt_now()) &&
		(object->isnull[O_SPEC_LEASE] || memcmp(DatumGetUUIDP(object->v[O_SPEC_LEASE]), &key->id, sizeof(pg_uuid_t)) == 0);
}

/* Nothing is written yet. */
static bool
may_take(GtTaking *taking, GtFinder *finder, GtLeaseKey *key, GtRow *object, Take *take)
{
	TimestampTz now;
	Datum		of[2];

	take->key = key;
	key->reason = GT_END_EXPIRED;
	key->ended = key->orphans = key->busy = false;
	of[0] = key->row->v[L_OBJECT_ID];
	of[1] = key->row->v[L_OBJECT_TYPE];
	if (!gt_find(finder, of, object, &take->untouched) || !is_all_of_object(key, object, taking->handler))
		return false;
	if (!take->untouched && (gt_lock(taking->objects, object, LockTupleExclusive, true) != GT_LOCKED ||
							 !is_all_of_object(key, object, taking->handler)))
		return false;
	now = gt_now();				/* before the deadline is read: see buffered.c */
	key->ended_at = gt_effective_deadline(key->row);
	return now >= key->ended_at;
}

/* Those that can be taken next. Returns how many. */
static int
gather(GtTaking *taking, Take *takes, GtRow **objects, int want)
{
	GtFinder   *finder = gt_finder_begin(taking->objects, GT_OBJECT_PKEY, 2);
	int			n = 0;

	while (n < want && taking->next < taking->nkeys)
	{
		CHECK_FOR_INTERRUPTS();
		if (may_take(taking, finder, &taking->keys[taking->next++], objects[n], &takes[n]))
			n++;
	}
	gt_finder_end(finder);
	return n;
}

/* Deletes the leases. Those of which it could come first, in their order. Returns how many. */
static int
take_leases(GtTaking *taking, Take *takes, GtRow **objects, int n)
{
	GtRow	  **rows = palloc(n * sizeof(GtRow *));
	bool	   *deleted = palloc(n * sizeof(bool));
	int			taken = 0;
	int			i;

	for (i = 0; i < n; i++)
		rows[i] = takes[i].key->row;
	gt_try_delete_many(taking->leases, rows, n, deleted);
	for (i = 0; i < n; i++)
	{
		GtLeaseKey *key = takes[i].key;

		if (!deleted[i])
			continue;
		key->ended = true;
		gt_quota_note(GT_OID(key->row, L_OWNER), key->row->v[L_SERVICE_ID], -1);
		gt_renewal_ended(&key->id);
		if (!objects[i]->isnull[O_SPEC_LEASE])
			gt_keep_spec(objects[i], key->row, NULL);
		gt_garbage_take(objects[i], &key->id, key->ended_at);
		if (taken < i)
			*objects[taken] = *objects[i];
		takes[taken++] = takes[i];
	}
	return taken;
}

/* false: somebody has one. */
static bool
take_objects(GtTaking *taking, const Take *takes, GtRow **objects, int n)
{
	GtRow	  **rows = palloc(n * sizeof(GtRow *));
	bool	   *deleted = palloc(n * sizeof(bool));
	int			nrows = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (takes[i].untouched)
			rows[nrows++] = objects[i];
		else
			gt_delete(taking->objects, objects[i]);
	gt_try_delete_many(taking->objects, rows, nrows, deleted);
	for (i = 0; i < nrows && deleted[i]; i++)
		;
	return i == nrows;
}

int
gt_take(GtTaking *taking, GtRow **objects, int want)
{
	Take	   *takes = palloc(want * sizeof(Take));
	int			taken = 0;
	int			n = 1;

	while (taken == 0 && n > 0)
	{
		n = gather(taking, takes, objects, want);
		taken = n > 0 ? take_leases(taking, takes, objects, n) : 0;
	}
	if (taken == 0)
		return 0;
	GT_POINT("whole_lease");
	return take_objects(taking, takes, objects, taken) ? taken : -1;
}
