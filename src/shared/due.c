/*-------------------------------------------------------------------------
 *
 * due.c
 *	  What is due in a database, and who is woken for it.
 *
 * Lost wake-ups.  next_due of a database is the earliest time at which work is
 * known to be due there.  A worker that looks for work first sets it to
 * GT_NEVER, then looks with a new snapshot, then lowers it to what it found.  A
 * commit lowers it in its commit callback, which runs after the commit has
 * become visible.  So work that the worker's snapshot could not see is lowered
 * in afterwards, whoever comes first.  Whoever lowers it wakes an idle worker of
 * that database, or the launcher.  What a worker's own commits ask for it keeps to
 * itself (gt_worker_due) until it knows that it is not going to look at it next.
 *
 * Where many roles have leases a worker does not look at the queues of all in each
 * pass: it remembers those in which something is due within a moment (pick.c).  That
 * is true until a lease comes that is due before the end of that moment, lease_horizon:
 * who tells of one counts it in lease_news.  Of what is due after it the earliest is
 * kept in lease_beyond.  It is the same order of steps: first that is set to GT_NEVER
 * and then the horizon, then it is looked, then that is lowered to what was found; the
 * commit is visible, then the horizon is read.  Only the last who looked, with the token
 * of worker.c, knows anything: he counts, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "base/transaction.h"
#include "shared/after_commit.h"
#include "shared/due.h"
#include "shared/prepared.h"
#include "shared/shmem.h"
#include "shared/wake.h"

TimestampTz gt_worker_due = GT_NEVER;
TimestampTz gt_worker_later = GT_NEVER;

/* what this transaction will have done when it commits */
static TimestampTz pending_due = GT_NEVER;
static TimestampTz pending_queued = GT_NEVER;	/* the same in a queue of which a low end is remembered */
static TimestampTz pending_news = GT_NEVER; /* the same without garbage */
static TimestampTz pending_later = GT_NEVER;	/* of a worker: the earliest that is not due at once */

/* The entry of the database that this process is connected to; made when it is not there. */
GtDatabase *
gt_my_database(void)
{
	static GtDatabase *mine = NULL;

	/* DROP DATABASE frees entries, but not that of a database somebody is connected to */
	if (mine == NULL || mine->oid != MyDatabaseId)
		mine = gt_database(MyDatabaseId, false);
	if (mine == NULL)
	{
		/* nobody knew of this database: there may be work */
		mine = gt_database(MyDatabaseId, true);
		gt_due_at(mine, gt_now());
	}
	return mine;
}

/* Sets the latch of a process; one that has gone in the meantime does no harm. */
void
gt_wake_procno(int procno)
{
	if (procno >= 0 && procno < (int) ProcGlobal->allProcCount)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

void
gt_wake_launcher(void)
{
	/* read without the lock: a stale number wakes a process that looks again and sleeps on */
	if (gt_shared != NULL)
		gt_wake_procno(gt_shared->launcher_procno);
}

bool
gt_wake_idle(Oid database)
{
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state == GT_SLOT_IDLE && slot->database == database)
		{
			gt_wake_procno(slot->procno);
			return true;
		}
	}
	return false;
}

/* Lowers a time; false: it was not later. */
static bool
lower(pg_atomic_uint64 *time, TimestampTz when)
{
	uint64		old = pg_atomic_read_u64(time);

	do
	{
		if ((int64) old <= when)
			return false;
	} while (!pg_atomic_compare_exchange_u64(time, &old, (uint64) when));
	return true;
}

uint64
gt_lease_horizon(GtDatabase *db, TimestampTz until)
{
	pg_atomic_exchange_u64(&db->lease_beyond, (uint64) GT_NEVER);
	pg_atomic_exchange_u64(&db->lease_horizon, (uint64) until);
	return pg_atomic_fetch_add_u64(&db->lease_news, 1) + 1;
}

void
gt_lease_beyond(GtDatabase *db, TimestampTz when)
{
	(void) lower(&db->lease_beyond, when);
}

/* A lease may be over at this time that nobody knew of. */
static void
tell_news(GtDatabase *db, TimestampTz when)
{
	int64		horizon = (int64) pg_atomic_read_u64(&db->lease_horizon);

	if (horizon == GT_NOWHERE)
		return;
	if (when <= horizon)
		pg_atomic_fetch_add_u64(&db->lease_news, 1);
	else
		gt_lease_beyond(db, when);
}

/* There is work at this time: lowers next_due and wakes whoever can do it. Safe in a commit callback. */
void
gt_due_at(GtDatabase *db, TimestampTz when)
{
	if (gt_shared == NULL || db == NULL)
		return;
	tell_news(db, when);
	gt_due_again(db, when);
}

void
gt_due_again(GtDatabase *db, TimestampTz when)
{
	if (gt_shared == NULL || db == NULL || when == GT_NEVER || !lower(&db->next_due, when))
		return;
	if (!gt_wake_idle(db->oid))
		gt_wake_launcher();
}

static void
forget_pending(void)
{
	pending_due = pending_queued = pending_news = pending_later = GT_NEVER;
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	GtDatabase *db;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			db = pending_due != GT_NEVER || pending_queued != GT_NEVER ? gt_my_database() : NULL;
			if (db != NULL && pending_queued < gt_now() - GT_LATE)
				pg_atomic_fetch_add_u64(&db->late, 1);
			if (db != NULL)
				tell_news(db, pending_news);
			if (db != NULL && gt_my_slot != NULL)
			{
				gt_worker_due = Min(gt_worker_due, pending_due);
				gt_worker_later = Min(gt_worker_later, pending_later);
			}
			else if (db != NULL)
				gt_due_again(db, pending_due);
			forget_pending();
			break;
		case XACT_EVENT_PREPARE:
			/* who commits it wakes them: process/prepared.c */
			if (pending_due != GT_NEVER || pending_queued != GT_NEVER)
				(void) gt_prepared_mine();
			forget_pending();
			break;
		case XACT_EVENT_ABORT:
			forget_pending();
			break;
		default:
			break;
	}
}

static bool
want_callback(void)
{
	if (gt_shared == NULL)
		return false;
	gt_at_end(GT_AT_END_DUE, at_end_of_transaction, NULL);
	return true;
}

/* What an aborted subtransaction has asked for costs one look in vain. */
void
gt_wake_after_commit(TimestampTz when)
{
	if (gt_my_slot != NULL && when < pending_later && when > gt_now())
		pending_later = when;
	if (want_callback() && when < pending_due)
	{
		pending_due = when;
		(void) gt_my_database();	/* the entry must not have to be made in the callback */
	}
}

void
gt_garbage_queued_after_commit(TimestampTz when)
{
	if (when < pending_queued && want_callback())
	{
		pending_queued = when;
		(void) gt_my_database();
	}
}

void
gt_garbage_due_after_commit(TimestampTz when)
{
	gt_garbage_queued_after_commit(when);
	gt_wake_after_commit(when);
}

void
gt_due_after_commit(TimestampTz when)
{
	pending_news = Min(pending_news, when);
	gt_garbage_due_after_commit(when);
}
