/*-------------------------------------------------------------------------
 *
 * command.c
 *	  The command of an SQL handler: what it may be, and the types of its parameters.
 *
 * Workers, gt_reclaim() and gt_handler_create() run this, always as the handler's
 * role.  Nothing is kept here, and nothing run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"

#include "base/transaction.h"
#include "handler/command.h"

const Oid gt_natural_types[GT_NPARAMS] = {
	TEXTOID, TEXTOID, JSONBOID, JSONBOID, UUIDOID, TEXTOID, INT8OID, INT4OID, INT8OID
};
const Oid gt_batch_types[GT_NPARAMS] = {
	TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID, UUIDARRAYOID, TEXTARRAYOID,
	INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID
};

/* As the scanner reads them. */
uint32
gt_command_mentions(const char *command)
{
	uint32		result = 0;
	const char *c;

	for (c = strchr(command, '$'); c != NULL; c = strchr(c + 1, '$'))
	{
		int			number = (int) strtol(c + 1, NULL, 10);

		if (number >= 1 && number <= GT_NPARAMS)
			result |= GT_MENTIONS(number);
	}
	return result;
}

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
	Oid		   *found = palloc(GT_NPARAMS * sizeof(Oid));
	int			n = GT_NPARAMS;
	int			i;
	ErrorContextCallback callback;

	callback.callback = point_into_command;
	callback.arg = h->command;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	memcpy(found, preset, GT_NPARAMS * sizeof(Oid));
	(void) parse_analyze_varparams(parse_command(h), h->command, &found, &n, NULL);
	error_context_stack = callback.previous;
	if (n > GT_NPARAMS)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("there is no parameter $%d", n),
				 errdetail("The parameters of a handler are $1 to $%d.", GT_NPARAMS)));
	for (i = 0; i < GT_NPARAMS; i++)
		types[i] = OidIsValid(found[i]) && found[i] != UNKNOWNOID ? found[i] : gt_natural_types[i];
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
	Oid			preset[GT_NPARAMS];
	Oid			wider[GT_NPARAMS];
	int			i;

	for (i = 0; i < GT_NPARAMS; i++)
	{
		if (gt_natural_types[i] != INT8OID || (types[i] != INT4OID && types[i] != INT2OID))
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
void
gt_command_types(const GtHandler *h, Oid *types)
{
	static const bool fixed[3][GT_NPARAMS] = {
		{false, false, false, false, false, false, false, false, false},
		{false, false, true, true, false, false, false, false, false},
		{true, true, true, true, true, true, true, true, true}
	};
	ErrorData  *first = NULL;
	int			attempt;

	if (h->kind == GT_KIND_SQL_BATCH)
	{
		infer_types(h, gt_batch_types, types);
		return;
	}
	for (attempt = 0; attempt < 3; attempt++)
	{
		Oid			preset[GT_NPARAMS];
		ErrorData  *error;
		int			i;

		for (i = 0; i < GT_NPARAMS; i++)
			preset[i] = fixed[attempt][i] ? gt_natural_types[i] : InvalidOid;
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
gt_command_check(const GtHandler *h)
{
	Oid			types[GT_NPARAMS];
	Oid			same[GT_NPARAMS];
	ErrorData  *error;

	check_tells(h);
	gt_command_types(h, types);
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
