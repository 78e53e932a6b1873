/*-------------------------------------------------------------------------
 *
 * create.c
 *	  gt_ttl_create() and gt_ttl_drop().
 *
 * Sessions run these, in the caller's transaction.  Whoever could become the table's
 * owner declares for him: from then on what is his (expressions, indexes) is asked as
 * him, and the deletes are his.
 *
 * Locks: the declaration of the table alone (gt_ttl_lock), for which a run of a worker
 * is waited for; then the table, as CREATE TRIGGER and DROP TRIGGER lock it; the handler
 * that is named, shared; our row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/arguments.h"
#include "base/compat.h"
#include "base/text.h"
#include "handler/path.h"
#include "handler/use.h"
#include "rights/place.h"
#include "rights/roles.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/rows_due.h"
#include "table/records.h"
#include "table/relations.h"
#include "ttl/target.h"
#include "ttl/ttl.h"
#include "ttl/wake.h"

PG_FUNCTION_INFO_V1(gt_ttl_create);
PG_FUNCTION_INFO_V1(gt_ttl_drop);

#define MAX_BATCH	10000
#define MAX_GRACE	(INT64CONST(3650) * USECS_PER_DAY)
#define TOLD_BY_THEN	(200 * INT64CONST(1000))	/* us: a commit wakes whom it has to before it tells everybody's caches */
#define MAX_TYPE	255			/* bytes of an object_type */

/* ---------------------------------------------------------------- the table */

static const char *
kind_name(char relkind)
{
	switch (relkind)
	{
		case RELKIND_VIEW:
			return "a view";
		case RELKIND_MATVIEW:
			return "a materialized view";
		case RELKIND_FOREIGN_TABLE:
			return "a foreign table";
		case RELKIND_SEQUENCE:
			return "a sequence";
		case RELKIND_INDEX:
		case RELKIND_PARTITIONED_INDEX:
			return "an index";
		default:
			return "no table";
	}
}

/* What it is, if its rows can have no deadline; else NULL. */
static const char *
wrong_kind(Relation rel)
{
	char		relkind = rel->rd_rel->relkind;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		return kind_name(relkind);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return "a temporary table";
	if (RelationGetNamespace(rel) == gt_own_schema())
		return "a table of garbagetruck";
	if (IsCatalogRelation(rel) || IsToastRelation(rel) || RelationGetRelid(rel) < FirstNormalObjectId)
		return "a system table";
	return NULL;
}

static void
must_be_of_the_kind(Relation rel)
{
	const char *what = wrong_kind(rel);
	GtFail		f;

	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is %s", RelationGetRelationName(rel), what),
				 errdetail("Rows of ordinary and of partitioned tables can have a deadline.")));
	if (!gt_check_name("object type", gt_ttl_type(RelationGetRelid(rel)), MAX_TYPE, &f))
		gt_raise(&f);
}

/* Also of a table that others than its owner declare. */
static void
must_own(Oid relation, const char *name, Oid owner)
{
	if (superuser() || member_can_set_role(GetUserId(), owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for table \"%s\"", name),
			 errdetail("It belongs to role \"%s\", and role \"%s\" cannot SET ROLE to that.", gt_role_name(owner),
					   gt_role_name(GetUserId()))));
}

/* The table that an argument names. */
static Relation
open_argument(FunctionCallInfo fcinfo)
{
	Relation	rel;

	gt_must_not_be_null(fcinfo, 0, "table_name");
	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("there is no table with OID %u", PG_GETARG_OID(0))));
	return rel;
}

/* ---------------------------------------------------------------- being its owner */

typedef struct AsOwner
{
	Oid			user;
	int			sec_context;
	int			level;
} AsOwner;

static void
become(AsOwner *as, Oid owner)
{
	GetUserIdAndSecContext(&as->user, &as->sec_context);
	as->level = NewGUCNestLevel();
	SetUserIdAndSecContext(owner, as->sec_context | SECURITY_RESTRICTED_OPERATION);
}

static void
be_oneself(AsOwner *as)
{
	AtEOXact_GUC(false, as->level);
	SetUserIdAndSecContext(as->user, as->sec_context);
}

static void
create_index(const char *sql)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", sql);
	SPI_finish();
	CommandCounterIncrement();
}

/* It has what is needed; NULL, or the statement that makes what is missing, where that is to be made. */
static const char *
must_have_indexes(Relation rel, Node *deadline, const char *expression, bool create)
{
	bool		descending;

	if (!OidIsValid(gt_target_key(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel)),
				 errdetail("A row that cannot be deleted, or has to be cleaned up after, is named by it.")));
	if (OidIsValid(gt_target_index(rel, deadline, &descending)))
		return NULL;
	if (!create)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no valid B-tree index that begins with %s", RelationGetRelationName(rel), expression),
				 errhint("%s", gt_target_index_sql(rel, deadline, expression, true))));
	return gt_target_index_sql(rel, deadline, expression, false);
}

/* The handler that cleans up after the rows, as the owner may use it. */
static int
cleanup_argument(FunctionCallInfo fcinfo, int arg)
{
	char	   *name = gt_text_arg(fcinfo, arg);
	GtHandler	h;

	if (name == NULL)
		return 0;
	if (!gt_handler_hold(name, &h))
		gt_no_such_handler(name);
	if (!gt_handler_may_use(&h))
	{
		gt_handler_let_go(&h);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for handler \"%s\"", gt_shown(name)),
				 errdetail("The rows are deleted by role \"%s\", who owns the table.", gt_role_name(GetUserId())),
				 errhint("%s", gt_handler_grant_hint(&h, "use"))));
	}
	return h.id;
}

/* ---------------------------------------------------------------- the arguments */

static int
number_argument(FunctionCallInfo fcinfo, int arg, const char *what, int max)
{
	int			value = PG_GETARG_INT32(arg);

	if (value < 1 || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 max == PG_INT32_MAX ? errmsg("%s %d is out of range: it must be 1 or more", what, value) :
				 errmsg("%s %d is out of range: it must be between 1 and %d", what, value, max)));
	return value;
}

static void
row_from_arguments(FunctionCallInfo fcinfo, GtRow *row)
{
	gt_must_not_be_null(fcinfo, 1, "expires_at");
	gt_must_not_be_null(fcinfo, 5, "create_index");
	gt_must_not_be_null(fcinfo, 6, "wake");
	gt_must_not_be_null(fcinfo, 7, "paused");
	gt_row_init(row);
	GT_SET(row, TTL_RELATION, ObjectIdGetDatum(PG_GETARG_OID(0)));
	GT_SET(row, TTL_EXPIRES_AT, PointerGetDatum(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(3))
		GT_SET(row, TTL_BATCH_SIZE, Int32GetDatum(number_argument(fcinfo, 3, "batch_size", MAX_BATCH)));
	if (!PG_ARGISNULL(4))
		GT_SET(row, TTL_RATE_LIMIT, Int32GetDatum(number_argument(fcinfo, 4, "rate_limit", PG_INT32_MAX)));
	GT_SET(row, TTL_WAKE, BoolGetDatum(PG_GETARG_BOOL(6)));
	GT_SET(row, TTL_PAUSED, BoolGetDatum(PG_GETARG_BOOL(7)));
	GT_SET(row, TTL_GRACE, Int64GetDatum(gt_interval_argument(fcinfo, 8, "grace", 0, MAX_GRACE, "between 0 and 3650 days")));
	GT_SET(row, TTL_VERSION, Int32GetDatum(1));
	GT_SET(row, TTL_CRASHES, Int32GetDatum(0));
	GT_SET(row, TTL_CAREFUL, Int32GetDatum(0));
}

/* What is the table's; returns the columns that its deadline is made of. */
static List *
set_table(FunctionCallInfo fcinfo, GtRow *row, Oid relation)
{
	Relation	rel = table_open(relation, AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;
	char	   *expression;
	Name		name = palloc0(sizeof(NameData));
	char	   *path = gt_path_to_store(gt_ttl_type(relation), owner);
	Node	   *deadline;
	const char *index;
	AsOwner		as;
	int			cleanup;

	become(&as, owner);
	deadline = gt_target_parse(rel, text_to_cstring(PG_GETARG_TEXT_PP(1)), &expression);
	index = must_have_indexes(rel, deadline, expression, PG_GETARG_BOOL(5));
	table_close(rel, NoLock);
	cleanup = cleanup_argument(fcinfo, 2);
	if (index != NULL)
		create_index(index);
	be_oneself(&as);
	namestrcpy(name, gt_role_name(owner));
	GT_SET(row, TTL_OWNER_NAME, NameGetDatum(name));
	GT_SET(row, TTL_EXPRESSION, CStringGetTextDatum(expression));
	GT_SET(row, TTL_SEARCH_PATH, CStringGetTextDatum(path));
	if (cleanup != 0)
		GT_SET(row, TTL_CLEANUP, Int32GetDatum(cleanup));
	gt_note_role(owner);
	return gt_target_columns(deadline);
}

/* Writes it, in the place of what was declared before. Returns its id. */
static int
write_row(GtRow *row, const GtTtl *before)
{
	Datum		key = Int32GetDatum(before != NULL ? before->id : 0);
	GtTable		table;
	GtRow		old;
	int			id;

	gt_open(&table, GT__TTL, RowExclusiveLock);
	if (before != NULL &&
		gt_fetch_lock(&table, GT__TTL_PKEY, 1, &key, &old, LockTupleNoKeyExclusive, false) == GT_LOCKED)
	{
		row->tid = old.tid;
		row->xmin = old.xmin;
		GT_SET(row, TTL_ID, old.v[TTL_ID]);
		GT_SET(row, TTL_VERSION, Int32GetDatum(GT_INT32(&old, TTL_VERSION) + 1));
		GT_SET(row, TTL_CAREFUL, old.v[TTL_CAREFUL]);
		gt_update(&table, row);
	}
	else
	{
		GT_SET(row, TTL_ID, Int32GetDatum((int32) nextval_internal(gt_sequence(GT__HANDLER_ID), false)));
		gt_insert(&table, row);
	}
	id = GT_INT32(row, TTL_ID);
	gt_close(&table);
	return id;
}

/* gt_ttl_create(table_name, expires_at, cleanup, batch_size, rate_limit, create_index, wake, paused, grace) */
Datum
gt_ttl_create(PG_FUNCTION_ARGS)
{
	GtRow		row;
	Relation	rel;
	Oid			relation;
	List	   *columns;
	int			id;

	gt_mark_write("gt_ttl_create");
	rel = open_argument(fcinfo);
	relation = RelationGetRelid(rel);
	must_be_of_the_kind(rel);
	must_own(relation, RelationGetRelationName(rel), rel->rd_rel->relowner);
	table_close(rel, NoLock);
	row_from_arguments(fcinfo, &row);
	(void) gt_ttl_lock(relation, true, true);
	gt_place_ensure();
	PushActiveSnapshot(GetLatestSnapshot());
	columns = set_table(fcinfo, &row, relation);
	PopActiveSnapshot();
	id = write_row(&row, gt_ttl_of_table(relation));
	if (GT_BOOL(&row, TTL_WAKE))
		gt_wake_set(relation, id, columns);
	else
		gt_wake_take_away(relation);
	gt_rows_stir(gt_now() + TOLD_BY_THEN);
	PG_RETURN_VOID();
}

/* gt_ttl_drop(table_name): false: there was none */
Datum
gt_ttl_drop(PG_FUNCTION_ARGS)
{
	Relation	rel;
	Oid			relation;
	GtTtl	   *t;

	gt_mark_write("gt_ttl_drop");
	rel = open_argument(fcinfo);
	relation = RelationGetRelid(rel);
	must_own(relation, RelationGetRelationName(rel), rel->rd_rel->relowner);
	table_close(rel, NoLock);
	if (gt_ttl_of_table(relation) == NULL)
		PG_RETURN_BOOL(false);
	(void) gt_ttl_lock(relation, true, true);
	t = gt_ttl_of_table(relation);
	if (t == NULL)
		PG_RETURN_BOOL(false);
	gt_ttl_forget(t->id, false);
	gt_wake_take_away(relation);
	PG_RETURN_BOOL(true);
}
