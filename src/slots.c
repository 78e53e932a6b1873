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
 * The rules (invariant I6).  No handler holds more than max_workers - 1 slots,
 * and slow handlers together hold no more than that, so that one slot is left
 * for expiry and for the handlers that are quick.  Slow is a handler whose last
 * run took over a second or took its worker down, that has not run since the
 * server started, or that runs now for over a second.  With max_workers = 1
 * there is no such slot.
 *
 * Who is refused a start is woken when a run ends: GtDatabase.denied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"

#define LOCAL_HANDLERS	64		/* without preload */
#define RAMP_TIME		(10 * USECS_PER_SEC)	/* after gt_resume(), of a handler with a rate */
#define RAMP_FREE_TIME	(30 * USECS_PER_SEC)	/* and of one without: */
#define RAMP_FREE_START	20.0	/* runs per second at first, those of one second at once, */
#define RAMP_FREE_STEP	(2.0 * USECS_PER_SEC)	/* doubled as often */

static GtHandlerState local_states[LOCAL_HANDLERS];
static GtSlot *foreground_slot = NULL;
static GtDatabase *my_database = NULL;	/* for who holds the lock, under which it can not be looked up */

/* of the choice that is not committed yet */
static int	chosen_items;
static int	handler_before;

static void
lock_states(void)
{
	if (gt_shared != NULL)
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
}

static void
unlock_states(void)
{
	if (gt_shared != NULL)
		LWLockRelease(gt_shared->lock);
}

/* What is known of the handler; made from the entry unused for longest when it has none. Lock held. */
static GtHandlerState *
state_of(int handler)
{
	GtHandlerState *states = gt_shared != NULL ? gt_shared->handlers : local_states;
	int			n = gt_shared != NULL ? GT_MAX_HANDLERS : LOCAL_HANDLERS;
	TimestampTz now = gt_now();
	GtHandlerState *oldest = &states[0];
	int			i;

	for (i = 0; i < n; i++)
	{
		GtHandlerState *state = &states[i];

		if (state->handler == handler && state->database == MyDatabaseId)
		{
			state->used_at = now;
			return state;
		}
		if (state->used_at < oldest->used_at)
			oldest = state;
	}
	oldest->database = MyDatabaseId;
	oldest->handler = handler;
	oldest->slow = true;
	oldest->tokens = 1;
	oldest->resumed_at = 0;
	oldest->refilled_at = now;
	oldest->used_at = now;
	return oldest;
}

/* A database is gone. */
void
gt_handlers_forget(Oid database)
{
	int			i;

	lock_states();
	for (i = 0; gt_shared != NULL && i < GT_MAX_HANDLERS; i++)
		if (gt_shared->handlers[i].database == database)
			memset(&gt_shared->handlers[i], 0, sizeof(GtHandlerState));
	unlock_states();
}

/* Starts per second that are allowed now; 0: any number. */
static double
rate_of(const GtHandler *h, TimestampTz now)
{
	double		since = (double) (now - h->resumed_at);

	if (h->resumed_at == 0 || since < 0)
		return h->rate_limit;
	if (h->rate_limit > 0)
		return h->rate_limit * Min(1.0, 0.1 + 0.9 * since / RAMP_TIME);
	if (since >= RAMP_FREE_TIME)
		return 0;
	return RAMP_FREE_START * pow(2.0, since / RAMP_FREE_STEP);
}

static void
refill(GtHandlerState *state, const GtHandler *h, double rate, TimestampTz now)
{
	double		room = Max(h->rate_limit > 0 ? 1.0 : RAMP_FREE_START, rate / 10);

	if (h->rate_limit == 0 && state->resumed_at != h->resumed_at)
		state->tokens = room;
	state->resumed_at = h->resumed_at;
	if (now > state->refilled_at)
		state->tokens += rate * (now - state->refilled_at) / USECS_PER_SEC;
	state->tokens = Min(state->tokens, room);
	state->refilled_at = now;
}

/* See garbagetruck.h. */
int
gt_rate_allows(const GtHandler *h, int want, TimestampTz *when)
{
	TimestampTz now = gt_now();
	double		rate = rate_of(h, now);
	GtHandlerState *state;

	if (rate <= 0)
		return want;
	lock_states();
	state = state_of(h->id);
	refill(state, h, rate, now);
	if (state->tokens < want)
		want = (int) state->tokens;
	if (want <= 0)
		*when = now + 1 + (TimestampTz) ((1.0 - state->tokens) / rate * USECS_PER_SEC);
	unlock_states();
	return Max(want, 0);
}

void
gt_rate_take(const GtHandler *h, int n)
{
	TimestampTz now = gt_now();
	double		rate = rate_of(h, now);
	GtHandlerState *state;

	if (rate <= 0)
		return;
	lock_states();
	state = state_of(h->id);
	refill(state, h, rate, now);
	state->tokens -= n;
	unlock_states();
}

void
gt_handler_ran(const GtHandler *h, bool slow)
{
	lock_states();
	state_of(h->id)->slow = slow;
	unlock_states();
}

/* ---------------------------------------------------------------- slots */

static GtSlot *
my_slot(void)
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

		if (slot != my_slot() && slot->state != GT_SLOT_FREE && slot->handler != 0 && slot->alone)
			from = Max(from, slot->since + GT_SLOW);
	}
	return from;
}

/* See garbagetruck.h. */
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

/* Lock held. */
static bool
allows(const GtHandler *h, bool alone, TimestampTz *when)
{
	int			limit = Max(gt_max_workers - 1, 1);
	TimestampTz now = gt_now();
	int			same = 0;
	int			slow = 0;
	int			runs = 0;
	int			i;

	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];
		bool		worker = i < GT_MAX_WORKERS;

		if (slot == my_slot() || slot->state == GT_SLOT_FREE || slot->handler == 0)
			continue;
		if (slot->handler == h->id && slot->database == MyDatabaseId)
		{
			runs++;
			same += worker;
		}
		if (worker && (slot->slow || now - slot->since > GT_SLOW))
			slow++;
	}
	if (alone && alone_from() > now)
	{
		*when = alone_from();
		return false;
	}
	if (h->concurrency > 0 && runs >= h->concurrency)
		return false;
	if (gt_my_slot == NULL)
		return true;			/* the last slot is a matter of workers */
	return same < limit && (slow < limit || !state_of(h->id)->slow);
}

/* This database has work that must wait for the end of a run elsewhere. Lock held; its entry is there. */
static void
deny(void)
{
	GtDatabase *db = my_database;

	if (db != NULL)
		db->denied = gt_shared->denied = true;
}

/* See garbagetruck.h. *when: GT_NEVER where the end of a run elsewhere will tell. */
bool
gt_slot_allows(const GtHandler *h, bool alone, TimestampTz *when)
{
	bool		result;

	*when = GT_NEVER;
	if (gt_shared == NULL)
		return true;
	my_database = gt_my_database();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	result = allows(h, alone, when);
	if (!result && *when == GT_NEVER)
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

		if (slot == my_slot() || slot->state == GT_SLOT_FREE || slot->database != MyDatabaseId)
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

/* See garbagetruck.h; `items` are sorted. *when as in gt_slot_allows(). */
bool
gt_slot_reserve(const GtHandler *h, bool alone, int64 *items, int *nitems, TimestampTz upto, TimestampTz *when)
{
	GtSlot	   *slot = my_slot();
	bool		result;

	*when = GT_NEVER;
	if (gt_shared == NULL || slot == NULL)
		return true;
	my_database = gt_my_database();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	result = allows(h, alone, when);
	if (result)
		remove_others(items, nitems);
	else if (*when == GT_NEVER)
		deny();
	if (result && *nitems > 0)
	{
		int			before = Min(slot->nitems, GT_MAX_ITEMS);

		memmove(slot->items + *nitems, slot->items, before * sizeof(int64));
		memcpy(slot->items, items, *nitems * sizeof(int64));
		slot->nitems = *nitems + before;
		slot->upto = upto;
		chosen_items = *nitems;
		handler_before = slot->handler;
		slot->handler = h->id;
		strlcpy(slot->handler_name, h->name, NAMEDATALEN);
		slot->slow = state_of(h->id)->slow;
		slot->alone = alone;
		slot->state = GT_SLOT_CLEANING;
		slot->since = gt_now();
	}
	LWLockRelease(gt_shared->lock);
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
			gt_due_at(db, now);
		}
	}
}

/* See garbagetruck.h. */
void
gt_slot_committed(void)
{
	GtSlot	   *slot = my_slot();

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	slot->nitems = chosen_items;
	slot->since = gt_now();
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
	slot->slow = false;
	slot->alone = false;
	if (ran)
		wake_denied();
}

/* See garbagetruck.h. */
void
gt_slot_release(void)
{
	GtSlot	   *slot = my_slot();

	if (slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	clear_slot(slot);
	LWLockRelease(gt_shared->lock);
}

/* See garbagetruck.h. PG_INT64_MIN: nobody runs anything of it. */
TimestampTz
gt_slot_others_upto(int handler)
{
	TimestampTz upto = PG_INT64_MIN;
	int			i;

	if (gt_shared == NULL)
		return upto;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot != my_slot() && slot->state != GT_SLOT_FREE && slot->database == MyDatabaseId && slot->handler == handler)
			upto = Max(upto, slot->upto);
	}
	LWLockRelease(gt_shared->lock);
	return upto;
}

/* See garbagetruck.h. */
int64 *
gt_slot_others(int *n)
{
	int64	   *items;
	int			room = 0;
	int			i;

	*n = 0;
	if (gt_shared == NULL)
		return NULL;
	for (i = 0; i < GT_SLOTS; i++)
		if (gt_shared->slots[i].database == MyDatabaseId)
			room += lengthof(gt_shared->slots[i].items);
	items = palloc((room + 1) * sizeof(int64));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == my_slot() || slot->state == GT_SLOT_FREE || slot->database != MyDatabaseId ||
			*n + slot->nitems > room)
			continue;
		memcpy(items + *n, slot->items, slot->nitems * sizeof(int64));
		*n += slot->nitems;
	}
	LWLockRelease(gt_shared->lock);
	qsort(items, *n, sizeof(int64), gt_by_id);
	return items;
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

/* See garbagetruck.h. Who calls it sees to it that it is left, whatever happens: an error may be caught, and end no transaction. */
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
	slot->state = GT_SLOT_FREE;
	slot->pid = 0;
	foreground_slot = NULL;
	LWLockRelease(gt_shared->lock);
}
