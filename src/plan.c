/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  The commands of SQL handlers: parsed, typed, prepared, given their parameters.
 *
 * Workers, gt_reclaim() and gt_handler_create() run this, always as the
 * handler's role; it owns no table.  Plans are kept for the session, one per
 * handler, until the handler's row changes or a run fails with an error of
 * class 42: then the types of its parameters may have changed with the tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "garbagetruck.h"
#include "handler.h"

#define NPARAMS			9

/* $1 to $9: what they are in our tables, and in a set of them */
static const Oid natural_types[NPARAMS] = {
	TEXTOID, TEXTOID, JSONBOID, JSONBOID, UUIDOID, TEXTOID, INT8OID, INT4OID, INT8OID
};
static const Oid batch_types[NPARAMS] = {
	TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID, UUIDARRAYOID, TEXTARRAYOID,
	INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID
};

/* How a value of a natural type becomes one of the type that the statement wants. */
typedef struct Conversion
{
	Oid			type;			/* wanted */
	bool		needed;			/* else the value is passed as it is */
	bool		snapshot;		/* its input function may be anybody's, and read tables */
	FmgrInfo	out;
	FmgrInfo	in;
	Oid			in_param;
} Conversion;

/* A prepared command; in a hash table by id, to the end of the session. */
struct GtPlan
{
	int			id;				/* of the handler: the hash key */
	int			version;
	TransactionId xmin;
	SPIPlanPtr	plan;			/* NULL: not prepared */
	Conversion	conversion[NPARAMS];	/* of kind sql */
	MemoryContext context;		/* of the conversions */
};

static HTAB *plans = NULL;

/* ---------------------------------------------------------------- parsing */

/* What a statement that is refused is called. */
static const char *
statement_name(RawStmt *statement)
{
	if (IsA(statement->stmt, SelectStmt))
		return "SELECT INTO";
	return GetCommandTagName(CreateCommandTag((Node *) statement));
}

/* Could a function do it? Not what controls transactions, or wants none around it. */
static bool
runs_in_function(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_TransactionStmt:
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_CreateTableSpaceStmt:
		case T_DropTableSpaceStmt:
		case T_AlterSystemStmt:
			return false;
		case T_VacuumStmt:
			return !((VacuumStmt *) statement)->is_vacuumcmd;	/* ANALYZE can */
		default:
			return true;
	}
}

/* The one statement of the command, unless it is of a kind that no handler may be. */
static RawStmt *
parse_command(const GtHandler *h)
{
	List	   *statements = pg_parse_query(h->command);
	RawStmt    *statement;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("command of handler \"%s\" has %d statements, it must have one", h->name,
						list_length(statements))));
	statement = linitial_node(RawStmt, statements);
	switch (nodeTag(statement->stmt))
	{
		case T_SelectStmt:
			{
				SelectStmt *select = (SelectStmt *) statement->stmt;

				/* SELECT INTO, also where it hides in the first arm of a UNION, makes a table */
				while (select->larg != NULL)
					select = select->larg;
				if (select->intoClause == NULL)
					return statement;
				break;
			}
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
		case T_CallStmt:
			return statement;
		default:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("command of handler \"%s\" must not be %s", h->name, statement_name(statement)),
			 errdetail("It must be one SELECT, INSERT, UPDATE, DELETE, MERGE or CALL."),
			 runs_in_function(statement->stmt) ?
			 errhint("Wrap it in a function or procedure, and let the handler SELECT or CALL that.") :
			 errhint("No handler can run it: each run is part of a transaction.")));
	return NULL;				/* keep compiler quiet */
}

/* An error in the command points into the command, not into the caller's query. */
static void
point_into_command(void *command)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(command);
	}
}

/* Analyses a command with these types, InvalidOid being to be inferred. */
static void
infer_types(const GtHandler *h, const Oid *preset, Oid *types)
{
	Oid		   *found = palloc(NPARAMS * sizeof(Oid));
	int			n = NPARAMS;
	int			i;
	ErrorContextCallback callback;

	callback.callback = point_into_command;
	callback.arg = h->command;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	memcpy(found, preset, NPARAMS * sizeof(Oid));
	(void) parse_analyze_varparams(parse_command(h), h->command, &found, &n, NULL);
	error_context_stack = callback.previous;
	if (n > NPARAMS)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("there is no parameter $%d", n),
				 errdetail("The parameters of a handler are $1 to $%d.", NPARAMS)));
	for (i = 0; i < NPARAMS; i++)
		types[i] = OidIsValid(found[i]) && found[i] != UNKNOWNOID ? found[i] : natural_types[i];
}

/* Could other types for the parameters mend this? */
static bool
is_about_types(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_AMBIGUOUS_FUNCTION:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_INDETERMINATE_DATATYPE:
		case ERRCODE_DATATYPE_MISMATCH:
		case ERRCODE_AMBIGUOUS_PARAMETER:
		case ERRCODE_CANNOT_COERCE:
		case ERRCODE_WRONG_OBJECT_TYPE:
			return true;
	}
	return false;
}

/*
 * The same, the error if there is one being returned, in the caller's memory, and
 * not raised.
 */
static ErrorData *
try_types(const GtHandler *h, const Oid *preset, Oid *types)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		infer_types(h, preset, types);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * A bigint that was inferred to be an integer ($7 > 0) would not hold its value:
 * it stays one wherever the statement allows that.
 */
static void
widen_types(const GtHandler *h, Oid *types)
{
	Oid			preset[NPARAMS];
	Oid			wider[NPARAMS];
	int			i;

	for (i = 0; i < NPARAMS; i++)
	{
		if (natural_types[i] != INT8OID || (types[i] != INT4OID && types[i] != INT2OID))
			continue;
		memcpy(preset, types, sizeof(preset));
		preset[i] = INT8OID;
		if (try_types(h, preset, wider) == NULL)
			types[i] = INT8OID;
	}
}

/*
 * The types of $1 to $9.  They are inferred from the statement; where that
 * leaves an operator open ($3->>'key'), again with payload and metadata known
 * to be jsonb, and last with all as in the table of kinds.  The error, if none
 * will do, is the first.
 */
static void
choose_types(const GtHandler *h, Oid *types)
{
	static const bool fixed[3][NPARAMS] = {
		{false, false, false, false, false, false, false, false, false},
		{false, false, true, true, false, false, false, false, false},
		{true, true, true, true, true, true, true, true, true}
	};
	ErrorData  *first = NULL;
	int			attempt;

	if (h->kind == GT_KIND_SQL_BATCH)
	{
		infer_types(h, batch_types, types);
		return;
	}
	for (attempt = 0; attempt < 3; attempt++)
	{
		Oid			preset[NPARAMS];
		ErrorData  *error;
		int			i;

		for (i = 0; i < NPARAMS; i++)
			preset[i] = fixed[attempt][i] ? natural_types[i] : InvalidOid;
		error = try_types(h, preset, types);
		if (error == NULL)
		{
			widen_types(h, types);
			return;
		}
		if (first == NULL)
			first = error;
		if (!is_about_types(error->sqlerrcode))
			break;
	}
	ReThrowError(first);
}

void
gt_plan_check(const GtHandler *h)
{
	Oid			types[NPARAMS];

	choose_types(h, types);
}

/* ---------------------------------------------------------------- plans */

void
gt_plan_forget(GtPlan *plan)
{
	if (plan->plan != NULL)
		SPI_freeplan(plan->plan);
	plan->plan = NULL;
	if (plan->context != NULL)
		MemoryContextDelete(plan->context);
	plan->context = NULL;
}

GtPlan *
gt_plan_find(const GtHandler *h)
{
	bool		found;
	GtPlan	   *plan;

	if (plans == NULL)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(GtPlan);
		plans = hash_create("garbagetruck plans", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	plan = hash_search(plans, &h->id, HASH_ENTER, &found);
	if (!found)
		memset((char *) plan + sizeof(int), 0, sizeof(GtPlan) - sizeof(int));
	if (plan->version != h->version || !TransactionIdEquals(plan->xmin, h->xmin))
		gt_plan_forget(plan);
	plan->version = h->version;
	plan->xmin = h->xmin;
	return plan;
}

static void
prepare_conversions(GtPlan *plan, const Oid *types)
{
	int			i;

	plan->context = AllocSetContextCreate(CacheMemoryContext, "garbagetruck conversions", ALLOCSET_SMALL_SIZES);
	for (i = 0; i < NPARAMS; i++)
	{
		Conversion *c = &plan->conversion[i];
		Oid			function;
		bool		is_varlena;

		c->type = types[i];
		c->needed = types[i] != natural_types[i];
		c->snapshot = types[i] >= FirstNormalObjectId;
		if (!c->needed)
			continue;
		getTypeOutputInfo(natural_types[i], &function, &is_varlena);
		fmgr_info_cxt(function, &c->out, plan->context);
		getTypeInputInfo(types[i], &function, &c->in_param);
		fmgr_info_cxt(function, &c->in, plan->context);
	}
}

/* In the run's subtransaction, connected to the SPI. */
void
gt_plan_prepare(GtPlan *plan, const GtHandler *h)
{
	Oid			types[NPARAMS];

	if (plan->plan != NULL)
		return;
	gt_plan_forget(plan);
	PushActiveSnapshot(GetTransactionSnapshot());
	choose_types(h, types);
	prepare_conversions(plan, types);
	plan->plan = SPI_prepare(h->command, NPARAMS, types);
	if (plan->plan == NULL)
		elog(ERROR, "could not prepare the command of handler \"%s\": %s", h->name,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan->plan) != 0)
		elog(ERROR, "could not keep the plan of handler \"%s\"", h->name);
	PopActiveSnapshot();
}

/* ---------------------------------------------------------------- parameters */

/* $1 to $9 of one item, in their natural types. */
static void
natural_values(const GtItem *item, Datum *values, bool *isnull)
{
	static const int attributes[7] = {
		O_OBJECT_ID, O_OBJECT_TYPE, O_PAYLOAD, O_METADATA, O_LEASE_ID, O_SERVICE_ID, O_FENCE
	};
	int			i;

	for (i = 0; i < 7; i++)
	{
		values[i] = item->row.v[attributes[i]];
		isnull[i] = item->row.isnull[attributes[i]];
	}
	values[7] = Int32GetDatum(item->attempt);
	values[8] = Int64GetDatum(item->cleanup_id);
	isnull[7] = isnull[8] = false;
}

static ParamListInfo
params_of_item(GtPlan *plan, const GtItem *item)
{
	ParamListInfo params = makeParamList(NPARAMS);
	Datum		values[NPARAMS];
	bool		isnull[NPARAMS];
	int			i;

	natural_values(item, values, isnull);
	for (i = 0; i < NPARAMS; i++)
	{
		Conversion *c = &plan->conversion[i];
		ParamExternData *param = &params->params[i];

		param->ptype = c->type;
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = isnull[i];
		param->value = values[i];
		if (!c->needed)
			continue;
		if (c->snapshot)
			PushActiveSnapshot(GetTransactionSnapshot());
		/* NULL too: a domain may not allow it */
		param->value = InputFunctionCall(&c->in, isnull[i] ? NULL : OutputFunctionCall(&c->out, values[i]),
										 c->in_param, -1);
		if (c->snapshot)
			PopActiveSnapshot();
	}
	return params;
}

static ParamListInfo
params_of_set(const GtItem *items, int n)
{
	ParamListInfo params = makeParamList(NPARAMS);
	ArrayBuildState *arrays[NPARAMS];
	Datum		values[NPARAMS];
	bool		isnull[NPARAMS];
	int			i;
	int			p;

	for (p = 0; p < NPARAMS; p++)
		arrays[p] = initArrayResult(natural_types[p], CurrentMemoryContext, false);
	for (i = 0; i < n; i++)
	{
		natural_values(&items[i], values, isnull);
		for (p = 0; p < NPARAMS; p++)
			arrays[p] = accumArrayResult(arrays[p], values[p], isnull[p], natural_types[p], CurrentMemoryContext);
	}
	for (p = 0; p < NPARAMS; p++)
	{
		params->params[p].ptype = batch_types[p];
		params->params[p].pflags = PARAM_FLAG_CONST;
		params->params[p].isnull = false;
		params->params[p].value = makeArrayResult(arrays[p], CurrentMemoryContext);
	}
	return params;
}

ParamListInfo
gt_plan_params(GtPlan *plan, const GtHandler *h, const GtItem *items, int n)
{
	return h->kind == GT_KIND_SQL_BATCH ? params_of_set(items, n) : params_of_item(plan, items);
}

SPIPlanPtr
gt_plan_spi(GtPlan *plan)
{
	return plan->plan;
}
