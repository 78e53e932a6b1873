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
 * gt_ack() knows others: what is at rest is discarded by them, see garbage.c.
 * What a worker has locked is at work, and stays: it is not waited for.
 *
 * Cleanup ids are numbers that anybody can count through.  So one that the
 * caller may not claim is answered like one that does not exist: nothing is
 * locked, nothing waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/arguments.h"
#include "garbage/garbage.h"
#include "garbage/order.h"
#include "handler/tally.h"
#include "handler/use.h"
#include "lease/created.h"
#include "lease/start.h"
#include "queue/queue.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "table/scan.h"
#include "ttl/ttl.h"

PG_FUNCTION_INFO_V1(gt_ack);
PG_FUNCTION_INFO_V1(gt_nack);
PG_FUNCTION_INFO_V1(gt_extend);
PG_FUNCTION_INFO_V1(gt_ack_many);

#define MAX_VISIBILITY	(30 * USECS_PER_DAY)

/* ---------------------------------------------------------------- arguments */

int64
gt_visibility_argument(FunctionCallInfo fcinfo, int arg)
{
	return gt_interval_argument(fcinfo, arg, "visibility", 1, MAX_VISIBILITY, "more than 0 and at most 30 days");
}

/* ---------------------------------------------------------------- handlers and rights */

/* The handler with this name, whose garbage the caller may claim. */
GtHandler *
gt_claim_handler(const char *name)
{
	GtHandler  *h = palloc0(sizeof(GtHandler));

	if (!gt_handler_by_name(name, h))
		gt_no_such_handler(name);
	gt_must_claim_handler(h, NULL);
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

/* The caller's own that have garbage waiting or claimed: they are found by that, however many handlers there are. */
static List *
own_with_garbage(void)
{
	List	   *result = NIL;
	GtTable		objects;
	GtKey	   *keys;
	int			n;
	int			i;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	keys = gt_scan_keys(&objects, GT_OBJECT_DUE, &n);
	for (i = 0; i < n; i++)
	{
		GtHandler  *h = palloc0(sizeof(GtHandler));

		CHECK_FOR_INTERRUPTS();
		if (gt_handler_by_id((int) keys[i].key, h) && GT_KIND_IS_CLAIMABLE(h->kind) && gt_handler_is_own(h))
			result = lappend(result, h);
	}
	gt_close(&objects);
	return result;
}

List *
gt_claimable_handlers(ArrayType *names)
{
	List	   *result = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	if (names == NULL)
		return own_with_garbage();
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

typedef struct Known
{
	GtHandler	h;
	bool		may;
} Known;

/* A handler that is not known yet, in the memory context of what is. */
static Known *
learn(const GtRow *row, int id, GtKnown *known)
{
	Known	   *k = palloc0(sizeof(Known));
	bool		remember = true;

	if (gt_handler_by_id(id, &k->h))
		k->may = gt_handler_may_claim(&k->h);
	else if (gt_ttl_handler(id, &k->h))
		/* it stands for a row that could not be deleted */
		k->may = gt_acts_for(k->h.owner) || gt_is_admin();
	else
	{
		/* not remembered: whose garbage it is tells who may discard it */
		gt_handler_missing(id, &k->h);
		k->may = gt_acts_for(GT_OID(row, O_OWNER)) || gt_is_admin();
		remember = false;
	}
	if (remember)
		known->list = lappend(known->list, k);
	return k;
}

/* The same handler again and again is looked up once. */
const GtHandler *
gt_claim_handler_of(const GtRow *row, GtKnown *known)
{
	MemoryContext old;
	ListCell   *lc;
	Known	   *k;
	int			id;

	if (row->isnull[O_CLEANUP_ID] || row->isnull[O_HANDLER])
		return NULL;
	id = GT_INT32(row, O_HANDLER);
	foreach(lc, known->list)
	{
		k = lfirst(lc);
		if (k->h.id == id)
			return k->may ? &k->h : NULL;
	}
	old = MemoryContextSwitchTo(known->context);
	k = learn(row, id, known);
	MemoryContextSwitchTo(old);
	return k->may ? &k->h : NULL;
}

/* May the caller have this version of the garbage that the token names? What was known of rights is old after a wait. */
static bool
judge_token(const GtRow *row, void *arg)
{
	GtToken    *token = arg;

	if (token->judged)
		token->known->list = NIL;
	token->judged = true;
	token->h = gt_claim_handler_of(row, token->known);
	return token->h != NULL;
}

bool
gt_lock_token(GtTable *objects, GtToken *token)
{
	Datum		key = Int64GetDatum(token->cleanup_id);
	GtRow	   *row = &token->row;

	if (!gt_fetch_token(objects, token->cleanup_id, token->attempt, token->known, token))
		return false;
	if (GT_KIND_IS_CLAIMABLE(token->h->kind) || GT_CHAR(row, O_STATE) != GT_STATE_WAITING)
	{
		token->judged = false;
		return gt_fetch_lock_if(objects, GT_OBJECT_CLEANUP, 1, &key, row, LockTupleNoKeyExclusive, false,
								judge_token, token) == GT_LOCKED;
	}

	/* a worker may be at work on it, for as long as its handler's timeout: that is not waited for */
	return gt_lock(objects, row, LockTupleNoKeyExclusive, true) == GT_LOCKED &&
		!row->isnull[O_CLEANUP_ID] && GT_INT64(row, O_CLEANUP_ID) == token->cleanup_id &&
		gt_claim_handler_of(row, token->known) != NULL;
}

/* ---------------------------------------------------------------- tokens */

/* Has the newest attempt been made by a claim that nobody has answered? */
static bool
is_unanswered(const GtRow *row, int attempt)
{
	return attempt == GT_INT32(row, O_ATTEMPTS) &&
		(GT_CHAR(row, O_STATE) == GT_STATE_CLAIMED || !row->isnull[O_FLIGHT_UNTIL]);
}

/* Is it the attempt that a notification tells of? */
static bool
is_announced(const GtRow *row, const GtHandler *h, int attempt)
{
	return h->kind == GT_KIND_NOTIFY && GT_CHAR(row, O_STATE) == GT_STATE_WAITING && attempt == GT_INT32(row, O_ATTEMPTS) + 1;
}

static bool
is_current(const GtToken *token)
{
	return is_unanswered(&token->row, token->attempt) || is_announced(&token->row, token->h, token->attempt);
}

/* Has no consumer ever had a token of this garbage? */
static bool
is_untold(const GtToken *token)
{
	return !GT_KIND_IS_CLAIMABLE(token->h->kind) ||
		(GT_INT32(&token->row, O_ATTEMPTS) == 0 && GT_INT32(&token->row, O_SENDS) == 0);
}

/* Is it the token of garbage that nobody is at work on? See garbage.c. */
static bool
is_at_rest(const GtToken *token)
{
	int			attempts = GT_INT32(&token->row, O_ATTEMPTS);

	switch (GT_CHAR(&token->row, O_STATE))
	{
		case GT_STATE_WAITING:
			return token->attempt == attempts + 1 || (token->attempt == attempts && is_untold(token));
		case GT_STATE_DEAD:
			return token->attempt == attempts;
		default:
			return false;
	}
}

typedef enum Answer
{
	STALE, CLEANED, DISCARDED
} Answer;

/* gt_ack() of garbage that is locked. */
static Answer
acknowledge(GtTable *objects, GtToken *token)
{
	if (is_current(token))
	{
		gt_garbage_done(objects, &token->row, token->h, token->attempt, -1);
		gt_observe_cleanup(token->h->id, token->h->owner, true, -1, -1);
		return CLEANED;
	}
	if (is_at_rest(token))
	{
		gt_garbage_discarded(objects, &token->row, token->h);
		return DISCARDED;
	}
	return STALE;
}

/* What the three functions on one token begin with: its row, locked. false: there is no such garbage for the caller. */
static bool
begin_token(FunctionCallInfo fcinfo, const char *function, GtTable *objects, GtToken *token, GtKnown *known)
{
	gt_mark_write(function);
	gt_must_not_be_null(fcinfo, 0, "cleanup_id");
	gt_must_not_be_null(fcinfo, 1, "attempt");
	gt_start_ensure();
	gt_open(objects, GT_OBJECT, RowExclusiveLock);
	token->cleanup_id = PG_GETARG_INT64(0);
	token->attempt = PG_GETARG_INT32(1);
	token->known = known;
	return gt_lock_token(objects, token);
}

Datum
gt_ack(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtToken		token;
	GtKnown		known = {CurrentMemoryContext, NIL};
	Answer		answer = STALE;

	if (begin_token(fcinfo, "gt_ack", &objects, &token, &known))
		answer = acknowledge(&objects, &token);
	if (answer == CLEANED)
		gt_tally(token.h, 1, 0, NULL);
	gt_close(&objects);
	PG_RETURN_BOOL(answer != STALE);
}

/* gt_nack(cleanup_id, attempt, error, retry_after, final): failed; or, without an error, not tried */
Datum
gt_nack(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtToken		token;
	GtKnown		known = {CurrentMemoryContext, NIL};
	int64		retry_after = GT_BACK_OFF;
	char	   *error = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	bool		result;

	gt_must_not_be_null(fcinfo, 4, "final");
	if (PG_GETARG_BOOL(4))
		gt_must_not_be_null(fcinfo, 2, "error");	/* what is dead says why */
	if (!PG_ARGISNULL(3))
		retry_after = gt_interval_argument(fcinfo, 3, "retry_after", 0, MAX_VISIBILITY, "between 0 and 30 days");
	if (PG_GETARG_BOOL(4))
		retry_after = GT_FINAL;

	result = begin_token(fcinfo, "gt_nack", &objects, &token, &known) && is_current(&token);
	if (result && error == NULL)
		gt_garbage_not_now(&objects, &token.row, token.h, token.attempt, retry_after);
	else if (result)
	{
		gt_garbage_failed(&objects, &token.row, token.h, token.attempt, error, retry_after, -1);
		gt_observe_cleanup(token.h->id, token.h->owner, false, -1, -1);
		gt_tally(token.h, 1, 1, error);
	}
	gt_close(&objects);
	PG_RETURN_BOOL(result);
}

Datum
gt_extend(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtToken		token;
	GtKnown		known = {CurrentMemoryContext, NIL};
	int64		visibility;
	bool		result;

	visibility = gt_visibility_argument(fcinfo, 2);
	result = begin_token(fcinfo, "gt_extend", &objects, &token, &known) &&
		GT_INT32(&token.row, O_ATTEMPTS) > 0 && is_unanswered(&token.row, token.attempt);
	if (result)
	{
		TimestampTz until = gt_now() + visibility;

		/* a late one takes a lapsed claim up again, as long as nobody else has it */
		if (GT_CHAR(&token.row, O_STATE) == GT_STATE_DEAD)
			gt_observe_gauges(0, 0, -1);
		gt_garbage_claimed(&token.row, until, visibility);
		gt_update(&objects, &token.row);
		gt_commit_flushed();	/* until then the caller relies on it */
		gt_garbage_due(token.h, until);
	}
	gt_close(&objects);
	PG_RETURN_BOOL(result);
}

/* ---------------------------------------------------------------- many at once */

void
gt_token_keys_init(GtTokenKeys *keys)
{
	keys->context = CurrentMemoryContext;
	keys->n = 0;
	keys->room = 16;
	keys->v = palloc(keys->room * sizeof(GtTokenKey));
}

void
gt_token_keys_add(GtTokenKeys *keys, const GtRow *row, int attempt)
{
	MemoryContext old = MemoryContextSwitchTo(keys->context);
	char	   *type = TextDatumGetCString(row->v[O_OBJECT_TYPE]);
	GtTokenKey *key;

	if (keys->n > 0 && strcmp(type, keys->v[keys->n - 1].object_type) == 0)
	{
		pfree(type);
		type = keys->v[keys->n - 1].object_type;
	}
	if (keys->n == keys->room)
		keys->v = repalloc_huge(keys->v, (Size) (keys->room *= 2) * sizeof(GtTokenKey));
	key = &keys->v[keys->n++];
	key->cleanup_id = GT_INT64(row, O_CLEANUP_ID);
	key->attempt = attempt;
	key->object_type = type;
	key->object_id = TextDatumGetCString(row->v[O_OBJECT_ID]);
	MemoryContextSwitchTo(old);
}

static int
key_order(const void *a, const void *b)
{
	const GtTokenKey *x = a;
	const GtTokenKey *y = b;

	return gt_object_order(x->object_type, x->object_id, y->object_type, y->object_id);
}

void
gt_token_keys_sort(GtTokenKeys *keys)
{
	qsort(keys->v, keys->n, sizeof(GtTokenKey), key_order);
}

bool
gt_fetch_token(GtTable *objects, int64 cleanup_id, int attempt, GtKnown *known, GtToken *token)
{
	Datum		key = Int64GetDatum(cleanup_id);

	token->cleanup_id = cleanup_id;
	token->attempt = attempt;
	token->known = known;
	if (!gt_fetch(objects, GT_OBJECT_CLEANUP, 1, &key, &token->row))
		return false;
	token->h = gt_claim_handler_of(&token->row, known);
	return token->h != NULL;
}

/* How many attempts of one handler a call has acknowledged. */
typedef struct Acked
{
	const GtHandler *h;
	int			n;
} Acked;

static void
count_acked(List **acked, const GtHandler *h)
{
	ListCell   *lc;
	Acked	   *a;

	foreach(lc, *acked)
	{
		a = lfirst(lc);
		if (a->h->id == h->id)
		{
			a->n++;
			return;
		}
	}
	a = palloc(sizeof(Acked));
	a->h = h;
	a->n = 1;
	*acked = lappend(*acked, a);
}

/* The arrays of gt_ack_many: as many attempts as cleanup ids. */
static void
parse_tokens(FunctionCallInfo fcinfo, GtTable *objects, GtKnown *known, GtTokenKeys *keys)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_ack_many", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Datum	   *ids;
	Datum	   *attempts;
	bool	   *id_nulls;
	bool	   *attempt_nulls;
	int			n;
	int			nattempts;
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
	gt_token_keys_init(keys);
	old = MemoryContextSwitchTo(per_row);
	for (i = 0; i < n; i++)
	{
		GtToken		token;

		CHECK_FOR_INTERRUPTS();
		if (id_nulls[i] || attempt_nulls[i])
			continue;
		if (gt_fetch_token(objects, DatumGetInt64(ids[i]), DatumGetInt32(attempts[i]), known, &token))
			gt_token_keys_add(keys, &token.row, token.attempt);
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(per_row);
	gt_token_keys_sort(keys);
}

/* Those that are current are acknowledged, in the order of their objects; what the handlers' tallies are to be told is in *acked. */
static int64
acknowledge_all(GtTable *objects, GtTokenKeys *keys, GtKnown *known, List **acked)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_ack_many", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	int64		done = 0;
	int			i;

	for (i = 0; i < keys->n; i++)
	{
		GtToken		token = {.cleanup_id = keys->v[i].cleanup_id, .attempt = keys->v[i].attempt, .known = known};
		Answer		answer = STALE;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(per_row);
		if (gt_lock_token(objects, &token))
			answer = acknowledge(objects, &token);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
		if (answer == CLEANED)
			count_acked(acked, token.h);
		if (answer != STALE)
			done++;
	}
	MemoryContextDelete(per_row);
	return done;
}

Datum
gt_ack_many(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtTokenKeys keys;
	GtKnown		known = {CurrentMemoryContext, NIL};
	List	   *acked = NIL;
	ListCell   *lc;
	int64		done;

	gt_mark_write("gt_ack_many");
	gt_must_not_be_null(fcinfo, 0, "cleanup_ids");
	gt_must_not_be_null(fcinfo, 1, "attempts");
	gt_start_ensure();
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	parse_tokens(fcinfo, &objects, &known, &keys);
	done = acknowledge_all(&objects, &keys, &known, &acked);
	gt_close(&objects);
	foreach(lc, acked)
		gt_tally(((Acked *) lfirst(lc))->h, ((Acked *) lfirst(lc))->n, 0, NULL);
	PG_RETURN_INT64(done);
}
