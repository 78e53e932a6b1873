/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  The commands of SQL handlers: parsed, typed, prepared, given their parameters.
 *
 * Workers, gt_reclaim() and gt_handler_create() run this, always as the
 * handler's role; it owns no table.  Plans are kept for the session, one per
 * handler, until the handler's row changes or goes, something that its command
 * uses changes (then the types of its parameters may have, too), or too many others
 * have been used since: they take many times the memory of their commands.
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
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/transaction.h"
#include "handler/plan.h"
#include "handler/run.h"
#include "shared/clock.h"

#define NPARAMS			9
#define MAX_PLANS		64		/* that are kept, */
#define MAX_PLAN_BYTES	(512 * 1024)	/* of so much text of commands in all */

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

/* A prepared command, in its place of the table. */
struct GtPlan
{
	int			id;				/* of the handler; 0: free */
	uint64		used;			/* grows with each use of any of them */
	size_t		bytes;			/* of its command */
	int			version;
	TransactionId xmin;
	SPIPlanPtr	plan;			/* NULL: not prepared */
	Conversion	conversion[NPARAMS];	/* of kind sql */
	MemoryContext context;		/* of the conversions */
};

static GtPlan plans[MAX_PLANS];

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

/* What infer_types() is to be called with. */
typedef struct Inference
{
	const GtHandler *h;
	const Oid  *preset;
	Oid		   *types;
} Inference;

static void
infer(void *arg)
{
	Inference  *i = arg;

	infer_types(i->h, i->preset, i->types);
}

/* The same, the error if there is one being returned, in the caller's memory, and not raised; but a cancellation is. */
static ErrorData *
try_types(const GtHandler *h, const Oid *preset, Oid *types)
{
	Inference	inference = {h, preset, types};

	return gt_try(infer, &inference);
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

/* A statement that does not say whether it has affected something can not be held to it. */
static void
check_tells(const GtHandler *h)
{
	if (h->must_affect && IsA(parse_command(h)->stmt, CallStmt))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("must_affect is not for CALL: it does not tell what it has affected"),
				 errhint("Let a function return whether it has, and SELECT that.")));
}

/*
 * The types that are chosen must do: a parameter whose type the statement leaves
 * unknown is given one, which it may not be able to take.
 */
void
gt_plan_check(const GtHandler *h)
{
	Oid			types[NPARAMS];
	Oid			same[NPARAMS];
	ErrorData  *error;

	check_tells(h);
	choose_types(h, types);
	error = try_types(h, types, same);
	if (error != NULL && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTERNAL_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the types of the parameters of handler \"%s\"", h->name),
				 errdetail("%s.", error->message),
				 errhint("Cast them: $1::text.")));
	if (error != NULL)
		ReThrowError(error);
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

static void
drop_plan(GtPlan *plan)
{
	gt_plan_forget(plan);
	memset(plan, 0, sizeof(GtPlan));
}

/* A free place with room for so much text; those that were not used for longest go. */
static GtPlan *
make_room(size_t bytes)
{
	for (;;)
	{
		GtPlan	   *unused = NULL;
		GtPlan	   *oldest = NULL;
		size_t		total = bytes;
		int			i;

		for (i = 0; i < MAX_PLANS; i++)
		{
			total += plans[i].bytes;
			if (plans[i].id == 0)
				unused = &plans[i];
			else if (oldest == NULL || plans[i].used < oldest->used)
				oldest = &plans[i];
		}
		if (oldest == NULL || (unused != NULL && total <= MAX_PLAN_BYTES))
			return unused;
		drop_plan(oldest);
	}
}

GtPlan *
gt_plan_find(const GtHandler *h)
{
	static uint64 uses = 0;
	GtPlan	   *plan = NULL;
	int			i;

	for (i = 0; i < MAX_PLANS && plan == NULL; i++)
		if (plans[i].id == h->id)
			plan = &plans[i];
	if (plan != NULL && (plan->version != h->version || !TransactionIdEquals(plan->xmin, h->xmin)))
	{
		drop_plan(plan);
		plan = NULL;
	}
	if (plan == NULL)
		plan = make_room(strlen(h->command));
	plan->id = h->id;
	plan->bytes = strlen(h->command);
	plan->version = h->version;
	plan->xmin = h->xmin;
	plan->used = ++uses;
	return plan;
}

void
gt_plans_keep(void)
{
	static TimestampTz looked_at = 0;
	TimestampTz now = gt_now();
	int			i;

	if (now < looked_at + USECS_PER_SEC)
		return;
	looked_at = now;
	for (i = 0; i < MAX_PLANS; i++)
	{
		GtHandler	h;

		if (plans[i].id != 0 && (!gt_handler_by_id(plans[i].id, &h) || h.version != plans[i].version ||
								 !TransactionIdEquals(h.xmin, plans[i].xmin)))
			drop_plan(&plans[i]);
	}
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

	/* what it uses has changed: its parameters may be of other types now */
	AcceptInvalidationMessages();
	if (plan->plan != NULL && SPI_plan_is_valid(plan->plan))
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
