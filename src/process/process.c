/*-------------------------------------------------------------------------
 *
 * process.c
 *	  A worker as a process: how it comes, how it goes, its transactions.
 *
 * A slot of shared memory is given to it by the launcher and given back at exit,
 * whatever the cause.  SIGTERM ends the process at once, also in the middle of a
 * handler.  If another process has sent it, the run on record did not happen; if
 * this one did, it is the handler's doing, or that of its timeout, and counts as
 * a crash.
 *
 * Exit callbacks, in their order: leave_record() while the transaction in
 * progress still holds the lock on our run record; the server's own, which aborts
 * that; leave(), which gives the slot back and tells the launcher.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/syncrep.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/point.h"
#include "clean/clean.h"
#include "clean/marks.h"
#include "clean/record.h"
#include "handler/slots.h"
#include "handler/timers.h"
#include "process/process.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "shared/wake.h"

#define MAX_ERRORS		5		/* in a row: the worker gives up, and the launcher waits before the next */
#define FIRST_DELAY		(200 * INT64CONST(1000))	/* us until what has failed is tried again; doubles, */
#define MAX_DELAY		(10 * USECS_PER_SEC)	/* up to this, or the naptime */

#define CONNECT_TIMEOUT "1s"	/* for a lock on the database */

GtDatabase *gt_worker_database = NULL;

static GtCleaner *cleaner = NULL;
static bool connected = false;
static bool failed = false;		/* this process ends because it could not work */
static volatile sig_atomic_t terminated_by = 0;

static void
terminate(int signo, siginfo_t *info, void *context)
{
	if (terminated_by == 0)
		terminated_by = info->si_pid;
	die(signo);
}

/* Before anything else. */
void
gt_worker_signals(void)
{
	struct sigaction action;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = terminate;
	action.sa_flags = SA_RESTART | SA_SIGINFO;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	gt_clean_watch();
	BackgroundWorkerUnblockSignals();
}

/* Was this process terminated by another one? */
static bool
is_evicted(void)
{
	return terminated_by != 0 && terminated_by != MyProcPid && !gt_run_overran;
}

/* Its expiry pass is over, if it was in one, and its step of the round of rearm.c. Lock held. */
void
gt_leave_pass(GtDatabase *database, GtSlot *slot)
{
	slot->in_pass = false;
	if (database->expirer == slot->serial)
		database->expirer = 0;
	if (database->rearmer == slot->serial)
		database->rearmer = 0;
}

/*
 * At exit, before the transaction in progress is aborted and our lock on the
 * record goes with it: whose doing is it that the run on record comes to nothing?
 * A handler's that kills its process, or has to be stopped by that: then nothing
 * is said, and it is judged as a crash.
 */
static void
leave_record(int code, Datum arg)
{
	bool		shutdown = terminated_by == PostmasterPid || !PostmasterIsAlive();

	if (is_evicted() && !shutdown)
		gt_clean_evicted(cleaner);
	else if (shutdown || code == 0 || !gt_clean_has_begun(cleaner))
		gt_clean_undone(cleaner, NULL);
	gt_clean_forget(cleaner);
}

/* At exit, whatever its cause, after that. */
static void
leave(int code, Datum arg)
{
	GtSlot	   *slot = gt_my_slot;
	bool		evicted = is_evicted();
	bool		look;
	bool		pending = cleaner != NULL && gt_clean_is_durable(cleaner);

	if (slot == NULL)
		return;
	gt_slot_release();

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (pending && !evicted)
		slot->crashes++;
	gt_leave_pass(gt_worker_database, slot);
	if (pending)
		gt_worker_database->sweep = true;
	if (connected && !failed)
		gt_worker_database->failures = 0;
	else if (!evicted)
		gt_database_failed(gt_worker_database);
	look = slot->look;
	gt_slot_free(slot);
	gt_my_slot = NULL;
	(void) gt_wake_idle(gt_worker_database->oid);	/* it may have been us who kept the time */
	LWLockRelease(gt_shared->lock);
	GT_POINT("slot_left");

	if (code != 0 || look)
		gt_due_at(gt_worker_database, gt_now());	/* what we were at is to be done */
	gt_wake_launcher();
}

/* Makes the slot ours; false: it was taken back, or a command wants nobody in the database. */
bool
gt_worker_attach(int index, int64 serial)
{
	GtSlot	   *slot = &gt_shared->slots[index];
	bool		ours;

	gt_worker_database = gt_database(slot->database, false);
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	ours = slot->state == GT_SLOT_STARTING && slot->serial == serial && gt_worker_database != NULL;
	if (ours)
	{
		slot->pid = MyProcPid;
		slot->procno = gt_my_procno();
		if (gt_worker_database->hold > 0)
		{
			gt_slot_free(slot);
			ours = false;
		}
	}
	LWLockRelease(gt_shared->lock);
	if (ours)
	{
		gt_my_slot = slot;
		before_shmem_exit(leave, (Datum) 0);
	}
	return ours;
}

void
gt_pin_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"transaction_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
		{"role", "none"},
		{"exit_on_error", "off"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"check_function_bodies", "on"},
		{"jit", "off"}
	};
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	synchronous_commit = Max(synchronous_commit, SYNCHRONOUS_COMMIT_LOCAL_FLUSH);	/* see commit() */
}

/* Connects to the database of the slot. */
GtCleaner *
gt_worker_connect(void)
{
	/* whoever renames the database may stay in his transaction: the slot is not to wait for him */
	SetConfigOption("lock_timeout", CONNECT_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(gt_worker_database->oid, InvalidOid, 0);
	connected = true;
	gt_pin_settings();
	cleaner = gt_cleaner_create(true);
	before_shmem_exit(leave_record, (Datum) 0);
	return cleaner;
}

/* ---------------------------------------------------------------- transactions */

/*
 * What fails is tried again ever more rarely, by itself: that all else goes well
 * does not shorten its wait, and nothing else waits for it.
 */
static struct
{
	int			errors;			/* in a row */
	TimestampTz not_before;
}			back_offs[GT_DO_KINDS];

TimestampTz
gt_not_before(GtDoing what)
{
	return back_offs[what].errors > 0 ? back_offs[what].not_before : 0;
}

static void
back_off(GtDoing what)
{
	int64		delay = FIRST_DELAY << Min(back_offs[what].errors++, 10);

	back_offs[what].not_before = gt_now() + Min(delay, Min(MAX_DELAY, (int64) gt_naptime * USECS_PER_SEC));
	gt_due_at(gt_worker_database, back_offs[what].not_before);
}

/* Before the abort: the run whose transaction this was is told of it; one that is on record for later is not concerned. */
static void
note_failure(MemoryContext context)
{
	ErrorData  *error;

	if (cleaner == NULL || !gt_clean_has_begun(cleaner))
		return;
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	gt_clean_failed(cleaner, psprintf("%s (SQLSTATE %s)", error->message != NULL ? error->message : "unknown error",
									  unpack_sql_state(error->sqlerrcode)));
	FreeErrorData(error);
}

/* For gt_health(): that the worker could not do what it was at, or, error NULL, that it could. */
static void
note_error(const char *activity, const ErrorData *error)
{
	GtDatabase *db = gt_worker_database;
	const char *message = error != NULL && error->message != NULL ? error->message : "unknown error";
	size_t		length = pg_mbcliplen(activity, strlen(activity), sizeof(db->error_in) - 1);

	if (error == NULL && db->errors == 0)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (error == NULL && strlen(db->error_in) == length && strncmp(db->error_in, activity, length) == 0)
		db->errors = 0;
	if (error != NULL)
	{
		db->errors++;
		db->error_at = gt_now();
		strlcpy(db->error_in, activity, length + 1);
		db->error_code = error->sqlerrcode;
		strlcpy(db->error, message, pg_mbcliplen(message, strlen(message), sizeof(db->error) - 1) + 1);
	}
	LWLockRelease(gt_shared->lock);
}

/*
 * The commit of a worker is flushed here, whatever the settings say.  For a standby
 * it waits afterwards, when no row is locked any more and others see what was done:
 * so one that is away holds up this worker, but no client whose own commits do not
 * wait for it.  The variable is moved, not the setting: what a handler sees, and
 * the next transaction, is as configured.
 */
static void
commit(void)
{
	int			wanted = synchronous_commit;

	synchronous_commit = SYNCHRONOUS_COMMIT_LOCAL_FLUSH;
	PG_TRY();
	{
		CommitTransactionCommand();
	}
	PG_FINALLY();
	{
		synchronous_commit = wanted;
	}
	PG_END_TRY();
}

/* Nothing may depend on what a standby shall have, and has not yet. remote_apply counts as on: only a commit can ask for it. */
static void
wait_for_standby(void)
{
	if (synchronous_commit <= SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		return;
	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(XactLastCommitEnd, false);
	RESUME_INTERRUPTS();
}

void
gt_worker_give_up(void)
{
	failed = true;
	proc_exit(1);
}

bool
gt_in_transaction(GtDoing what, void (*body) (void *arg), void *arg, const char *activity)
{
	static int	errors = 0;		/* in a row */
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile bool ok = true;

	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
	synchronous_commit = Max(synchronous_commit, SYNCHRONOUS_COMMIT_LOCAL_FLUSH);
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());	/* a worker has no portal that holds one */
		body(arg);
		PopActiveSnapshot();
		commit();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		note_failure(context);
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		ok = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
	if (ok)
		wait_for_standby();

	if (ok)
	{
		errors = back_offs[what].errors = 0;
		note_error(activity, NULL);
	}
	else
	{
		note_error(activity, error);
		FreeErrorData(error);
		if (cleaner != NULL)
			gt_clean_restart(cleaner);
		/* what is on record stays in our hands until it has been made, or has been told of the error */
		if (cleaner == NULL || !(gt_clean_pending(cleaner) || gt_clean_has_failed(cleaner)))
			gt_slot_release();
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		gt_worker_database->sweep = true;
		gt_leave_pass(gt_worker_database, gt_my_slot);
		LWLockRelease(gt_shared->lock);
		if (++errors >= MAX_ERRORS)
			gt_worker_give_up();
		back_off(what);
	}
	return ok;
}

void
gt_database_failed(GtDatabase *db)
{
	int64		delay = GT_FIRST_RETRY << Min(db->failures, 10);

	db->failures++;
	db->retry_at = gt_now() + Min(delay, (int64) gt_naptime * USECS_PER_SEC);
}
