/*-------------------------------------------------------------------------
 *
 * register.c
 *	  gt_handler_create and gt_handler_drop.
 *
 * Every process that serves SQL runs this.  A name belongs to whom registered
 * it first: others get 42501, and so does whoever could not become the role
 * that the command will run as.  A replacement keeps id, owner and pauses.
 *
 * Locks: the handler's row, then its users (see handler.c), then their tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/twophase.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/arguments.h"
#include "base/check.h"
#include "base/compat.h"
#include "base/text.h"
#include "handler/path.h"
#include "handler/run.h"
#include "handler/use.h"
#include "rights/owner.h"
#include "rights/roles.h"
#include "rights/writing.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "table/records.h"
#include "table/relations.h"

PG_FUNCTION_INFO_V1(gt_handler_create);
PG_FUNCTION_INFO_V1(gt_handler_drop);
PG_FUNCTION_INFO_V1(gt__handler_restored);

/* bounds of the arguments, us */
#define MIN_TIMEOUT			INT64CONST(1000)
#define MAX_TIMEOUT			(INT64CONST(24) * 3600 * USECS_PER_SEC)
#define MAX_GRACE			(INT64CONST(3650) * USECS_PER_DAY)
#define MAX_COMMAND			(64 * 1024) /* bytes: its plan takes many times as much in each worker */

#define MANY_USERS		1000	/* of a handler: there is no need to know how many more */
#define MAX_HANDLERS		10000	/* of one role; superusers aside */

#define IS_NOTIFY(kind)		((kind) == GT_KIND_NOTIFY || (kind) == GT_KIND_NOTIFY_ONLY)

/* ---------------------------------------------------------------- arguments */

/* A text of 1 to max bytes without control characters. */
static char *
text_argument(FunctionCallInfo fcinfo, int arg, const char *what, int max)
{
	char	   *value;
	GtFail		f;

	gt_must_not_be_null(fcinfo, arg, what);
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (!gt_check_name(what, value, max, &f))
		gt_raise(&f);
	return value;
}

/* An integer from min up. */
static int
int_argument(FunctionCallInfo fcinfo, int arg, const char *what, int min)
{
	int			value;

	gt_must_not_be_null(fcinfo, arg, what);
	value = PG_GETARG_INT32(arg);
	if (value < min)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %d is out of range: it must be %d or more", what, value, min)));
	return value;
}

/* Only a statement of which one can tell may be held to have affected something. */
static bool
must_affect_argument(FunctionCallInfo fcinfo, int arg, GtKind kind)
{
	gt_must_not_be_null(fcinfo, arg, "must_affect");
	if (PG_GETARG_BOOL(arg) && kind != GT_KIND_SQL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("must_affect is for handlers of kind sql, and not of kind %s", gt_kind_names[kind])));
	return PG_GETARG_BOOL(arg);
}

static int
max_attempts_argument(FunctionCallInfo fcinfo, int arg)
{
	GtFail		f;

	gt_must_not_be_null(fcinfo, arg, "max_attempts");
	if (!gt_check_max_attempts(PG_GETARG_INT32(arg), &f))
		gt_raise(&f);
	return PG_GETARG_INT32(arg);
}

/* The command as its kind wants it; NULL for a queue without one. What SQL it is, gt_run_check() judges. */
static char *
command_argument(FunctionCallInfo fcinfo, int arg, GtKind kind)
{
	char	   *command;

	if (IS_NOTIFY(kind))
		return text_argument(fcinfo, arg, "channel", NAMEDATALEN - 1);
	if (kind == GT_KIND_QUEUE && PG_ARGISNULL(arg))
		return NULL;
	gt_must_not_be_null(fcinfo, arg, "command");
	command = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (command[0] == '\0' && kind != GT_KIND_QUEUE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("command \"\" of kind %s must not be empty", gt_kind_names[kind])));
	if (strlen(command) > MAX_COMMAND)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("command has %zu bytes, it must have at most %d", strlen(command), MAX_COMMAND),
				 kind == GT_KIND_SQL || kind == GT_KIND_SQL_BATCH ? errhint("Put what it does into a function.") : 0));
	return command;
}

/* ---------------------------------------------------------------- create, drop */

/*
 * How many leases and how many pieces of garbage need the handler, MANY_USERS and
 * one more standing for all beyond.  Where no lease names it, an object that is
 * held may owe it to one that has ended: then the leases of that count.
 */
static void
count_users(int id, int64 *leases, int64 *garbage)
{
	char	   *sql = psprintf("SELECT coalesce(nullif((SELECT count(*) FROM (SELECT FROM %1$s.gt_lease WHERE handler = $1 LIMIT %2$d) l), 0),"
							   " (SELECT sum(leases) FROM (SELECT leases FROM %1$s.gt_object WHERE handler = $1 AND state = 'h' LIMIT %2$d) o), 0),"
							   " (SELECT count(*) FROM (SELECT FROM %1$s.gt_object WHERE handler = $1 AND due_at IS NOT NULL"
							   " AND state IN ('w', 'c') LIMIT %2$d) o)"
							   " + (SELECT count(*) FROM (SELECT FROM %1$s.gt_object WHERE handler = $1 AND state = 'd' LIMIT %2$d) o)",
							   quote_identifier(get_namespace_name(gt_own_schema())), MANY_USERS + 1);
	Oid			types[1] = {INT4OID};
	Datum		values[1];
	bool		isnull;
	GtSwitch	save;

	values[0] = Int32GetDatum(id);
	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(sql, 1, types, values, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not count the users of a handler");
	PopActiveSnapshot();
	*leases = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*garbage = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_finish();
	gt_become_user(&save);
}

/* For people. */
static const char *
count_in_words(int64 n)
{
	return n > MANY_USERS ? psprintf("more than %d", MANY_USERS) : psprintf(INT64_FORMAT, n);
}

/* A table whose rows are cleaned up after by the handler, as people name it; NULL: there is none. */
static char *
table_of_users(int id)
{
	GtTable		ttls;
	GtScan	   *scan;
	GtRow		row;
	char	   *name = NULL;

	gt_open(&ttls, GT__TTL, AccessShareLock);
	scan = gt_scan_begin(&ttls, GT__TTL_PKEY, 0, NULL);
	while (name == NULL && gt_scan_next(scan, &row))
		if (!row.isnull[TTL_CLEANUP] && GT_INT32(&row, TTL_CLEANUP) == id)
			name = get_rel_name(DatumGetObjectId(row.v[TTL_RELATION]));
	gt_scan_end(scan);
	gt_close(&ttls);
	return name;
}

static void
must_have_no_users(const GtHandler *h, const char *what)
{
	char	   *table = table_of_users(h->id);
	int64		leases;
	int64		garbage;

	if (table != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s handler \"%s\": it cleans up after the rows of table \"%s\"", what, h->name, table),
				 errhint("Declare the row TTL of the table without it, or drop that: gt_ttl_drop.")));

	count_users(h->id, &leases, &garbage);
	if (leases > 0 || garbage > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s handler \"%s\": %s leases and %s objects of garbage use it",
						what, h->name, count_in_words(leases), count_in_words(garbage)),
				 errhint("Wait until they are gone; gt_ack discards garbage that waits or is dead.")));
}

/* gid of a prepared transaction that has named the handler in a create; NULL: there is none. */
static char *
find_prepared_user(int id)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	GtSwitch	save;
	char	   *gid = NULL;

	if (max_prepared_xacts == 0)
		return NULL;
	values[0] = ObjectIdGetDatum(gt_relid(GT__HANDLER));
	values[1] = ObjectIdGetDatum((Oid) id);
	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	/* in pg_locks it has no process; which one it is tells the lock on its own id */
	if (SPI_execute_with_args("WITH l AS MATERIALIZED (SELECT * FROM pg_locks WHERE pid IS NULL AND granted)"
							  " SELECT p.gid FROM l h JOIN l t ON t.virtualtransaction = h.virtualtransaction AND t.locktype = 'transactionid'"
							  " JOIN pg_prepared_xacts p ON p.transaction = t.transactionid"
							  " JOIN pg_database d ON d.oid = h.database AND d.datname = p.database"
							  " WHERE h.locktype = 'object' AND h.classid = $1 AND h.objid = $2 AND d.datname = current_database()",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for prepared users of a handler");
	if (SPI_processed > 0)
		gid = MemoryContextStrdup(TopTransactionContext, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	gt_become_user(&save);
	return gid;
}

/* A prepared transaction may stay for days: we would wait for it, and every create that names the handler for us. */
static void
must_not_be_prepared(const GtHandler *h, const char *what)
{
	char	   *gid = find_prepared_user(h->id);

	if (gid != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot %s handler \"%s\": a prepared transaction uses it", what, h->name),
				 errdetail("Its identifier is %s.", quote_literal_cstr(gid)),
				 errhint("COMMIT PREPARED or ROLLBACK PREPARED it first.")));
}

/* Looked at before creates are kept waiting, for that takes as long as there are leases; then for good. */
static void
must_be_unused(const GtHandler *h, const char *what)
{
	must_have_no_users(h, what);
	must_not_be_prepared(h, what);
	LockDatabaseObject(gt_relid(GT__HANDLER), (Oid) h->id, 0, AccessExclusiveLock);
	must_have_no_users(h, what);
}

/* A command that runs as `role` is registered by whoever could become it, and by no one else. */
static void
must_be_able_to_become(Oid role, const char *name)
{
	if (!superuser() && !member_can_set_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to let a handler run as role \"%s\"", name),
				 errdetail("Role \"%s\" cannot SET ROLE \"%s\".", GetUserNameFromId(GetUserId(), false), name)));
}

/* What was passed, checked: everything but who owns it. */
static void
row_from_arguments(FunctionCallInfo fcinfo, GtRow *row)
{
	char	   *name = text_argument(fcinfo, 0, "name", 255);
	GtKind		kind;
	char	   *command;

	gt_must_not_be_null(fcinfo, 1, "kind");
	kind = gt_kind_of(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	command = command_argument(fcinfo, 2, kind);

	gt_row_init(row);
	GT_SET(row, HANDLER_NAME, CStringGetTextDatum(name));
	GT_SET(row, HANDLER_KIND, CStringGetTextDatum(gt_kind_names[kind]));
	if (command != NULL)
		GT_SET(row, HANDLER_COMMAND, CStringGetTextDatum(command));
	GT_SET(row, HANDLER_MAX_ATTEMPTS, Int32GetDatum(max_attempts_argument(fcinfo, 3)));
	GT_SET(row, HANDLER_RETRY_DELAY,
		   Int64GetDatum(gt_interval_argument(fcinfo, 4, "retry_delay", 0, GT_MAX_RETRY_DELAY, GT_RETRY_DELAY_RANGE)));
	GT_SET(row, HANDLER_TIMEOUT, Int64GetDatum(gt_interval_argument(fcinfo, 5, "timeout", MIN_TIMEOUT, MAX_TIMEOUT,
														   "between 1 millisecond and 24 hours")));
	GT_SET(row, HANDLER_GRACE, Int64GetDatum(gt_interval_argument(fcinfo, 6, "grace", 0, MAX_GRACE, "between 0 and 3650 days")));
	if (!PG_ARGISNULL(7))
		GT_SET(row, HANDLER_CONCURRENCY, Int32GetDatum(int_argument(fcinfo, 7, "concurrency", 1)));
	if (!PG_ARGISNULL(8))
		GT_SET(row, HANDLER_RATE_LIMIT, Int32GetDatum(int_argument(fcinfo, 8, "rate_limit", 1)));
	if (!PG_ARGISNULL(9))
	{
		Oid			role = gt_role_argument(fcinfo, 9, "run_as");

		must_be_able_to_become(role, NameStr(*PG_GETARG_NAME(9)));
		GT_SET(row, HANDLER_RUN_AS, ObjectIdGetDatum(role));
		GT_SET(row, HANDLER_RUN_AS_NAME, NameGetDatum(PG_GETARG_NAME(9)));
	}
	GT_SET(row, HANDLER_PAUSED, BoolGetDatum(false));
	GT_SET(row, HANDLER_BUILTIN, BoolGetDatum(false));
	GT_SET(row, HANDLER_VERSION, Int32GetDatum(1));
	GT_SET(row, HANDLER_CRASHES, Int32GetDatum(0));
	GT_SET(row, HANDLER_MUST_AFFECT, BoolGetDatum(must_affect_argument(fcinfo, 10, kind)));
}

static void
set_owner(GtRow *row, Oid owner)
{
	Name		name = palloc0(sizeof(NameData));

	namestrcpy(name, GetUserNameFromId(owner, false));
	GT_SET(row, HANDLER_OWNER, ObjectIdGetDatum(owner));
	GT_SET(row, HANDLER_OWNER_NAME, NameGetDatum(name));
}

/* SQL is analysed as it will run, under the search_path of this call; the rest has nothing to check. */
static void
check_command(GtRow *row)
{
	GtHandler	h;

	gt_handler_from_row(row, &h);
	if (!GT_KIND_IS_SQL(h.kind))
		return;
	must_be_able_to_become(h.run_as, h.run_as_name);
	h.search_path = gt_path_to_store(h.name, h.run_as);
	GT_SET(row, HANDLER_SEARCH_PATH, CStringGetTextDatum(h.search_path));
	gt_run_check(&h);
	if (row->isnull[HANDLER_RUN_AS] && superuser_arg(h.owner))
		ereport(NOTICE,
				(errmsg("handler \"%s\" runs as superuser \"%s\"", h.name, h.owner_name),
				 errdetail("Only superusers can use it until it is granted."),
				 errhint("Name a role without these rights in run_as.")));
}

/* Each handler is looked at, now and then, by everybody: no role makes more of them than anybody needs. */
static void
must_have_few_handlers(GtTable *t)
{
	GtScan	   *scan;
	GtRow		row;
	int			n = 0;

	if (superuser())
		return;
	scan = gt_scan_begin(t, GT__HANDLER_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
		if (GT_OID(&row, HANDLER_OWNER) == GetUserId())
			n++;
	gt_scan_end(scan);
	if (n >= MAX_HANDLERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("role \"%s\" has %d handlers, the limit is %d", GetUserNameFromId(GetUserId(), false), n, MAX_HANDLERS),
				 errhint("One handler serves any number of objects: what differs belongs into the payload of their leases.")));
}

/* Writes a new handler; false: another session has just made one of this name. */
static bool
insert_handler(GtTable *t, GtRow *row)
{
	must_have_few_handlers(t);
	set_owner(row, GetUserId());
	GT_SET(row, HANDLER_ID, Int32GetDatum((int32) nextval_internal(gt_sequence(GT__HANDLER_ID), false)));
	check_command(row);
	gt_note_role(GetUserId());
	return gt_insert_unique(t, row, GT__HANDLER_NAME);
}

/*
 * Whom a handler belongs to that is registered anew: whom it belonged to.  Where
 * that role is gone only a superuser comes here: then it is the role that has its
 * name now, or that superuser.
 */
static Oid
owner_of_replaced(const GtHandler *was)
{
	Oid			owner = gt_handler_owner(was);

	if (GetUserNameFromId(owner, true) != NULL)
		return owner;
	owner = get_role_oid(was->owner_name, true);
	return OidIsValid(owner) ? owner : GetUserId();
}

/* Writes row over old, which is locked: same id, same owner, next version. */
static void
replace_handler(GtTable *t, const GtRow *old, const GtHandler *was, GtRow *row)
{
	GtHandler	h;

	row->tid = old->tid;
	row->xmin = old->xmin;
	set_owner(row, owner_of_replaced(was));
	GT_SET(row, HANDLER_ID, old->v[HANDLER_ID]);
	GT_SET(row, HANDLER_PAUSED, old->v[HANDLER_PAUSED]);
	GT_SET(row, HANDLER_VERSION, Int32GetDatum(was->version + 1));
	row->v[HANDLER_PAUSED_REASON] = old->v[HANDLER_PAUSED_REASON];
	row->isnull[HANDLER_PAUSED_REASON] = old->isnull[HANDLER_PAUSED_REASON];
	row->v[HANDLER_RESUMED_AT] = old->v[HANDLER_RESUMED_AT];
	row->isnull[HANDLER_RESUMED_AT] = old->isnull[HANDLER_RESUMED_AT];

	gt_handler_from_row(row, &h);
	if (h.kind != was->kind)
		must_be_unused(was, "change the kind of");
	/* of another kind it is a handler as any other: SQL of a superuser's is not for every role */
	GT_SET(row, HANDLER_BUILTIN, BoolGetDatum(was->builtin && h.kind == was->kind));
	check_command(row);
	gt_update(t, row);
}

/* gt_handler_create(name, kind, command, ...): registers, or replaces what is one's own. */
Datum
gt_handler_create(PG_FUNCTION_ARGS)
{
	GtTable		t;
	GtRow		row;
	GtRow		old;
	GtHandler	was;
	char	   *name;

	gt_mark_write("gt_handler_create");
	row_from_arguments(fcinfo, &row);
	name = TextDatumGetCString(row.v[HANDLER_NAME]);

	gt_open(&t, GT__HANDLER, RowExclusiveLock);
	for (;;)
	{
		if (gt_lock_handler(&t, name, LockTupleNoKeyExclusive, gt_must_own_handler, "replace", &old, &was))
		{
			replace_handler(&t, &old, &was, &row);
			break;
		}
		if (insert_handler(&t, &row))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	gt_close(&t);
	gt_due_after_commit(gt_now());	/* suspended or failing garbage may go on */
	PG_RETURN_VOID();
}

/* Deletes the rows of a table that belong to a handler. */
static void
delete_of_handler(GtTableId table, GtIndexId index, int id)
{
	Datum		key = Int32GetDatum(id);
	GtTable		t;
	GtRow		row;

	gt_open(&t, table, RowExclusiveLock);
	while (gt_fetch_lock(&t, index, 1, &key, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&t, &row);
	gt_close(&t);
}

/* gt_handler_drop(name): false when there is none. */
Datum
gt_handler_drop(PG_FUNCTION_ARGS)
{
	char	   *name;
	GtTable		t;
	GtRow		row;
	GtHandler	h;
	bool		found;

	gt_must_not_be_null(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	gt_mark_write("gt_handler_drop");

	gt_open(&t, GT__HANDLER, RowExclusiveLock);
	found = gt_lock_handler(&t, name, LockTupleExclusive, gt_must_own_handler, "drop", &row, &h);
	if (found)
	{
		must_be_unused(&h, "drop");
		delete_of_handler(GT__HANDLER_RIGHT, GT__HANDLER_RIGHT_PKEY, h.id);
		delete_of_handler(GT__TALLY, GT__TALLY_PKEY, h.id);
		gt_delete(&t, &row);
		gt_observe_dropped(h.id);
	}
	gt_close(&t);
	PG_RETURN_BOOL(found);
}

/* The handler in the dump took the name of a built-in one that had been dropped, or had become another kind: so it has here. */
static void
make_way(GtTable *t, const GtRow *row)
{
	GtRow		here;

	if (!row->isnull[HANDLER_NAME] &&
		gt_fetch_lock(t, GT__HANDLER_NAME, 1, &row->v[HANDLER_NAME], &here, LockTupleExclusive, false) == GT_LOCKED &&
		GT_BOOL(&here, HANDLER_BUILTIN))
		gt_delete(t, &here);
}

/*
 * gt__handler_restored(): before SQL inserts a handler, which only a
 * restore and a subscription do (our own writes fire no trigger).  A built-in one is there, from
 * CREATE EXTENSION, and belongs to whom it belongs here; it takes the settings
 * and the pause of the one in the dump.
 */
Datum
gt__handler_restored(PG_FUNCTION_ARGS)
{
	static const int kept[] = {
		HANDLER_ID, HANDLER_NAME, HANDLER_KIND, HANDLER_OWNER, HANDLER_OWNER_NAME, HANDLER_RUN_AS, HANDLER_RUN_AS_NAME,
		HANDLER_SEARCH_PATH, HANDLER_BUILTIN
	};
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	GtTable		t;
	GtRow		here;
	GtRow		row;
	Datum		id;
	int			i;

	if (!CALLED_AS_TRIGGER(fcinfo) || RelationGetRelid(trigger->tg_relation) != gt_relid(GT__HANDLER) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("gt__handler_restored is for gt__handler only")));
	desc = RelationGetDescr(trigger->tg_relation);
	gt_row_init(&row);
	for (i = 0; i < Min(desc->natts, HANDLER_NATTS); i++)
		row.v[i] = heap_getattr(trigger->tg_trigtuple, i + 1, desc, &row.isnull[i]);
	id = row.v[HANDLER_ID];

	gt_open(&t, GT__HANDLER, RowExclusiveLock);
	if (row.isnull[HANDLER_BUILTIN] || !GT_BOOL(&row, HANDLER_BUILTIN))
	{
		make_way(&t, &row);
		gt_close(&t);
		return PointerGetDatum(trigger->tg_trigtuple);
	}
	if (row.isnull[HANDLER_ID] ||
		gt_fetch_lock(&t, GT__HANDLER_PKEY, 1, &id, &here, LockTupleNoKeyExclusive, false) != GT_LOCKED)
	{
		gt_close(&t);
		return PointerGetDatum(trigger->tg_trigtuple);
	}
	row.tid = here.tid;
	for (i = 0; i < (int) lengthof(kept); i++)
	{
		row.v[kept[i]] = here.v[kept[i]];
		row.isnull[kept[i]] = here.isnull[kept[i]];
	}
	gt_update(&t, &row);
	gt_close(&t);
	return PointerGetDatum(NULL);
}
