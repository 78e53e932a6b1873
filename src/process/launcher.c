/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The process that starts workers where work is due.
 *
 * There is one, from the end of recovery on; it is connected to no database, so
 * it stands in the way of no command on one.  It owns the free slots in shared
 * memory: a slot that it gives away is STARTING until its worker has come.
 *
 * It sleeps until the earliest next_due of the databases (see due.c), at most
 * naptime.  Commits that make an earlier one, workers that end and commands on
 * databases that are over set its latch.  It reads pg_database when it starts,
 * when the settings change, and before it starts a worker.
 *
 * A worker that could not work (no connection left, errors) makes the launcher
 * wait before the next one there; where no background worker can be had at all,
 * it asks again each second, and when one of its own has gone.  A crash of this
 * process leaves workers to themselves until the postmaster has started it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "process/launcher.h"
#include "process/look.h"
#include "process/process.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "shared/wake.h"

/* A database whose workers are all busy gets another one when its work has waited for so long: most turns are shorter. */
#define PATIENCE		(10 * 1000)
#define START_LIMIT		(60 * USECS_PER_SEC)	/* a worker that has not come by then never will */

/* What we know of the workers we have started; the slots in shared memory are the truth. */
static BackgroundWorkerHandle *handles[GT_MAX_WORKERS];
static int64 handle_serials[GT_MAX_WORKERS];

static TimestampTz no_slot_until = 0;	/* no background worker could be had */
static TimestampTz no_slot_logged = 0;

void
gt_launcher_init(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "garbagetruck");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "gt_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "garbagetruck launcher");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "garbagetruck launcher");
	RegisterBackgroundWorker(&worker);
}

/* ---------------------------------------------------------------- which databases */

/* Is a transaction open that has renamed it, or the like? Whoever connects waits for the end of that. In a transaction. */
static bool
is_locked(Oid database)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	return LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Reads pg_database.  only: this one, and *exists tells whether it is there, *locked
 * whether nobody can connect now; else all, which are made known, with something to do
 * in each: to see whether the extension is there.
 */
static bool
read_databases(Oid only, bool *exists, bool *locked)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		eligible = false;

	*exists = *locked = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (OidIsValid(only) && form->oid != only)
			continue;
		*exists = true;
		eligible = gt_database_is_eligible(form);
		if (!OidIsValid(only) && eligible)
			gt_due_at(gt_database(form->oid, true), gt_now());
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	*locked = OidIsValid(only) && eligible && is_locked(only);
	CommitTransactionCommand();
	return eligible;
}

/* At start, and when the settings have changed. */
static void
learn(void)
{
	bool		exists;
	bool		locked;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_DATABASES; i++)
		gt_shared->databases[i].retry_at = 0;
	LWLockRelease(gt_shared->lock);
	no_slot_until = 0;
	(void) read_databases(InvalidOid, &exists, &locked);
}

/* May a worker go there? If not it is not thought of for a while, or for ever. */
static bool
may_serve(GtDatabase *db)
{
	bool		exists;
	bool		locked;
	bool		eligible = read_databases(db->oid, &exists, &locked);

	if (eligible && !locked)
		return true;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (eligible)
	{
		/* most who have it locked are about to commit */
		gt_database_failed(db);
		if (db->failures == 1)
			db->retry_at = gt_now() + PATIENCE;
	}
	else
		db->retry_at = gt_now() + (int64) gt_naptime * USECS_PER_SEC;
	if (!exists)
	{
		pg_atomic_write_u64(&db->next_due, GT_NEVER);
		db->waits = InvalidOid;
	}
	LWLockRelease(gt_shared->lock);
	return false;
}

/* ---------------------------------------------------------------- starting workers */

/* Slots whose worker never came, or went without a word, are free again. */
static void
check_slots(void)
{
	TimestampTz now = gt_now();
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];
		pid_t		pid;

		if (handles[i] == NULL || GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		no_slot_until = 0;		/* that one is free, unless others were quicker */
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		if (slot->state != GT_SLOT_FREE && slot->serial == handle_serials[i])
		{
			GtDatabase *db = NULL;
			int			j;

			for (j = 0; j < GT_MAX_DATABASES && db == NULL; j++)
				if (gt_shared->databases[j].oid == slot->database)
					db = &gt_shared->databases[j];
			gt_slot_free(slot);
			if (db != NULL)
			{
				gt_database_failed(db);
				db->sweep = true;
				gt_due_at(db, now);
			}
		}
		LWLockRelease(gt_shared->lock);
	}
}

/* A free slot, now STARTING; -1: max_workers are there. */
static int
take_slot(GtDatabase *db)
{
	int			in_use = 0;
	int			result = -1;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		/* a worker that has left its slot is a process for a while yet: the server counts those too */
		if (gt_shared->slots[i].state != GT_SLOT_FREE || handles[i] != NULL)
			in_use++;
		else if (result < 0)
			result = i;
	}
	if (in_use >= gt_max_workers || db->hold > 0)
		result = -1;
	if (result >= 0)
	{
		GtSlot	   *slot = &gt_shared->slots[result];

		slot->state = GT_SLOT_STARTING;
		slot->pid = 0;
		slot->procno = -1;
		slot->database = db->oid;
		slot->serial = (int64) pg_atomic_fetch_add_u64(&gt_shared->serial, 1);
		slot->handler = 0;
		slot->nitems = 0;
		slot->role = slot->runs_as = InvalidOid;
		slot->speed = 0;
		slot->run_since = slot->passed_at = 0;
		slot->alone = slot->leave = slot->in_pass = false;
		slot->look = true;
		slot->since = gt_now();
	}
	LWLockRelease(gt_shared->lock);
	return result;
}

/* The server has no background worker for us: max_worker_processes. */
static void
no_slot(void)
{
	TimestampTz now = gt_now();

	pg_atomic_fetch_add_u64(&gt_shared->slots_missing, 1);
	pg_atomic_write_u64(&gt_shared->slots_missing_at, (uint64) now);
	no_slot_until = now + GT_FIRST_RETRY;
	if (no_slot_logged != 0 && now < no_slot_logged + 60 * USECS_PER_SEC)
		return;
	no_slot_logged = now;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("garbagetruck: could not start a worker: no background worker slot is free"),
			 errhint("Consider increasing max_worker_processes.")));
}

static bool
start_worker(GtDatabase *db)
{
	BackgroundWorker worker;
	MemoryContext old;
	int			index = take_slot(db);
	bool		started;

	if (index < 0)
		return false;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(index);
	handle_serials[index] = gt_shared->slots[index].serial;
	memcpy(worker.bgw_extra, &handle_serials[index], sizeof(int64));
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "garbagetruck");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "gt_worker_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "garbagetruck worker of database %u", db->oid);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "garbagetruck worker");
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &handles[index]);
	MemoryContextSwitchTo(old);
	if (started)
		return true;
	handles[index] = NULL;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_slot_free(&gt_shared->slots[index]);
	LWLockRelease(gt_shared->lock);
	no_slot();
	return false;
}

/* ---------------------------------------------------------------- who needs one */

typedef struct Need
{
	GtDatabase *db;				/* NULL: nobody */
	int			workers;		/* that it has */
	TimestampTz due;
	TimestampTz wake;			/* when to look again, if nothing happens */
} Need;

/*
 * How many workers a database has, or, with a role, how many of them serve that;
 * -1: one of them, idle or starting, sees to it. Lock held.
 */
static int
workers_of(GtDatabase *db, Oid role)
{
	int			n = 0;
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state == GT_SLOT_FREE || slot->database != db->oid)
			continue;
		if (slot->state == GT_SLOT_STARTING)
			return -1;
		if (OidIsValid(role) && OidIsValid(slot->role) && slot->role != role)
			continue;
		if (slot->state == GT_SLOT_IDLE && !slot->leave)
		{
			/* whoever finds its role waiting may not have seen it idle yet */
			slot->look = slot->look || OidIsValid(role);
			if (slot->look)
				gt_wake_procno(slot->procno);
			return -1;
		}
		n++;
	}
	return n;
}

/* Does it need one more, for what is due since then? Lock held. */
static void
consider(Need *need, GtDatabase *db, Oid role, TimestampTz due, TimestampTz now)
{
	int			workers = workers_of(db, role);

	if (workers < 0)
	{
		if (OidIsValid(role))
			db->waits = InvalidOid; /* it is found again by who is told, or starts */
		return;
	}
	due = Max(due, db->retry_at);
	if (workers > 0)
		due += PATIENCE;
	if (due > now)
		need->wake = Min(need->wake, due);
	else if (need->db == NULL || workers < need->workers || (workers == need->workers && due < need->due))
	{
		need->db = db;
		need->workers = workers;
		need->due = due;
	}
}

/*
 * The database that needs a worker most, for what is due there or for a role that
 * waits: where the fewest are at that, then where it is overdue for longest.
 */
static void
find_need(Need *need)
{
	TimestampTz now = gt_now();
	int			i;

	need->db = NULL;
	need->wake = now + (int64) gt_naptime * USECS_PER_SEC;
	if (no_slot_until > now)
		need->wake = Min(need->wake, no_slot_until);

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_DATABASES; i++)
	{
		GtDatabase *db = &gt_shared->databases[i];
		TimestampTz due = (TimestampTz) pg_atomic_read_u64(&db->next_due);

		if (!OidIsValid(db->oid) || db->hold > 0)
			continue;
		if (due != GT_NEVER)
			consider(need, db, InvalidOid, due, now);
		if (OidIsValid(db->waits))
			consider(need, db, db->waits, db->waits_since, now);
	}
	LWLockRelease(gt_shared->lock);
}

/*
 * There is no slot for what needs one, of ours or of the server's: who is idle, for
 * longest, leaves.  Else, where nobody is at it, whoever goes idle next does, or whose
 * turn is over: see must_leave() in worker.c.
 */
static void
make_room(const Need *need)
{
	GtSlot	   *idle = NULL;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state == GT_SLOT_IDLE && !slot->leave && (idle == NULL || slot->since < idle->since))
			idle = slot;
	}
	if (idle != NULL)
	{
		idle->leave = true;
		gt_wake_procno(idle->procno);
	}
	else if (need->workers == 0)
	{
		gt_shared->starving = need->db->oid;
		gt_shared->starved_at = gt_now();
	}
	LWLockRelease(gt_shared->lock);
}

/* Starts what workers can be started. Returns when to look again. */
static TimestampTz
serve_databases(void)
{
	Need		need;
	int			i;

	check_slots();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_shared->starving = InvalidOid;
	LWLockRelease(gt_shared->lock);
	for (i = 0; i < GT_MAX_DATABASES; i++)
	{
		find_need(&need);
		if (need.db == NULL || gt_max_workers == 0)
			break;
		if (!may_serve(need.db))
			continue;
		if (no_slot_until > gt_now() || !start_worker(need.db))
		{
			make_room(&need);
			find_need(&need);
			break;
		}
	}
	return need.wake;
}

/* ---------------------------------------------------------------- the process */

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_shared->launcher_procno = -1;
	gt_shared->launcher_pid = 0;
	LWLockRelease(gt_shared->lock);
	gt_clock_record();
}

/* Workers of the launcher before this one are not ours to watch: those that have not come by now never will. */
static void
take_over(void)
{
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_shared->launcher_procno = gt_my_procno();
	gt_shared->launcher_pid = MyProcPid;
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state == GT_SLOT_STARTING && slot->pid == 0 && slot->since + START_LIMIT < gt_now())
			gt_slot_free(slot);
	}
	LWLockRelease(gt_shared->lock);
}

void
gt_launcher_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	gt_clock_settle();
	take_over();
	before_shmem_exit(launcher_exit, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "garbagetruck launcher", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	learn();

	for (;;)
	{
		TimestampTz wake;
		TimestampTz now;

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		gt_clock_record();
		wake = serve_databases();
		now = gt_now();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wake > now ? (wake - now + 999) / 1000 : 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1);		/* not 0: who terminates us wants us to begin anew */
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			learn();
		}
	}
}
