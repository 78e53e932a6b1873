/*-------------------------------------------------------------------------
 *
 * redrive.c
 *	  gt_redrive(): another max_attempts attempts for dead garbage, and for what
 *	  waits for its next one: now.
 *
 * Sessions run this, in the caller's transaction.  What is to be done is found
 * first, then locked in the order of the objects and judged again.  Garbage that
 * is due is not locked: a worker may be at work on it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/arguments.h"
#include "garbage/garbage.h"
#include "handler/use.h"
#include "lease/start.h"
#include "queue/queue.h"
#include "rights/rights.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "ttl/ttl.h"

PG_FUNCTION_INFO_V1(gt_redrive);

static bool
is_dead(const GtRow *row, const GtHandler *h, TimestampTz now)
{
	return GT_CHAR(row, O_STATE) == GT_STATE_DEAD || gt_garbage_lapsed_last(row, h, now);
}

/* Does it wait for its next attempt's time? */
static bool
is_waiting(const GtRow *row, TimestampTz now)
{
	return GT_CHAR(row, O_STATE) == GT_STATE_WAITING && GT_TIME(row, O_DUE_AT) > now;
}

/* May an attempt start without our doing? */
static bool
is_due(const GtRow *row, TimestampTz now)
{
	return !row->isnull[O_DUE_AT] && GT_TIME(row, O_DUE_AT) <= now;
}

/* What a call has to do, and what it knows. */
typedef struct Call
{
	GtTable		objects;
	TimestampTz now;
	int			limit;
	GtKnown		known;
	GtTokenKeys found;
	int64		done;
	MemoryContext per_row;
} Call;

/* Adds the rows of a scan that are to be redriven. */
static void
collect(Call *call, GtScan *scan, const GtHandler *h)
{
	MemoryContext old = MemoryContextSwitchTo(call->per_row);
	GtRow		row;

	while (call->found.n < call->limit && gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_dead(&row, h, call->now) || is_waiting(&row, call->now))
			gt_token_keys_add(&call->found, &row, 0);
		MemoryContextReset(call->per_row);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
}

/* The dead garbage of a handler, then what of it waits. */
static void
collect_of(Call *call, const GtHandler *h)
{
	Datum		key = Int32GetDatum(h->id);
	Datum		now = TimestampTzGetDatum(call->now);

	collect(call, gt_scan_begin(&call->objects, GT_OBJECT_DEAD, 1, &key), h);
	if (GT_KIND_IS_CLAIMABLE(h->kind))
		collect(call, gt_scan_begin_bound(&call->objects, GT_OBJECT_DUE, 1, &key, BTLessEqualStrategyNumber, now), h);
	collect(call, gt_scan_begin_bound(&call->objects, GT_OBJECT_DUE, 1, &key, BTGreaterStrategyNumber, now), h);
}

/* What has this id; what is due already counts, and is left to those who are about to try it. */
static void
collect_id(Call *call, int64 id, const GtHandler *only)
{
	GtToken		token;

	if (!gt_fetch_token(&call->objects, id, 0, &call->known, &token) ||
		token.h->missing || (only != NULL && only->id != token.h->id))
		return;
	if (is_dead(&token.row, token.h, call->now) || is_waiting(&token.row, call->now))
		gt_token_keys_add(&call->found, &token.row, 0);
	else if (is_due(&token.row, call->now))
		call->done++;
}

static void
collect_ids(Call *call, ArrayType *array, const GtHandler *only)
{
	MemoryContext old;
	int64	   *ids;
	int			n = gt_int8_array(array, &ids);
	int			i;

	qsort(ids, n, sizeof(int64), gt_by_id);
	old = MemoryContextSwitchTo(call->per_row);
	for (i = 0; i < n && call->found.n + call->done < call->limit; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == 0 || ids[i] != ids[i - 1])
			collect_id(call, ids[i], only);
		MemoryContextReset(call->per_row);
	}
	MemoryContextSwitchTo(old);
}

/* All that is the caller's own. */
static void
collect_own(Call *call)
{
	ListCell   *lc;

	foreach(lc, gt_handler_list())
		if (gt_handler_is_own(lfirst(lc)))
			collect_of(call, lfirst(lc));
	foreach(lc, gt_ttl_list())
		if (gt_acts_for(((GtTtl *) lfirst(lc))->h.owner))
			collect_of(call, &((GtTtl *) lfirst(lc))->h);
}

/* Redrives what is locked. */
static void
redrive(Call *call, GtToken *token)
{
	TimestampTz now = gt_now();

	if (is_dead(&token->row, token->h, now))
		gt_garbage_redriven(&call->objects, &token->row, token->h);
	else if (is_waiting(&token->row, now))
		gt_garbage_hurried(&call->objects, &token->row, token->h);
	else if (!is_due(&token->row, now))
		return;					/* claimed meanwhile */
	call->done++;
}

/* In the order of the objects. */
static void
redrive_all(Call *call)
{
	MemoryContext old;
	int			i;

	gt_token_keys_sort(&call->found);
	old = MemoryContextSwitchTo(call->per_row);
	for (i = 0; i < call->found.n; i++)
	{
		GtToken		token = {.cleanup_id = call->found.v[i].cleanup_id, .known = &call->known};

		CHECK_FOR_INTERRUPTS();
		if (gt_lock_token(&call->objects, &token))
			redrive(call, &token);
		MemoryContextReset(call->per_row);
	}
	MemoryContextSwitchTo(old);
}

Datum
gt_redrive(PG_FUNCTION_ARGS)
{
	Call		call;
	GtHandler  *only = NULL;

	gt_mark_write("gt_redrive");
	memset(&call, 0, sizeof(call));
	call.limit = PG_ARGISNULL(2) ? PG_INT32_MAX : PG_GETARG_INT32(2);
	if (call.limit < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_items %d is out of range: it must be at least 1", call.limit)));
	if (!PG_ARGISNULL(1))
		only = gt_claim_handler(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	gt_start_ensure();
	gt_open(&call.objects, GT_OBJECT, RowExclusiveLock);
	call.now = gt_now();
	call.known.context = CurrentMemoryContext;
	call.per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_redrive", ALLOCSET_DEFAULT_SIZES);
	gt_token_keys_init(&call.found);
	if (!PG_ARGISNULL(0))
		collect_ids(&call, PG_GETARG_ARRAYTYPE_P(0), only);
	else if (only != NULL)
		collect_of(&call, only);
	else
		collect_own(&call);
	redrive_all(&call);
	gt_close(&call.objects);
	PG_RETURN_INT64(call.done);
}
