/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  gt_ack(), gt_nack(), gt_extend(), gt_ack_many(): what the caller says of
 *	  attempts that it has made.
 *
 * Sessions run these, in the caller's transaction: what is said counts when that
 * commits.  An object's row is found by cleanup_id in its latest committed
 * state, locked, and the token judged again under the lock; several are locked
 * in the order of their objects, as everywhere.
 *
 * A token is current while its attempt is the newest and unanswered.  For kind
 * notify the attempt that was announced and nobody has claimed is current too.
 * Of dead garbage the last attempt is, for gt_ack() alone: that discards it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "garbagetruck.h"
#include "observe.h"
#include "queue.h"

PG_FUNCTION_INFO_V1(gt_ack);
PG_FUNCTION_INFO_V1(gt_nack);
PG_FUNCTION_INFO_V1(gt_extend);
PG_FUNCTION_INFO_V1(gt_ack_many);

#define FLIGHT			USECS_PER_HOUR	/* after claimed_until, as in claim.c */
#define MAX_VISIBILITY	(30 * USECS_PER_DAY)

/* Rows of gt__tally that sessions write: beyond those of the workers' slots. */
#define SESSION_TALLIES	16

/* ---------------------------------------------------------------- arguments */

void
gt_need_value(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

int
gt_int8_array(ArrayType *array, int64 **values)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			count = 0;
	int			i;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &n);
	*values = palloc(Max(n, 1) * sizeof(int64));
	for (i = 0; i < n; i++)
		if (!nulls[i])
			(*values)[count++] = DatumGetInt64(elements[i]);
	return count;
}

/* An interval between `low` and `high` microseconds. */
static int64
bounded_interval(Interval *i, const char *name, int64 low, int64 high, const char *range)
{
	bool		ok;
	int64		us = gt_interval_us(i, &ok);

	if (!ok || us < low || us > high)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" is out of range", name,
						DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(i)))),
				 errdetail("It is %s.", range)));
	return us;
}

int64
gt_visibility(Interval *i)
{
	return bounded_interval(i, "visibility", 1, MAX_VISIBILITY, "more than 0 and at most 30 days");
}

/* ---------------------------------------------------------------- handlers and rights */

static void
check_claim_right(const GtHandler *h)
{
	if (!gt_handler_may_claim(h))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for handler \"%s\"", h->name),
				 errdetail("Its queue is for its owner and roles that were granted \"claim\"."),
				 errhint("Its owner can: SELECT gt_handler_grant(%s, %s, 'claim');",
						 quote_literal_cstr(h->name), quote_literal_cstr(gt_role_name(GetUserId())))));
}

/* The handler with this name, whose garbage the caller may claim. */
GtHandler *
gt_claim_handler(const char *name)
{
	GtHandler  *h = palloc0(sizeof(GtHandler));

	if (!gt_handler_by_name(name, h))
		ereport(ERROR,
				(errcode(ERRCODE_GT_NO_HANDLER),
				 errmsg("handler \"%s\" does not exist", name)));
	check_claim_right(h);
	return h;
}

static bool
has_handler(List *handlers, int id)
{
	ListCell   *lc;

	foreach(lc, handlers)
		if (((GtHandler *) lfirst(lc))->id == id)
			return true;
	return false;
}

List *
gt_claimable_handlers(ArrayType *names)
{
	List	   *result = NIL;
	ListCell   *lc;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	if (names == NULL)
	{
		foreach(lc, gt_handler_list())
		{
			GtHandler  *h = lfirst(lc);

			if (GT_KIND_IS_CLAIMABLE(h->kind) && gt_handler_may_claim(h))
				result = lappend(result, h);
		}
		return result;
	}

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i < n; i++)
	{
		GtHandler  *h;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("handlers must not hold null")));
		h = gt_claim_handler(TextDatumGetCString(elements[i]));
		if (!GT_KIND_IS_CLAIMABLE(h->kind))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("garbage of handler \"%s\" can not be claimed", h->name),
					 errdetail("It is of kind \"%s\", which the workers run.", gt_kind_names[h->kind])));
		if (!has_handler(result, h->id))
			result = lappend(result, h);
	}
	return result;
}

/* The handler of a row; the same again and again is looked up once. */
const GtHandler *
gt_claim_handler_of(const GtRow *row, List **known)
{
	ListCell   *lc;
	GtHandler  *h;

	foreach(lc, *known)
	{
		h = lfirst(lc);
		if (h->id == GT_INT32(row, O_HANDLER))
			return h;
	}
	h = palloc0(sizeof(GtHandler));
	if (!gt_handler_by_id(GT_INT32(row, O_HANDLER), h))
		elog(ERROR, "handler %d is missing", GT_INT32(row, O_HANDLER));
	*known = lappend(*known, h);
	check_claim_right(h);
	return h;
}

/* ---------------------------------------------------------------- outcomes, counted */

/* What claims of one handler came to in this call. */
typedef struct Outcome
{
	const GtHandler *h;
	int			runs;
	int			failures;
	const char *error;
} Outcome;

/* Takes a row of gt__tally that nobody has locked, to write it; false: all are busy. */
static bool
lock_tally(GtTable *tallies, int handler, GtRow *row)
{
	int			i;

	for (i = 0; i < SESSION_TALLIES; i++)
	{
		Datum		key[2];

		key[0] = Int32GetDatum(handler);
		key[1] = Int32GetDatum(GT_MAX_WORKERS + (gt_my_procno() + i) % SESSION_TALLIES);
		for (;;)
		{
			GtLockResult result = gt_fetch_lock(tallies, GT__TALLY_PKEY, 2, key, row, LockTupleNoKeyExclusive, true);

			if (result == GT_LOCKED)
				return true;
			if (result == GT_BUSY)
				break;
			gt_row_init(row);
			GT_SET(row, T_HANDLER, key[0]);
			GT_SET(row, T_SLOT, key[1]);
			GT_SET(row, T_RUNS, Int64GetDatum(0));
			GT_SET(row, T_FAILURES, Int64GetDatum(0));
			(void) gt_insert_unique(tallies, row, GT__TALLY_PKEY);
		}
	}
	return false;
}

/* Adds to what gt_handlers shows. Left out when it would have to wait for others: it is for people's eyes. */
static void
tally(const Outcome *outcome)
{
	GtTable		tallies;
	GtRow		row;
	Datum		now = TimestampTzGetDatum(gt_now());

	gt_open(&tallies, GT__TALLY, RowExclusiveLock);
	if (lock_tally(&tallies, outcome->h->id, &row))
	{
		GT_SET(&row, T_RUNS, Int64GetDatum(GT_INT64(&row, T_RUNS) + outcome->runs));
		GT_SET(&row, T_FAILURES, Int64GetDatum(GT_INT64(&row, T_FAILURES) + outcome->failures));
		GT_SET(&row, T_LAST_RUN_AT, now);
		if (outcome->error != NULL)
		{
			int			len = strlen(outcome->error);

			GT_SET(&row, T_LAST_ERROR,
				   PointerGetDatum(cstring_to_text_with_len(outcome->error, pg_mbcliplen(outcome->error, len, 4000))));
			GT_SET(&row, T_LAST_ERROR_AT, now);
		}
		gt_update(&tallies, &row);
	}
	gt_close(&tallies);
}

/* ---------------------------------------------------------------- tokens */

/* Has the newest attempt been made by a claim that nobody has answered? */
static bool
is_unanswered(const GtRow *row, int attempt)
{
	return attempt == GT_INT32(row, O_ATTEMPTS) &&
		(GT_CHAR(row, O_STATE) == 'c' || !row->isnull[O_FLIGHT_UNTIL]);
}

/* Is it the attempt that a notification tells of? */
static bool
is_announced(const GtRow *row, const GtHandler *h, int attempt)
{
	return h->kind == GT_KIND_NOTIFY && GT_CHAR(row, O_STATE) == 'w' && attempt == GT_INT32(row, O_ATTEMPTS) + 1;
}

static bool
is_current(const GtRow *row, const GtHandler *h, int64 cleanup_id, int attempt)
{
	return !row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == cleanup_id &&
		(is_unanswered(row, attempt) || is_announced(row, h, attempt));
}

/* gt_ack() of a locked row; false: stale. */
static bool
acknowledge(GtTable *objects, GtRow *row, const GtHandler *h, int64 cleanup_id, int attempt)
{
	if (is_current(row, h, cleanup_id, attempt))
	{
		gt_garbage_done(objects, row, h, attempt, -1);
		gt_observe_cleanup(h, true, -1, -1);
		return true;
	}
	if (!row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == cleanup_id &&
		GT_CHAR(row, O_STATE) == 'd' && attempt == GT_INT32(row, O_ATTEMPTS))
	{
		gt_history_add("discarded", row, h->name, attempt, -1, -1, NULL);
		gt_garbage_remove(objects, row);
		return true;
	}
	return false;
}

/* What the three functions on one token begin with: the row, locked. false: there is no such garbage. */
static bool
begin_token(FunctionCallInfo fcinfo, const char *function, GtTable *objects, GtRow *row, const GtHandler **h)
{
	List	   *known = NIL;
	Datum		key;

	gt_mark_write(function);
	gt_need_value(fcinfo, 0, "cleanup_id");
	gt_need_value(fcinfo, 1, "attempt");
	gt_start_ensure();
	key = PG_GETARG_DATUM(0);
	gt_open(objects, GT_OBJECT, RowExclusiveLock);
	if (!gt_fetch(objects, GT_OBJECT_CLEANUP, 1, &key, row) || row->isnull[O_HANDLER])
		return false;
	*h = gt_claim_handler_of(row, &known);
	return gt_lock(objects, row, LockTupleNoKeyExclusive, false) == GT_LOCKED;
}

Datum
gt_ack(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtRow		row;
	const GtHandler *h;
	bool		result = false;

	if (begin_token(fcinfo, "gt_ack", &objects, &row, &h))
	{
		bool		ran = GT_CHAR(&row, O_STATE) != 'd' || !row.isnull[O_FLIGHT_UNTIL];

		result = acknowledge(&objects, &row, h, PG_GETARG_INT64(0), PG_GETARG_INT32(1));
		if (result && ran)
		{
			Outcome		outcome = {h, 1, 0, NULL};

			tally(&outcome);
		}
	}
	gt_close(&objects);
	PG_RETURN_BOOL(result);
}

Datum
gt_nack(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtRow		row;
	const GtHandler *h;
	int64		retry_after = -1;
	bool		result = false;
	char	   *error;

	gt_need_value(fcinfo, 2, "error");
	error = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (!PG_ARGISNULL(3))
		retry_after = bounded_interval(PG_GETARG_INTERVAL_P(3), "retry_after", 0, MAX_VISIBILITY,
									   "not negative and at most 30 days");
	if (begin_token(fcinfo, "gt_nack", &objects, &row, &h) &&
		is_current(&row, h, PG_GETARG_INT64(0), PG_GETARG_INT32(1)))
	{
		Outcome		outcome = {h, 1, 1, error};

		gt_garbage_failed(&objects, &row, h, PG_GETARG_INT32(1), error, retry_after, -1);
		gt_observe_cleanup(h, false, -1, -1);
		tally(&outcome);
		result = true;
	}
	gt_close(&objects);
	PG_RETURN_BOOL(result);
}

Datum
gt_extend(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtRow		row;
	const GtHandler *h;
	int64		visibility;
	bool		result = false;

	gt_need_value(fcinfo, 2, "visibility");
	visibility = gt_visibility(PG_GETARG_INTERVAL_P(2));
	if (begin_token(fcinfo, "gt_extend", &objects, &row, &h) &&
		GT_INT32(&row, O_ATTEMPTS) > 0 &&
		!row.isnull[O_CLEANUP_ID] && GT_INT64(&row, O_CLEANUP_ID) == PG_GETARG_INT64(0) &&
		is_unanswered(&row, PG_GETARG_INT32(1)))
	{
		TimestampTz until = gt_now() + visibility;

		/* a late one takes a lapsed claim up again, as long as nobody else has it */
		if (GT_CHAR(&row, O_STATE) == 'd')
			gt_observe_gauges(0, 0, -1);
		GT_SET(&row, O_STATE, CharGetDatum('c'));
		GT_SET(&row, O_CLAIMED_UNTIL, TimestampTzGetDatum(until));
		GT_SET(&row, O_DUE_AT, TimestampTzGetDatum(until));
		GT_SET(&row, O_FLIGHT_UNTIL, TimestampTzGetDatum(until + FLIGHT));
		gt_update(&objects, &row);
		if (h->kind == GT_KIND_NOTIFY)
			gt_due_after_commit(until);
		result = true;
	}
	gt_close(&objects);
	PG_RETURN_BOOL(result);
}

/* ---------------------------------------------------------------- many at once */

static int
compare_text(Datum a, Datum b)
{
	text	   *x = DatumGetTextPP(a);
	text	   *y = DatumGetTextPP(b);
	int			xlen = VARSIZE_ANY_EXHDR(x);
	int			ylen = VARSIZE_ANY_EXHDR(y);
	int			order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(xlen, ylen));

	return order != 0 ? order : xlen - ylen;
}

/* In the order in which objects are locked everywhere. */
int
gt_token_order(const void *a, const void *b)
{
	const GtRow *x = &(*(GtToken *const *) a)->row;
	const GtRow *y = &(*(GtToken *const *) b)->row;
	int			order = compare_text(x->v[O_OBJECT_TYPE], y->v[O_OBJECT_TYPE]);

	return order != 0 ? order : compare_text(x->v[O_OBJECT_ID], y->v[O_OBJECT_ID]);
}

GtToken *
gt_fetch_token(GtTable *objects, int64 cleanup_id, int attempt)
{
	GtToken	   *token = palloc(sizeof(GtToken));
	Datum		key = Int64GetDatum(cleanup_id);

	token->cleanup_id = cleanup_id;
	token->attempt = attempt;
	if (gt_fetch(objects, GT_OBJECT_CLEANUP, 1, &key, &token->row) && !token->row.isnull[O_HANDLER])
		return token;
	pfree(token);
	return NULL;
}

static Outcome *
outcome_of(List **outcomes, const GtHandler *h)
{
	ListCell   *lc;
	Outcome    *outcome;

	foreach(lc, *outcomes)
	{
		outcome = lfirst(lc);
		if (outcome->h == h)
			return outcome;
	}
	outcome = palloc0(sizeof(Outcome));
	outcome->h = h;
	*outcomes = lappend(*outcomes, outcome);
	return outcome;
}

/* The arrays of gt_ack_many: as many attempts as cleanup ids. */
static int
parse_tokens(FunctionCallInfo fcinfo, GtTable *objects, GtToken ***tokens)
{
	Datum	   *ids;
	Datum	   *attempts;
	bool	   *id_nulls;
	bool	   *attempt_nulls;
	int			n;
	int			nattempts;
	int			count = 0;
	int			i;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &ids, &id_nulls, &n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &attempts, &attempt_nulls, &nattempts);
	if (n != nattempts)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d cleanup_ids, but %d attempts", n, nattempts),
				 errdetail("Each cleanup_id needs its attempt, in the same place.")));
	*tokens = palloc(Max(n, 1) * sizeof(GtToken *));
	for (i = 0; i < n; i++)
	{
		GtToken	   *token;

		if (id_nulls[i] || attempt_nulls[i])
			continue;
		token = gt_fetch_token(objects, DatumGetInt64(ids[i]), DatumGetInt32(attempts[i]));
		if (token != NULL)
			(*tokens)[count++] = token;
	}
	qsort(*tokens, count, sizeof(GtToken *), gt_token_order);
	return count;
}

Datum
gt_ack_many(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtToken   **tokens;
	List	   *known = NIL;
	List	   *outcomes = NIL;
	ListCell   *lc;
	int64		done = 0;
	int			n;
	int			i;

	gt_mark_write("gt_ack_many");
	gt_need_value(fcinfo, 0, "cleanup_ids");
	gt_need_value(fcinfo, 1, "attempts");
	gt_start_ensure();
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	n = parse_tokens(fcinfo, &objects, &tokens);
	for (i = 0; i < n; i++)
	{
		GtToken	   *token = tokens[i];
		const GtHandler *h = gt_claim_handler_of(&token->row, &known);

		CHECK_FOR_INTERRUPTS();
		if (gt_lock(&objects, &token->row, LockTupleNoKeyExclusive, false) == GT_LOCKED &&
			acknowledge(&objects, &token->row, h, token->cleanup_id, token->attempt))
		{
			outcome_of(&outcomes, h)->runs++;
			done++;
		}
	}
	gt_close(&objects);
	foreach(lc, outcomes)
		tally(lfirst(lc));
	PG_RETURN_INT64(done);
}
