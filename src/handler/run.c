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
 * A run that calls gt_snooze() is rolled back at its end, whatever became of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/arguments.h"
#include "base/point.h"
#include "base/settings.h"
#include "handler/command.h"
#include "handler/execute.h"
#include "handler/failures.h"
#include "handler/leftovers.h"
#include "handler/plan.h"
#include "handler/role.h"
#include "handler/run.h"
#include "handler/slots.h"
#include "handler/timers.h"
#include "handler/turns.h"
#include "handler/use.h"
#include "rights/may.h"
#include "shared/shmem.h"

#define MAX_US			USECS_PER_SEC
#define MAX_ERROR		2000	/* bytes of a message that are kept */

#define MIN_SNOOZE		(100 * INT64CONST(1000))	/* us */
#define MAX_SNOOZE		(30 * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(gt_snooze);

/* The state of one call of gt_run_sql(). */
typedef struct Runs
{
	const GtHandler *h;
	GtPlan	   *plan;			/* NULL: it is no command that is run, but: */
	void		(*body) (void *arg);
	void	   *body_arg;
	GtAsRole	as;
	bool		in_block;		/* of somebody's transaction, in which other things may be open */
	bool		in_cleanup;
	LockData   *held_before;	/* in a block: where the session holds advisory locks of its own; else NULL */
	List	   *cursors_before; /* in a block: names of those that are open */
	MemoryContext caller;		/* errors are kept here */
	MemoryContext scratch;		/* of one run */
	GtTake		take;			/* of gt_run_whole(): gives the items; else NULL */
	void	   *take_arg;
	int			taken;			/* how many it has given */
	bool		looked;			/* a run of them has asked for leases or garbage */
	bool		lost;			/* some could not be given: all is to be undone */

	/* of the run in progress */
	int64		snooze;			/* us; < 0: gt_snooze() was not called */
	char		snooze_reason[MAX_ERROR + 1];
	int64		rows;			/* that its statement has affected; < 0: it is a SELECT or CALL, and does not tell */
} Runs;

static Runs *current_runs = NULL;

/* ---------------------------------------------------------------- being the handler's role */

void
gt_run_check(const GtHandler *h)
{
	GtAsRole	as;

	gt_role_enter(&as, h, false);
	PushActiveSnapshot(GetTransactionSnapshot());
	gt_command_check(h);
	PopActiveSnapshot();
	gt_role_leave(&as);
}

/* ---------------------------------------------------------------- runs */

/* What the handler has caught is the end of the call none the less. */
static void
cancel_the_call(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling statement due to statement timeout")));
}

/* The body of a run, in its subtransaction, as its role. */
static void
do_run(Runs *runs, GtItem *items, int n)
{
	GtPlan	   *plan = runs->plan;
	int			level = NewGUCNestLevel();
	bool		affected;

	gt_timers_start(runs->h->timeout);
	if (plan == NULL)
		runs->body(runs->body_arg);
	else
	{
		gt_plan_prepare(plan, runs->h);
		runs->rows = gt_plan_execute(plan, gt_plan_params(plan, runs->h, items, n), runs->h->must_affect, &affected);
		if (runs->h->must_affect && !affected && runs->snooze < 0)
			ereport(ERROR,
					(errcode(ERRCODE_NO_DATA_FOUND),
					 errmsg("it affected no row")));
	}
	gt_constraints_immediate();
	gt_close_cursors(runs->in_block, runs->cursors_before);
	gt_timers_stop();
	if (gt_caller_has_gone())
		cancel_the_call();
	if (gt_timed_out || gt_given_back)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg(gt_timed_out ? "canceled by its timeout" : "canceled, to be run again")));
	AtEOXact_GUC(false, level);
}

/* One run of gt_run_whole(), over n of its items: what is to be seen of them is not as a run may expect. */
static void
do_part(Runs *runs, GtItem *items, int n)
{
	uint64		asked = gt_rights_asked;
	instr_time	start;
	instr_time	took;
	int			i;

	GT_POINT("run");
	gt_slot_run_begins();
	INSTR_TIME_SET_CURRENT(start);
	do_run(runs, items, n);
	gt_release_advisory_locks(runs->held_before);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	for (i = 0; i < n; i++)
	{
		items[i].took = INSTR_TIME_GET_MICROSEC(took);
		items[i].rows = runs->rows;
	}
	runs->looked = runs->looked || gt_rights_asked != asked;
}

/* The body of gt_run_whole(), in its subtransaction, as the role. */
static void
do_whole(Runs *runs, GtItem *items, int n)
{
	bool		one_run = runs->h->kind == GT_KIND_SQL_BATCH;
	int64		took = 0;

	while (runs->taken < n && took < MAX_US && !runs->looked && runs->snooze < 0)
	{
		GtItem	   *next = &items[runs->taken];
		int			got;

		if ((took > GT_TURN && gt_slot_work_waits()) || MyProc->subxidStatus.count >= GT_MAX_SQL_ITEMS)
			break;
		MemoryContextSwitchTo(runs->caller);
		got = runs->take(next, one_run ? n : 1, runs->take_arg);
		MemoryContextSwitchTo(runs->scratch);
		runs->lost = got < 0;
		if (got <= 0)
			break;
		runs->taken += got;
		do_part(runs, next, got);
		MemoryContextReset(runs->scratch);
		if (one_run)
			break;
		took += next->took;
		CHECK_FOR_INTERRUPTS();
	}
}

/* gt_snooze(after, reason): the run in progress did not happen, and comes again after that. */
Datum
gt_snooze(PG_FUNCTION_ARGS)
{
	if (current_runs == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("gt_snooze can only be called by a handler"),
				 errdetail("No run of kind sql or sql_batch is in progress in this session.")));
	current_runs->snooze = gt_interval_argument(fcinfo, 0, "after", MIN_SNOOZE, MAX_SNOOZE,
												"between 100 milliseconds and 30 days");
	strlcpy(current_runs->snooze_reason, "snoozed", sizeof(current_runs->snooze_reason));
	if (!PG_ARGISNULL(1))
	{
		char	   *reason = text_to_cstring(PG_GETARG_TEXT_PP(1));

		strlcpy(current_runs->snooze_reason, reason, pg_mbcliplen(reason, strlen(reason), MAX_ERROR) + 1);
	}
	PG_RETURN_VOID();
}

/* What became of a run that failed: the text that people will read, in the caller's memory. */
static char *
describe(Runs *runs, const ErrorData *error)
{
	const char *message = error->message != NULL ? error->message : "unknown error";
	StringInfoData text;

	initStringInfo(&text);
	if (gt_given_back && !gt_timed_out)
		appendStringInfoString(&text, "given back: slow runs hold all other workers");
	else if (gt_timed_out)
		appendStringInfo(&text, "timeout of %lld ms exceeded", (long long) (runs->h->timeout / 1000));
	else
		appendBinaryStringInfo(&text, message, pg_mbcliplen(message, strlen(message), MAX_ERROR));
	appendStringInfo(&text, " (SQLSTATE %s)", unpack_sql_state(gt_timed_out ? ERRCODE_QUERY_CANCELED : error->sqlerrcode));
	return text.data;
}

/* Was it a cancellation from outside, rather than the handler's own doing? */
static bool
is_foreign_cancel(const ErrorData *error)
{
	return !gt_timed_out && !gt_given_back && error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL && strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* Enters what became of a run that was rolled back. */
static void
set_outcome(GtItem *items, int n, bool excused, GtExcuse excuse, char *error, int64 retry_after)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		items[i].done = false;
		items[i].excused = excused;
		items[i].excuse = excuse;
		items[i].conflict = excuse == GT_EXCUSE_CONFLICT;
		items[i].error = error;
		items[i].retry_after = retry_after;
		items[i].rows = -1;
	}
}

/* Of the one class, and where something was dropped of the other, the types of its parameters may be to blame. */
static void
doubt_types(Runs *runs, const ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTERNAL_ERROR)
		gt_plan_forget(runs->plan);
}

/* Enters the error into the items, or raises it where it is the caller's own. */
static void
note_failure(Runs *runs, GtItem *items, int n, ErrorData *error)
{
	bool		foreign = is_foreign_cancel(error);
	bool		conflict = !gt_timed_out && !gt_given_back && (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
															 error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED);

	if (foreign && gt_my_slot == NULL)
		ReThrowError(error);
	if (gt_caller_has_gone())
		cancel_the_call();
	if (runs->snooze >= 0 && !gt_timed_out && !foreign)
	{
		set_outcome(items, n, true, GT_EXCUSE_PLAIN, pstrdup(runs->snooze_reason), runs->snooze);
		return;
	}
	set_outcome(items, n, foreign || conflict || (gt_given_back && !gt_timed_out),
				foreign ? GT_EXCUSE_EVICTED : conflict ? GT_EXCUSE_CONFLICT : GT_EXCUSE_PLAIN,
				describe(runs, error), -1);
	items[0].cut_short = gt_given_back && !gt_timed_out;
	items[0].timed_out = gt_timed_out;
	if (runs->body != NULL)
		return;					/* the caller knows of what it was */
	doubt_types(runs, error);
	gt_run_log_failure(runs->h, items, n);
}

/* In the context of errors during a run: whose doing it is that this process goes. */
static void
tell_overrun(void *arg)
{
	if (gt_run_overran)
	{
		errdetail("Handler \"%s\" went on for over %d s after it was canceled: nothing else stops it.",
				  ((Runs *) arg)->h->name, GT_KILL_AFTER_MS / 1000);
		errhint("Its owner or a superuser can: SELECT gt_pause(%s);", quote_literal_cstr(((Runs *) arg)->h->name));
	}
}

/* Runs it in a subtransaction, and comes back out of that whatever happens. *kept: and that was committed. */
static ErrorData *
run_guarded(Runs *runs, GtItem *items, int n, bool *kept)
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	ErrorContextCallback callback;

	callback.callback = tell_overrun;
	callback.arg = runs;
	callback.previous = error_context_stack;
	gt_timers_reset();
	runs->snooze = -1;
	runs->rows = -1;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(runs->scratch);
	PG_TRY();
	{
		error_context_stack = &callback;
		if (runs->take != NULL)
			do_whole(runs, items, n);
		else
			do_run(runs, items, n);
		error_context_stack = callback.previous;
		*kept = runs->snooze < 0 && !runs->looked && !runs->lost;
		if (*kept)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		gt_timers_stop();
		MemoryContextSwitchTo(runs->scratch);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		*kept = false;
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(runs->caller);
	gt_release_advisory_locks(runs->held_before);
	return error;
}

/* One run over n items (1 unless sql_batch); fills in the items, and raises nothing of the handler's. */
static void
run_once(Runs *runs, GtItem *items, int n)
{
	instr_time	start;
	instr_time	end;
	ErrorData  *error;
	bool		kept;
	int			i;

	GT_POINT("run");
	gt_slot_run_begins();
	INSTR_TIME_SET_CURRENT(start);
	error = run_guarded(runs, items, n, &kept);
	if (error != NULL)
		note_failure(runs, items, n, error);
	else if (!kept)
		set_outcome(items, n, true, GT_EXCUSE_PLAIN, pstrdup(runs->snooze_reason), runs->snooze);
	else
		set_outcome(items, n, false, GT_EXCUSE_PLAIN, NULL, -1);
	for (i = 0; i < n && kept; i++)
	{
		items[i].done = true;
		items[i].rows = runs->rows;
	}
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
	set_outcome(items, n, true, GT_EXCUSE_PLAIN, psprintf("suspended: %s", why), -1);
	for (i = 0; i < n; i++)
		items[i].took = 0;
	return true;
}

static int
run_all(Runs *runs, GtItem *items, int n, GtRunJudge judge, void *arg)
{
	int64		took = 0;
	int			i;

	if (runs->h->kind == GT_KIND_SQL_BATCH)
	{
		run_once(runs, items, n);
		return n;
	}
	for (i = 0; i < n && i < GT_MAX_SQL_ITEMS && took < MAX_US; i++)
	{
		if (took > GT_TURN && gt_slot_work_waits())
			break;
		items[i].gone = i > 0 && !judge(&items[i], arg);
		if (items[i].gone)
			continue;
		run_once(runs, &items[i], 1);
		took += items[i].took;
		CHECK_FOR_INTERRUPTS();
	}
	return i;
}

/* As gt_run_whole(). */
static int
run_whole(Runs *runs, GtItem *items, int n)
{
	bool		kept;
	ErrorData  *error = run_guarded(runs, items, n, &kept);

	if (error != NULL)
		doubt_types(runs, error);
	return kept ? runs->taken : -1;
}

/* What the runs of one call have in common, around them; runs: h, and take. */
static int
run_framed(Runs *runs, GtItem *items, int n, bool in_block, GtRunJudge judge, void *arg)
{
	volatile int ran = 0;

	runs->in_block = in_block;
	gt_timers_begin();
	runs->caller = CurrentMemoryContext;
	runs->scratch = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck run", ALLOCSET_DEFAULT_SIZES);
	runs->in_cleanup = gt_in_cleanup;
	if (in_block)
		runs->held_before = gt_advisory_locks();
	gt_constraints_immediate();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	MemoryContextSwitchTo(runs->caller);
	if (in_block)
		runs->cursors_before = gt_open_cursors();
	if (runs->body == NULL)
		runs->plan = gt_plan_find(runs->h);
	gt_role_enter(&runs->as, runs->h, true);
	gt_in_cleanup = true;
	current_runs = runs;
	PG_TRY();
	{
		if (runs->body != NULL)
			run_once(runs, items, n);
		else
			ran = runs->take != NULL ? run_whole(runs, items, n) : run_all(runs, items, n, judge, arg);
	}
	PG_CATCH();
	{
		current_runs = NULL;
		gt_in_cleanup = runs->in_cleanup;
		gt_role_undo(&runs->as);
		PG_RE_THROW();
	}
	PG_END_TRY();
	current_runs = NULL;
	gt_in_cleanup = runs->in_cleanup;
	gt_role_leave(&runs->as);
	if (in_block)
		gt_constraints_as_defined();
	else if (gt_my_slot == NULL)
		gt_reseed();
	SPI_finish();
	MemoryContextSwitchTo(runs->caller);
	MemoryContextDelete(runs->scratch);
	return ran;
}

int
gt_run_sql(const GtHandler *h, GtItem *items, int n, bool in_block, GtRunJudge judge, void *arg)
{
	Runs		runs;

	if (n == 0 || is_suspended(h, items, n))
		return n;
	memset(&runs, 0, sizeof(runs));
	runs.h = h;
	return run_framed(&runs, items, n, in_block, judge, arg);
}

int
gt_run_whole(const GtHandler *h, GtItem *items, int n, GtTake take, void *arg, bool *looked)
{
	Runs		runs;
	int			ran;

	memset(&runs, 0, sizeof(runs));
	runs.h = h;
	runs.take = take;
	runs.take_arg = arg;
	ran = run_framed(&runs, items, n, false, NULL, NULL);
	*looked = runs.looked;
	return ran;
}

void
gt_run_body(const GtHandler *h, GtItem *item, bool in_block, void (*body) (void *arg), void *arg)
{
	Runs		runs;

	memset(&runs, 0, sizeof(runs));
	runs.h = h;
	runs.body = body;
	runs.body_arg = arg;
	(void) run_framed(&runs, item, 1, in_block, NULL, NULL);
}
