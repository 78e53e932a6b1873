/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Our tables, read and written through the table access method: opening, reading.
 *
 * Every process that serves SQL runs this.  Three things speak against SQL here:
 * a renewal must judge the lease as it is now at every isolation level, which
 * no statement can under REPEATABLE READ; a statement resolves names by a
 * search_path and runs as somebody; and a plan costs more than the two rows
 * that a lease is.  What the executor does for INSERT ... ON CONFLICT, SELECT
 * FOR UPDATE, UPDATE and DELETE on a table without triggers is done here with
 * the same calls: speculative insertion, tuple locks that follow the update
 * chain, index entries.
 *
 * Locks are in lock.c, writes in write.c, entries.c and delete.c, scans of an index in scan.c.
 *
 * Reads use a snapshot that is new at each call: what has committed until now,
 * and what this transaction has done.  Each write is followed by
 * CommandCounterIncrement(), so that the next read sees it.
 *
 * One row is looked up from the end of its keys: entries of the same keys lie in the
 * order of their places, and where a snapshot that is held keeps all versions of
 * a row, the newest is the last as a rule, behind tens of thousands.
 *
 * In a SERIALIZABLE transaction reads take no predicate locks: who writes holds
 * the row that he judges by, so that there is nothing left for them to find, and
 * reads by a snapshot that is newer than the transaction's are in no serial order
 * anyway.  The access methods take them for an MVCC snapshot, so there they are
 * asked for all versions of a row, and which one counts is decided here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shared/clock.h"
#include "table/relations.h"
#include "table/table.h"
#include "table/table_internal.h"
#include "table/tampered.h"
#include "table/versions.h"

uint64		gt_handler_writes = 0;
uint64		gt_object_writes = 0;

/* Opens a table; to be closed with gt_close() unless an error is raised. */
void
gt_open(GtTable *t, GtTableId id, LOCKMODE lockmode)
{
	memset(t, 0, sizeof(GtTable));
	t->context = CurrentMemoryContext;
	t->id = id;
	t->lockmode = lockmode;
	for (;;)
	{
		t->rel = try_table_open(gt_relid(id), lockmode);
		if (t->rel != NULL && !gt_relations_changed())
			break;
		/* to take the lock has told us of another table, or of other indexes */
		if (t->rel != NULL)
			table_close(t->rel, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
	t->natts = Min(RelationGetDescr(t->rel)->natts, gt_table_natts(id));
	t->slot = table_slot_create(t->rel, NULL);
	if (lockmode >= RowExclusiveLock)
		gt_must_be_ours_alone(t->rel, gt_table_natts(id));
}

void
gt_close(GtTable *t)
{
	int			i;

	if (t->rri != NULL)
		ExecCloseIndices(t->rri);
	if (t->estate != NULL)
		FreeExecutorState(t->estate);
	if (t->write_slot != NULL)
		ExecDropSingleTupleTableSlot(t->write_slot);
	if (t->many != NULL)
		MemoryContextDelete(t->many);
	for (i = 0; i < GT_NINDEXES; i++)
		if (t->index[i] != NULL)
			index_close(t->index[i], NoLock);
	ExecDropSingleTupleTableSlot(t->slot);
	table_close(t->rel, NoLock);
	t->rel = NULL;
}

Relation
gt_index_of(GtTable *t, GtIndexId id)
{
	if (t->index[id] == NULL)
		t->index[id] = index_open(gt_index(id), Min(t->lockmode, RowExclusiveLock));
	return t->index[id];
}

void
gt_open_index(GtTable *t, GtIndexId index)
{
	(void) gt_index_of(t, index);
}

/* After every write, of whatever sort: who holds rows or keeps something of them is told, and we can see it. */
void
gt_note_write(const GtTable *t)
{
	if (t->id == GT__HANDLER)
		gt_handler_writes++;
	if (t->id == GT_OBJECT)
		gt_object_writes++;
	if (t->id == GT__TTL)
		CacheInvalidateRelcache(t->rel);	/* every process keeps what it has read of it: see ttl.c */
	CommandCounterIncrement();
}

Datum
gt_random_id(void)
{
	return Int64GetDatum((int64) (pg_prng_uint64(&pg_global_prng_state) >> 1));
}

void
gt_row_init(GtRow *row)
{
	memset(row, 0, sizeof(GtRow));
	memset(row->isnull, true, sizeof(row->isnull));
	ItemPointerSetInvalid(&row->tid);
}

/*
 * The times of an object are trusted only as far as they are from the time at
 * which they were written.  Where that is yet to come by our clock, it was
 * written in an earlier run by a clock that was ahead: all of them move back by
 * as much.  Each write says when it was (slot_of), by times that are right.
 */
static void
put_times_right(GtRow *row)
{
	static const int times[] = {O_REGRANT_AT, O_DUE_AT, O_SINCE, O_CLAIMED_UNTIL, O_FLIGHT_UNTIL,
	O_FLIGHT_BEFORE};
	int			i;

	row->ahead = row->isnull[O_TIMED_AT] ? 0 : Max(GT_TIME(row, O_TIMED_AT) - gt_now(), 0);
	for (i = 0; i < (int) lengthof(times) && row->ahead > 0; i++)
		if (!row->isnull[times[i]])
			GT_SET(row, times[i], TimestampTzGetDatum(GT_TIME(row, times[i]) - row->ahead));
}

/* Copies the values that lie outside of their datums to one piece of memory, of so many bytes. */
static void
copy_values(TupleDesc desc, GtRow *row, int natts, Size bytes)
{
	char	   *to = palloc(bytes);
	int			i;

	for (i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Size		size;

		if (row->isnull[i] || att->attbyval)
			continue;
		size = datumGetSize(row->v[i], false, att->attlen);
		memcpy(to, DatumGetPointer(row->v[i]), size);
		row->v[i] = PointerGetDatum(to);
		to += MAXALIGN(size);
	}
}

/* Copies the row in the slot of the table; toasted values stay toasted. brief: see gt_scan_next_brief(). */
void
gt_copy_columns(GtTable *t, GtRow *row, bool brief)
{
	TupleDesc	desc = RelationGetDescr(t->rel);
	int			natts = brief ? GT_BRIEF_ATTS : t->natts;
	Size		bytes = 0;
	bool		isnull;
	int			i;

	slot_getsomeattrs(t->slot, natts);
	row->tid = t->slot->tts_tid;
	row->xmin = DatumGetTransactionId(slot_getsysattr(t->slot, MinTransactionIdAttributeNumber, &isnull));
	for (i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		row->isnull[i] = t->slot->tts_isnull[i] || (brief && !att->attbyval);
		row->v[i] = row->isnull[i] ? (Datum) 0 : t->slot->tts_values[i];
		if (!row->isnull[i] && !att->attbyval)
			bytes += MAXALIGN(datumGetSize(row->v[i], false, att->attlen));
	}
	if (bytes > 0)
		copy_values(desc, row, natts, bytes);
	row->brief = brief;
	row->ahead = 0;
	if (t->id == GT_OBJECT && !brief)
		put_times_right(row);
	ExecClearTuple(t->slot);
}

void
gt_copy_row(GtTable *t, GtRow *row)
{
	gt_copy_columns(t, row, false);
}

/* The function behind the equality of a column of ours. */
static RegProcedure
equality_of(Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return F_TEXTEQ;
		case UUIDOID:
			return F_UUID_EQ;
		case INT4OID:
			return F_INT4EQ;
		case INT8OID:
			return F_INT8EQ;
		case OIDOID:
			return F_OIDEQ;
	}
	elog(ERROR, "no equality for type %u", type);
	return InvalidOid;
}

void
gt_equality_keys(Relation index, int nkeys, const Datum *keys, ScanKeyData *scankeys)
{
	int			i;

	for (i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i],
							   equality_of(TupleDescAttr(RelationGetDescr(index), i)->atttypid),
							   keys[i]);
}

/* The leader of a parallel query runs our reading functions and views, but can not have a new one. */
Snapshot
gt_newest_snapshot(void)
{
	return IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot();
}

/* The snapshot that the access methods are given for reads by `snapshot`: see the top of the file. */
Snapshot
gt_read_snapshot(Snapshot snapshot)
{
	return IsolationIsSerializable() ? SnapshotAny : snapshot;
}

/* Does the version in the slot of the table count by `snapshot`? */
static bool
is_visible(GtTable *t, Snapshot snapshot)
{
	return !IsolationIsSerializable() || table_tuple_satisfies_snapshot(t->rel, t->slot, snapshot);
}

bool
gt_next_of_index(GtTable *t, IndexScanDesc scan, Snapshot snapshot, ScanDirection direction)
{
	while (index_getnext_slot(scan, direction, t->slot))
	{
		if (is_visible(t, snapshot))
			return true;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

bool
gt_fetch(GtTable *t, GtIndexId id, int nkeys, const Datum *keys, GtRow *row)
{
	Relation	index = gt_index_of(t, id);
	ScanKeyData scankeys[4];
	IndexScanDesc scan;
	bool		found;

	Assert(nkeys <= 4);
	gt_equality_keys(index, nkeys, keys, scankeys);
	PushActiveSnapshot(gt_newest_snapshot());
	scan = gt_index_beginscan(t->rel, index, gt_read_snapshot(GetActiveSnapshot()), nkeys);
	index_rescan(scan, scankeys, nkeys, NULL, 0);
	ItemPointerSetInvalid(&scan->xs_heaptid);
	found = gt_next_of_index(t, scan, GetActiveSnapshot(), BackwardScanDirection);
	t->met = ItemPointerIsValid(&scan->xs_heaptid);
	if (found)
		gt_copy_row(t, row);
	index_endscan(scan);
	PopActiveSnapshot();
	return found;
}

bool
gt_is_there(GtTable *t, GtIndexId id, int nkeys, const Datum *keys)
{
	Relation	index = gt_index_of(t, id);
	ScanKeyData scankeys[4];
	SnapshotData dirty;
	IndexScanDesc scan;
	bool		found;

	Assert(nkeys <= 4);
	InitDirtySnapshot(dirty);
	gt_equality_keys(index, nkeys, keys, scankeys);
	scan = gt_index_beginscan(t->rel, index, &dirty, nkeys);
	index_rescan(scan, scankeys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, t->slot);
	ExecClearTuple(t->slot);
	index_endscan(scan);
	return found;
}

bool
gt_fetch_version(GtTable *t, ItemPointer tid, GtRow *row)
{
	bool		found;

	PushActiveSnapshot(gt_newest_snapshot());
	found = table_tuple_fetch_row_version(t->rel, tid, gt_read_snapshot(GetActiveSnapshot()), t->slot) &&
		is_visible(t, GetActiveSnapshot());
	if (found)
		gt_copy_row(t, row);
	PopActiveSnapshot();
	return found;
}

bool
gt_fetch_any(GtTable *t, GtRow *row)
{
	TableScanDesc scan;
	bool		found;

	PushActiveSnapshot(gt_newest_snapshot());
	scan = table_beginscan(t->rel, gt_read_snapshot(GetActiveSnapshot()), 0, NULL);
	do
		found = table_scan_getnextslot(scan, ForwardScanDirection, t->slot);
	while (found && !is_visible(t, GetActiveSnapshot()));
	if (found)
		gt_copy_row(t, row);
	table_endscan(scan);
	PopActiveSnapshot();
	return found;
}

int
gt_fetch_some(GtTable *t, Snapshot snapshot, int limit, GtRow **rows)
{
	TableScanDesc scan = table_beginscan(t->rel, gt_read_snapshot(snapshot), 0, NULL);
	int			room = Min(limit, 4);
	int			n = 0;

	*rows = palloc(room * sizeof(GtRow));
	while (n < limit && table_scan_getnextslot(scan, ForwardScanDirection, t->slot))
	{
		if (!is_visible(t, snapshot))
			continue;
		if (n == room)
			*rows = repalloc(*rows, (room *= 2) * sizeof(GtRow));
		gt_copy_row(t, &(*rows)[n++]);
	}
	table_endscan(scan);
	return n;
}
