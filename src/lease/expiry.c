/*-------------------------------------------------------------------------
 *
 * expiry.c
 *	  The leases that are over: chosen, and handed to gt_end().
 *
 * Workers run this, and gt_reclaim() in its session's transaction.  What is chosen is
 * read without a lock, from the oldest on and, where there is too much, from the
 * newest too; gt_end() locks and judges.  Several passes may be in progress: each passes
 * over what those before have in hand (GtInHand).  A crash leaves everything to be
 * chosen again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/point.h"
#include "lease/created.h"
#include "lease/ending.h"
#include "lease/expiry.h"
#include "lease/start.h"
#include "rights/rights.h"
#include "shared/due.h"
#include "shared/in_hand.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/relations.h"
#include "table/scan.h"

#define LOOK_AT_ALL (10 * USECS_PER_SEC)	/* the low end of an index is looked at as often, */
#define COST_FACTOR 20			/* and where nothing was found after so many times what that took, */
#define CHEAP		1000		/* us: unless it was as little */
#define BUSY_FACTOR	4			/* of children that others have locked a pass looks at so many times its limit */

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
			*first = *DatumGetUUIDP(orphan.v[ORPHAN_PARENT]);
		if (room <= 0)
		{
			*last = *DatumGetUUIDP(orphan.v[ORPHAN_PARENT]);
			result->more = true;
			break;
		}
		if (gt_lock(&orphans, &orphan, LockTupleExclusive, true) != GT_LOCKED)
		{
			note_busy(result, 1, GT_TIME(&orphan, ORPHAN_ENDED_AT));	/* another worker is at it */
			continue;
		}
		keys = palloc(limit * sizeof(GtLeaseKey));
		children = gt_scan_begin(&leases, GT_LEASE_PARENT, 1, &orphan.v[ORPHAN_PARENT]);
		while (n < limit && gt_scan_next(children, &child))
		{
			if (own && !is_on_own_object(&objects, &child))
			{
				others++;
				continue;
			}
			gt_lease_key(&child, &keys[n]);
			keys[n].over = true;
			keys[n].ended_at = GT_TIME(&orphan, ORPHAN_ENDED_AT);
			n++;
		}
		gt_scan_end(children);
		busy = gt_end(keys, n, GT_BOOL(&orphan, ORPHAN_EXPIRED) ? GT_END_EXPIRED : GT_END_RELEASED, true);
		note_busy(result, busy, GT_TIME(&orphan, ORPHAN_ENDED_AT));
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
	if (!own)
		behind = result->more;
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
	gt_end(keys, n, GT_END_EXPIRED, true);
	PopActiveSnapshot();
	for (i = 0; i < n; i++)
	{
		result->ended += keys[i].ended;
		result->more = result->more || keys[i].orphans;
		note_busy(result, keys[i].busy, GT_TIME(keys[i].row, L_CHECK_AT));
	}
	if (!own && in_hand == NULL)
		go_round(keys, n, result);
	GT_POINT("ended");
}
