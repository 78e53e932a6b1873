/*-------------------------------------------------------------------------
 *
 * create.c
 *	  The functions that create leases: one, many alike, or many that each succeed
 *	  or fail by themselves.
 *
 * Each reads what is asked for (request.c, which refuses what is not in order), and
 * hands it to grant.c, a batch all at once.  Objects of a batch are locked in their
 * order, (type, id), and results are given in that of the input.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/check.h"
#include "base/transaction.h"
#include "garbage/order.h"
#include "lease/grant.h"

PG_FUNCTION_INFO_V1(gt_lease_create);
PG_FUNCTION_INFO_V1(gt_lease_grant);
PG_FUNCTION_INFO_V1(gt_lease_create_many);
PG_FUNCTION_INFO_V1(gt_lease_grant_each);

#define MAX_EACH 1000			/* elements of gt_lease_grant_each */
#define MAX_MANY ((int) ((MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / UUID_LEN)) /* ids that fit an array */

static void
grant_of_args(FunctionCallInfo fcinfo, GtGranted *out)
{
	GtGranter	g;
	GtGrant		grant = {0};
	GtGrant    *grants = &grant;

	gt_granter_open(&g, "gt_lease_create()", true);
	gt_request_of_args(fcinfo, &grant.request);
	gt_grant(&g, &grants, 1);
	gt_granter_close(&g);
	*out = grant.granted;
}

/* gt_lease_create(...) returns uuid: see the SQL script and the README */
Datum
gt_lease_create(PG_FUNCTION_ARGS)
{
	GtGranted	out;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	grant_of_args(fcinfo, &out);
	*id = out.id;
	PG_RETURN_UUID_P(id);
}

/* gt_lease_grant(...) returns (lease_id, fence, expires_at, ttl, created, attempts) */
Datum
gt_lease_grant(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtGranted	out;
	Datum		values[6];
	bool		nulls[6] = {false};

	InitMaterializedSRF(fcinfo, 0);
	grant_of_args(fcinfo, &out);
	values[0] = UUIDPGetDatum(&out.id);
	values[1] = Int64GetDatum(out.fence);
	values[2] = TimestampTzGetDatum(out.expires_at);
	values[3] = IntervalPGetDatum(gt_us_interval(out.expires_at - out.now));
	values[4] = BoolGetDatum(out.created);
	values[5] = Int32GetDatum(out.attempts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

static int
order_of(const GtGrant *x, const GtGrant *y)
{
	return gt_object_order(x->request.object_type, x->request.object_id, y->request.object_type, y->request.object_id);
}

/* Those of the same object in input order: the first is served first. */
static int
by_object(const void *a, const void *b)
{
	const GtGrant *x = *(GtGrant *const *) a;
	const GtGrant *y = *(GtGrant *const *) b;
	int			order = order_of(x, y);

	return order != 0 ? order : (x > y) - (x < y);
}

/* gt_lease_create_many(object_ids, ...) returns uuid[]: all or nothing, in input order */
Datum
gt_lease_create_many(PG_FUNCTION_ARGS)
{
	GtGranter	g;
	GtRequest	common;
	GtGrant    *grants;
	GtGrant   **sorted;
	GtGrant   **first;			/* of each object, in order */
	ArrayType  *objects;
	Datum	   *ids;
	bool	   *nulls;
	Datum	   *result;
	int			n;
	int			nfirst = 0;
	int			i;

	gt_granter_open(&g, "gt_lease_create_many()", true);
	gt_must_not_be_null(fcinfo, 0, "object_ids");
	gt_request_of_many(fcinfo, &common);
	objects = PG_GETARG_ARRAYTYPE_P(0);
	n = ArrayGetNItems(ARR_NDIM(objects), ARR_DIMS(objects));
	if (n > MAX_MANY)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("object_ids has %d elements, the limit is %d", n, MAX_MANY)));
	deconstruct_array(objects, TEXTOID, -1, false, TYPALIGN_INT, &ids, &nulls, &n);
	grants = gt_alloc_array(n, sizeof(GtGrant));
	sorted = gt_alloc_array(n, sizeof(GtGrant *));
	first = gt_alloc_array(n, sizeof(GtGrant *));
	result = gt_alloc_array(n, sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_ids must not contain null")));
		grants[i].request = common;
		gt_request_set_object(&grants[i].request, TextDatumGetCString(ids[i]));
		sorted[i] = &grants[i];
	}
	qsort(sorted, n, sizeof(GtGrant *), by_object);
	for (i = 0; i < n; i++)
		if (i == 0 || order_of(sorted[i], sorted[i - 1]) != 0)
			first[nfirst++] = sorted[i];

	gt_grant(&g, first, nfirst);
	gt_granter_close(&g);

	for (i = 1; i < n; i++)
		if (order_of(sorted[i], sorted[i - 1]) == 0)
			sorted[i]->granted = sorted[i - 1]->granted;
	for (i = 0; i < n; i++)
		result[i] = UUIDPGetDatum(&grants[i].granted.id);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* One row of gt_lease_grant_each. */
static void
put_outcome(ReturnSetInfo *rsinfo, int number, const GtGrant *e)
{
	Datum		values[9] = {0};
	bool		nulls[9];

	memset(nulls, true, sizeof(nulls));
	nulls[0] = nulls[1] = false;
	values[0] = Int32GetDatum(number);
	values[1] = CStringGetTextDatum(e->ok ? "00000" : unpack_sql_state(e->fail.sqlstate));
	if (e->ok)
	{
		nulls[3] = nulls[4] = nulls[5] = nulls[6] = false;
		values[3] = UUIDPGetDatum(&e->granted.id);
		values[4] = Int64GetDatum(e->granted.fence);
		values[5] = TimestampTzGetDatum(e->granted.expires_at);
		values[6] = BoolGetDatum(e->granted.created);
	}
	else
	{
		nulls[2] = false;
		values[2] = CStringGetTextDatum(e->fail.message);
		nulls[7] = (e->fail.holder == NULL);
		values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(e->fail.holder);
		nulls[8] = (e->fail.retry_after == 0);
		values[8] = nulls[8] ? (Datum) 0 : IntervalPGetDatum(gt_us_interval(e->fail.retry_after));
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* What is granted in one go, in a subtransaction. */
typedef struct Batch
{
	GtGrant   **grants;
	int			n;
	bool		one_by_one;
	GtGrant    *at;				/* which of them an error concerns; NULL: all */
} Batch;

static void
grant_batch(void *arg)
{
	Batch	   *batch = arg;
	GtGranter	g;

	batch->at = NULL;
	gt_granter_open(&g, "gt_lease_grant_each()", false);
	g.at = &batch->at;
	g.one_by_one = batch->one_by_one;
	gt_grant(&g, batch->grants, batch->n);
	gt_granter_close(&g);
}

/* May one of a batch fail by this, and not the whole? What others have locked, or have made of its rows. */
static bool
is_failure_of_one(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_DATA_CORRUPTED;
}

/* It has failed: the rest is tried without it. */
static void
leave_out(Batch *batch, ErrorData *error)
{
	GtGrant    *e = batch->at;
	int			kept = 0;
	int			i;

	memset(&e->fail, 0, sizeof(GtFail));
	e->fail.sqlstate = error->sqlerrcode;
	e->fail.message = error->message;
	e->ok = false;
	for (i = 0; i < batch->n; i++)
		if (batch->grants[i] != e)
			batch->grants[kept++] = batch->grants[i];
	batch->n = kept;
}

/* Each is granted, or fails by itself. */
static void
grant_each(GtGrant **grants, int n)
{
	Batch		batch = {grants, n, false, NULL};
	ErrorData  *error;

	while ((error = gt_try(grant_batch, &batch)) != NULL)
	{
		if (!is_failure_of_one(error) || (batch.at == NULL && batch.one_by_one))
			ReThrowError(error);
		if (batch.at != NULL)
			leave_out(&batch, error);
		else
			batch.one_by_one = true;
	}
}

/* gt_lease_grant_each(requests) returns a row for each, in input order; none raises */
Datum
gt_lease_grant_each(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb	   *requests;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	GtGrant    *grants;
	GtGrant   **sorted;
	int			n;
	int			nsorted = 0;
	int			i = 0;

	gt_must_not_be_null(fcinfo, 0, "requests");
	requests = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(requests) || JB_ROOT_IS_SCALAR(requests))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("requests must be an array of objects")));
	n = JB_ROOT_COUNT(requests);
	if (n > MAX_EACH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("requests has %d elements, the limit is %d", n, MAX_EACH)));
	InitMaterializedSRF(fcinfo, 0);
	grants = palloc0(Max(n, 1) * sizeof(GtGrant));
	sorted = palloc(Max(n, 1) * sizeof(GtGrant *));

	it = JsonbIteratorInit(&requests->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_ELEM)
		{
			GtGrant    *e = &grants[i++];

			if (gt_request_of_json(&v, &e->request, &e->fail))
				sorted[nsorted++] = e;
		}
	qsort(sorted, nsorted, sizeof(GtGrant *), by_object);

	grant_each(sorted, nsorted);
	for (i = 0; i < n; i++)
		put_outcome(rsinfo, i + 1, &grants[i]);
	return (Datum) 0;
}
