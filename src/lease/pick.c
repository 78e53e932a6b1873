/*-------------------------------------------------------------------------
 *
 * pick.c
 *	  Which leases a pass of expiry looks at: of every role in turn, from both ends.
 *
 * Each role has a queue of its own, its leases in the order of check_at: the index
 * has the role first.  So whatever one has that is due, a million leases of the
 * same second, stands in front of nobody else.  A pass goes through the roles that
 * have anything due, beginning after that with which the pass before began
 * (GtDatabase.expire_after), and each has an equal share of it; what one does not
 * need goes to those that had more than their share the last time, which come last.
 * Of its share a role gets half from its oldest lease on, and where there is more
 * than that the other half backwards from now: so what ends now does not wait for
 * all that it had before.  When the next is due is found on the way: the queues of
 * all roles are looked at, each by one descent of the index.  Where that are many
 * (MANY) a worker remembers those in which something is due within a second, and looks
 * at these only, until that is over or a lease comes that is due before: see due.c.
 *
 * All is read without a lock, and nothing written.  Passes may overlap: each passes
 * over what those before it have in hand, which is a few ranges of such queues
 * (GtSlot.in_hand), good until they have committed.  A pass that picks of more roles
 * than it can tell of is followed by no other until then.
 *
 * A worker is bound to a role (slots.c), and of other roles' leases it could make
 * garbage only (clean/optimistic.c).  So where a role's own workers have looked within
 * a turn, the others have of its leases what they have room for beside all else.
 *
 * A role can hold any number of its own leases, more than a pass looks at, and its
 * other leases are not to wait for that.  So where all of its oldest were locked a
 * round begins: each pass goes on there after the one before, to the end of what is
 * due.  It is kept with what is known of the low end of the queue (low.c), for
 * whoever comes next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/point.h"
#include "lease/created.h"
#include "lease/pick.h"
#include "rights/rights.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "table/low.h"
#include "table/relations.h"
#include "table/scan.h"

#define MANY		64			/* queues, beyond which a worker remembers which of them matter, */
#define HORIZON		USECS_PER_SEC	/* for so long */
#define GAP_MARGIN	(100 * INT64CONST(1000))	/* us */

/* What this worker remembers of the queues of its database. */
static struct
{
	bool		many;			/* there were, when they were looked at last: it is worth it */
	TimestampTz until;			/* no other has anything due before */
	uint64		news;			/* see gt_lease_horizon() */
	uint64		changes;		/* gt_table_changes then */
	int			n;
	GtKey	   *keys;			/* in TopMemoryContext; NULL: nothing is known */
}			known;

/* The state of a choice. */
typedef struct Choice
{
	GtPick	   *pick;
	GtTable		leases;
	GtTable		objects;
} Choice;

/* ---------------------------------------------------------------- places */

static GtPlaceInQueue
place_of(const GtRow *lease)
{
	GtPlaceInQueue place;

	place.check_at = GT_TIME(lease, L_CHECK_AT);
	place.tid = lease->tid;
	return place;
}

/* Tells of leases of a role, from here to there; no room: of nothing any more. */
static void
tell(GtPick *pick, Oid owner, const GtPlaceInQueue *from, const GtPlaceInQueue *to)
{
	GtRange    *range = &pick->in_hand.ranges[pick->in_hand.n];

	pick->told = pick->told && pick->in_hand.n < GT_RANGES;
	if (!pick->told)
		return;
	pick->in_hand.n++;
	range->owner = owner;
	range->from = *from;
	range->to = *to;
}

/* ---------------------------------------------------------------- the queue of a role */

bool
gt_is_on_own_object(GtTable *objects, const GtRow *lease)
{
	Datum		key[2];
	GtRow		object;

	key[0] = lease->v[L_OBJECT_ID];
	key[1] = lease->v[L_OBJECT_TYPE];
	return gt_fetch(objects, GT_OBJECT_PKEY, 2, key, &object) && gt_acts_for(GT_OID(&object, O_OWNER));
}

/* May this pass end it at all? */
static bool
concerns_us(Choice *choice, const GtRow *lease)
{
	return choice->pick->own ? gt_is_on_own_object(&choice->objects, lease) : !gt_created_here(DatumGetUUIDP(lease->v[L_ID]));
}

static void
add_lease(GtPick *pick, const GtLane *lane, const GtRow *lease)
{
	GtLeaseKey *key = &pick->keys[pick->n++];
	GtRow	   *row = palloc(sizeof(GtRow));

	/* under our caller's snapshot it stays in its place */
	*row = *lease;
	gt_lease_key_of_row(row, key);
	key->lane = lane - pick->lanes;
}

static GtScan *
begin(Choice *choice, Oid owner, TimestampTz from)
{
	Datum		key = ObjectIdGetDatum(owner);

	return gt_scan_begin_bound(&choice->leases, GT_LEASE_CHECK, 1, &key, BTGreaterEqualStrategyNumber,
							   TimestampTzGetDatum(from));
}

static GtScan *
begin_backward(Choice *choice, Oid owner, TimestampTz after, TimestampTz upto)
{
	Datum		key = ObjectIdGetDatum(owner);
	GtScan	   *scan = gt_scan_begin_range(&choice->leases, GT_LEASE_CHECK, 1, &key, TimestampTzGetDatum(after),
										   TimestampTzGetDatum(upto));

	gt_scan_backward(scan);
	return scan;
}

/* Picks from the oldest on, beginning at `from`, up to so many. Returns check_at of the first lease there; GT_NEVER: there is none. */
static TimestampTz
pick_oldest(Choice *choice, GtLane *lane, TimestampTz from, int share)
{
	GtPick	   *pick = choice->pick;
	int			limit = pick->n + share;
	int			before = pick->n;
	TimestampTz first = GT_NEVER;
	GtPlaceInQueue begun;
	GtScan	   *scan = begin(choice, lane->owner, from);
	GtRow		lease;

	while (gt_scan_next(scan, &lease))
	{
		GtPlaceInQueue place = place_of(&lease);
		const GtRange *range;

		first = Min(first, place.check_at);
		if (place.check_at > pick->now)
		{
			pick->next = Min(pick->next, place.check_at);
			break;
		}
		if (!concerns_us(choice, &lease) || gt_compare_places(&place, &lane->low.after) <= 0)
			continue;
		range = gt_beside_has(&pick->beside, lane->owner, &place);
		if (range != NULL)
		{
			lane->met = true;
			if (range->to.check_at > place.check_at)
			{
				gt_scan_end(scan);
				scan = begin(choice, lane->owner, range->to.check_at);
			}
			continue;
		}
		if (pick->n == limit)
		{
			lane->more = true;
			break;
		}
		if (pick->n == before)
			begun = place;
		lane->upto = place;
		add_lease(pick, lane, &lease);
	}
	gt_scan_end(scan);
	if (pick->n > before)
		tell(pick, lane->owner, &begun, &lane->upto);
	return first;
}

/* And from there on backwards, down to those, up to so many. */
static void
pick_backward(Choice *choice, GtLane *lane, TimestampTz after, TimestampTz upto, int share)
{
	GtPick	   *pick = choice->pick;
	int			limit = pick->n + share;
	int			before = pick->n;
	GtPlaceInQueue top;
	GtPlaceInQueue bottom;
	GtScan	   *scan = begin_backward(choice, lane->owner, after, upto);
	GtRow		lease;

	while (pick->n < limit && gt_scan_next(scan, &lease))
	{
		GtPlaceInQueue place = place_of(&lease);
		const GtRange *range;

		if (gt_compare_places(&place, &lane->upto) <= 0)
			break;
		range = gt_beside_has(&pick->beside, lane->owner, &place);
		if (range != NULL && range->from.check_at < place.check_at)
		{
			gt_scan_end(scan);
			scan = begin_backward(choice, lane->owner, after, range->from.check_at);
		}
		if (range != NULL || !concerns_us(choice, &lease))
			continue;
		if (pick->n == before)
			top = place;
		bottom = place;
		add_lease(pick, lane, &lease);
	}
	gt_scan_end(scan);
	if (pick->n == before)
		return;
	tell(pick, lane->owner, &bottom, &top);
	lane->low.gap_after = bottom.check_at;
}

/*
 * From now on backwards.  What passes before this one have had so, and have ended, is
 * a gap of dead entries as the low end is: it is left out.  What may be left in it
 * comes from the oldest on, or when all is looked at.
 */
static void
pick_newest(Choice *choice, GtLane *lane, int share)
{
	GtLow	   *low = &lane->low;
	TimestampTz down_to = lane->upto.check_at - 1;
	int			before = choice->pick->n;
	int			limit = before + share;
	TimestampTz gap_after = low->gap_after;

	if (low->gap_upto <= gap_after || low->gap_upto <= down_to)
	{
		pick_backward(choice, lane, down_to, choice->pick->now, share);
		if (choice->pick->n == before)
			return;
	}
	else
	{
		pick_backward(choice, lane, Max(low->gap_upto, down_to), choice->pick->now, share);
		if (choice->pick->n < limit)
		{
			low->gap_after = gap_after;
			if (gap_after > down_to)
				pick_backward(choice, lane, down_to, gap_after, limit - choice->pick->n);
		}
	}
	/* what commits now is over later */
	low->gap_upto = choice->pick->now - GAP_MARGIN;
}

/* The share of a role. */
static void
pick_lane(Choice *choice, GtLane *lane, int share)
{
	GtPick	   *pick = choice->pick;
	GtLow	   *low = &lane->low;
	int			half = Max(share / 2, 1);
	int			before = pick->n;
	bool		in_round = low->after.check_at != GT_NOWHERE;
	TimestampTz now = gt_now();
	bool		all = pick->own || gt_low_all_is_due(low, now);
	TimestampTz from = all ? PG_INT64_MIN : low->low;
	TimestampTz first = pick_oldest(choice, lane, in_round ? low->after.check_at : from, half);

	if (pick->n == before && !lane->met && !in_round && !all)
	{
		all = now >= gt_low_all_from(low);
		if (all)
			first = pick_oldest(choice, lane, from = PG_INT64_MIN, half);
		else
			pick->next = Min(pick->next, gt_low_all_from(low));
	}
	else if (!pick->own && !all)
		pick->next = Min(pick->next, gt_low_late_from(low));
	/* what is beyond is not looked at here: the next pass, if it finds nothing, tells when that is due */
	if (all || !lane->more)
		low->gap_after = low->gap_upto = 0;
	if (lane->more && share > half)
	{
		GT_POINT("oldest_picked");
		pick_newest(choice, lane, share - half);
	}
	pick->more = pick->more || lane->more;
	low->behind = lane->more;
	if (pick->own)
		return;
	if (!in_round)
	{
		if (all)
			gt_low_looked_at_all(low, now);
		gt_low_found(low, from, first, now);
	}
	gt_low_remember(low);
}

/* ---------------------------------------------------------------- all roles */

/* With the role after that one we begin. Written by who has the token (worker.c). */
static Oid *
turn(void)
{
	static Oid	mine = InvalidOid;

	return gt_my_slot != NULL ? &gt_my_database()->expire_after : &mine;
}

/* Remembers those of all queues that have something due before the horizon, and when the others have. */
static void
remember(GtDatabase *db, const GtKey *keys, int n)
{
	TimestampTz beyond = GT_NEVER;
	int			i;

	known.keys = MemoryContextAlloc(TopMemoryContext, (n + 1) * sizeof(GtKey));
	known.n = 0;
	for (i = 0; i < n; i++)
	{
		if (keys[i].first <= known.until)
			known.keys[known.n++] = keys[i];
		else
			beyond = Min(beyond, keys[i].first);
	}
	gt_lease_beyond(db, beyond);
}

/* Queues that may have something due. When the others have is noted. */
static const GtKey *
find_queues(Choice *choice, int *n)
{
	GtPick	   *pick = choice->pick;
	GtDatabase *db = known.many && gt_my_slot != NULL ? gt_my_database() : NULL;
	GtKey	   *keys;

	if (known.keys != NULL && db != NULL && pick->now <= known.until && known.changes == gt_table_changes &&
		known.news == pg_atomic_read_u64(&db->lease_news))
	{
		pick->next = Min(pick->next, (TimestampTz) pg_atomic_read_u64(&db->lease_beyond));
		*n = known.n;
		return known.keys;
	}
	if (known.keys != NULL)
		pfree(known.keys);
	known.keys = NULL;
	if (db != NULL)
	{
		known.until = pick->now + HORIZON;
		known.changes = gt_table_changes;
		known.news = gt_lease_horizon(db, known.until);
	}
	keys = gt_scan_keys(&choice->leases, GT_LEASE_CHECK, n);
	gt_scan_settle_next(&choice->leases, GT_LEASE_CHECK, keys, *n, pick->now);
	known.many = *n > MANY;
	if (db != NULL)
		remember(db, keys, *n);
	return keys;
}

/* Puts those that others attend to last. */
static void
sort_lanes(GtPick *pick)
{
	GtLane	   *lanes = palloc((pick->nlanes + 1) * sizeof(GtLane));
	int			n = 0;
	int			round;
	int			i;

	for (round = 0; round < 2; round++)
	{
		for (i = 0; i < pick->nlanes; i++)
			if (gt_beside_attends(&pick->beside, pick->lanes[i].owner) == (round > 0))
				lanes[n++] = pick->lanes[i];
		if (round == 0)
			pick->nfirst = n;
	}
	pick->lanes = lanes;
}

/*
 * Those that may have something due, in the order of their turns, as many as a pass
 * can look at.  When the others have is noted.
 */
static void
find_lanes(Choice *choice)
{
	GtPick	   *pick = choice->pick;
	Oid			last = *turn();
	int			nkeys;
	const GtKey *queues = find_queues(choice, &nkeys);
	GtKey	   *keys = palloc((nkeys + 1) * sizeof(GtKey));
	int			ndue = 0;
	int			start = 0;
	int			i;

	for (i = 0; i < nkeys; i++)
	{
		if (queues[i].first <= pick->now)
			keys[ndue++] = queues[i];
		else
			pick->next = Min(pick->next, queues[i].first);
	}
	while (start < ndue && keys[start].key <= last)
		start++;
	pick->nlanes = Min(ndue, pick->limit);
	pick->more = ndue > pick->nlanes;
	pick->lanes = palloc0((pick->nlanes + 1) * sizeof(GtLane));
	for (i = 0; i < pick->nlanes; i++)
	{
		GtLane	   *lane = &pick->lanes[i];

		lane->owner = keys[(start + i) % ndue].key;
		lane->upto.check_at = GT_NOWHERE;
		if (pick->own)
			lane->low.after.check_at = GT_NOWHERE;
		else
			gt_low_recall(&lane->low, GT_LEASE_CHECK, lane->owner);
		lane->late = lane->low.behind;
	}
	if (pick->nlanes > 0 && !pick->own)
		*turn() = pick->lanes[pick->more ? pick->nlanes - 1 : 0].owner;
	sort_lanes(pick);
}

/* Of these each has an equal share of what there is room for. */
static void
pick_lanes(Choice *choice, int from, int to)
{
	GtPick	   *pick = choice->pick;
	int			left = to - from;
	int			round;
	int			i;

	for (round = 0; round < 2; round++)
		for (i = from; i < to; i++)
		{
			GtLane	   *lane = &pick->lanes[i];

			if (lane->late == (round > 0))
				pick_lane(choice, lane, (pick->limit - pick->n) / left--);
		}
}

void
gt_pick(GtPick *pick, int limit, bool own)
{
	Choice		choice;

	memset(pick, 0, sizeof(GtPick));
	pick->own = own;
	pick->now = gt_now();
	pick->limit = limit;
	pick->next = GT_NEVER;
	pick->told = true;
	pick->keys = palloc(limit * sizeof(GtLeaseKey));
	gt_beside_find(&pick->beside);
	choice.pick = pick;
	gt_open(&choice.objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&choice.leases, GT_LEASE, RowExclusiveLock);
	find_lanes(&choice);
	pick_lanes(&choice, 0, pick->nfirst);
	if (pick->n < limit)
		pick_lanes(&choice, pick->nfirst, pick->nlanes);
	else
	{
		pick->more = pick->more || pick->nfirst < pick->nlanes;
		pick->nlanes = pick->nfirst;
	}
	gt_close(&choice.leases);
	gt_close(&choice.objects);
}

/* A role of which a pass alone has looked at these: does a round begin, go on or end? Returns how many it has found locked, at its end. */
static int
go_round(GtLane *lane, TimestampTz *busy_from)
{
	GtLow	   *low = &lane->low;
	bool		in_round = low->after.check_at != GT_NOWHERE;
	int			busy = 0;

	if (lane->more && lane->upto.check_at != GT_NOWHERE && (in_round || !lane->ended))
	{
		low->after = lane->upto;
		low->busy += lane->busy;
		low->busy_from = Max(low->busy_from, lane->busy_from);
	}
	else if (in_round)
	{
		/* all of it is to be looked at again, also where a pass has failed since */
		busy = Max(low->busy, 1);
		*busy_from = Max(*busy_from, low->busy_from);
		low->after.check_at = GT_NOWHERE;
		low->busy = 0;
		low->busy_from = 0;
	}
	else
		return 0;
	low->gap_upto = 0;
	gt_low_remember(low);
	return busy;
}

/* What was picked and has not ended is in no gap. */
static void
shorten_gap(const GtLane *lane)
{
	GtLow		low;

	if (lane->missed <= lane->low.gap_after)
		return;
	gt_low_recall(&low, GT_LEASE_CHECK, lane->owner);	/* another pass may have gone on since */
	low.gap_after = Max(low.gap_after, lane->missed);
	gt_low_remember(&low);
}

int
gt_pick_done(GtPick *pick, TimestampTz *busy_from)
{
	int			busy = 0;
	int			i;

	for (i = 0; i < pick->n; i++)
	{
		const GtLeaseKey *key = &pick->keys[i];
		GtLane	   *lane = &pick->lanes[key->lane];
		GtPlaceInQueue place = place_of(key->row);

		lane->ended = lane->ended || ((key->ended || key->left) && gt_compare_places(&place, &lane->upto) <= 0);
		if (!key->ended)
			lane->missed = Max(lane->missed, place.check_at);
		if (!key->busy)
			continue;
		lane->busy++;
		lane->busy_from = Max(lane->busy_from, place.check_at);
		*busy_from = Max(*busy_from, place.check_at);
		busy++;
	}
	for (i = 0; i < pick->nlanes && !pick->own; i++)
	{
		if (!pick->lanes[i].met)
			busy += go_round(&pick->lanes[i], busy_from);
		shorten_gap(&pick->lanes[i]);
	}
	return busy;
}
