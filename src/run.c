/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Runs handler SQL as its owner, and analyses it at registration.
 *
 * Workers and gt_reclaim() in the foreground run this; it owns no table and
 * knows nothing of queues.  A crash leaves nothing here: the caller's run
 * record tells what was running.
 *
 * The rules of a run, and where they are kept:
 *
 * - once per call (begin_runs): the user is switched to the handler's role in
 *   a security-restricted operation, which forbids SET ROLE, temporary tables,
 *   LISTEN, PREPARE and cursors that outlive it; a GUC level holds search_path
 *   and the rest.  Neither can be left by the handler, and an aborted
 *   subtransaction comes back to both.
 * - once per run (one object of kind sql, one set of kind sql_batch): its own
 *   subtransaction, GUC level, timer and, at the end, release of session
 *   advisory locks.
 * - deferred triggers and constraints would fire at commit, as the worker's
 *   superuser.  SET CONSTRAINTS ALL IMMEDIATE before the first run makes them
 *   fire inside it; it is repeated at the end of each, because the run may have
 *   said DEFERRED.  The first also fires, as the caller, what a foreground
 *   caller has deferred: that must not run as the handler's role.
 *
 * The timer cancels the run at its timeout and every five seconds sends
 * SIGTERM to this process after that: a handler that catches its cancellation
 * loses the worker, and one that catches it and returns has failed none the less.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "compat.h"
#include "garbagetruck.h"
#include "handler.h"

#define MAX_RUNS		60		/* subtransactions in one transaction: 64 is where snapshots get slow */
#define MAX_US			USECS_PER_SEC
#define KILL_AFTER_MS	5000
#define MAX_ERROR		2000	/* bytes of a message that are kept */

/* The state of one call of gt_run_sql(). */
typedef struct Runs
{
	const GtHandler *h;
	GtPlan	   *plan;
	Oid			user;
	int			sec_context;
	int			guc_level;
	bool		as_session;		/* session_user, too, is the role: in workers */
	bool		in_cleanup;
	LockData   *held_before;	/* foreground, holding advisory locks of its own; else NULL */
	MemoryContext caller;		/* errors are kept here */
	MemoryContext scratch;		/* of one run */
} Runs;

volatile sig_atomic_t gt_run_overran = false;

static TimeoutId run_timeout;
static bool run_timeout_registered = false;
static volatile sig_atomic_t timed_out = false;

/* ---------------------------------------------------------------- the timer */

/* In the signal handler: first the cancellation, at the next turns termination. */
static void
on_timeout(void)
{
	if (timed_out)
	{
		gt_run_overran = true;
		kill(MyProcPid, SIGTERM);
		return;
	}
	timed_out = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
start_timer(int64 timeout)
{
	if (!run_timeout_registered)
	{
		run_timeout = RegisterTimeout(USER_TIMEOUT, on_timeout);
		run_timeout_registered = true;
	}
	timed_out = false;
	enable_timeout_every(run_timeout, GetCurrentTimestamp() + timeout, KILL_AFTER_MS);
}

/* Afterwards timed_out tells whether it had fired; a cancellation that was not noticed is withdrawn. */
static void
stop_timer(void)
{
	if (run_timeout_registered)
		disable_timeout(run_timeout, false);
	if (timed_out)
		QueryCancelPending = false;
}

/* ---------------------------------------------------------------- being the handler's role */

static void
set_for_runs(const char *name, const char *value)
{
	const char *now = GetConfigOption(name, true, false);

	if (now == NULL || strcmp(now, value) != 0)
		(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Becomes the role under its search_path, until stop_being_role() or the end of
 * the (sub)transaction.  With as_session it is session_user as well: SECURITY
 * DEFINER functions know their caller by that, and it must not be the
 * superuser that a worker is.
 */
static void
be_role(Runs *runs, const GtHandler *h, bool as_session)
{
	GetUserIdAndSecContext(&runs->user, &runs->sec_context);
	runs->as_session = as_session;
	if (runs->as_session)
		SetSessionAuthorization(h->run_as, superuser_arg(h->run_as));
	runs->guc_level = NewGUCNestLevel();
	set_for_runs("search_path", h->search_path);
	set_for_runs("session_replication_role", "origin");
	set_for_runs("row_security", "on");
	set_for_runs("lock_timeout", "0");	/* the handler's timeout covers its waits */
	SetUserIdAndSecContext(h->run_as, runs->sec_context | SECURITY_RESTRICTED_OPERATION);
}

/* The user's part of that; also on the way out by an error. */
static void
be_self(Runs *runs)
{
	SetUserIdAndSecContext(runs->user, runs->sec_context);
	if (runs->as_session)
		SetSessionAuthorization(runs->user, superuser_arg(runs->user));
	runs->as_session = false;
}

static void
stop_being_role(Runs *runs)
{
	AtEOXact_GUC(false, runs->guc_level);
	be_self(runs);
}

/* See garbagetruck.h. */
void
gt_run_check(const GtHandler *h)
{
	Runs		runs;

	be_role(&runs, h, false);
	PushActiveSnapshot(GetTransactionSnapshot());
	gt_plan_check(h);
	PopActiveSnapshot();
	stop_being_role(&runs);
}

/* ---------------------------------------------------------------- what a run must not leave behind */

/* Fires what was deferred, and from here on nothing is. */
static void
constraints_immediate(void)
{
	static ConstraintsSetStmt statement = {T_ConstraintsSetStmt, NIL, false};

	AfterTriggerSetState(&statement);
}

static bool
is_my_advisory_lock(const LockInstanceData *lock)
{
	return lock->pid == MyProcPid && lock->locktag.locktag_type == LOCKTAG_ADVISORY && lock->holdMask != 0;
}

/* The locks of everybody, if this session holds advisory locks of its own; else NULL. */
static LockData *
advisory_locks_before(void)
{
	LockData   *locks;
	int			i;

	if (gt_my_slot != NULL)
		return NULL;
	locks = GetLockStatusData();
	for (i = 0; i < locks->nelements; i++)
		if (is_my_advisory_lock(&locks->locks[i]))
			return locks;
	return NULL;
}

static LOCKMASK
held_in(const LockData *locks, const LOCKTAG *tag)
{
	LOCKMASK	mask = 0;
	int			i;

	for (i = 0; i < locks->nelements; i++)
		if (is_my_advisory_lock(&locks->locks[i]) &&
			memcmp(&locks->locks[i].locktag, tag, sizeof(LOCKTAG)) == 0)
			mask |= locks->locks[i].holdMask;
	return mask;
}

/*
 * Session advisory locks that the run took: in a worker those are all there
 * are; a session that holds some of its own loses only those that are new.
 * LockRelease() warns of a lock that is the transaction's: not a session's, so
 * none of our business, and nobody's news.
 */
static void
release_advisory_locks(Runs *runs)
{
	LockData   *now;
	int			level;
	int			i;
	LOCKMODE	mode;

	if (runs->held_before == NULL)
	{
		LockReleaseSession(USER_LOCKMETHOD);
		return;
	}
	now = GetLockStatusData();
	level = NewGUCNestLevel();
	set_for_runs("client_min_messages", "error");
	set_for_runs("log_min_messages", "fatal");
	for (i = 0; i < now->nelements; i++)
	{
		LockInstanceData *lock = &now->locks[i];
		LOCKMASK	taken;

		if (!is_my_advisory_lock(lock))
			continue;
		taken = lock->holdMask & ~held_in(runs->held_before, &lock->locktag);
		for (mode = 1; mode < MAX_LOCKMODES; mode++)
			while ((taken & LOCKBIT_ON(mode)) != 0 && LockRelease(&lock->locktag, mode, true))
				;
	}
	AtEOXact_GUC(false, level);
}

/* ---------------------------------------------------------------- runs */

static void
execute_plan(GtPlan *plan, ParamListInfo params)
{
	SPIExecuteOptions options;
	int			rc;

	memset(&options, 0, sizeof(options));
	options.params = params;
	options.dest = None_Receiver;	/* the rows of a SELECT are nobody's */
	rc = SPI_execute_plan_extended(gt_plan_spi(plan), &options);
	if (rc < 0)
		elog(ERROR, "could not execute the command: %s", SPI_result_code_string(rc));
}

/* The body of a run, in its subtransaction, as its role. */
static void
do_run(Runs *runs, GtItem *items, int n)
{
	GtPlan	   *plan = runs->plan;
	int			level = NewGUCNestLevel();

	start_timer(runs->h->timeout);
	gt_plan_prepare(plan, runs->h);
	execute_plan(plan, gt_plan_params(plan, runs->h, items, n));
	constraints_immediate();
	if (gt_my_slot != NULL)
		PortalHashTableDeleteAll(); /* cursors left open; a foreground session may have its own */
	stop_timer();
	if (timed_out)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceled by its timeout")));
	AtEOXact_GUC(false, level);
}

/* What became of a run that failed: the text that people will read, in the caller's memory. */
static char *
describe(Runs *runs, const ErrorData *error)
{
	const char *message = error->message != NULL ? error->message : "unknown error";
	StringInfoData text;

	initStringInfo(&text);
	if (timed_out)
		appendStringInfo(&text, "timeout of %lld ms exceeded", (long long) (runs->h->timeout / 1000));
	else
		appendBinaryStringInfo(&text, message, pg_mbcliplen(message, strlen(message), MAX_ERROR));
	appendStringInfo(&text, " (SQLSTATE %s)", unpack_sql_state(timed_out ? ERRCODE_QUERY_CANCELED : error->sqlerrcode));
	return text.data;
}

/* Was it a cancellation from outside, rather than the handler's own doing? */
static bool
is_foreign_cancel(const ErrorData *error)
{
	return !timed_out && error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL && strcmp(error->funcname, "ProcessInterrupts") == 0;
}

static void
log_failure(Runs *runs, const GtItem *items, int n)
{
	const GtItem *item = &items[0];
	char	   *type = TextDatumGetCString(item->row.v[O_OBJECT_TYPE]);
	char	   *id = TextDatumGetCString(item->row.v[O_OBJECT_ID]);

	if (n == 1)
		ereport(LOG,
				(errmsg("handler \"%s\" %s on %s \"%s\", attempt %d: %s", runs->h->name,
						item->excused ? "did not run" : "failed", type, id, item->attempt, item->error),
				 errhidestmt(true), errhidecontext(true)));
	else
		ereport(LOG,
				(errmsg("handler \"%s\" %s on a batch of %d objects, the first %s \"%s\": %s", runs->h->name,
						item->excused ? "did not run" : "failed", n, type, id, item->error),
				 errhidestmt(true), errhidecontext(true)));
}

/* Enters the error into the items, or raises it where it is the caller's own. */
static void
note_failure(Runs *runs, GtItem *items, int n, ErrorData *error)
{
	bool		foreign = is_foreign_cancel(error);
	char	   *text;
	int			i;

	if (foreign && gt_my_slot == NULL)
		ReThrowError(error);
	MemoryContextSwitchTo(runs->caller);
	text = describe(runs, error);
	for (i = 0; i < n; i++)
	{
		items[i].done = false;
		items[i].error = text;
		items[i].evicted = foreign;
		items[i].excused = foreign ||
			(!timed_out && (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
							error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED));
	}
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
		gt_plan_forget(runs->plan);
	log_failure(runs, items, n);
}

/* One run over n items (1 unless sql_batch) in a subtransaction; fills in the items, and raises nothing of the handler's. */
static void
run_once(Runs *runs, GtItem *items, int n)
{
	ResourceOwner owner = CurrentResourceOwner;
	instr_time	start;
	instr_time	end;
	int			i;

	GT_POINT("run");
	timed_out = false;
	INSTR_TIME_SET_CURRENT(start);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(runs->scratch);
	PG_TRY();
	{
		do_run(runs, items, n);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(runs->scratch);
		CurrentResourceOwner = owner;
		for (i = 0; i < n; i++)
		{
			items[i].done = true;
			items[i].excused = items[i].evicted = false;
			items[i].error = NULL;
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		stop_timer();
		MemoryContextSwitchTo(runs->scratch);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(runs->scratch);
		CurrentResourceOwner = owner;
		note_failure(runs, items, n, error);
	}
	PG_END_TRY();
	release_advisory_locks(runs);
	MemoryContextSwitchTo(runs->caller);
	MemoryContextReset(runs->scratch);

	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	for (i = 0; i < n; i++)
		items[i].took = INSTR_TIME_GET_MICROSEC(end);
}

/* A handler whose roles are gone or renamed runs nothing. */
static bool
is_suspended(const GtHandler *h, GtItem *items, int n)
{
	const char *why = gt_handler_suspended(h);
	int			i;

	if (why == NULL)
		return false;
	for (i = 0; i < n; i++)
	{
		items[i].done = false;
		items[i].excused = true;
		items[i].error = psprintf("suspended: %s", why);
		items[i].took = 0;
	}
	return true;
}

static int
run_all(Runs *runs, GtItem *items, int n)
{
	int64		took = 0;
	int			i;

	if (runs->h->kind == GT_KIND_SQL_BATCH)
	{
		run_once(runs, items, n);
		return n;
	}
	for (i = 0; i < n && i < MAX_RUNS && took < MAX_US; i++)
	{
		run_once(runs, &items[i], 1);
		took += items[i].took;
		CHECK_FOR_INTERRUPTS();
	}
	return i;
}

/* See garbagetruck.h. */
int
gt_run_sql(const GtHandler *h, GtItem *items, int n)
{
	Runs		runs;
	volatile int ran = 0;

	if (n == 0 || is_suspended(h, items, n))
		return n;

	memset(&runs, 0, sizeof(runs));
	runs.h = h;
	runs.caller = CurrentMemoryContext;
	runs.scratch = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck run", ALLOCSET_DEFAULT_SIZES);
	runs.in_cleanup = gt_in_cleanup;
	runs.held_before = advisory_locks_before();
	constraints_immediate();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	MemoryContextSwitchTo(runs.caller);
	runs.plan = gt_plan_find(h);
	be_role(&runs, h, gt_my_slot != NULL);
	gt_in_cleanup = true;
	PG_TRY();
	{
		ran = run_all(&runs, items, n);
	}
	PG_CATCH();
	{
		gt_in_cleanup = runs.in_cleanup;
		be_self(&runs);
		PG_RE_THROW();
	}
	PG_END_TRY();
	gt_in_cleanup = runs.in_cleanup;
	stop_being_role(&runs);
	SPI_finish();
	MemoryContextSwitchTo(runs.caller);
	MemoryContextDelete(runs.scratch);
	return ran;
}
