/*-------------------------------------------------------------------------
 *
 * delete.c
 *	  Rows of our tables are deleted: one, or many of a page together.
 *
 * To delete a row is to write a dozen bytes of its header.  What costs is to come
 * there: the page is looked up, locked and left, and a record of more bytes than
 * those goes to the log.  Who ends leases by the thousand meets pages that are full of
 * them; so the rows of one page have all of that in common here, and the log gets
 * one generic record that has what has changed in the page.
 *
 * What is done to a row is what heap_delete() does, under the same lock of its
 * page: it is judged by HeapTupleSatisfiesUpdate(), and gets our transaction as the one
 * that deletes it.  It is done to those only of which that is the whole of it: nobody
 * has locked or replaced the row, it has nothing stored out of line, its page is not
 * marked as visible to all, and no logical decoding wants to read the deletion in
 * the log.  All others go the way of the access method, each by itself.
 *
 * Nobody waits here for who has a row locked.  Locks: the content lock of one page.  A crash
 * leaves rows that a transaction has deleted which did not commit, as ever.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/rmgr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/check.h"
#include "shared/ids.h"
#include "table/delete.h"
#include "table/table.h"
#include "table/table_internal.h"

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
		gt_note_write(t);
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

/* ---------------------------------------------------------------- many of a page */

/* A row to be deleted, in the order of their places. */
typedef struct Doomed
{
	GtRow	   *row;
	bool	   *deleted;
	bool		alone;			/* it goes the way of the access method */
	CommandId	cid;			/* what its header is to say */
	bool		combo;
} Doomed;

static int
by_place(const void *a, const void *b)
{
	return ItemPointerCompare(&((const Doomed *) a)->row->tid, &((const Doomed *) b)->row->tid);
}

bool
gt_may_log_pages(void)
{
	return !wal_consistency_checking[RM_GENERIC_ID];
}

/* Is what the pages of the table have after a record of ours all that anybody wants to know of it? */
static bool
may_write_pages(const GtTable *t)
{
	return t->rel->rd_tableam == GetHeapamTableAmRoutine() && !RelationIsLogicallyLogged(t->rel) && gt_may_log_pages();
}

static HeapTupleHeader
header_at(Page page, const GtRow *row)
{
	return (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, ItemPointerGetOffsetNumber(&row->tid)));
}

/* The version that was read, if it is the newest and nobody has it. Page locked. */
static bool
may_be_marked(GtTable *t, Buffer buffer, Doomed *d, CommandId cid)
{
	Page		page = BufferGetPage(buffer);
	OffsetNumber offset = ItemPointerGetOffsetNumber(&d->row->tid);
	HeapTupleData tuple;

	if (offset > PageGetMaxOffsetNumber(page) || !ItemIdIsNormal(PageGetItemId(page, offset)))
		return false;
	tuple.t_tableOid = RelationGetRelid(t->rel);
	tuple.t_self = d->row->tid;
	tuple.t_len = ItemIdGetLength(PageGetItemId(page, offset));
	tuple.t_data = header_at(page, d->row);
	if (HeapTupleSatisfiesUpdate(&tuple, cid, buffer) != TM_Ok || !(tuple.t_data->t_infomask & HEAP_XMAX_INVALID) ||
		HeapTupleHasExternal(&tuple))
		return false;
	CheckForSerializableConflictIn(t->rel, &d->row->tid, BufferGetBlockNumber(buffer));
	d->cid = cid;
	HeapTupleHeaderAdjustCmax(tuple.t_data, &d->cid, &d->combo);
	return true;
}

/* In the copy of the page that the log will be told of. */
static void
mark(HeapTupleHeader header, const Doomed *d, TransactionId xid)
{
	header->t_infomask &= ~(HEAP_XMAX_BITS | HEAP_MOVED);
	header->t_infomask2 |= HEAP_KEYS_UPDATED;
	HeapTupleHeaderClearHotUpdated(header);
	HeapTupleHeaderSetXmax(header, xid);
	HeapTupleHeaderSetCmax(header, d->cid, d->combo);
	header->t_ctid = d->row->tid;
}

/* Those of one page; what is to go alone is noted. Page locked. */
static void
mark_together(GtTable *t, Buffer buffer, Doomed *doomed, int n)
{
	TransactionId xid = GetCurrentTransactionId();
	CommandId	cid = GetCurrentCommandId(true);
	GenericXLogState *state;
	Page		page;
	int			left = n;
	int			i;

	for (i = 0; i < n; i++)
	{
		doomed[i].alone = !may_be_marked(t, buffer, &doomed[i], cid);
		left -= doomed[i].alone;
	}
	if (left == 0)
		return;
	MultiXactIdSetOldestMember();	/* others may lock what we are deleting, and name us beside them */
	state = GenericXLogStart(t->rel);
	page = GenericXLogRegisterBuffer(state, buffer, 0);
	PageSetPrunable(page, xid);
	for (i = 0; i < n; i++)
		if (!doomed[i].alone)
			mark(header_at(page, doomed[i].row), &doomed[i], xid);
	(void) GenericXLogFinish(state);
}

static void
delete_of_page(GtTable *t, Doomed *doomed, int n)
{
	Buffer		buffer = ReadBuffer(t->rel, ItemPointerGetBlockNumber(&doomed->row->tid));
	int			i;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	/* who deletes the first of such a page tells the map of them, too, and then it is none */
	while (n > 0 && PageIsAllVisible(BufferGetPage(buffer)))
	{
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		*doomed->deleted = gt_try_delete(t, doomed->row);
		doomed++;
		n--;
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	}
	mark_together(t, buffer, doomed, n);
	UnlockReleaseBuffer(buffer);
	for (i = 0; i < n; i++)
	{
		*doomed[i].deleted = !doomed[i].alone || gt_try_delete(t, doomed[i].row);
		if (!doomed[i].alone)
			pgstat_count_heap_delete(t->rel);
	}
}

static bool
is_of_page(const Doomed *a, const Doomed *b)
{
	return ItemPointerGetBlockNumber(&a->row->tid) == ItemPointerGetBlockNumber(&b->row->tid);
}

/* A row that is named twice is deleted once. */
static int
without_doubles(Doomed *doomed, int n)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (kept == 0 || by_place(&doomed[i], &doomed[kept - 1]) != 0)
			doomed[kept++] = doomed[i];
	return kept;
}

static void
delete_by_pages(GtTable *t, GtRow **rows, int n, bool *deleted)
{
	Doomed	   *doomed = gt_alloc_array(n, sizeof(Doomed));
	int			first;
	int			next;

	for (next = 0; next < n; next++)
	{
		doomed[next].row = rows[next];
		doomed[next].deleted = &deleted[next];
		deleted[next] = false;
		if (t->id == GT_OBJECT)
			gt_deleting(rows[next]->v[O_OBJECT_ID]);
	}
	qsort(doomed, n, sizeof(Doomed), by_place);
	n = without_doubles(doomed, n);
	for (first = 0; first < n; first = next)
	{
		CHECK_FOR_INTERRUPTS();
		for (next = first + 1; next < n && is_of_page(&doomed[first], &doomed[next]); next++)
			;
		delete_of_page(t, &doomed[first], next - first);
	}
	pfree(doomed);
	gt_note_write(t);
}

void
gt_try_delete_many(GtTable *t, GtRow **rows, int n, bool *deleted)
{
	int			i;

	if (n > 1 && may_write_pages(t))
		delete_by_pages(t, rows, n, deleted);
	else
		for (i = 0; i < n; i++)
			deleted[i] = gt_try_delete(t, rows[i]);
}
