/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  The trigger on tables whose rows have a deadline: who sleeps is told.
 *
 * Each session that writes such a row runs it, as whoever it is, once for a row and as
 * little as can be: it reads the deadline, and keeps the earliest of the transaction,
 * of which shared memory learns at the commit (rows_due.c).  The deadline is analyzed
 * once for a table and statement; where it is a column nothing is evaluated.
 *
 * The trigger is made by the server's own function, below SQL, since neither the
 * table's owner nor who declares it needs a right to our function; it depends on the
 * extension, and goes with it.  Nothing is lost where it is not there or does not
 * fire: then the table is looked at each naptime.
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
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/transaction.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/rows_due.h"
#include "table/relations.h"
#include "ttl/target.h"
#include "ttl/ttl.h"
#include "ttl/wake.h"

PG_FUNCTION_INFO_V1(gt__ttl_wake);

/* What one statement needs to know of a table; in fn_extra. */
typedef struct Known
{
	Oid			relation;
	int			ttl;			/* 0: nothing is to be told */
	int64		grace;
	AttrNumber	column;			/* of the deadline; 0: it is an expression */
	ExprState  *deadline;
	EState	   *estate;
} Known;

/* ---------------------------------------------------------------- the trigger fires */

typedef struct Analysis
{
	Relation	rel;
	const char *expression;
	Node	   *node;
} Analysis;

static void
analyze(void *arg)
{
	Analysis   *a = arg;

	a->node = gt_target_deadline(a->rel, a->expression);
}

/* What can not be analyzed any more is suspended, and no row is refused for that. */
static void
learn_deadline(Known *known, Relation rel, const char *expression)
{
	Analysis	a = {rel, expression, NULL};
	Node	   *node;

	if (gt_try(analyze, &a) != NULL || exprType(a.node) != TIMESTAMPTZOID)
	{
		known->ttl = 0;
		return;
	}
	node = a.node;
	if (IsA(node, Var))
	{
		known->column = ((Var *) node)->varattno;
		return;
	}
	known->estate = CreateExecutorState();
	known->deadline = ExecPrepareExpr((Expr *) node, known->estate);
}

static Known *
learn(FunctionCallInfo fcinfo, Relation rel, Trigger *trigger)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Known	   *known = palloc0(sizeof(Known));
	GtTtl	   *t = OidIsValid(gt_extension()) && trigger->tgnargs == 1 ? gt_ttl_by_id(atoi(trigger->tgargs[0])) : NULL;

	known->relation = RelationGetRelid(rel);
	if (t != NULL && t->wake)
	{
		known->ttl = t->id;
		known->grace = t->h.grace;
		learn_deadline(known, rel, t->expression);
	}
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = known;
	return known;
}

static Datum
deadline_of(Known *known, TupleTableSlot *row, bool *isnull)
{
	ExprContext *context;

	if (known->deadline == NULL)
		return slot_getattr(row, known->column, isnull);
	context = GetPerTupleExprContext(known->estate);
	ResetExprContext(context);
	context->ecxt_scantuple = row;
	return ExecEvalExprSwitchContext(known->deadline, context, isnull);
}

Datum
gt__ttl_wake(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Known	   *known = fcinfo->flinfo->fn_extra;
	TimestampTz deadline;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("gt__ttl_wake is for triggers AFTER INSERT OR UPDATE FOR EACH ROW")));
	if (known == NULL || known->relation != RelationGetRelid(data->tg_relation))
		known = learn(fcinfo, data->tg_relation, data->tg_trigger);
	if (known->ttl == 0)
		return PointerGetDatum(NULL);
	value = deadline_of(known, TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newslot : data->tg_trigslot, &isnull);
	deadline = DatumGetTimestampTz(value);
	if (!isnull && !TIMESTAMP_IS_NOEND(deadline))
	{
		gt_mark_prepared();
		gt_rows_due_after_commit(known->ttl, deadline,
								 deadline >= GT_NEVER - known->grace ? GT_NEVER : deadline + known->grace);
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

static const Trigger *
find_trigger(Relation rel)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (strcmp(rel->trigdesc->triggers[i].tgname, GT_WAKE_TRIGGER) == 0 &&
			rel->trigdesc->triggers[i].tgfoid == wake_function())
			return &rel->trigdesc->triggers[i];
	return NULL;
}

bool
gt_wake_is_set(Relation rel)
{
	const Trigger *trigger = find_trigger(rel);

	return trigger != NULL &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN || trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

/* Is it of these columns, and of no others? Both are in order. */
static bool
is_of(const Trigger *trigger, int ttl, List *columns)
{
	ListCell   *lc;
	int			i = 0;

	if (trigger->tgnattr != list_length(columns) || trigger->tgnargs != 1 || atoi(trigger->tgargs[0]) != ttl)
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

	stmt->trigname = GT_WAKE_TRIGGER;
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
	address = CreateTrigger(statement(relation, ttl, columns), NULL, relation, InvalidOid, InvalidOid, InvalidOid,
							wake_function(), InvalidOid, NULL, false, false);
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
