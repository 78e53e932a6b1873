/*-------------------------------------------------------------------------
 *
 * admit.c
 *	  Which run may start beside those that are in progress, and which has to end.
 *
 * slots.c asks this, and takes the slot by what it is told; all of it is judged by what
 * the slots say, under GtShared.lock.
 *
 * The rules (promise I6).  No handler, and no one role's handlers together, run
 * in more than max_workers - 1 slots, and slow handlers together in no more than
 * that, so that one slot is left for expiry and for the handlers that are quick
 * (also for those of a role whose slow ones hold all that it may have).
 * Slow is a handler whose last run took over a second or took its worker down, or
 * of which a run lasts for over a second now.  Of a handler that has not run yet
 * nobody knows: one of those at a time may take the last slot, and where a run
 * there turns out to be slow it is given back: canceled, and no attempt (timers.c
 * asks gt_slot_gives_back() after each turn).  While others wait for the
 * slot, only one such run of a role in TRY_EVERY may last for that second; the
 * rest are given back when a turn has passed, and nobody knows of them as before:
 * so a role with a hundred handlers that hang costs the others a turn, not a
 * second, each time; and one whose own slow runs hold all other slots, a second
 * even more rarely.  While others wait the slow runs of a role hold no more than half
 * of the slots: no more start than that, and a run that turns out to be one more is
 * given back as in the last slot.  With max_workers = 1 there is no such slot.  Where
 * all workers are in runs nobody finds out who waits: then it is enough that something
 * is due here at which nobody has looked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "handler/admit.h"
#include "handler/handler.h"
#include "handler/others.h"
#include "handler/rates.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "shared/observe.h"
#include "shared/shmem.h"

#define TRY_EVERY		(30 * USECS_PER_SEC)	/* a role, whether what nobody knows of it is slow, in the last slot and while others wait */
#define TRY_OWN			(5 * USECS_PER_MINUTE)	/* where its own slow runs hold all the others */

GtTurn	   *gt_my_turn = NULL;

/*
 * From when on an object that was in a crashed run may start: not within a second
 * of another one, so that it is clear why, should the server crash again.  Lock
 * held.
 */
static TimestampTz
alone_from(void)
{
	TimestampTz from = 0;
	int			i;

	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot != gt_slot_own() && slot->state != GT_SLOT_FREE && slot->handler != 0 && slot->alone)
			from = Max(from, slot->since + GT_SLOW);
	}
	return from;
}

TimestampTz
gt_slot_alone_from(void)
{
	TimestampTz from = 0;

	if (gt_shared == NULL)
		return from;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	from = alone_from();
	LWLockRelease(gt_shared->lock);
	return from;
}

/* Has the run of this worker lasted for so long that it counts as slow? */
static bool
lasts(const GtSlot *slot, TimestampTz now)
{
	return slot->run_since != 0 && now - slot->run_since > GT_SLOW;
}

static bool
counts_as_slow(const GtSlot *slot, TimestampTz now)
{
	return slot->speed == GT_SPEED_SLOW || lasts(slot, now);
}

/* What runs now, beside who asks. */
typedef struct Busy
{
	int			runs;			/* of the handler, sessions' too */
	int			same;			/* of the handler, as all below in workers */
	int			slow;
	int			unknown;		/* neither slow nor quick: not known yet */
	int			role;			/* of the handler's role */
	int			role_slow;
	int			role_unknown;
	TimestampTz turns_slow;		/* when the first of the role's that is not will be slow; GT_NEVER */
} Busy;

/* Of that handler here, or of the same of its rows? */
static bool
is_run_of(const GtSlot *slot, const GtHandler *h)
{
	return slot->state != GT_SLOT_FREE && slot->handler == h->id && slot->apart == h->apart && slot->database == MyDatabaseId;
}

/* mine: who asks; NULL: somebody who runs nothing. Lock held. */
static void
count_busy(const GtHandler *h, const GtSlot *mine, TimestampTz now, Busy *busy)
{
	Oid			role = gt_handler_role(h);
	int			i;

	memset(busy, 0, sizeof(Busy));
	busy->turns_slow = GT_NEVER;
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];
		bool		same = is_run_of(slot, h);
		bool		slow = counts_as_slow(slot, now);
		bool		unknown = !slow && slot->speed == GT_SPEED_UNKNOWN;

		if (slot == mine || slot->state == GT_SLOT_FREE || slot->handler == 0)
			continue;
		busy->runs += same;
		if (i >= GT_MAX_WORKERS)
			continue;
		busy->same += same;
		busy->slow += slow;
		busy->unknown += unknown;
		if (!OidIsValid(role) || slot->runs_as != role)
			continue;
		busy->role++;
		busy->role_slow += slow;
		busy->role_unknown += unknown;
		if (!slow)
			busy->turns_slow = Min(busy->turns_slow, Max(slot->run_since, slot->since) + GT_SLOW + 1);
	}
}

/*
 * May the role have one more?  Its slow handlers may not stop its quick ones
 * either: where they hold all that it may have, one of those runs beside them.
 */
static bool
role_allows(const Busy *busy, GtSpeed speed, int limit)
{
	if (busy->role < limit)
		return true;
	if (busy->role > limit || speed == GT_SPEED_SLOW)
		return false;
	return busy->role_slow + (speed == GT_SPEED_QUICK ? busy->role_unknown : 0) == busy->role;
}

/* So many slow runs may a role have while others wait. */
static int
slow_share(void)
{
	return Max(gt_max_workers / 2, 1);
}

/* mine as above. *when: look again then, if no run ends before. Lock held. */
bool
gt_admits(const GtHandler *h, GtSpeed speed, bool alone, const GtSlot *mine, TimestampTz *when)
{
	int			limit = Max(gt_max_workers - 1, 1);
	TimestampTz now = gt_now();
	Busy		busy;

	count_busy(h, mine, now, &busy);
	if (alone && alone_from() > now)
	{
		*when = alone_from();
		return false;
	}
	if (h->concurrency > 0 && busy.runs >= h->concurrency)
		return false;
	if (gt_my_slot == NULL)
		return true;			/* the last slot is a matter of workers */
	if (busy.same >= limit)
		return false;
	if (!role_allows(&busy, speed, limit))
	{
		*when = busy.turns_slow;
		return false;
	}
	switch (speed)
	{
		case GT_SPEED_SLOW:
			if (busy.role_slow >= slow_share() && (gt_slot_is_wanted() || now < gt_shared->starved_at + GT_SLOW))
			{
				*when = now + GT_SLOW;
				return false;
			}
			return busy.slow + busy.unknown < limit;
		case GT_SPEED_UNKNOWN:
			return busy.slow + busy.unknown <= limit;	/* the last one, too */
		case GT_SPEED_QUICK:
			break;
	}
	return true;
}

/* As when it was chosen last, but for a run of it that has become slow since. Lock held. */
GtSpeed
gt_admit_speed(const GtHandler *h, GtSpeed speed)
{
	TimestampTz now = gt_now();
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
		if (is_run_of(&gt_shared->slots[i], h) && lasts(&gt_shared->slots[i], now))
			return GT_SPEED_SLOW;
	return speed;
}

/* Of a handler that nobody knows: is it too early for its role to have a slot that others wait for for more than a turn again? */
static bool
tried_lately(TimestampTz now, bool own)
{
	static TimestampTz let_try_at = 0;	/* when this process last was */

	if (gt_my_slot->speed != GT_SPEED_UNKNOWN || gt_my_turn == NULL || !gt_slot_work_waits())
		return false;
	if (let_try_at >= gt_my_slot->run_since)
		return false;			/* this very run */
	if (own && gt_my_turn->tried_at == 0)
		gt_my_turn->tried_at = now;
	if (gt_my_turn->tried_at != 0 && now < gt_my_turn->tried_at + (own ? TRY_OWN : TRY_EVERY))
		return true;
	gt_my_turn->tried_at = let_try_at = now;
	return false;
}

/* Without the lock: this is asked in a signal handler. */
bool
gt_slot_gives_back(void)
{
	int			limit = Max(gt_max_workers - 1, 1);
	TimestampTz now = gt_now();
	int			slow = 0;
	int			of_role = 0;
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == gt_my_slot || slot->state == GT_SLOT_FREE || slot->handler == 0 || !counts_as_slow(slot, now))
			continue;
		slow++;
		of_role += slot->runs_as == gt_my_slot->runs_as;
	}
	if (slow < limit && (of_role < slow_share() || !gt_slot_work_waits()))
		return false;
	return lasts(gt_my_slot, now) || tried_lately(now, of_role >= limit);
}

bool
gt_slot_passes_are_full(const GtHandler *h)
{
	TimestampTz now = gt_now();
	bool		lasting = false;
	int			n = 0;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];
		bool		same = is_run_of(slot, h);

		n += same;
		lasting = lasting || (same && lasts(slot, now));
	}
	LWLockRelease(gt_shared->lock);
	return n >= Max(gt_max_workers - 1, 1) && !lasting;
}
