/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Who may start which runs, and when: rates, concurrency, the last slot.
 *
 * Workers and sessions in gt_reclaim() ask here before they choose objects to
 * run, and never hold anything here over a run but their slot: its handler, and
 * the cleanup ids that others pass over.  All of it lies in shared memory under
 * GtShared.lock; nothing must survive a crash.  Without preload there are no
 * slots, everything is allowed but what this session's own rates forbid.
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
 * Roles.  A worker runs the SQL of one role only, that of its first run: what a
 * library keeps in a session must not meet another role.  Expiring, announcing and
 * the chores are of no role.  A role whose work nobody here may do waits
 * (GtDatabase.waits): who finds that wakes an idle worker of the role, or has the
 * launcher start one.  Whoever has no role yet takes the one served longest ago.
 * What is announced takes its turn as that of the handler's owner.
 * While another waits and no slot is free, a role has a turn (GT_TURN), or until
 * it has nothing more to run: see must_leave() in worker.c.
 *
 * Who is refused a start is woken when a run ends: GtDatabase.denied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "handler/handler.h"
#include "handler/rates.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "shared/due.h"
#include "shared/ids.h"
#include "shared/observe.h"
#include "shared/shmem.h"

#define TRY_EVERY		(30 * USECS_PER_SEC)	/* a role, whether what nobody knows of it is slow, in the last slot and while others wait */
#define TRY_OWN			(5 * USECS_PER_MINUTE)	/* where its own slow runs hold all the others */

static GtSlot *foreground_slot = NULL;
static GtDatabase *my_database = NULL;	/* for who holds the lock, under which it can not be looked up */
static GtTurn *my_turn = NULL;	/* of the role that we run something of: not the oldest, so it stays where it is */

/* of the choice that is not committed yet */
static int	chosen_items;
static int	handler_before;

/* ---------------------------------------------------------------- slots */

GtSlot *
gt_slot_own(void)
{
	return gt_my_slot != NULL ? gt_my_slot : foreground_slot;
}

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
static bool
allows(const GtHandler *h, GtSpeed speed, bool alone, const GtSlot *mine, TimestampTz *when)
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
static GtSpeed
speed_now(const GtHandler *h, GtSpeed speed)
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

	if (gt_my_slot->speed != GT_SPEED_UNKNOWN || my_turn == NULL || !gt_slot_work_waits())
		return false;
	if (let_try_at >= gt_my_slot->run_since)
		return false;			/* this very run */
	if (own && my_turn->tried_at == 0)
		my_turn->tried_at = now;
	if (my_turn->tried_at != 0 && now < my_turn->tried_at + (own ? TRY_OWN : TRY_EVERY))
		return true;
	my_turn->tried_at = let_try_at = now;
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

void
gt_slot_run_begins(void)
{
	if (gt_my_slot != NULL)
		gt_my_slot->run_since = gt_now();
}

/* This database has work that must wait for the end of a run elsewhere. Lock held; its entry is there. */
static void
deny(void)
{
	GtDatabase *db = my_database;

	if (db != NULL)
		db->denied = gt_shared->denied = true;
}

/*
 * *when: look again then; GT_NEVER where the end of a run elsewhere will tell.
 *
 * Of those that have not run yet one at a time may have the last slot: where that
 * is our own, another role's waits for it to be free, and has its turn after ours.
 */
bool
gt_slot_allows(const GtHandler *h, bool alone, TimestampTz *when)
{
	GtSpeed		speed = gt_handler_speed(h);
	const GtSlot *mine = NULL;
	bool		result;

	*when = GT_NEVER;
	if (gt_shared == NULL)
		return true;
	if (speed == GT_SPEED_UNKNOWN && gt_my_slot != NULL && gt_handler_role(h) != gt_my_slot->role)
		mine = gt_my_slot;
	my_database = gt_my_database();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	result = allows(h, speed_now(h, speed), alone, mine, when);
	if (!result)
		deny();
	LWLockRelease(gt_shared->lock);
	return result;
}

/* Items of other processes in this database that are among these (sorted) are taken out. Lock held. */
static void
remove_others(int64 *items, int *nitems)
{
	int			i;
	int			j;

	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == gt_slot_own() || slot->state == GT_SLOT_FREE || slot->database != MyDatabaseId)
			continue;
		for (j = 0; j < slot->nitems; j++)
		{
			int64	   *mine = bsearch(&slot->items[j], items, *nitems, sizeof(int64), gt_by_id);

			if (mine != NULL)
			{
				(*nitems)--;
				memmove(mine, mine + 1, (*nitems - (mine - items)) * sizeof(int64));
			}
		}
	}
}

/* Enters the run that is chosen into our slot, beside what it still has of the one before. Lock held. */
static void
enter_run(GtSlot *slot, const GtHandler *h, GtSpeed speed, bool alone, const int64 *items, int nitems, TimestampTz upto)
{
	slot->nitems = Min(slot->nitems, GT_MAX_ITEMS);
	memmove(slot->items + nitems, slot->items, slot->nitems * sizeof(int64));
	memmove(slot->items, items, nitems * sizeof(int64));
	slot->nitems += nitems;
	slot->upto = upto;
	chosen_items = nitems;
	handler_before = slot->handler;
	slot->handler = h->id;
	slot->apart = h->apart;
	strlcpy(slot->handler_name, h->name, pg_mbcliplen(h->name, strlen(h->name), NAMEDATALEN - 1) + 1);
	slot->speed = speed;
	slot->alone = alone;
	slot->state = GT_SLOT_CLEANING;
	slot->since = gt_now();
	slot->runs_as = gt_handler_role(h);
	my_turn = gt_turn_of(gt_handler_whose(h));
	my_turn->at = slot->since;
	if (slot == gt_my_slot && OidIsValid(slot->runs_as) && !OidIsValid(slot->role))
	{
		slot->role = slot->runs_as;
		slot->turn = slot->since;
	}
}

/* Takes the slot, if the other rules allow it. */
static bool
reserve(GtSlot *slot, const GtHandler *h, bool alone, int64 *items, int *nitems, TimestampTz upto, TimestampTz *when)
{
	GtSpeed		speed = gt_handler_speed(h);
	bool		result;

	my_database = gt_my_database();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	speed = speed_now(h, speed);
	result = allows(h, speed, alone, slot, when);
	if (result)
		remove_others(items, nitems);
	else
		deny();
	if (result && *nitems > 0)
		enter_run(slot, h, speed, alone, items, *nitems, upto);
	LWLockRelease(gt_shared->lock);
	return result && *nitems > 0;
}

/* `items` are sorted. *when as in gt_slot_allows(). */
bool
gt_slot_reserve(const GtHandler *h, bool alone, int64 *items, int *nitems, TimestampTz upto, TimestampTz *when)
{
	bool		batch = h->kind == GT_KIND_SQL_BATCH;	/* however many they are, they are one run */
	GtSlot	   *slot = gt_slot_own();
	int			taken;
	bool		result;

	*when = GT_NEVER;
	taken = gt_rate_take(h, GT_RUNS, batch ? 1 : *nitems, when);
	if (taken == 0)
		return false;
	if (!batch)
		*nitems = taken;
	result = gt_shared == NULL || slot == NULL || reserve(slot, h, alone, items, nitems, upto, when);
	gt_rate_give_back(h, GT_RUNS, !result ? taken : batch ? 0 : taken - *nitems);
	if (result)
		gt_handler_served(h);
	return result;
}

bool
gt_slot_reserve_pass(const GtHandler *h)
{
	TimestampTz when;
	bool		result;

	my_database = gt_my_database();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	result = speed_now(h, GT_SPEED_QUICK) == GT_SPEED_QUICK && allows(h, GT_SPEED_QUICK, false, gt_my_slot, &when);
	if (result)
		enter_run(gt_my_slot, h, GT_SPEED_QUICK, false, gt_my_slot->items, 0, PG_INT64_MIN);
	else
		deny();
	LWLockRelease(gt_shared->lock);
	if (result)
		gt_handler_served(h);
	return result;
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

/* A run has ended: whoever was refused a start may look again. Lock held. */
static void
wake_denied(void)
{
	TimestampTz now = gt_now();
	int			i;

	if (!gt_shared->denied)
		return;
	gt_shared->denied = false;
	for (i = 0; i < GT_MAX_DATABASES; i++)
	{
		GtDatabase *db = &gt_shared->databases[i];

		if (db->denied && OidIsValid(db->oid))
		{
			db->denied = false;
			gt_due_again(db, now);
		}
	}
}

void
gt_slot_committed(void)
{
	GtSlot	   *slot = gt_slot_own();

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	slot->nitems = chosen_items;
	slot->since = gt_now();
	slot->run_since = 0;
	if (slot->handler != handler_before)
		wake_denied();
	LWLockRelease(gt_shared->lock);
}

static void
clear_slot(GtSlot *slot)
{
	bool		ran = slot->handler != 0;

	slot->nitems = 0;
	slot->handler = 0;
	slot->handler_name[0] = '\0';
	slot->speed = GT_SPEED_UNKNOWN;
	slot->runs_as = InvalidOid;
	slot->run_since = 0;
	slot->alone = false;
	if (ran)
		wake_denied();
}

void
gt_slot_release(void)
{
	GtSlot	   *slot = gt_slot_own();

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	clear_slot(slot);
	LWLockRelease(gt_shared->lock);
}

void
gt_slot_set_state(GtSlotState state)
{
	if (gt_my_slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (gt_my_slot->state != state)
	{
		gt_my_slot->state = state;
		gt_my_slot->since = gt_now();
	}
	LWLockRelease(gt_shared->lock);
}

/* ---------------------------------------------------------------- sessions in gt_reclaim() */

/* Who calls it sees to it that it is left, whatever happens: an error may be caught, and end no transaction. */
bool
gt_foreground_enter(void)
{
	int			i;

	if (gt_shared == NULL || gt_my_slot != NULL || foreground_slot != NULL)
		return false;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = GT_MAX_WORKERS; i < GT_SLOTS && foreground_slot == NULL; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state != GT_SLOT_FREE)
			continue;
		slot->state = GT_SLOT_EXPIRING;
		slot->database = MyDatabaseId;
		slot->pid = MyProcPid;
		slot->since = gt_now();
		foreground_slot = slot;
	}
	LWLockRelease(gt_shared->lock);
	return foreground_slot != NULL;
}

/* Also safe where nothing was entered. */
void
gt_foreground_leave(void)
{
	GtSlot	   *slot = foreground_slot;

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	clear_slot(slot);
	gt_slot_free(slot);
	foreground_slot = NULL;
	LWLockRelease(gt_shared->lock);
}
