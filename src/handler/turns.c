/*-------------------------------------------------------------------------
 *
 * turns.c
 *	  Which role's SQL a worker runs, and whose turn it is.
 *
 * See slots.c.  All of it lies in shared memory under GtShared.lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "handler/handler.h"
#include "handler/turns.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "shared/wake.h"

#define OVERLOOKED		(10 * INT64CONST(1000)) /* us: most looks at what is due come sooner */
#define LOG_RATE		10		/* failures a second of one role's SQL that are logged, */
#define LOG_BURST		30		/* and so many at once */

/* Whose SQL it is that this handler runs; InvalidOid: it runs none. */
Oid
gt_handler_role(const GtHandler *h)
{
	return h->kind == GT_KIND_SQL || h->kind == GT_KIND_SQL_BATCH ? h->run_as : InvalidOid;
}

bool
gt_slot_is_for(Oid role)
{
	return gt_my_slot == NULL || !OidIsValid(role) || !OidIsValid(gt_my_slot->role) || gt_my_slot->role == role;
}

/* When the role was served last here; made from the entry that is the oldest when it has none. Lock held. */
GtTurn *
gt_turn_of(Oid role)
{
	GtTurn	   *oldest = &gt_shared->turns[0];
	int			i;

	for (i = 0; i < GT_TURNS; i++)
	{
		GtTurn	   *turn = &gt_shared->turns[i];

		if (turn->role == role && turn->database == MyDatabaseId)
			return turn;
		if (turn->at < oldest->at)
			oldest = turn;
	}
	oldest->database = MyDatabaseId;
	oldest->role = role;
	oldest->at = 0;
	oldest->logged_at = 0;
	oldest->lines = 0;
	oldest->tried_at = 0;
	return oldest;
}

void
gt_slot_turns(int n, const Oid *roles, GtTurn *turns)
{
	int			i;
	int			j;

	memset(turns, 0, n * sizeof(GtTurn));
	if (gt_shared == NULL)
	{
		/* nobody remembers whose turn it was in another session */
		for (i = 0; i < n; i++)
			turns[i].at = (TimestampTz) pg_prng_uint32(&pg_global_prng_state);
		return;
	}
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < n; i++)
	{
		turns[i] = *gt_turn_of(roles[i]);
		turns[i].workers = 0;
		for (j = 0; j < GT_MAX_WORKERS && OidIsValid(roles[i]); j++)
		{
			GtSlot	   *slot = &gt_shared->slots[j];

			if (slot != gt_my_slot && slot->state != GT_SLOT_FREE && slot->database == MyDatabaseId &&
				slot->role == roles[i] && !slot->leave)
				turns[i].workers++;
		}
	}
	LWLockRelease(gt_shared->lock);
}

void
gt_role_waits(Oid role, TimestampTz looked_at)
{
	GtDatabase *db = gt_my_database();
	bool		told = false;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (!OidIsValid(role))
	{
		if (db->waits_since < looked_at)
			db->waits = InvalidOid;
		LWLockRelease(gt_shared->lock);
		return;
	}
	for (i = 0; i < GT_MAX_WORKERS && !told; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == gt_my_slot || slot->database != db->oid || slot->state != GT_SLOT_IDLE || slot->leave ||
			(OidIsValid(slot->role) && slot->role != role))
			continue;
		slot->look = told = true;
		gt_wake_procno(slot->procno);
	}
	if (!told && db->waits != role)
	{
		db->waits = role;
		db->waits_since = gt_now();
		gt_wake_launcher();
	}
	LWLockRelease(gt_shared->lock);
}

bool
gt_slot_turn_over(void)
{
	bool		result;

	if (gt_my_slot == NULL)
		return false;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	result = OidIsValid(gt_shared->starving) && OidIsValid(gt_my_slot->role) && gt_now() > gt_my_slot->turn + GT_TURN;
	LWLockRelease(gt_shared->lock);
	return result;
}

bool
gt_slot_is_wanted(void)
{
	const GtDatabase *db = gt_my_database();

	return OidIsValid(gt_shared->starving) || (OidIsValid(db->waits) && db->waits != gt_my_slot->role);
}

/* Is there no slot left, and every worker of this database in the middle of a run? Without the lock a hint. */
static bool
all_are_in_runs(void)
{
	int			in_use = 0;
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		in_use += slot->state != GT_SLOT_FREE;
		if (slot->state != GT_SLOT_FREE && slot->database == MyDatabaseId && slot->run_since == 0)
			return false;
	}
	return in_use >= gt_max_workers;
}

bool
gt_slot_work_waits(void)
{
	if (gt_my_slot == NULL)
		return false;
	return gt_slot_is_wanted() ||
		((TimestampTz) pg_atomic_read_u64(&gt_my_database()->next_due) < gt_now() - OVERLOOKED && all_are_in_runs());
}

bool
gt_slot_take_look(void)
{
	bool		look;

	if (!gt_my_slot->look)
		return false;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	look = gt_my_slot->look;
	gt_my_slot->look = false;
	if (look && gt_my_slot->state == GT_SLOT_IDLE)
	{
		/* what it leads to may last, and the time of this database must be kept */
		gt_my_slot->state = GT_SLOT_CLEANING;
		gt_my_slot->since = gt_now();
		(void) gt_wake_idle(gt_my_slot->database);
	}
	LWLockRelease(gt_shared->lock);
	return look;
}

Oid
gt_handler_whose(const GtHandler *h)
{
	Oid			role = gt_handler_role(h);

	return OidIsValid(role) ? role : h->owner;
}

bool
gt_role_may_log(Oid role)
{
	TimestampTz now = gt_now();
	GtTurn	   *turn;
	bool		result;

	if (gt_shared == NULL)
		return true;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	turn = gt_turn_of(role);
	if (now - turn->logged_at >= USECS_PER_SEC)
	{
		turn->lines = (int) Min(turn->lines + (now - turn->logged_at) / USECS_PER_SEC * LOG_RATE, LOG_BURST);
		turn->logged_at = now;
	}
	result = turn->lines > 0;
	turn->lines -= result;
	LWLockRelease(gt_shared->lock);
	return result;
}
