/*-------------------------------------------------------------------------
 *
 * write.c
 *	  Rows of our tables are inserted, updated and deleted.
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
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "table/relations.h"
#include "table/table.h"
#include "table/versions.h"

uint64		gt_handler_writes = 0;

uint64		gt_object_writes = 0;

/* What a write needs: an executor state and the open indexes. */
static void
prepare_write(GtTable *t)
{
	MemoryContext old;

	if (t->rri != NULL)
		return;
	old = MemoryContextSwitchTo(t->context);
	t->estate = CreateExecutorState();
	t->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(t->rri, t->rel, 0, NULL, 0);
	ExecOpenIndices(t->rri, true);
	t->write_slot = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
}

/* The slot of the table for writes, showing the row. */
static TupleTableSlot *
slot_of(GtTable *t, const GtRow *row)
{
	TupleTableSlot *slot = t->write_slot;
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
	return slot;
}

/* After every write, of whatever sort: who holds rows or keeps something of them is told, and we can see it. */
static void
note_write(const GtTable *t)
{
	if (t->id == GT__HANDLER)
		gt_handler_writes++;
	if (t->id == GT_OBJECT)
		gt_object_writes++;
	if (t->id == GT__TTL)
		CacheInvalidateRelcache(t->rel);	/* every process keeps what it has read of it: see ttl.c */
	CommandCounterIncrement();
}

/* After an insertion or an update: its index entries are made, its memory can go. */
static void
finish_write(GtTable *t)
{
	ResetPerTupleExprContext(t->estate);
	note_write(t);
}

void
gt_insert(GtTable *t, GtRow *row)
{
	TupleTableSlot *slot;

	prepare_write(t);
	slot = slot_of(t, row);
	table_tuple_insert(t->rel, slot, GetCurrentCommandId(true), 0, NULL);
	if (t->rri->ri_NumIndices > 0)
		gt_ExecInsertIndexTuples(t->rri, slot, t->estate, false, false, NULL, NIL, false);
	row->tid = slot->tts_tid;
	finish_write(t);
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

/*
 * As INSERT ... ON CONFLICT DO NOTHING: waits for others that are inserting the
 * same keys.  Callers have just looked whether there is such a row, so it is looked
 * again only where the first try has met one.  The loop is the protocol of speculative insertion: nobody sees the
 * row before its entry in the arbiter index proves unique, and no unique
 * violation is raised that would abort the caller's transaction.
 */
bool
gt_insert_unique(GtTable *t, GtRow *row, GtIndexId index)
{
	List	   *arbiters;
	TupleTableSlot *slot;
	bool		conflict = false;

	prepare_write(t);
	arbiters = arbiters_like(t, gt_index(index));
	slot = slot_of(t, row);
	do
	{
		ItemPointerData tid;
		uint32		token;

		CHECK_FOR_INTERRUPTS();
		if (conflict && !gt_ExecCheckIndexConstraints(t->rri, slot, t->estate, &tid, arbiters))
		{
			ResetPerTupleExprContext(t->estate);
			return false;
		}
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(t->rel, slot, GetCurrentCommandId(true), 0, NULL, token);
		conflict = false;
		list_free(gt_ExecInsertIndexTuples(t->rri, slot, t->estate, false, true, &conflict, arbiters, false));
		table_tuple_complete_speculative(t->rel, slot, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	} while (conflict);
	row->tid = slot->tts_tid;
	finish_write(t);
	return true;
}

void
gt_update(GtTable *t, GtRow *row)
{
	TupleTableSlot *slot;
	TM_FailureData failure;
	TM_Result	result;
	LockTupleMode lockmode;
	TU_UpdateIndexes update_indexes;

	prepare_write(t);
	slot = slot_of(t, row);
	result = table_tuple_update(t->rel, &row->tid, slot, GetCurrentCommandId(true),
								SnapshotAny, InvalidSnapshot, true, &failure, &lockmode, &update_indexes);
	if (result != TM_Ok)
		elog(ERROR, "could not update a locked row of \"%s\": %d", RelationGetRelationName(t->rel), result);
	if (t->rri->ri_NumIndices > 0 && gt_update_needs_indexes(update_indexes))
		gt_ExecInsertIndexTuples(t->rri, slot, t->estate, true, false, NULL, NIL,
								 gt_only_summarizing(update_indexes));
	row->tid = slot->tts_tid;
	finish_write(t);
}

static TM_Result
delete_version(GtTable *t, GtRow *row, bool wait)
{
	TM_FailureData failure;
	TM_Result	result;

	if (t->id == GT_OBJECT)
		gt_deleting(row->v[O_OBJECT_ID]);
	result = table_tuple_delete(t->rel, &row->tid, GetCurrentCommandId(true),
								SnapshotAny, InvalidSnapshot, wait, &failure, false);
	if (result == TM_Ok)
		note_write(t);
	return result;
}

void
gt_delete(GtTable *t, GtRow *row)
{
	TM_Result	result = delete_version(t, row, true);

	if (result != TM_Ok)
		elog(ERROR, "could not delete a locked row of \"%s\": %d", RelationGetRelationName(t->rel), result);
}

bool
gt_try_delete(GtTable *t, GtRow *row)
{
	return delete_version(t, row, false) == TM_Ok;
}
