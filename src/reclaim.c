/*-------------------------------------------------------------------------
 *
 * reclaim.c
 *	  gt_reclaim(): the workers' job in the foreground; and trimming the history.
 *
 * For servers without the library preloaded (pg_cron calls it), and for tests.
 * Called by itself it works as a worker does, with a commit after each pass; in
 * a transaction block it makes one pass, which the caller's commit keeps or its
 * rollback undoes, and which also ends leases made by this very transaction.
 *
 * A session that is interrupted leaves the record of a run that did not happen
 * (see crash.c); in a transaction block there is nothing to leave.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(gt_reclaim);

#define TRIM_ROWS 10000			/* of gt_history in one transaction */

static GtCleaner *foreground = NULL;	/* of the call in progress */

/* The session is terminated in the middle of a call. */
static void
leave_at_exit(int code, Datum arg)
{
	if (foreground != NULL)
		gt_clean_evicted(foreground);
}

/* Commits, if we may; what follows runs at READ COMMITTED as a worker would. */
static void
commit(bool atomic)
{
	if (atomic)
		return;
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
}

/* Ends leases whose time is over, until there are no more. */
static int64
expire_all(int64 left, bool atomic)
{
	int64		done = 0;
	int			idle = 0;

	while (done < left && idle < 2)
	{
		GtExpiry	expiry;

		gt_expire_pass((int) Min(gt_batch_size, left - done), atomic, NULL, NULL, &expiry);
		done += expiry.ended;
		/* a pass that ended nothing may have found leases to re-arm, but not twice in a row */
		if (expiry.ended > 0)
			idle = 0;
		else if (expiry.more)
			idle++;
		else
			idle = 2;
		commit(atomic);
	}
	return done;
}

/* Cleans what is due now; what fails on the way is not due again in this call. */
static int64
clean_all(GtCleaner *c, int64 left, bool atomic)
{
	int64		done = 0;
	GtPass		pass;

	c->until = gt_now();
	do
	{
		/* when nothing is left to choose, the chosen run is still run */
		gt_clean_step(c, (int) Min(left - done, PG_INT32_MAX), &pass);
		commit(atomic);
		gt_clean_committed(c);
		done += pass.done;
		CHECK_FOR_INTERRUPTS();
	} while (gt_clean_pending(c));
	return done;
}

static int64
reclaim(int64 left, bool atomic)
{
	GtCleaner  *c = gt_cleaner_create(false);
	int64		done;

	c->unrecorded = atomic;
	foreground = atomic ? NULL : c;
	PG_TRY();
	{
		while (gt_clean_sweep(c))
			commit(atomic);
		while (gt_rearm(gt_batch_size) && !atomic)
			commit(atomic);
		done = expire_all(left, atomic);
		(void) gt_foreground_enter();
		if (done < left)
			done += clean_all(c, left - done, atomic);
		gt_clean_end(c);
		gt_foreground_leave();
	}
	PG_CATCH();
	{
		gt_clean_evicted(c);
		foreground = NULL;
		PG_RE_THROW();
	}
	PG_END_TRY();
	foreground = NULL;
	return done;
}

static void
check_call(void)
{
	char	   *why = NULL;

	if (gt_in_cleanup)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("gt_reclaim cannot be called by a handler")));
	gt_mark_write("gt_reclaim");
	if (!gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for gt_reclaim: role \"%s\" is no administrator of garbagetruck",
						GetUserNameFromId(GetUserId(), false)),
				 errhint("A superuser or the owner of the extension can SELECT gt_allow(role, 'admin').")));
	if (gt_place(&why) == GT_PLACE_COPY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy: nothing is reclaimed in it"),
				 errdetail("%s", why),
				 errhint("If its objects are its own: SELECT gt_resume(adopt => true);")));
}

/* gt_reclaim(max_items DEFAULT NULL, INOUT done DEFAULT 0) */
Datum
gt_reclaim(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	CallContext *context = (CallContext *) fcinfo->context;
	bool		atomic = context == NULL || !IsA(context, CallContext) || context->atomic || IsSubTransaction();
	int64		left = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT32(0);
	TupleDesc	desc;
	Datum		done;
	bool		isnull = false;

	check_call();
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
	commit(atomic);
	done = Int64GetDatum(reclaim(left, atomic));
	SPI_finish();

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &done, &isnull)));
}

/* See worker.h. */
TimestampTz
gt_history_trim_at(void)
{
	GtTable		history;
	GtScan	   *scan;
	GtRow		row;
	TimestampTz result = GT_NEVER;

	gt_open(&history, GT__HISTORY, AccessShareLock);
	scan = gt_scan_begin(&history, GT__HISTORY_PKEY, 0, NULL);
	if (gt_scan_next(scan, &row))
		result = GT_TIME(&row, HI_AT) + (int64) gt_history_retention * USECS_PER_SEC;
	gt_scan_end(scan);
	gt_close(&history);
	return result;
}

/* See worker.h. */
bool
gt_history_trim(void)
{
	GtSwitch	save;
	Oid			types[2] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[2];
	char	   *table;
	char	   *sql;
	bool		more;

	if (gt_history_retention < 0 || !OidIsValid(gt_extension()))
		return false;
	table = quote_qualified_identifier(get_namespace_name(gt_own_schema()), "gt__history");
	sql = psprintf("DELETE FROM %s WHERE ctid = ANY (ARRAY("
				   "SELECT ctid FROM %s WHERE at < $1 ORDER BY at LIMIT $2))", table, table);
	values[0] = TimestampTzGetDatum(gt_now() - (int64) gt_history_retention * USECS_PER_SEC);
	values[1] = Int32GetDatum(TRIM_ROWS);

	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute_with_args(sql, 2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not trim gt__history");
	more = SPI_processed >= TRIM_ROWS;
	SPI_finish();
	gt_become_user(&save);
	return more;
}
