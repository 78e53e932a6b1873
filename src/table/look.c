/*-------------------------------------------------------------------------
 *
 * look.c
 *	  Who has a row, for who would like to update it and locks nothing.
 *
 * The header of a version tells who has locked or replaced it.  Whoever looks at it
 * holds the content lock of its page for as long, and no other; whether those
 * transactions are in progress is asked afterwards.  What the header says is told
 * apart by gt_is_unchanged(): nobody gets or gives up a lock without a change there,
 * but for transactions that end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "shared/shmem.h"
#include "table/look.h"

/* Does a transaction that has ended, or another one, count as an update or a deletion of the version? */
static GtLook
look_at_update(TransactionId xid, bool deletes)
{
	if (TransactionIdIsInProgress(xid))
		return deletes ? GT_ENDING : GT_HELD;
	return TransactionIdDidCommit(xid) ? GT_REPLACED : GT_FREE;
}

/* Of several that have locked it; one of them at most has updated it. */
static GtLook
look_at_members(TransactionId xmax, uint16 infomask)
{
	MultiXactMember *members = NULL;
	int			n = GetMultiXactIdMembers(xmax, &members, false, HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	GtLook		look = GT_FREE;
	int			i;

	for (i = 0; i < n && look != GT_REPLACED; i++)
	{
		MultiXactStatus status = members[i].status;
		bool		ends = status == MultiXactStatusForUpdate || status == MultiXactStatusUpdate;

		if (ISUPDATE_from_mxstatus(status))
			look = Max(look, look_at_update(members[i].xid, ends));
		else if (status != MultiXactStatusForKeyShare && !TransactionIdIsCurrentTransactionId(members[i].xid) &&
				 TransactionIdIsInProgress(members[i].xid))
			look = Max(look, ends ? GT_ENDING : GT_HELD);
	}
	if (members != NULL)
		pfree(members);
	return look;
}

static GtLook
look_at_header(const GtVersion *v)
{
	if (v->infomask & HEAP_XMAX_INVALID)
		return GT_FREE;
	if (v->infomask & HEAP_XMAX_IS_MULTI)
		return look_at_members(v->xmax, v->infomask);
	if (!HEAP_XMAX_IS_LOCKED_ONLY(v->infomask))
		return look_at_update(v->xmax, (v->infomask2 & HEAP_KEYS_UPDATED) != 0);
	if (HEAP_XMAX_IS_KEYSHR_LOCKED(v->infomask) || TransactionIdIsCurrentTransactionId(v->xmax) ||
		!TransactionIdIsInProgress(v->xmax))
		return GT_FREE;
	return HEAP_XMAX_IS_EXCL_LOCKED(v->infomask) && (v->infomask2 & HEAP_KEYS_UPDATED) != 0 ? GT_ENDING : GT_HELD;
}

/* What the header of the version in the slot of the table says; its page is pinned. */
static void
read_header(GtTable *t, GtVersion *v)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(t->slot, false, NULL);
	Buffer		buffer = ((BufferHeapTupleTableSlot *) t->slot)->buffer;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	v->xmin = HeapTupleHeaderXminFrozen(tuple->t_data) ? InvalidTransactionId : HeapTupleHeaderGetRawXmin(tuple->t_data);
	v->xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
	v->infomask = tuple->t_data->t_infomask & HEAP_XMAX_BITS;
	v->infomask2 = tuple->t_data->t_infomask2 & HEAP_KEYS_UPDATED;
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
}

/* See look.h. */
GtLook
gt_look_at(GtTable *t, GtRow *row, GtVersion *version)
{
	/* it was visible when row was read; since then it may have given its place to another */
	if (!table_tuple_fetch_row_version(t->rel, &row->tid, SnapshotAny, t->slot))
		return GT_REPLACED;
	if (!TransactionIdEquals(HeapTupleHeaderGetRawXmin(ExecFetchSlotHeapTuple(t->slot, false, NULL)->t_data), row->xmin))
	{
		ExecClearTuple(t->slot);
		return GT_REPLACED;
	}
	read_header(t, version);
	version->own = TransactionIdIsCurrentTransactionId(row->xmin);
	return look_at_header(version);
}

/* See look.h. */
bool
gt_is_unchanged(GtTable *t, const GtVersion *version)
{
	GtVersion	now;

	read_header(t, &now);
	return now.xmax == version->xmax && now.infomask == version->infomask && now.infomask2 == version->infomask2;
}

/*
 * See look.h.  A commit that was not asynchronous is seen once it has been flushed
 * here.  A standby may still have to get it: a worker waits for that afterwards, and
 * never for a handler, which holds rows.
 */
void
gt_flush_commit_of(const GtVersion *version)
{
	if (TransactionIdIsValid(version->xmin))
		XLogFlush(TransactionIdGetCommitLSN(version->xmin));
	if (gt_my_slot != NULL || synchronous_commit <= SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		return;
	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(GetFlushRecPtr(NULL), false);
	RESUME_INTERRUPTS();
}

