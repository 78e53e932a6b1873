/*-------------------------------------------------------------------------
 *
 * redrive.c
 *	  gt_redrive(): another max_attempts attempts for dead garbage.
 *
 * Sessions run this, in the caller's transaction.  What is dead is found first,
 * then locked in the order of the objects and judged again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "garbagetruck.h"
#include "queue.h"

PG_FUNCTION_INFO_V1(gt_redrive);

/* Dead, or as good as: its last claim has lapsed and nobody has looked since. */
static bool
is_dead(const GtRow *row, const GtHandler *h, TimestampTz now)
{
	return GT_CHAR(row, O_STATE) == 'd' ||
		(gt_garbage_has_lapsed(row, now) && GT_INT32(row, O_ATTEMPTS) >= gt_max_attempts_of(row, h));
}

/* Adds the rows of a scan that are dead. */
static List *
collect(GtScan *scan, const GtHandler *h, TimestampTz now, int limit, List *dead)
{
	GtToken	   *token = palloc(sizeof(GtToken));

	while (list_length(dead) < limit && gt_scan_next(scan, &token->row))
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_dead(&token->row, h, now))
			continue;
		token->cleanup_id = GT_INT64(&token->row, O_CLEANUP_ID);
		dead = lappend(dead, token);
		token = palloc(sizeof(GtToken));
	}
	gt_scan_end(scan);
	return dead;
}

/* The dead garbage of a handler. */
static List *
dead_of(GtTable *objects, const GtHandler *h, int limit, List *dead)
{
	TimestampTz now = gt_now();
	Datum		key = Int32GetDatum(h->id);

	dead = collect(gt_scan_begin(objects, GT_OBJECT_DEAD, 1, &key), h, now, limit, dead);
	if (GT_KIND_IS_CLAIMABLE(h->kind))
		dead = collect(gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessEqualStrategyNumber,
										   TimestampTzGetDatum(now)), h, now, limit, dead);
	return dead;
}

/* What gt_redrive is asked for; only: of that handler alone. */
static List *
to_redrive(FunctionCallInfo fcinfo, GtTable *objects, const GtHandler *only, int limit, List **known)
{
	List	   *dead = NIL;
	ListCell   *lc;
	int64	   *ids;
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
	{
		if (only != NULL)
			return dead_of(objects, only, limit, NIL);
		foreach(lc, gt_handler_list())
			if (gt_handler_may_claim(lfirst(lc)))
				dead = dead_of(objects, lfirst(lc), limit, dead);
		return dead;
	}
	n = gt_int8_array(PG_GETARG_ARRAYTYPE_P(0), &ids);
	for (i = 0; i < n && list_length(dead) < limit; i++)
	{
		GtToken	   *token = gt_fetch_token(objects, ids[i], 0);

		if (token != NULL &&
			(only == NULL || only->id == GT_INT32(&token->row, O_HANDLER)) &&
			is_dead(&token->row, gt_claim_handler_of(&token->row, known), gt_now()))
			dead = lappend(dead, token);
	}
	return dead;
}

Datum
gt_redrive(PG_FUNCTION_ARGS)
{
	GtTable		objects;
	GtHandler  *only = NULL;
	List	   *known = NIL;
	List	   *dead;
	ListCell   *lc;
	GtToken   **tokens;
	int			limit = PG_INT32_MAX;
	int64		done = 0;
	int			n = 0;
	int			i;

	gt_mark_write("gt_redrive");
	if (!PG_ARGISNULL(2))
		limit = PG_GETARG_INT32(2);
	if (limit < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_items %d is out of range", limit),
				 errdetail("It is at least 1.")));
	if (!PG_ARGISNULL(1))
		only = gt_claim_handler(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	gt_start_ensure();
	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	dead = to_redrive(fcinfo, &objects, only, limit, &known);
	tokens = palloc(Max(list_length(dead), 1) * sizeof(GtToken *));
	foreach(lc, dead)
		tokens[n++] = lfirst(lc);
	qsort(tokens, n, sizeof(GtToken *), gt_token_order);

	for (i = 0; i < n; i++)
	{
		GtRow	   *row = &tokens[i]->row;
		const GtHandler *h = gt_claim_handler_of(row, &known);

		CHECK_FOR_INTERRUPTS();
		if (gt_lock(&objects, row, LockTupleNoKeyExclusive, false) != GT_LOCKED ||
			row->isnull[O_CLEANUP_ID] || GT_INT64(row, O_CLEANUP_ID) != tokens[i]->cleanup_id ||
			!is_dead(row, h, gt_now()))
			continue;
		gt_garbage_redriven(&objects, row, h);
		done++;
	}
	gt_close(&objects);
	PG_RETURN_INT64(done);
}
