/*-------------------------------------------------------------------------
 *
 * write.c
 *	  Rows of our tables are inserted and updated.
 *
 * Each write is followed by CommandCounterIncrement(), so that the next read sees it,
 * and told to who keeps something of handlers or objects.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shared/clock.h"
#include "table/entries.h"
#include "table/relations.h"
#include "table/table.h"
#include "table/table_internal.h"
#include "table/versions.h"

/* What the executor needs to make index entries, with all indexes open. */
static void
prepare_executor(GtTable *t)
{
	MemoryContext old;

	if (t->rri != NULL)
		return;
	old = MemoryContextSwitchTo(t->context);
	t->estate = CreateExecutorState();
	t->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(t->rri, t->rel, 0, NULL, 0);
	ExecOpenIndices(t->rri, true);
	MemoryContextSwitchTo(old);
}

/* Puts the row into a slot for writes. */
static void
fill_slot(GtTable *t, TupleTableSlot *slot, const GtRow *row)
{
	int			i;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->v, t->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, row->isnull, t->natts * sizeof(bool));
	for (i = t->natts; i < RelationGetDescr(t->rel)->natts; i++)
		slot->tts_isnull[i] = true; /* somebody's column that has been dropped again */
	if (t->id == GT_OBJECT)
	{
		slot->tts_values[O_TIMED_AT] = TimestampTzGetDatum(gt_now());
		slot->tts_isnull[O_TIMED_AT] = false;
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(t->rel);
}

/* The slot of the table for writes, showing the row. */
static TupleTableSlot *
slot_of(GtTable *t, const GtRow *row)
{
	if (t->write_slot == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(t->context);

		t->write_slot = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	fill_slot(t, t->write_slot, row);
	return t->write_slot;
}

/*
 * The index, and what REINDEX CONCURRENTLY is building or has left of it: two
 * who insert the same keys could else meet in the new one first, as an error.
 */
static List *
arbiters_like(GtTable *t, Oid index)
{
	List	   *result = list_make1_oid(index);
	Form_pg_index of = NULL;
	int			i;

	for (i = 0; i < t->rri->ri_NumIndices && of == NULL; i++)
		if (RelationGetRelid(t->rri->ri_IndexRelationDescs[i]) == index)
			of = t->rri->ri_IndexRelationDescs[i]->rd_index;
	for (i = 0; i < t->rri->ri_NumIndices && of != NULL; i++)
	{
		Form_pg_index other = t->rri->ri_IndexRelationDescs[i]->rd_index;

		if (other->indexrelid != index && other->indisunique && other->indimmediate &&
			other->indnkeyatts == of->indnkeyatts &&
			memcmp(other->indkey.values, of->indkey.values, of->indnkeyatts * sizeof(int16)) == 0)
			result = lappend_oid(result, other->indexrelid);
	}
	return result;
}

/* The entries of a version that has been written, by the executor. That of an object waits for nobody, see entries.c. */
static void
insert_by_executor(GtTable *t, TupleTableSlot *slot, bool updated, bool only_summarizing)
{
	List	   *arbiters = NIL;
	bool		conflict;

	prepare_executor(t);
	if (updated && t->id == GT_OBJECT)
		arbiters = arbiters_like(t, gt_index(GT_OBJECT_PKEY));
	if (t->rri->ri_NumIndices > 0)
		list_free(gt_ExecInsertIndexTuples(t->rri, slot, t->estate, updated, arbiters != NIL, &conflict, arbiters, only_summarizing));
	ResetPerTupleExprContext(t->estate);
}

void
gt_insert(GtTable *t, GtRow *row)
{
	const GtEntries *entries = gt_entries_of(t);
	TupleTableSlot *slot = slot_of(t, row);

	table_tuple_insert(t->rel, slot, GetCurrentCommandId(true), 0, NULL);
	row->tid = slot->tts_tid;
	if (entries != NULL)
		(void) gt_insert_entries(t, entries, row, &row->tid, false, GT_NO_INDEX);
	else
		insert_by_executor(t, slot, false, false);
	gt_note_write(t);
}

/* One insertion that is taken back where an arbiter, or the index, has these keys; entries NULL: the executor's. */
static bool
try_insert(GtTable *t, GtRow *row, TupleTableSlot *slot, GtIndexId index, const GtEntries *entries, List *arbiters)
{
	uint32		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	bool		conflict = false;

	table_tuple_insert_speculative(t->rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	if (entries != NULL)
		conflict = !gt_insert_entries(t, entries, row, &slot->tts_tid, false, index);
	else
		list_free(gt_ExecInsertIndexTuples(t->rri, slot, t->estate, false, true, &conflict, arbiters, false));
	table_tuple_complete_speculative(t->rel, slot, token, !conflict);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	return !conflict;
}

/* Tries until it is there, or somebody else's has been committed. */
static bool
insert_or_find(GtTable *t, GtRow *row, TupleTableSlot *slot, GtIndexId index, bool conflict)
{
	List	   *arbiters;
	bool		done = false;

	prepare_executor(t);
	arbiters = arbiters_like(t, gt_index(index));
	while (!done)
	{
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		if (conflict && !gt_ExecCheckIndexConstraints(t->rri, slot, t->estate, &tid, arbiters))
			break;
		done = try_insert(t, row, slot, index, NULL, arbiters);
		conflict = !done;
	}
	ResetPerTupleExprContext(t->estate);
	return done;
}

/*
 * As INSERT ... ON CONFLICT DO NOTHING: waits for others that are inserting the
 * same keys.  Callers have just looked whether there is such a row, so it is looked
 * again only where the first try has met one.  It is the protocol of speculative
 * insertion: nobody sees the row before its entry in the arbiter index proves unique,
 * and no unique violation is raised that would abort the caller's transaction.
 */
bool
gt_insert_unique(GtTable *t, GtRow *row, GtIndexId index)
{
	const GtEntries *entries = gt_entries_of(t);
	TupleTableSlot *slot = slot_of(t, row);

	if (!(entries != NULL && try_insert(t, row, slot, index, entries, NIL)) &&
		!insert_or_find(t, row, slot, index, entries != NULL))
		return false;
	row->tid = slot->tts_tid;
	gt_note_write(t);
	return true;
}

bool
gt_insert_if_free(GtTable *t, GtRow *row, GtIndexId index)
{
	const GtEntries *entries = gt_entries_of(t);
	TupleTableSlot *slot = slot_of(t, row);
	List	   *arbiters = NIL;

	if (entries == NULL)
	{
		prepare_executor(t);
		arbiters = arbiters_like(t, gt_index(index));
	}
	if (!try_insert(t, row, slot, index, entries, arbiters))
		return false;
	row->tid = slot->tts_tid;
	gt_note_write(t);
	return true;
}

/*
 * Of two who insert the same keys the second finds the entry of the first, since
 * who makes an entry looks for others under the lock of its page.  So one insertion
 * is as good as a speculative one, which costs two locks and a record in the log
 * more, but that the row of the second was there and is deleted again.
 */
bool
gt_insert_unmet(GtTable *t, GtRow *row, GtIndexId index)
{
	const GtEntries *entries = gt_entries_of(t);
	TupleTableSlot *slot;
	bool		done;

	if (entries == NULL)
		return gt_insert_unique(t, row, index);
	slot = slot_of(t, row);
	table_tuple_insert(t->rel, slot, GetCurrentCommandId(true), 0, NULL);
	row->tid = slot->tts_tid;
	done = gt_insert_entries(t, entries, row, &row->tid, false, index);
	gt_note_write(t);
	if (done)
		return true;
	gt_delete(t, row);
	return gt_insert_unique(t, row, index);
}

/*
 * Slots that show the rows.  They are of a copy of the table's description: each of them
 * would else be noted for the end of the transaction, and be looked for there when it goes.
 */
static TupleTableSlot **
slots_of(GtTable *t, GtRow **rows, int n)
{
	MemoryContext old;
	int			i;

	if (t->many == NULL)
		t->many = AllocSetContextCreate(t->context, "gt_many", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(t->many);
	if (t->many_slots == NULL)
	{
		t->many_desc = CreateTupleDescCopy(RelationGetDescr(t->rel));
		t->many_slots = palloc0(GT_MANY * sizeof(TupleTableSlot *));
	}
	for (i = 0; i < n; i++)
	{
		if (t->many_slots[i] == NULL)
			t->many_slots[i] = MakeSingleTupleTableSlot(t->many_desc, &TTSOpsVirtual);
		fill_slot(t, t->many_slots[i], rows[i]);
	}
	MemoryContextSwitchTo(old);
	return t->many_slots;
}

/* The rows first, page by page, and then their entries, index by index. Returns how many are done. */
static int
insert_together(GtTable *t, const GtEntries *entries, GtRow **rows, int n, GtIndexId may_have)
{
	TupleTableSlot **slots = slots_of(t, rows, n);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "gt_insert", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	int			done;
	int			i;

	Assert(n <= GT_MANY);
	table_multi_insert(t->rel, slots, n, GetCurrentCommandId(true), 0, NULL);
	for (i = 0; i < n; i++)
		rows[i]->tid = slots[i]->tts_tid;
	done = gt_insert_entries_of_many(t, entries, rows, n, may_have);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	gt_note_write(t);
	return done;
}

void
gt_insert_many(GtTable *t, GtRow *rows, int n)
{
	const GtEntries *entries = n > 1 ? gt_entries_of(t) : NULL;
	GtRow	   *some[GT_MANY];
	int			done;
	int			i;

	for (i = 0; entries == NULL && i < n; i++)
		gt_insert(t, &rows[i]);
	for (done = 0; entries != NULL && done < n; done += i)
	{
		for (i = 0; i < GT_MANY && done + i < n; i++)
			some[i] = &rows[done + i];
		(void) insert_together(t, entries, some, i, GT_NO_INDEX);
	}
}

int
gt_insert_many_unmet(GtTable *t, GtRow **rows, int n, GtIndexId index)
{
	const GtEntries *entries = gt_entries_of(t);
	int			done = 0;
	int			i;

	if (entries == NULL || n == 1)
	{
		while (done < n && gt_insert_unmet(t, rows[done], index))
			done++;
		return done;
	}
	done = insert_together(t, entries, rows, n, index);
	for (i = done; i < n; i++)
		gt_delete(t, rows[i]);
	return done;
}

void
gt_update(GtTable *t, GtRow *row)
{
	const GtEntries *entries;
	TupleTableSlot *slot = slot_of(t, row);
	TM_FailureData failure;
	TM_Result	result;
	LockTupleMode lockmode;
	TU_UpdateIndexes update_indexes;

	result = table_tuple_update(t->rel, &row->tid, slot, GetCurrentCommandId(true),
								SnapshotAny, InvalidSnapshot, true, &failure, &lockmode, &update_indexes);
	if (result != TM_Ok)
		elog(ERROR, "could not update a locked row of \"%s\": %d", RelationGetRelationName(t->rel), result);
	row->tid = slot->tts_tid;
	if (gt_update_needs_indexes(update_indexes))
	{
		entries = gt_only_summarizing(update_indexes) ? NULL : gt_entries_of(t);
		if (entries != NULL)
			(void) gt_insert_entries(t, entries, row, &row->tid, true, GT_NO_INDEX);
		else
			insert_by_executor(t, slot, true, gt_only_summarizing(update_indexes));
	}
	gt_note_write(t);
}
