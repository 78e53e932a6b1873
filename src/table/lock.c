/*-------------------------------------------------------------------------
 *
 * lock.c
 *	  Rows of our tables are locked, as SELECT FOR UPDATE and its kin do.
 *
 * What must not change any more is locked, and the lock of a row lasts to the
 * end of the transaction.  Who would refuse something must not keep others from
 * a row meanwhile: gt_fetch_lock_if() locks exactly the version that was judged,
 * and waits for others, where it has to, without a lock of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "table/look.h"
#include "table/table.h"
#include "table/table_internal.h"

/* Is the version in the slot of the table the one that row was copied from, as a whole? */
static bool
is_same_version(GtTable *t, const GtRow *row, ItemPointer read)
{
	bool		isnull;

	return !row->brief && ItemPointerEquals(&t->slot->tts_tid, read) &&
		TransactionIdEquals(row->xmin, DatumGetTransactionId(slot_getsysattr(t->slot, MinTransactionIdAttributeNumber,
																			 &isnull)));
}

/*
 * newest: follows the row to its newest version, else GT_GONE where the one that
 * was read is no longer that.  A row that another transaction is updating can be
 * locked FOR KEY SHARE at once: its new version is locked with it.
 */
static GtLockResult
lock_row(GtTable *t, GtRow *row, LockTupleMode mode, bool skip, bool newest)
{
	ItemPointerData read = row->tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(t->rel, &row->tid, SnapshotAny, t->slot,
							  GetCurrentCommandId(false), mode,
							  skip ? LockWaitSkip : LockWaitBlock,
							  TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS |
							  (newest ? TUPLE_LOCK_FLAG_FIND_LAST_VERSION : 0), &failure);
	switch (result)
	{
		case TM_Ok:
			if (is_same_version(t, row, &read))
				ExecClearTuple(t->slot);
			else
				gt_copy_row(t, row);
			return GT_LOCKED;
		case TM_WouldBlock:
			ExecClearTuple(t->slot);
			return GT_BUSY;
		case TM_Updated:
			if (newest)
				break;
			/* FALLTHROUGH */
		case TM_Deleted:
		case TM_SelfModified:
		case TM_Invisible:		/* this very transaction has written a newer version since row was read */
			ExecClearTuple(t->slot);
			return GT_GONE;
		default:
			break;
	}
	elog(ERROR, "could not lock a row of \"%s\": %d", RelationGetRelationName(t->rel), result);
	return GT_GONE;				/* keep compiler quiet */
}

GtLockResult
gt_lock(GtTable *t, GtRow *row, LockTupleMode mode, bool skip)
{
	return lock_row(t, row, mode, skip, true);
}

/* A transaction that has locked or written a version of a row. */
typedef struct Holder
{
	TransactionId xid;
	bool		shares;			/* it has locked it FOR SHARE */
} Holder;

/* Those others whose lock or update of this version conflicts with the mode. Returns how many; they may have ended. */
static int
find_holders(GtTable *t, GtRow *row, LockTupleMode mode, Holder **holders)
{
	HeapTuple	tuple;
	Buffer		buffer;
	TransactionId xmax;
	uint16		infomask;
	MultiXactMember *members = NULL;
	int			nmembers;
	int			n = 0;
	int			i;

	if (!table_tuple_fetch_row_version(t->rel, &row->tid, SnapshotAny, t->slot))
		return 0;
	tuple = ExecFetchSlotHeapTuple(t->slot, false, NULL);
	buffer = ((BufferHeapTupleTableSlot *) t->slot)->buffer;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);	/* the two belong together, and others are changing them */
	xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
	infomask = tuple->t_data->t_infomask;
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	ExecClearTuple(t->slot);

	if (infomask & HEAP_XMAX_INVALID)
		return 0;
	if (!(infomask & HEAP_XMAX_IS_MULTI))
	{
		*holders = palloc(sizeof(Holder));
		(*holders)->xid = xmax;
		(*holders)->shares = HEAP_XMAX_IS_LOCKED_ONLY(infomask) && HEAP_XMAX_IS_SHR_LOCKED(infomask);
		return TransactionIdIsCurrentTransactionId(xmax) ? 0 : 1;
	}
	nmembers = GetMultiXactIdMembers(xmax, &members, false, HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	*holders = palloc(Max(nmembers, 1) * sizeof(Holder));
	for (i = 0; i < nmembers; i++)
	{
		/* an update is as strong as the lock that it takes: modes conflict from KEY SHARE + EXCLUSIVE on */
		int			strength = members[i].status <= MultiXactStatusForUpdate ? (int) members[i].status :
			(int) members[i].status - (MultiXactStatusNoKeyUpdate - MultiXactStatusForNoKeyUpdate);

		if (strength + (int) mode >= (int) LockTupleExclusive &&
			!TransactionIdIsCurrentTransactionId(members[i].xid))
			(*holders)[n++] = (Holder) {members[i].xid, members[i].status == MultiXactStatusForShare};
	}
	if (nmembers > 0)
		pfree(members);
	return n;
}

/* Waits for them; locks no row. */
static void
wait_for_holders(GtTable *t, GtRow *row, LockTupleMode mode)
{
	Holder	   *holders = NULL;
	int			n = find_holders(t, row, mode, &holders);
	int			i;

	for (i = 0; i < n; i++)
		XactLockTableWait(holders[i].xid, t->rel, &row->tid, XLTW_Lock);
	if (holders != NULL)
		pfree(holders);
}

/* See look.h. */
void
gt_wait_for_holders(GtTable *t, GtRow *row)
{
	LockTuple(t->rel, &row->tid, ExclusiveLock);
	wait_for_holders(t, row, LockTupleNoKeyExclusive);
	UnlockTuple(t->rel, &row->tid, ExclusiveLock);
}

bool
gt_is_share_locked(GtTable *t, GtRow *row)
{
	Holder	   *holders = NULL;
	int			n = find_holders(t, row, LockTupleNoKeyExclusive, &holders);
	bool		found = false;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (!TransactionIdIsInProgress(holders[i].xid))
			continue;
		found = holders[i].shares;
		if (!found)
			break;
	}
	return found;
}

/*
 * A place in the queue for a version of a row, as row locks keep it: so that of
 * many who wait for its holder one is woken at a time.
 */
typedef struct Queued
{
	bool		waiting;
	ItemPointerData tid;
} Queued;

static LOCKMODE
queue_mode(LockTupleMode mode)
{
	static const LOCKMODE modes[] = {AccessShareLock, RowShareLock, ExclusiveLock, AccessExclusiveLock};

	return modes[mode];
}

static void
leave_queue(GtTable *t, Queued *queued, LockTupleMode mode)
{
	if (queued->waiting)
		UnlockTuple(t->rel, &queued->tid, queue_mode(mode));
	queued->waiting = false;
}

static void
enter_queue(GtTable *t, const GtRow *row, Queued *queued, LockTupleMode mode)
{
	if (queued->waiting && ItemPointerEquals(&queued->tid, (ItemPointer) &row->tid))
		return;
	leave_queue(t, queued, mode);
	queued->tid = row->tid;
	LockTuple(t->rel, &queued->tid, queue_mode(mode));
	queued->waiting = true;
}

GtLockResult
gt_fetch_lock_if(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
				 GtRow *row, LockTupleMode mode, bool skip, GtJudge may, void *arg)
{
	GtLockResult result;
	Queued		queued = {false};

	for (;;)
	{
		if (!gt_fetch(t, index, nkeys, keys, row))
			result = GT_GONE;
		else if (!may(row, arg))
			result = GT_REFUSED;
		else
		{
			result = lock_row(t, row, mode, true, false);
			if (result == GT_GONE)
			{
				CHECK_FOR_INTERRUPTS();
				continue;		/* another version has come: to be judged, too */
			}
		}
		if (result != GT_BUSY || skip)
			break;
		enter_queue(t, row, &queued, mode);
		wait_for_holders(t, row, mode);
		CHECK_FOR_INTERRUPTS();
	}
	leave_queue(t, &queued, mode);
	return result;
}

GtLockResult
gt_fetch_lock(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
			  GtRow *row, LockTupleMode mode, bool skip)
{
	for (;;)
	{
		GtLockResult result;

		if (!gt_fetch(t, index, nkeys, keys, row))
			return GT_GONE;
		result = gt_lock(t, row, mode, skip);
		if (result != GT_GONE)
			return result;
		/* deleted while we waited: another with the same key may have come */
		CHECK_FOR_INTERRUPTS();
	}
}
