/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Rows of our tables in the order of an index.
 *
 * A snapshot that is held keeps all versions of a row, and the entries of the index
 * that lead to them: no scan may forget these.  Of a table whose keys serve for one
 * row only (gt_scan_begin_once()) no more of a key need be looked at when its row
 * has been met, nor when that version has been met that was deleted.  Both are the newest,
 * so the entries of a key are walked from the last place on, where they are as a rule; where
 * room of others was used again they are not, and the walk is longer, but not wrong.
 * A deletion counts only when it has committed for the snapshot of the scan: what it
 * does not see yet leaves an older version to it, and that one is looked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shared/clock.h"
#include "table/scan.h"
#include "table/table_internal.h"
#include "table/versions.h"

#define KEY_STEPS	16			/* entries of one key that are passed over before the index is descended for the next */
#define SETTLE_KEYS 64			/* keys whose rows are looked at for when the next is due */

struct GtScan
{
	GtTable    *table;
	Snapshot	snapshot;
	IndexScanDesc scan;
	ScanDirection direction;
	bool		once;			/* see gt_scan_begin_once() */
	bool		met;			/* all has been seen that there is */
	int64		last;			/* of this key */
	MemoryContext context;		/* index scans allocate as they go on; callers may reset theirs between rows */
};

static GtScan *
begin(GtTable *t, GtIndexId id, int nkeys, ScanKeyData *scankeys)
{
	GtScan	   *scan = palloc(sizeof(GtScan));

	scan->table = t;
	scan->direction = ForwardScanDirection;
	scan->once = scan->met = false;
	scan->context = CurrentMemoryContext;
	scan->snapshot = RegisterSnapshot(gt_newest_snapshot());
	scan->scan = gt_index_beginscan(t->rel, gt_index_of(t, id), gt_read_snapshot(scan->snapshot), nkeys);
	index_rescan(scan->scan, scankeys, nkeys, NULL, 0);
	return scan;
}

GtScan *
gt_scan_begin(GtTable *t, GtIndexId id, int nkeys, const Datum *keys)
{
	ScanKeyData scankeys[4];

	Assert(nkeys <= 4);
	gt_equality_keys(gt_index_of(t, id), nkeys, keys, scankeys);
	return begin(t, id, nkeys, scankeys);
}

void
gt_bound_key(ScanKeyData *scankey, Relation index, int column, int strategy, Datum bound)
{
	Oid			type = index->rd_opcintype[column];
	Oid			compare = get_opfamily_member(index->rd_opfamily[column], type, type, strategy);

	if (!OidIsValid(compare))
		elog(ERROR, "no operator %d for type %u", strategy, type);
	ScanKeyEntryInitialize(scankey, 0, column + 1, strategy, InvalidOid, index->rd_indcollation[column],
						   get_opcode(compare), bound);
}

/* Rows whose leading column is NULL. */
GtScan *
gt_scan_begin_null(GtTable *t, GtIndexId id, TimestampTz from)
{
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], SK_ISNULL | SK_SEARCHNULL, 1, InvalidStrategy, InvalidOid,
						   InvalidOid, InvalidOid, (Datum) 0);
	gt_bound_key(&keys[1], gt_index_of(t, id), 1, BTGreaterEqualStrategyNumber, TimestampTzGetDatum(from));
	return begin(t, id, 2, keys);
}

GtScan *
gt_scan_begin_bound(GtTable *t, GtIndexId id, int nkeys, const Datum *keys, int strategy, Datum bound)
{
	Relation	index = gt_index_of(t, id);
	ScanKeyData scankeys[4];

	Assert(nkeys < 4);
	gt_equality_keys(index, nkeys, keys, scankeys);
	gt_bound_key(&scankeys[nkeys], index, nkeys, strategy, bound);
	return begin(t, id, nkeys + 1, scankeys);
}

GtScan *
gt_scan_begin_range(GtTable *t, GtIndexId id, int nkeys, const Datum *keys, Datum after, Datum upto)
{
	Relation	index = gt_index_of(t, id);
	ScanKeyData scankeys[4];

	Assert(nkeys < 3);
	gt_equality_keys(index, nkeys, keys, scankeys);
	gt_bound_key(&scankeys[nkeys], index, nkeys, BTGreaterStrategyNumber, after);
	gt_bound_key(&scankeys[nkeys + 1], index, nkeys, BTLessEqualStrategyNumber, upto);
	return begin(t, id, nkeys + 2, scankeys);
}

/* See scan.h. */
GtScan *
gt_scan_begin_once(GtTable *t, GtIndexId id)
{
	GtScan	   *scan = gt_scan_begin_bound(t, id, 0, NULL, BTLessEqualStrategyNumber, Int64GetDatum(PG_INT64_MAX));

	scan->once = !IsolationIsSerializable();	/* there each version is judged by itself, see table.c */
	gt_scan_backward(scan);
	return scan;
}

/* Goes on behind the versions of the key of which nothing more is to be seen. */
static void
pass_over(GtScan *scan)
{
	ScanKeyData scankey;

	gt_bound_key(&scankey, scan->scan->indexRelation, 0, BTLessStrategyNumber, Int64GetDatum(scan->last));
	index_rescan(scan->scan, &scankey, 1, NULL, 0);
	scan->met = false;
}

static int64
key_in_slot(GtScan *scan)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(scan->table->slot, scan->scan->indexRelation->rd_index->indkey.values[0], &isnull));
}

/*
 * Was the version in the slot deleted, and not replaced by another, for all that the snapshot
 * sees?  A table that was rewritten (VACUUM FULL) does not tell any more: then no.
 */
static bool
was_deleted(GtScan *scan)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(scan->table->slot, false, NULL);
	Buffer		buffer = ((BufferHeapTupleTableSlot *) scan->table->slot)->buffer;
	HeapTupleHeaderData header;
	TransactionId by;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);	/* what it says belongs together */
	header = *tuple->t_data;
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if ((header.t_infomask & HEAP_XMAX_INVALID) != 0 || HEAP_XMAX_IS_LOCKED_ONLY(header.t_infomask) ||
		(header.t_infomask2 & HEAP_KEYS_UPDATED) == 0 || !ItemPointerEquals(&header.t_ctid, &tuple->t_self))
		return false;
	by = HeapTupleHeaderGetUpdateXid(&header);
	return !TransactionIdIsCurrentTransactionId(by) && !XidInMVCCSnapshot(by, scan->snapshot) &&
		TransactionIdDidCommit(by);
}

/* The index has led to versions none of which counts. Is one of them the end of its row? */
static bool
met_the_end(GtScan *scan)
{
	TupleTableSlot *slot = scan->table->slot;
	ItemPointerData tid = scan->scan->xs_heaptid;
	bool		again = false;
	bool		met = false;

	while (!met && table_index_fetch_tuple(scan->scan->xs_heapfetch, &tid, SnapshotAny, slot, &again, NULL))
		met = was_deleted(scan);
	if (met)
		scan->last = key_in_slot(scan);
	ExecClearTuple(slot);
	return met;
}

/* The next row of such a scan, in the slot of the table. */
static bool
next_once(GtScan *scan)
{
	IndexScanDesc desc = scan->scan;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (scan->met)
			pass_over(scan);
		if (index_getnext_tid(desc, scan->direction) == NULL)
			return false;
		if (index_fetch_heap(desc, scan->table->slot))
			break;
		/* those that are dead to all are left to the index, which forgets them then */
		scan->met = !desc->kill_prior_tuple && met_the_end(scan);
	}
	scan->met = true;
	scan->last = key_in_slot(scan);
	return true;
}

void
gt_scan_backward(GtScan *scan)
{
	scan->direction = BackwardScanDirection;
}

/* Makes it one for keys after that one. */
static void
after_key(ScanKeyData *scankey, Relation index, uint32 key)
{
	bool		is_oid = TupleDescAttr(RelationGetDescr(index), 0)->atttypid == OIDOID;

	ScanKeyEntryInitialize(scankey, 0, 1, BTGreaterStrategyNumber, InvalidOid, InvalidOid, is_oid ? F_OIDGT : F_INT4GT,
						   is_oid ? ObjectIdGetDatum(key) : Int32GetDatum((int32) key));
}

/* The next key after this one (0: the first), which is the one before. */
static bool
next_key(GtScan *scan, Relation index, uint32 after, GtKey *result)
{
	IndexScanDesc desc = scan->scan;
	ScanKeyData scankey;
	int			steps = 0;
	bool		found;
	bool		isnull;

	do
	{
		if (steps++ == KEY_STEPS)
		{
			after_key(&scankey, index, after);
			index_rescan(desc, &scankey, 1, NULL, 0);
		}
		found = index_getnext_tid(desc, ForwardScanDirection) != NULL;
		if (found)
			result->key = (uint32) index_getattr(desc->xs_itup, 1, desc->xs_itupdesc, &isnull);
	} while (found && after != 0 && result->key == after);
	if (found)
		result->first = DatumGetTimestampTz(index_getattr(desc->xs_itup, 2, desc->xs_itupdesc, &isnull));
	return found;
}

GtKey *
gt_scan_keys(GtTable *t, GtIndexId id, int *n)
{
	Relation	index = gt_index_of(t, id);
	int			room = 16;
	GtKey	   *keys = palloc(room * sizeof(GtKey));
	ScanKeyData scankey;
	GtScan	   *scan;

	after_key(&scankey, index, 0);
	scan = begin(t, id, 1, &scankey);
	scan->scan->xs_want_itup = true;	/* heeded by the next rescan */
	index_rescan(scan->scan, &scankey, 1, NULL, 0);
	for (*n = 0; next_key(scan, index, *n > 0 ? keys[*n - 1].key : 0, &keys[*n]);)
	{
		if (++*n == room)
			keys = repalloc(keys, (room *= 2) * sizeof(GtKey));
		CHECK_FOR_INTERRUPTS();
	}
	gt_scan_end(scan);
	return keys;
}

/* When the first row of a key is due, from there on. */
static TimestampTz
first_of_key(GtTable *t, GtIndexId id, const GtKey *key)
{
	Datum		value = ObjectIdGetDatum(key->key);
	GtScan	   *scan = gt_scan_begin_bound(t, id, 1, &value, BTGreaterEqualStrategyNumber, TimestampTzGetDatum(key->first));
	TimestampTz first = GT_NEVER;
	bool		isnull;

	if (gt_next_of_index(t, scan->scan, scan->snapshot, scan->direction))
		first = DatumGetTimestampTz(slot_getattr(t->slot, gt_index_of(t, id)->rd_index->indkey.values[1], &isnull));
	gt_scan_end(scan);
	return first;
}

/* See scan.h. */
void
gt_scan_settle_next(GtTable *t, GtIndexId id, GtKey *keys, int n, TimestampTz after)
{
	int			left;
	int			i;

	for (left = SETTLE_KEYS; left > 0; left--)
	{
		GtKey	   *next = NULL;
		TimestampTz first;

		for (i = 0; i < n; i++)
			if (keys[i].first > after && keys[i].first != GT_NEVER && (next == NULL || keys[i].first < next->first))
				next = &keys[i];
		if (next == NULL)
			return;
		first = first_of_key(t, id, next);
		if (first == next->first)
			return;
		next->first = first;
	}
}

static bool
next_row(GtScan *scan, GtRow *row, bool brief)
{
	MemoryContext old = MemoryContextSwitchTo(scan->context);
	bool		found = scan->once ? next_once(scan) :
		gt_next_of_index(scan->table, scan->scan, scan->snapshot, scan->direction);

	MemoryContextSwitchTo(old);
	if (found)
		gt_copy_columns(scan->table, row, brief);
	return found;
}

bool
gt_scan_next(GtScan *scan, GtRow *row)
{
	return next_row(scan, row, false);
}

bool
gt_scan_next_brief(GtScan *scan, GtRow *row)
{
	return next_row(scan, row, true);
}

/* Nothing is copied. */
int64
gt_scan_count(GtScan *scan, int64 limit)
{
	TupleTableSlot *slot = scan->table->slot;
	int64		n = 0;

	while (n < limit && gt_next_of_index(scan->table, scan->scan, scan->snapshot, scan->direction))
	{
		n++;
		ExecClearTuple(slot);
		CHECK_FOR_INTERRUPTS();
	}
	return n;
}

bool
gt_scan_last(GtScan *scan, GtRow *row)
{
	bool		found = gt_next_of_index(scan->table, scan->scan, scan->snapshot, BackwardScanDirection);

	if (found)
		gt_copy_row(scan->table, row);
	return found;
}

void
gt_scan_end(GtScan *scan)
{
	index_endscan(scan->scan);
	UnregisterSnapshot(scan->snapshot);
	pfree(scan);
}
