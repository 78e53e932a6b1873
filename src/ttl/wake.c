/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  The trigger on tables whose rows have a deadline: who sleeps is told.
 *
 * Each session that writes such a row runs it, as whoever it is, once for a row and as
 * little as can be: it reads the deadline, and keeps the earliest of the transaction,
 * of which shared memory learns at the commit (rows_due.c).  The deadline is analyzed
 * once for a table; where it is a column nothing is evaluated.
 *
 * The trigger is made by the server's own function, below SQL, since neither the
 * table's owner nor who declares it needs a right to our function; it depends on the
 * extension, and goes with it.  Nothing is lost where it is not there or does not
 * fire, or may not see what another trigger puts into the row: then the table is looked
 * at each naptime.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/rows_due.h"
#include "table/relations.h"
#include "ttl/target.h"
#include "ttl/ttl.h"
#include "ttl/wake.h"

PG_FUNCTION_INFO_V1(gt__ttl_wake);

/* Of a table, and of which row TTL: a partition may have two. */
typedef struct KnownKey
{
	Oid			relation;
	int			ttl;
} KnownKey;

/* What this process knows of it, for as long as what is declared stays as it is. */
typedef struct Known
{
	KnownKey	key;
	bool		silent;			/* nothing is to be told */
	int64		grace;
	AttrNumber	column;			/* of the deadline; 0: it is an expression */
	Node	   *deadline;
} Known;

/* What one statement needs; in fn_extra. */
typedef struct Telling
{
	Known		known;
	ExprState  *deadline;
	EState	   *estate;
} Telling;

static HTAB *known_tables = NULL;	/* of Known, in known_context */
static MemoryContext known_context = NULL;
static uint64 known_reading;	/* gt_ttl_reading() then */

/* ---------------------------------------------------------------- the trigger fires */

/* What can not be analyzed any more is suspended, and no row is refused for that. */
static void
learn_deadline(Known *known, Relation rel, const char *expression)
{
	Node	   *node;
	MemoryContext old;

	if (gt_target_deadline(rel, expression, &node) != NULL || exprType(node) != TIMESTAMPTZOID)
	{
		known->silent = true;
		return;
	}
	if (IsA(node, Var))
	{
		known->column = ((Var *) node)->varattno;
		return;
	}
	old = MemoryContextSwitchTo(known_context);
	known->deadline = copyObject(node);
	MemoryContextSwitchTo(old);
}

/* Forgets all if something has changed. */
static void
look_for_changes(void)
{
	uint64		reading = gt_ttl_reading();
	HASHCTL		control;

	if (known_tables != NULL && known_reading == reading)
		return;
	known_tables = NULL;
	if (known_context == NULL)
		known_context = AllocSetContextCreate(TopMemoryContext, "garbagetruck deadlines", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(known_context);
	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(KnownKey);
	control.entrysize = sizeof(Known);
	control.hcxt = known_context;
	known_tables = hash_create("garbagetruck deadlines", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	known_reading = reading;
}

/* What is known of a table; from here on it may be forgotten whenever a catalog is read. */
static Known
find_known(Relation rel, int ttl)
{
	KnownKey	key = {RelationGetRelid(rel), ttl};
	Known		fresh;
	Known	   *known;
	GtTtl	   *t;

	look_for_changes();
	known = hash_search(known_tables, &key, HASH_FIND, NULL);
	if (known != NULL)
		return *known;
	memset(&fresh, 0, sizeof(fresh));
	fresh.key = key;
	t = gt_ttl_by_id(ttl);
	fresh.silent = t == NULL || !t->wake;
	if (!fresh.silent)
	{
		fresh.grace = t->h.grace;
		learn_deadline(&fresh, rel, t->expression);
	}
	if (known_reading == gt_ttl_reading())
		*(Known *) hash_search(known_tables, &key, HASH_ENTER, NULL) = fresh;
	return fresh;
}

/* Is the column that is known still one of that type? */
static bool
is_timestamptz(Relation rel, AttrNumber column)
{
	TupleDesc	desc = RelationGetDescr(rel);

	return column <= desc->natts && !TupleDescAttr(desc, column - 1)->attisdropped &&
		TupleDescAttr(desc, column - 1)->atttypid == TIMESTAMPTZOID;
}

static Telling *
begin_telling(FunctionCallInfo fcinfo, Relation rel, Trigger *trigger)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Telling    *telling = palloc0(sizeof(Telling));

	if (OidIsValid(gt_extension()) && trigger->tgnargs == 1)
		telling->known = find_known(rel, atoi(trigger->tgargs[0]));
	else
		telling->known.silent = true;
	telling->known.key.relation = RelationGetRelid(rel);
	if (telling->known.deadline != NULL)
	{
		telling->estate = CreateExecutorState();
		telling->deadline = ExecPrepareExpr(copyObject((Expr *) telling->known.deadline), telling->estate);
	}
	else if (!telling->known.silent && !is_timestamptz(rel, telling->known.column))
		telling->known.silent = true;
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = telling;
	return telling;
}

static Datum
deadline_of(Telling *telling, TupleTableSlot *row, bool *isnull)
{
	ExprContext *context;

	if (telling->deadline == NULL)
		return slot_getattr(row, telling->known.column, isnull);
	context = GetPerTupleExprContext(telling->estate);
	ResetExprContext(context);
	context->ecxt_scantuple = row;
	return ExecEvalExprSwitchContext(telling->deadline, context, isnull);
}

Datum
gt__ttl_wake(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Telling    *telling = fcinfo->flinfo->fn_extra;
	TimestampTz deadline;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("gt__ttl_wake is for triggers AFTER INSERT OR UPDATE FOR EACH ROW")));
	if (telling == NULL || telling->known.key.relation != RelationGetRelid(data->tg_relation))
		telling = begin_telling(fcinfo, data->tg_relation, data->tg_trigger);
	if (telling->known.silent)
		return PointerGetDatum(NULL);
	value = deadline_of(telling, TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newslot : data->tg_trigslot, &isnull);
	deadline = DatumGetTimestampTz(value);
	if (!isnull && !TIMESTAMP_IS_NOEND(deadline))
	{
		int64		grace = telling->known.grace;

		gt_mark_prepared();
		gt_rows_due_after_commit(telling->known.key.ttl, deadline, deadline >= GT_NEVER - grace ? GT_NEVER : deadline + grace);
	}
	return PointerGetDatum(NULL);
}

/* ---------------------------------------------------------------- it is made, and taken away */

/* Our function; InvalidOid: an older script has none. */
static Oid
wake_function(void)
{
	/* by the cache: whoever asks need have no right to the schema */
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("gt__ttl_wake"),
						   PointerGetDatum(buildoidvector(NULL, 0)), ObjectIdGetDatum(gt_own_schema()));
}

/* Its own. A partition may have that of the table that it is part of, too. */
static const Trigger *
find_trigger(Relation rel)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == wake_function() && !trigger->tgisclone)
			return trigger;
	}
	return NULL;
}

bool
gt_wake_is_set(Relation rel)
{
	/* that one may move a deadline which the statement does not name */
	return !gt_wake_is_lost(rel) && !rel->trigdesc->trig_update_before_row;
}

List *
gt_wake_columns(Relation rel)
{
	const Trigger *trigger = find_trigger(rel);
	List	   *columns = NIL;
	int			i;

	for (i = 0; trigger != NULL && i < trigger->tgnattr; i++)
		columns = lappend_int(columns, trigger->tgattr[i]);
	return columns;
}

bool
gt_wake_is_lost(Relation rel)
{
	const Trigger *trigger = find_trigger(rel);

	return trigger == NULL || trigger->tgenabled != TRIGGER_FIRES_ALWAYS;
}

/* Does it fire, of these columns, and of no others? Both are in order. */
static bool
is_of(const Trigger *trigger, int ttl, List *columns)
{
	ListCell   *lc;
	int			i = 0;

	if (trigger->tgenabled != TRIGGER_FIRES_ALWAYS || trigger->tgnattr != list_length(columns) || trigger->tgnargs != 1 || atoi(trigger->tgargs[0]) != ttl)
		return false;
	foreach(lc, columns)
		if (trigger->tgattr[i++] != lfirst_int(lc))
			return false;
	return true;
}

static CreateTrigStmt *
statement(Oid relation, int ttl, List *columns)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	ListCell   *lc;

	stmt->trigname = psprintf("gt_ttl_wake_%d", ttl);
	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(relation)), get_rel_name(relation), -1);
	stmt->funcname = list_make2(makeString(get_namespace_name(gt_own_schema())), makeString("gt__ttl_wake"));
	stmt->args = list_make1(makeString(psprintf("%d", ttl)));
	stmt->row = true;
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE;
	foreach(lc, columns)
		stmt->columns = lappend(stmt->columns, makeString(get_attname(relation, lfirst_int(lc), false)));
	return stmt;
}

void
gt_wake_set(Oid relation, int ttl, List *columns)
{
	Relation	rel = table_open(relation, AccessShareLock);
	const Trigger *trigger = find_trigger(rel);
	bool		right = trigger != NULL && is_of(trigger, ttl, columns);
	bool		wrong = trigger != NULL && !right;
	ObjectAddress address;
	ObjectAddress extension;
	ObjectAddress column;
	ListCell   *lc;
	Oid			user;
	int			sec_context;

	table_close(rel, NoLock);
	if (right)
		return;
	if (wrong)
		gt_wake_take_away(relation);
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	/* always: rows that a subscription brings are told of, too */
	address = CreateTriggerFiringOn(statement(relation, ttl, columns), NULL, relation, InvalidOid, InvalidOid, InvalidOid,
									wake_function(), InvalidOid, NULL, false, false, TRIGGER_FIRES_ALWAYS);
	SetUserIdAndSecContext(user, sec_context);
	ObjectAddressSet(extension, ExtensionRelationId, gt_extension());
	recordDependencyOn(&address, &extension, DEPENDENCY_AUTO_EXTENSION);
	/* nor does it keep anybody from dropping a column: it goes with that */
	deleteDependencyRecordsForClass(TriggerRelationId, address.objectId, RelationRelationId, DEPENDENCY_NORMAL);
	foreach(lc, columns)
	{
		ObjectAddressSubSet(column, RelationRelationId, relation, lfirst_int(lc));
		recordDependencyOn(&address, &column, DEPENDENCY_AUTO);
	}
	CommandCounterIncrement();
}

void
gt_wake_take_away(Oid relation)
{
	Relation	rel = table_open(relation, AccessExclusiveLock);
	const Trigger *trigger = find_trigger(rel);
	ObjectAddress address;

	if (trigger != NULL)
		ObjectAddressSet(address, TriggerRelationId, trigger->tgoid);
	table_close(rel, NoLock);
	if (trigger == NULL)
		return;
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}
