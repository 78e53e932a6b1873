/*-------------------------------------------------------------------------
 *
 * create.c
 *	  The functions that create leases: one, many alike, or many that each succeed
 *	  or fail by themselves.
 *
 * Objects of a batch are locked in their order, (type, id), and results are
 * given in that of the input.
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
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "grant.h"
#include "lease.h"

PG_FUNCTION_INFO_V1(gt_lease_create);
PG_FUNCTION_INFO_V1(gt_lease_grant);
PG_FUNCTION_INFO_V1(gt_lease_create_many);
PG_FUNCTION_INFO_V1(gt_lease_grant_each);

#define MAX_EACH 1000			/* elements of gt_lease_grant_each */

static void
grant_of_args(FunctionCallInfo fcinfo, GtGranted *out)
{
	GtGranter	g;
	GtRequest	r;
	GtFail		f;

	gt_request_of_args(fcinfo, true, &r);
	r.object_id = gt_text_arg(fcinfo, 0);
	gt_granter_open(&g, "gt_lease_create()");
	if (!gt_grant(&g, &r, out, &f))
		gt_raise(&f);
	gt_granter_close(&g);
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

/* an element of a batch, to be sorted */
typedef struct Element
{
	GtRequest	request;
	GtGranted	granted;
	GtFail		fail;
	bool		ok;
} Element;

/* Those of the same object in input order: the first is served first. */
static int
by_object(const void *a, const void *b)
{
	const Element *x = *(Element *const *) a;
	const Element *y = *(Element *const *) b;
	int			order = strcmp(x->request.object_type, y->request.object_type);

	if (order == 0)
		order = strcmp(x->request.object_id, y->request.object_id);
	return order != 0 ? order : (x > y) - (x < y);
}

static bool
same_object(const Element *x, const Element *y)
{
	return strcmp(x->request.object_type, y->request.object_type) == 0 &&
		strcmp(x->request.object_id, y->request.object_id) == 0;
}

/* gt_lease_create_many(object_ids, ...) returns uuid[]: all or nothing, in input order */
Datum
gt_lease_create_many(PG_FUNCTION_ARGS)
{
	GtGranter	g;
	GtRequest	common;
	Element    *elements;
	Element   **sorted;
	Datum	   *ids;
	bool	   *nulls;
	Datum	   *result;
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_ids must not be null")));
	gt_request_of_args(fcinfo, false, &common);
	if (common.object_type == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_type must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &ids, &nulls, &n);
	elements = palloc0(Max(n, 1) * sizeof(Element));
	sorted = palloc(Max(n, 1) * sizeof(Element *));
	result = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_ids must not contain null")));
		elements[i].request = common;
		elements[i].request.object_id = TextDatumGetCString(ids[i]);
		sorted[i] = &elements[i];
	}
	qsort(sorted, n, sizeof(Element *), by_object);

	gt_granter_open(&g, "gt_lease_create_many()");
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && same_object(sorted[i], sorted[i - 1]))
			sorted[i]->granted = sorted[i - 1]->granted;
		else if (!gt_grant(&g, &sorted[i]->request, &sorted[i]->granted, &sorted[i]->fail))
			gt_raise(&sorted[i]->fail);
	}
	gt_granter_close(&g);

	for (i = 0; i < n; i++)
		result[i] = UUIDPGetDatum(&elements[i].granted.id);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* gt_lease_grant_each(requests) returns a row for each, in input order; none raises */
Datum
gt_lease_grant_each(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	GtGranter	g;
	Jsonb	   *requests;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	Element    *elements;
	Element   **sorted;
	int			n;
	int			nsorted = 0;
	int			i = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("requests must not be null")));
	requests = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(requests) || JB_ROOT_IS_SCALAR(requests))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("requests must be an array of objects")));
	n = JB_ROOT_COUNT(requests);
	if (n > MAX_EACH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("requests has %d elements, the limit is %d", n, MAX_EACH)));
	InitMaterializedSRF(fcinfo, 0);
	elements = palloc0(Max(n, 1) * sizeof(Element));
	sorted = palloc(Max(n, 1) * sizeof(Element *));

	it = JsonbIteratorInit(&requests->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_ELEM)
		{
			Element    *e = &elements[i++];

			e->ok = gt_request_of_json(&e->request, &v, &e->fail);
			if (e->ok)
				e->ok = gt_request_check_object(&e->request, &e->fail);
			if (e->ok)
				sorted[nsorted++] = e;
		}
	qsort(sorted, nsorted, sizeof(Element *), by_object);

	gt_granter_open(&g, "gt_lease_grant_each()");
	for (i = 0; i < nsorted; i++)
	{
		CHECK_FOR_INTERRUPTS();
		sorted[i]->ok = gt_grant(&g, &sorted[i]->request, &sorted[i]->granted, &sorted[i]->fail);
	}
	gt_granter_close(&g);

	for (i = 0; i < n; i++)
	{
		Element    *e = &elements[i];
		Datum		values[7] = {0};
		bool		nulls[7];

		memset(nulls, !e->ok, sizeof(nulls));
		nulls[0] = nulls[1] = false;
		nulls[2] = e->ok;
		values[0] = Int32GetDatum(i + 1);
		values[1] = CStringGetTextDatum(e->ok ? "00000" : unpack_sql_state(e->fail.sqlstate));
		if (e->ok)
		{
			values[3] = UUIDPGetDatum(&e->granted.id);
			values[4] = Int64GetDatum(e->granted.fence);
			values[5] = TimestampTzGetDatum(e->granted.expires_at);
			values[6] = BoolGetDatum(e->granted.created);
		}
		else
			values[2] = CStringGetTextDatum(e->fail.message);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
