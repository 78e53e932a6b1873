/*-------------------------------------------------------------------------
 *
 * consistency.c
 *	  gt_check(): what contradicts itself in our tables, and mending it.
 *
 * Nothing of ours makes such a contradiction: an operator's DELETE or TRUNCATE, a
 * partial restore or a corrupt index does.  It is found by SQL, each kind with one
 * statement, whose snapshot shows an object and its leases as of the same moment:
 * so what is found was so, however much goes on.
 *
 * Mending is done by a background worker, which is started for the call and is
 * waited for: a function can not commit, and who mends a million rows must.  It
 * goes through what it finds in transactions of at most BATCH rows.  Each row is
 * locked and judged again before it is written; what others have locked is passed
 * over, so it waits for nobody, and everything works meanwhile.  Locks are taken as
 * everywhere: object, then leases.  A crash leaves what was mended mended.  The
 * session then looks once more, and tells of what it had found whether it is gone.
 *
 * gt_health() asks for the same by a sample (check `consistency`).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "clean/clean.h"
#include "clean/crash.h"
#include "control/consistency.h"
#include "control/mend.h"
#include "lease/start.h"
#include "process/process.h"
#include "rights/may.h"
#include "rights/owner.h"
#include "rights/place.h"
#include "rights/writing.h"
#include "table/versions.h"

PG_FUNCTION_INFO_V1(gt_check);

#define BATCH		500			/* rows in one transaction */
#define ROUNDS		10			/* what is mended may show what it hid */
#define SAMPLE		32			/* blocks that gt_health() looks at */

/*
 * %1$s is the sample of gt_object, or of gt_lease, or empty.  Columns: type and
 * id of the object, the detail, the key of what is to be mended (of a lease: its
 * id).  In this order, since one may show what another hid, or need it mended.
 */
static const struct
{
	const char *kind;
	const char *find;
	bool		(*mend) (Datum key, const GtFinding *f);
	const char *otherwise;
}			kinds[] = {
	/* who mends others draws from these */
	{"cleanup ids",
		"SELECT NULL, NULL, format('%%s is taken, and the sequence is at %%s', m.top, s.last_value), NULL FROM _garbagetruck.gt__cleanup_id s,"
		" (SELECT max(cleanup_id) AS top FROM _garbagetruck.gt_object) m WHERE m.top > s.last_value - (NOT s.is_called)::int",
	gt_mend_by_statement, NULL},
	{"handler ids",
		"SELECT NULL, NULL, format('%%s is taken, and the sequence is at %%s', m.top, s.last_value), NULL FROM _garbagetruck.gt__handler_id s,"
		" (SELECT max(id) AS top FROM (SELECT id FROM _garbagetruck.gt__handler UNION ALL SELECT id FROM _garbagetruck.gt__ttl) i) m WHERE m.top > s.last_value - (NOT s.is_called)::int",
	gt_mend_by_statement, NULL},
	{"lease without object",
		"SELECT l.object_type, l.object_id, format('lease %%s', l.id), l.id::text FROM _garbagetruck.gt_lease l %1$s"
		" WHERE NOT EXISTS (SELECT FROM _garbagetruck.gt_object o WHERE o.object_type = l.object_type AND o.object_id = l.object_id)",
	gt_mend_lease_without_object, NULL},
	{"held without lease",
		"SELECT o.object_type, o.object_id, format('it counts %%s leases and has none', o.leases), NULL FROM _garbagetruck.gt_object o %1$s"
		" WHERE o.leases <> 0 AND NOT EXISTS (SELECT FROM _garbagetruck.gt_lease l WHERE l.object_type = o.object_type AND l.object_id = o.object_id)",
	gt_mend_count, NULL},
	{"wrong count",
		"SELECT o.object_type, o.object_id, format('it counts %%s leases and has %%s', o.leases, c.n), NULL FROM _garbagetruck.gt_object o %1$s"
		" CROSS JOIN LATERAL (SELECT count(*) AS n FROM _garbagetruck.gt_lease l WHERE l.object_type = o.object_type AND l.object_id = o.object_id) c"
		" WHERE o.leases <> c.n AND c.n > 0",
	gt_mend_count, NULL},
	{"missing handler",
		"SELECT o.object_type, o.object_id, format('there is no handler %%s', o.handler), NULL FROM _garbagetruck.gt_object o %1$s"
		" WHERE o.handler IS NOT NULL AND o.state NOT IN ('d', 'h') AND NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = o.handler)"
		" AND NOT EXISTS (SELECT FROM _garbagetruck.gt__ttl w WHERE w.id = o.handler)",
	gt_mend_handler, NULL},
	{"missing handler",
		"SELECT o.object_type, o.object_id, format('there is no handler %%s, which its leases named', o.handler), NULL FROM _garbagetruck.gt_object o %1$s"
		" WHERE o.handler IS NOT NULL AND o.state = 'h' AND NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = o.handler)",
	NULL, "-- a new lease of it that names a handler as its cleanup; else the object is dead when its last lease ends"},
	{"missing specification",
		"SELECT o.object_type, o.object_id, format('lease %%s, whose payload and options count, is gone', o.spec_lease), NULL FROM _garbagetruck.gt_object o %1$s"
		" WHERE o.spec_lease IS NOT NULL AND NOT EXISTS (SELECT FROM _garbagetruck.gt_lease l WHERE l.id = o.spec_lease)",
	gt_mend_spec, NULL},
	{"child without parent",
		"SELECT l.object_type, l.object_id, format('lease %%s, whose parent %%s is gone', l.id, l.parent), l.parent::text FROM _garbagetruck.gt_lease l %1$s"
		" WHERE l.parent IS NOT NULL AND NOT EXISTS (SELECT FROM _garbagetruck.gt_lease p WHERE p.id = l.parent)"
		" AND NOT EXISTS (SELECT FROM _garbagetruck.gt__orphan p WHERE p.parent = l.parent)",
	gt_mend_child, NULL},
	{"parent ended and there",
		"SELECT l.object_type, l.object_id, format('lease %%s runs, and its children are to be ended', l.id), l.id::text"
		" FROM _garbagetruck.gt__orphan p JOIN _garbagetruck.gt_lease l ON l.id = p.parent",
	gt_mend_orphan, NULL},
	{"time to look",
		"SELECT l.object_type, l.object_id, format('lease %%s is looked at %%s, and is over %%s', l.id, coalesce(l.check_at::text, 'never'), l.deadline),"
		" l.id::text FROM _garbagetruck.gt_lease l %1$s WHERE l.parent IS NULL AND (l.check_at IS NULL OR l.check_at > l.deadline)",
	gt_mend_check_at, NULL},
	{"run without process",
		"SELECT NULL, NULL, format('of handler %%s, since %%s', r.handler, r.at), NULL FROM _garbagetruck.gt__run r"
		" WHERE r.at < clock_timestamp() - interval '10 s' AND (r.items <> '{}' OR r.optimistic) AND NOT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'object'"
		" AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
		" AND k.classid = '_garbagetruck.gt__run'::regclass AND k.objid::bigint = (r.worker & 4294967295)"
		" AND (k.objsubid::int & 65535) = ((r.worker >> 32) & 65535))",
	NULL, NULL},
	{"tally",
		"SELECT NULL, NULL, format('of handler %%s, which is missing', t.handler), NULL FROM _garbagetruck.gt__tally t"
		" WHERE NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = t.handler)"
		" AND NOT EXISTS (SELECT FROM _garbagetruck.gt__ttl w WHERE w.id = t.handler)",
	gt_mend_by_statement, NULL},
	{"right",
		"SELECT NULL, NULL, format('on handler %%s, which is missing', t.handler), NULL FROM _garbagetruck.gt__handler_right t"
		" WHERE NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = t.handler)",
	gt_mend_by_statement, NULL},
};

/* ---------------------------------------------------------------- finding */

/* For gt_health(): about SAMPLE blocks of the table, wherever. */
static const char *
sample_of(GtTableId id)
{
	GtTable		t;
	BlockNumber blocks;

	gt_open(&t, id, AccessShareLock);
	blocks = RelationGetNumberOfBlocks(t.rel);
	gt_close(&t);
	if (blocks <= SAMPLE)
		return "";
	return psprintf("TABLESAMPLE SYSTEM (%g)", 100.0 * SAMPLE / blocks);
}

static char *
copied(HeapTuple tuple, TupleDesc desc, int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(tuple, desc, column);

	return value == NULL ? NULL : MemoryContextStrdup(context, value);
}

/* As the extension's owner, by what is committed now. */
List *
gt_find_contradictions(bool sample, int limit)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *result = NIL;
	GtSwitch	save;
	int			i;

	PushActiveSnapshot(gt_newest_snapshot());
	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	for (i = 0; i < (int) lengthof(kinds); i++)
	{
		bool		of_objects = strstr(kinds[i].find, "gt_object o %1$s") != NULL;
		char	   *sql = psprintf(kinds[i].find, sample ? sample_of(of_objects ? GT_OBJECT : GT_LEASE) : "");
		MemoryContext old;
		uint64		row;

		if (SPI_execute(sql, true, limit) != SPI_OK_SELECT)
			elog(ERROR, "could not look for contradictions of kind \"%s\"", kinds[i].kind);
		old = MemoryContextSwitchTo(context);
		for (row = 0; row < SPI_processed; row++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[row];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			GtFinding  *f = palloc0(sizeof(GtFinding));

			f->kind = i;
			f->name = kinds[i].kind;
			f->otherwise = kinds[i].otherwise;
			f->object_type = copied(tuple, desc, 1, context);
			f->object_id = copied(tuple, desc, 2, context);
			f->detail = copied(tuple, desc, 3, context);
			f->key = copied(tuple, desc, 4, context);
			result = lappend(result, f);
		}
		MemoryContextSwitchTo(old);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_finish();
	gt_become_user(&save);
	PopActiveSnapshot();
	return result;
}

/* ---------------------------------------------------------------- the worker */

static bool
mend(const GtFinding *f)
{
	Datum		key = (Datum) 0;

	if (kinds[f->kind].mend == NULL)
		return false;
	if (f->key != NULL)
		key = DirectFunctionCall1(uuid_in, CStringGetDatum(f->key));
	return kinds[f->kind].mend(key, f);
}

/* One transaction: rows from *next on. Returns how many it has mended. */
static int
mend_some(List *findings, int *next)
{
	int			mended = 0;
	int			end = Min(*next + BATCH, list_length(findings));

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	gt_start_ensure();
	for (; *next < end; (*next)++)
	{
		CHECK_FOR_INTERRUPTS();
		mended += mend(list_nth(findings, *next));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return mended;
}

/* Records of runs whose processes are gone are judged as after any crash. */
static void
sweep_runs(void)
{
	GtCleaner  *c = gt_cleaner_create(true);
	bool		more = true;

	while (more)
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		more = gt_clean_sweep(c);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
}

static List *
find_all(MemoryContext context)
{
	MemoryContext old;
	List	   *result;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	result = gt_find_contradictions(false, 0);
	MemoryContextSwitchTo(old);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return result;
}

/* Started by gt_check(), with the database's OID. */
void
gt_check_main(Datum arg)
{
	MemoryContext context;
	int			round;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	gt_pin_settings();
	pgstat_report_activity(STATE_RUNNING, "garbagetruck: mending contradictions");
	context = AllocSetContextCreate(TopMemoryContext, "garbagetruck check", ALLOCSET_DEFAULT_SIZES);

	sweep_runs();
	for (round = 0; round < ROUNDS; round++)
	{
		List	   *findings = find_all(context);
		int			mended = 0;
		int			next = 0;

		while (next < list_length(findings))
			mended += mend_some(findings, &next);
		if (mended == 0)
			break;
	}
	proc_exit(0);
}

/* Starts it and waits for its end. */
static void
run_worker(void)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "garbagetruck");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "gt_check_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "garbagetruck check of database %u", MyDatabaseId);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "garbagetruck check");
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free that could mend anything"),
				 errhint("Try again, or raise max_worker_processes.")));
	PG_TRY();
	{
		(void) WaitForBackgroundWorkerStartup(handle, &pid);
		(void) WaitForBackgroundWorkerShutdown(handle);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ---------------------------------------------------------------- gt_check() */

static int
compare_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return strcmp(a, b);
}

/* Findings of the same thing, whatever their details. */
static int
compare(const ListCell *a, const ListCell *b)
{
	const GtFinding *x = lfirst(a);
	const GtFinding *y = lfirst(b);
	int			order = x->kind - y->kind;

	if (order == 0)
		order = compare_text(x->object_type, y->object_type);
	if (order == 0)
		order = compare_text(x->object_id, y->object_id);
	if (order == 0)
		order = compare_text(x->key != NULL ? x->key : x->detail, y->key != NULL ? y->key : y->detail);
	return order;
}

static void
put(ReturnSetInfo *rsinfo, const GtFinding *f, bool mended)
{
	const char *texts[4] = {f->name, f->object_type, f->object_id, f->detail};
	Datum		v[5];
	bool		nulls[5] = {false, false, false, false, false};
	int			i;

	for (i = 0; i < 4; i++)
	{
		nulls[i] = texts[i] == NULL;
		v[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	v[4] = BoolGetDatum(mended);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
}

/* Those of the first look, and what only the second one has shown. Both are sorted. */
static void
put_all(ReturnSetInfo *rsinfo, List *before, List *after)
{
	int			i = 0;
	int			j = 0;

	while (i < list_length(before) || j < list_length(after))
	{
		int			order = i == list_length(before) ? 1 : j == list_length(after) ? -1 :
			compare(list_nth_cell(before, i), list_nth_cell(after, j));

		put(rsinfo, order <= 0 ? list_nth(before, i) : list_nth(after, j), order < 0);
		i += order <= 0;
		j += order >= 0;
	}
}

/* The worker would wait for this transaction, which waits for it. */
static void
must_have_locked_none(void)
{
	int			i;

	for (i = 0; i < GT_NTABLES; i++)
	{
		GtTable		t;

		gt_open(&t, i, AccessShareLock);
		if (CheckRelationLockedByMe(t.rel, ShareLock, true))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("gt_check cannot mend anything in a transaction that has locked table \"%s\"",
							RelationGetRelationName(t.rel)),
					 errhint("Commit that first.")));
		gt_close(&t);
	}
}

/* gt_check(repair DEFAULT false) */
Datum
gt_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *why = NULL;
	List	   *before;
	List	   *after;

	gt_must_not_be_null(fcinfo, 0, "repair");
	if (!gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for gt_check: role \"%s\" is no administrator of garbagetruck",
						GetUserNameFromId(GetUserId(), false))));
	if (PG_GETARG_BOOL(0))
	{
		gt_mark_write("gt_check");
		must_have_locked_none();
	}
	InitMaterializedSRF(fcinfo, 0);
	before = gt_find_contradictions(false, 0);
	list_sort(before, compare);
	after = before;
	if (PG_GETARG_BOOL(0) && before != NIL)
	{
		if (gt_place(&why) == GT_PLACE_COPY)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is a copy: nothing is mended in it"),
					 errdetail("%s", why),
					 errhint("If its objects are its own: SELECT gt_resume(adopt => true);")));
		run_worker();
		after = gt_find_contradictions(false, 0);
		list_sort(after, compare);
	}
	put_all(rsinfo, before, after);
	return (Datum) 0;
}
