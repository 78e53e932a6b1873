/*-------------------------------------------------------------------------
 *
 * reclaim.c
 *	  gt_reclaim(): the workers' job in the foreground; and trimming the history.
 *
 * For servers without the library preloaded (pg_cron calls it), and for tests.
 *
 * Called by itself it works as a worker does, with a commit after each pass, and
 * runs the handlers of every role in this one session.  So there must be nothing
 * in the session that a handler could take, read on in, or spoil: with a cursor, a
 * session advisory lock or something temporary open it refuses.  What can not be
 * looked for or put back (settings of one's own, the texts of prepared statements,
 * what libraries keep) is said in the README.
 *
 * In a transaction block, a function or a DO it makes one pass, which the caller's
 * commit keeps or its rollback undoes, and which also ends leases made by this very
 * transaction.  There anything may be open, so it does nothing but what is the
 * caller's own: leases on the caller's objects, and handlers whose SQL runs as the
 * caller.  As whom deferred triggers fire must be clear then: in a function that
 * runs as somebody else than who called it, it refuses.
 *
 * A session that is interrupted leaves the record of a run that did not happen
 * (see crash.c); in a block there is nothing to leave.  The slot in shared memory is
 * given back on every way out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "base/settings.h"
#include "base/workers.h"
#include "clean/cleaner.h"
#include "clean/crash.h"
#include "clean/marks.h"
#include "clean/record.h"
#include "clean/trim.h"
#include "handler/slots.h"
#include "handler/timers.h"
#include "lease/expiry.h"
#include "lease/rearm.h"
#include "rights/may.h"
#include "rights/owner.h"
#include "rights/place.h"
#include "rights/writing.h"
#include "shared/clock.h"

PG_FUNCTION_INFO_V1(gt_reclaim);

static GtCleaner *foreground = NULL;	/* of the call in progress */

/* The session is terminated in the middle of a call: from outside, unless it had to be for a handler's sake. */
static void
leave_at_exit(int code, Datum arg)
{
	if (foreground != NULL && !gt_run_overran)
		gt_clean_evicted(foreground);
	gt_foreground_leave();
}

/* Commits, if we may; what follows runs at READ COMMITTED, with a snapshot, as a worker would. */
static void
commit(bool atomic)
{
	if (atomic)
		return;
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
	EnsurePortalSnapshotExists();
}

/* Ends leases whose time is over, until there are no more. */
static int64
expire_all(int64 left, bool atomic)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck pass", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		done = 0;
	int			idle = 0;

	while (done < left && idle < 2)
	{
		GtExpiry	expiry;

		gt_expire_pass((int) Min(gt_batch_size, left - done), atomic, NULL, NULL, &expiry);
		done += expiry.ended;
		/* a pass that ended nothing may have found leases to re-arm, but not twice in a row; or what others hold */
		if (expiry.ended > 0 || (!atomic && expiry.more && expiry.busy > 0))
			idle = 0;
		else if (expiry.more)
			idle++;
		else
			idle = 2;
		commit(atomic);
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return done;
}

/* Cleans what is due now, and what rows become; what fails on the way is due again in this call only beside those. */
static int64
clean_all(GtCleaner *c, int64 left, bool atomic)
{
	int64		done = 0;
	GtPass		pass;

	c->until = gt_now();
	do
	{
		/* when nothing is left to choose, the chosen run is still run */
		gt_clean_step(c, (int) Min(left - done, PG_INT32_MAX), NULL, &pass);
		commit(atomic);
		gt_clean_committed(c);
		done += pass.done;
		CHECK_FOR_INTERRUPTS();
	} while (gt_clean_pending(c));
	return done;
}

/* The chores that are nobody's own: before, runs that were interrupted and times that are wrong; after, the history. */
static void
do_chores(GtCleaner *c, bool (*chore) (GtCleaner *c))
{
	while (chore(c))
	{
		commit(false);
		CHECK_FOR_INTERRUPTS();
	}
	commit(false);
}

static bool
rearm(GtCleaner *c)
{
	return gt_rearm(gt_batch_size);
}

static bool
trim(GtCleaner *c)
{
	return gt_history_trim();
}

static int64
do_all(GtCleaner *c, int64 left, bool atomic)
{
	int64		done;

	if (!atomic)
	{
		do_chores(c, gt_clean_sweep);
		do_chores(c, rearm);
	}
	done = expire_all(left, atomic);
	(void) gt_foreground_enter();
	if (done < left)
		done += clean_all(c, left - done, atomic);
	gt_clean_end(c);
	gt_foreground_leave();
	if (!atomic)
		do_chores(c, trim);
	else if (gt_is_admin())
		(void) gt_history_trim();
	return done;
}

/* What the run in progress is told of an error that ends the call; of a cancellation nothing: that means the call. */
static void
leave_undone(GtCleaner *c, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		gt_clean_undone(c, NULL);
	else
		gt_clean_undone(c, psprintf("%s (SQLSTATE %s)", error->message != NULL ? error->message : "unknown error",
									unpack_sql_state(error->sqlerrcode)));
}

static int64
reclaim(int64 left, bool atomic)
{
	MemoryContext context = CurrentMemoryContext;
	GtCleaner  *c = gt_cleaner_create(false);
	int64		done;

	c->unrecorded = c->own_only = atomic;
	foreground = atomic ? NULL : c;
	if (!atomic)
		gt_clean_watch();
	PG_TRY();
	{
		done = do_all(c, left, atomic);
	}
	PG_CATCH();
	{
		if (!atomic)
		{
			leave_undone(c, context);
			gt_clean_unwatch();
		}
		foreground = NULL;
		gt_foreground_leave();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!atomic)
		gt_clean_unwatch();
	foreground = NULL;
	return done;
}

static void
must_be_allowed(bool atomic)
{
	if (gt_is_admin() || (atomic && gt_has_right(GT_RIGHT_HANDLER)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for gt_reclaim: role \"%s\" is no administrator of garbagetruck",
					GetUserNameFromId(GetUserId(), false)),
			 errdetail("In a transaction block roles with 'handler' may call it: for what is their own."),
			 errhint("A superuser or the owner of the extension can SELECT gt_allow(role, 'admin').")));
}

/*
 * In a block handlers run as the caller, and so do the triggers that are
 * deferred until then: that must be the one who has opened it.
 */
static void
must_be_oneself(void)
{
	if (GetUserId() == GetOuterUserId() && !InSecurityRestrictedOperation())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("gt_reclaim cannot be called in a function that runs as another role than its caller's"),
			 errhint("CALL it by itself, or as a role that was allowed to: SELECT gt_allow(role, 'handler').")));
}

static void
check_call(bool atomic)
{
	char	   *why = NULL;

	if (gt_in_cleanup)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("gt_reclaim cannot be called by a handler")));
	gt_mark_write("gt_reclaim");
	must_be_allowed(atomic);
	must_be_oneself();
	if (gt_place(&why) == GT_PLACE_COPY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy: nothing is reclaimed in it"),
				 errdetail("%s", why),
				 errhint("If its objects are its own: SELECT gt_resume(adopt => true);")));
}

/* What this session has open that handlers of other roles could reach; see the top of the file. */
static void
must_have_nothing_open(void)
{
	static const char *const sql =
		"SELECT format('cursor \"%s\"', name) FROM pg_cursors WHERE name <> $1"
		" UNION ALL SELECT format('the session advisory lock (%s, %s)', classid, objid) FROM pg_locks"
		" WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
		" UNION ALL SELECT format('temporary %s \"%s\"', CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view'"
		" WHEN 'S' THEN 'sequence' ELSE 'relation' END, relname) FROM pg_class"
		" WHERE relnamespace = pg_my_temp_schema() AND relkind NOT IN ('i', 'I', 't')"
		" UNION ALL SELECT format('temporary function \"%s\"', proname) FROM pg_proc"
		" WHERE pronamespace = pg_my_temp_schema() LIMIT 1";
	GtSwitch	save;
	Oid			types[1] = {TEXTOID};
	Datum		values[1];

	values[0] = CStringGetTextDatum(ActivePortal != NULL ? ActivePortal->name : "");
	gt_become_owner(&save);		/* for its search_path */
	if (SPI_execute_with_args(sql, 1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look at what is open in the session");
	gt_become_user(&save);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("gt_reclaim needs a session with nothing else open, and this one has %s",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errdetail("It runs the handlers of every role, which could reach that."),
				 errhint("CALL it in a session of its own; or in a transaction block, where it does what is your own only.")));
}

/* gt_reclaim(max_items DEFAULT NULL, INOUT done DEFAULT 0) */
Datum
gt_reclaim(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	CallContext *context = (CallContext *) fcinfo->context;
	bool		atomic = context == NULL || !IsA(context, CallContext) || context->atomic || IsSubTransaction() ||
		SPI_inside_nonatomic_context();
	int64		left = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT32(0);
	TupleDesc	desc;
	Datum		done;
	bool		isnull = false;

	check_call(atomic);
	if (left < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_items must not be negative, and is " INT64_FORMAT, left)));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "gt_reclaim does not return a row");
	if (!registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	registered = true;

	if (SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (!atomic)
		must_have_nothing_open();
	commit(atomic);
	done = Int64GetDatum(reclaim(left, atomic));
	SPI_finish();

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &done, &isnull)));
}
