/*-------------------------------------------------------------------------
 *
 * orphans.c
 *	  Children of leases that have ended: they end in batches.
 *
 * Each ended lease that left children has a row in gt__orphan, until there are no
 * more of them.  The roles that have such are served in turn, each with its share
 * of a pass, and what ended first comes first.  A row is locked while its children
 * are ended; who finds it locked passes over it, for another worker is at it.
 *
 * Children that others have locked do not count, for one role can hold any number
 * of its own.  But a pass looks at so many only, and the next one goes on there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "lease/ending.h"
#include "lease/orphans.h"
#include "lease/pick.h"
#include "shared/clock.h"
#include "table/low.h"
#include "table/records.h"
#include "table/scan.h"

#define BUSY_FACTOR	4			/* of children that others have locked a pass looks at so many times its limit */

/* What a pass has at hand. */
typedef struct Orphans
{
	GtTable		objects;
	GtTable		orphans;
	GtTable		leases;
	bool		own;			/* only those on objects of current_user */
	GtExpiry   *result;
} Orphans;

/* Others have so many locked of what was to be looked at then. */
static void
note_busy(GtExpiry *result, int n, TimestampTz from)
{
	result->busy += n;
	if (n > 0)
		result->busy_from = Max(result->busy_from, from);
}

/* Up to `limit` children of one lease. Returns how many have ended; *looked_at: of so many. */
static int
end_children(Orphans *o, GtRow *orphan, int limit, int *looked_at)
{
	GtLeaseKey *keys = palloc(limit * sizeof(GtLeaseKey));
	GtScan	   *children = gt_scan_begin(&o->leases, GT_LEASE_PARENT, 1, &orphan->v[ORPHAN_PARENT]);
	int			n = 0;
	int			others = 0;
	int			ended = 0;
	int			busy;
	int			i;
	GtRow		child;

	while (n < limit && gt_scan_next(children, &child))
	{
		if (o->own && !gt_is_on_own_object(&o->objects, &child))
		{
			others++;
			continue;
		}
		gt_lease_key(&child, &keys[n]);
		keys[n].over = true;
		keys[n].ended_at = GT_TIME(orphan, ORPHAN_ENDED_AT);
		n++;
	}
	gt_scan_end(children);
	busy = gt_end(keys, n, GT_BOOL(orphan, ORPHAN_EXPIRED) ? GT_END_EXPIRED : GT_END_RELEASED, true);
	note_busy(o->result, busy, GT_TIME(orphan, ORPHAN_ENDED_AT));
	for (i = 0; i < n; i++)
		ended += keys[i].ended;
	if (n == limit && busy < n)
		o->result->more = true;
	else if (n < limit && busy == 0 && others == 0)
		gt_delete(&o->orphans, orphan);
	pfree(keys);
	*looked_at = n;
	return ended;
}

/* Those of a role, from there on. Returns when the first of them was queued; GT_NEVER: there is none. */
static TimestampTz
end_from(Orphans *o, GtLow *low, TimestampTz from, int limit)
{
	Datum		key = ObjectIdGetDatum(low->key);
	int			room = BUSY_FACTOR * limit;
	TimestampTz first = GT_NEVER;
	GtPlaceInQueue after = low->after;
	GtScan	   *scan = gt_scan_begin_bound(&o->orphans, GT__ORPHAN_DUE, 1, &key, BTGreaterEqualStrategyNumber,
										   TimestampTzGetDatum(from));
	GtRow		orphan;

	low->after.check_at = GT_NOWHERE;
	while (limit > 0 && gt_scan_next(scan, &orphan))
	{
		GtPlaceInQueue place = {GT_TIME(&orphan, ORPHAN_QUEUED_AT), orphan.tid};
		int			looked_at;
		int			ended;

		first = Min(first, place.check_at);
		if (gt_compare_places(&place, &after) <= 0)
			continue;
		if (room <= 0)
		{
			low->after = after;
			o->result->more = true;
			break;
		}
		after = place;
		if (gt_lock(&o->orphans, &orphan, LockTupleExclusive, true) != GT_LOCKED)
		{
			note_busy(o->result, 1, GT_TIME(&orphan, ORPHAN_ENDED_AT));
			continue;
		}
		ended = end_children(o, &orphan, limit, &looked_at);
		o->result->ended += ended;
		limit -= ended;
		room -= looked_at - ended;
	}
	gt_scan_end(scan);
	return first;
}

/* The share of a role. */
static void
end_share(Orphans *o, Oid owner, int limit)
{
	TimestampTz now = gt_now();
	GtLow		low;
	bool		all;
	TimestampTz from;
	TimestampTz first = GT_NEVER;

	gt_low_recall(&low, GT__ORPHAN_DUE, owner);
	if (!o->own && low.after.check_at != GT_NOWHERE)
	{
		(void) end_from(o, &low, low.after.check_at, limit);
		note_busy(o->result, 1, o->result->busy_from);	/* those before */
		gt_low_remember(&low);
		return;
	}
	low.after.check_at = GT_NOWHERE;
	all = o->own || gt_low_all_is_due(&low, now);
	from = all ? PG_INT64_MIN : low.low;
	first = end_from(o, &low, from, limit);
	if (first == GT_NEVER && !all)
	{
		all = now >= gt_low_all_from(&low);
		if (all)
			first = end_from(o, &low, from = PG_INT64_MIN, limit);
		else
			o->result->next = Min(o->result->next, gt_low_all_from(&low));
	}
	if (o->own)
		return;
	if (!all)
		o->result->next = Min(o->result->next, gt_low_late_from(&low));
	if (all)
		gt_low_looked_at_all(&low, now);
	gt_low_found(&low, from, first, now);
	gt_low_remember(&low);
}

void
gt_end_orphans(int limit, bool own, GtExpiry *result)
{
	Orphans		o;
	GtKey	   *keys;
	int			n;
	int			start;
	int			i;

	memset(&o, 0, sizeof(o));
	o.own = own;
	o.result = result;
	gt_open(&o.orphans, GT__ORPHAN, RowExclusiveLock);
	keys = gt_scan_keys(&o.orphans, GT__ORPHAN_DUE, &n);
	if (n > 0)
	{
		gt_open(&o.objects, GT_OBJECT, RowExclusiveLock);
		gt_open(&o.leases, GT_LEASE, RowExclusiveLock);
		start = n > 1 ? (int) pg_prng_uint64_range(&pg_global_prng_state, 0, n - 1) : 0;
		for (i = 0; i < n && result->ended < limit; i++)
			end_share(&o, keys[(start + i) % n].key, Max((limit - result->ended) / (n - i), 1));
		result->more = result->more || i < n;
		gt_close(&o.leases);
		gt_close(&o.objects);
	}
	gt_close(&o.orphans);
}
