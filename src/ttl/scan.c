/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Rows of a user's table, in the order of their deadlines.
 *
 * Below SQL, by the indexes: so that a policy which hides a row hides it from the
 * DELETE only, and that is seen.  The index on each partition is scanned by itself, and
 * the oldest row of all is the next.  Their order is that of what the indexes have: to
 * look at rows calls nothing that the table's owner may have made the deadline of; only
 * gt_deadline_of() does, in runs.  All of it is run as the owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/itup.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shared/clock.h"
#include "ttl/scan.h"

/* Of one leaf. */
typedef struct Head
{
	TupleTableSlot *slot;
	TupleTableSlot *lock_slot;
	ExprState  *deadline;		/* NULL: it is a column, or was not asked for */
	Relation	index;			/* of the scan; NULL: there is none */
	IndexScanDesc scan;
	bool		ended;
	bool		given;			/* the row in the slot has been given out */
	TimestampTz at;				/* its deadline by the index */
} Head;

struct GtDeadlines
{
	GtTarget   *target;
	EState	   *estate;
	Head	   *heads;
};

GtDeadlines *
gt_deadlines_begin(GtTarget *target)
{
	GtDeadlines *d = palloc(sizeof(GtDeadlines));
	int			i;

	d->target = target;
	d->estate = CreateExecutorState();
	d->heads = palloc0(Max(target->nleaves, 1) * sizeof(Head));
	for (i = 0; i < target->nleaves; i++)
		d->heads[i].slot = table_slot_create(target->leaves[i].rel, NULL);
	return d;
}

static void
end_scan(Head *head)
{
	if (head->index == NULL)
		return;
	index_endscan(head->scan);
	index_close(head->index, NoLock);
	head->index = NULL;
}

void
gt_deadlines_end(GtDeadlines *d)
{
	int			i;

	for (i = 0; i < d->target->nleaves; i++)
	{
		end_scan(&d->heads[i]);
		ExecDropSingleTupleTableSlot(d->heads[i].slot);
		if (d->heads[i].lock_slot != NULL)
			ExecDropSingleTupleTableSlot(d->heads[i].lock_slot);
	}
	FreeExecutorState(d->estate);
	pfree(d);
}

static TimestampTz
as_deadline(Datum value, bool isnull)
{
	return isnull || TIMESTAMP_IS_NOEND(DatumGetTimestampTz(value)) ? GT_NEVER : DatumGetTimestampTz(value);
}

TimestampTz
gt_deadline_of(GtDeadlines *d, int leaf, TupleTableSlot *row)
{
	Head	   *head = &d->heads[leaf];
	const GtLeaf *of = &d->target->leaves[leaf];
	ExprContext *context;
	Datum		value;
	bool		isnull;

	if (of->column != 0)
		value = slot_getattr(row, of->column, &isnull);
	else
	{
		if (head->deadline == NULL)
			head->deadline = ExecPrepareExpr((Expr *) of->deadline, d->estate);
		context = GetPerTupleExprContext(d->estate);
		ResetExprContext(context);
		context->ecxt_scantuple = row;
		value = ExecEvalExprSwitchContext(head->deadline, context, &isnull);
	}
	return as_deadline(value, isnull);
}

TimestampTz
gt_deadline_by_index(const GtDeadlines *d, int leaf)
{
	return d->heads[leaf].at;
}

/* ---------------------------------------------------------------- scans */

static void
begin_scan(GtDeadlines *d, int i, int nkeys, ScanKey keys)
{
	GtLeaf	   *leaf = &d->target->leaves[i];
	Head	   *head = &d->heads[i];

	end_scan(head);
	head->index = index_open(leaf->index, AccessShareLock);
	head->scan = gt_index_beginscan(leaf->rel, head->index, GetActiveSnapshot(), nkeys);
	head->scan->xs_want_itup = true;
	index_rescan(head->scan, keys, nkeys, NULL, 0);
	head->ended = false;
	head->given = true;
}

void
gt_deadlines_scan(GtDeadlines *d, TimestampTz low, TimestampTz bound)
{
	ScanKeyData keys[2];
	int			i;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE, TimestampTzGetDatum(low));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(bound));
	for (i = 0; i < d->target->nleaves; i++)
		begin_scan(d, i, 2, keys);
}

/* The next row of a leaf is in its slot; false: there is none. */
static bool
advance(GtDeadlines *d, int i)
{
	Head	   *head = &d->heads[i];
	bool		descending = d->target->leaves[i].descending;

	if (head->given && !head->ended)
	{
		CHECK_FOR_INTERRUPTS();
		head->ended = !index_getnext_slot(head->scan, descending ? BackwardScanDirection : ForwardScanDirection, head->slot);
		head->given = false;
		if (!head->ended)
		{
			bool		isnull;
			Datum		value = index_getattr(head->scan->xs_itup, 1, head->scan->xs_itupdesc, &isnull);

			head->at = as_deadline(value, isnull);
		}
	}
	return !head->ended;
}

TupleTableSlot *
gt_deadlines_next(GtDeadlines *d, int *leaf)
{
	int			oldest = -1;
	int			i;

	for (i = 0; i < d->target->nleaves; i++)
		if (advance(d, i) && (oldest < 0 || d->heads[i].at < d->heads[oldest].at))
			oldest = i;
	if (oldest < 0)
		return NULL;
	d->heads[oldest].given = true;
	*leaf = oldest;
	return d->heads[oldest].slot;
}

TimestampTz
gt_deadlines_after(GtDeadlines *d, TimestampTz bound)
{
	TimestampTz first = GT_NEVER;
	ScanKeyData key;
	int			i;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(bound));
	for (i = 0; i < d->target->nleaves; i++)
	{
		begin_scan(d, i, 1, &key);
		if (advance(d, i))
			first = Min(first, d->heads[i].at);
	}
	return first;
}

/* ---------------------------------------------------------------- one row */

TupleTableSlot *
gt_deadlines_fetch(GtDeadlines *d, int leaf, ItemPointer tid)
{
	TupleTableSlot *slot = d->heads[leaf].slot;

	return table_tuple_fetch_row_version(d->target->leaves[leaf].rel, tid, GetActiveSnapshot(), slot) ? slot : NULL;
}

/* The value that is to be found in this column of the key. */
static Datum
key_named(const char *name, const char *const *names, const Datum *keys, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return keys[i];
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("the key of the row has no column \"%s\"", name)));
	return (Datum) 0;			/* keep compiler quiet */
}

/* Looks in one leaf. */
static bool
find_in(GtDeadlines *d, int i, const char *const *names, const Datum *keys)
{
	GtLeaf	   *leaf = &d->target->leaves[i];
	Relation	index = index_open(leaf->key, AccessShareLock);
	ScanKeyData scankeys[INDEX_MAX_KEYS];
	IndexScanDesc scan;
	bool		found;
	int			k;

	for (k = 0; k < leaf->nkeys; k++)
	{
		Oid			type = index->rd_opcintype[k];
		Oid			equal = get_opfamily_member(index->rd_opfamily[k], type, type, BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&scankeys[k], 0, k + 1, BTEqualStrategyNumber, InvalidOid, index->rd_indcollation[k],
							   get_opcode(equal),
							   key_named(NameStr(TupleDescAttr(RelationGetDescr(leaf->rel), leaf->keys[k] - 1)->attname),
										 names, keys, leaf->nkeys));
	}
	scan = gt_index_beginscan(leaf->rel, index, GetActiveSnapshot(), leaf->nkeys);
	index_rescan(scan, scankeys, leaf->nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, d->heads[i].slot);
	if (found)
		ExecMaterializeSlot(d->heads[i].slot);
	index_endscan(scan);
	index_close(index, NoLock);
	return found;
}

TupleTableSlot *
gt_deadlines_find(GtDeadlines *d, const char *const *names, const Datum *keys, int *leaf)
{
	for (*leaf = 0; *leaf < d->target->nleaves; (*leaf)++)
		if (find_in(d, *leaf, names, keys))
			return d->heads[*leaf].slot;
	return NULL;
}

GtRowLock
gt_row_lock(GtDeadlines *d, int leaf, TupleTableSlot *row)
{
	Head	   *head = &d->heads[leaf];
	ItemPointerData tid = row->tts_tid;
	TM_FailureData failure;

	if (head->lock_slot == NULL)
		head->lock_slot = table_slot_create(d->target->leaves[leaf].rel, NULL);
	switch (table_tuple_lock(d->target->leaves[leaf].rel, &tid, GetActiveSnapshot(), head->lock_slot,
							 GetCurrentCommandId(false), LockTupleExclusive, LockWaitSkip,
							 TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS, &failure))
	{
		case TM_Ok:
			return GT_ROW_LOCKED;
		case TM_WouldBlock:
			return GT_ROW_BUSY;
		default:
			return GT_ROW_CHANGED;
	}
}
