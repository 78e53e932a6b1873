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
 * The rules by which a start is allowed or not are those of admit.c.
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

#include "handler/admit.h"
#include "handler/handler.h"
#include "handler/others.h"
#include "handler/rates.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "shared/due.h"
#include "shared/ids.h"
#include "shared/observe.h"
#include "shared/shmem.h"

static GtDatabase *my_database = NULL;	/* for who holds the lock, under which it can not be looked up */

/* of the choice that is not committed yet */
static int	chosen_items;
static int	handler_before;

/* ---------------------------------------------------------------- slots */

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
	result = gt_admits(h, gt_admit_speed(h, speed), alone, mine, when);
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
	gt_my_turn = gt_turn_of(gt_handler_whose(h));
	gt_my_turn->at = slot->since;
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
	speed = gt_admit_speed(h, speed);
	result = gt_admits(h, speed, alone, slot, when);
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
	result = gt_admit_speed(h, GT_SPEED_QUICK) == GT_SPEED_QUICK && gt_admits(h, GT_SPEED_QUICK, false, gt_my_slot, &when);
	if (result)
		enter_run(gt_my_slot, h, GT_SPEED_QUICK, false, gt_my_slot->items, 0, PG_INT64_MIN);
	else
		deny();
	LWLockRelease(gt_shared->lock);
	if (result)
		gt_handler_served(h);
	return result;
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

	if (gt_shared == NULL || gt_my_slot != NULL || gt_session_slot != NULL)
		return false;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = GT_MAX_WORKERS; i < GT_SLOTS && gt_session_slot == NULL; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state != GT_SLOT_FREE)
			continue;
		slot->state = GT_SLOT_EXPIRING;
		slot->database = MyDatabaseId;
		slot->pid = MyProcPid;
		slot->since = gt_now();
		gt_session_slot = slot;
	}
	LWLockRelease(gt_shared->lock);
	return gt_session_slot != NULL;
}

/* Also safe where nothing was entered. */
void
gt_foreground_leave(void)
{
	GtSlot	   *slot = gt_session_slot;

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	clear_slot(slot);
	gt_slot_free(slot);
	gt_session_slot = NULL;
	LWLockRelease(gt_shared->lock);
}
