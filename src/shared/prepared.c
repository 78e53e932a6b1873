/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  Transactions that are prepared.
 *
 * A prepared transaction has no process.  What its own would have told at the commit
 * is kept here, from PREPARE TRANSACTION until it has ended: what is counted, and
 * the claims that count against their handler's limit; and that there is one.  The
 * session of COMMIT PREPARED or ROLLBACK PREPARED (process/prepared.c), and whoever
 * reads the numbers, take out what is no longer in progress: whether that has
 * committed the server's own log of transactions tells.  So one that another
 * library ended is found, too.
 *
 * A crash or a restart leaves prepared transactions, and empties this.  What they have
 * done is then in no number, and the gauges are counted anew when one of them commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/xid8.h"

#include "shared/parts.h"
#include "shared/prepared.h"
#include "shared/shmem.h"

static GtPrepared *table = NULL;

/* Twice as many as there can be: those that have ended stay until somebody looks. */
static int
room(void)
{
	return 2 * max_prepared_xacts;
}

static void
start(bool first)
{
	bool		found;

	if (room() == 0)
		return;
	table = ShmemInitStruct("garbagetruck_prepared", mul_size(room(), sizeof(GtPrepared)), &found);
	if (!found)
		memset(table, 0, mul_size(room(), sizeof(GtPrepared)));
}

void
gt_prepared_init(void)
{
	gt_shmem_part(mul_size(room(), sizeof(GtPrepared)), start);
}

/* Nobody else looks at it before it has ended. */
GtPrepared *
gt_prepared_mine(void)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();
	GtPrepared *mine = NULL;
	int			i;

	if (table == NULL || !FullTransactionIdIsValid(xid))
		return NULL;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < room(); i++)
	{
		if (table[i].database == MyDatabaseId && FullTransactionIdEquals(table[i].xid, xid))
		{
			LWLockRelease(gt_shared->lock);
			return &table[i];
		}
		if (mine == NULL && !OidIsValid(table[i].database))
			mine = &table[i];
	}
	if (mine != NULL)
	{
		memset(mine, 0, sizeof(GtPrepared));
		mine->database = MyDatabaseId;
		mine->xid = xid;
	}
	LWLockRelease(gt_shared->lock);
	return mine;
}

GtPreparedHandler *
gt_prepared_handler(GtPrepared *mine, int handler)
{
	int			i;

	for (i = 0; i < mine->nhandlers; i++)
		if (mine->handlers[i].handler == handler)
			return &mine->handlers[i];
	if (mine->nhandlers == GT_PREPARED_HANDLERS)
		return NULL;
	mine->handlers[mine->nhandlers].handler = handler;
	return &mine->handlers[mine->nhandlers++];
}

bool
gt_prepared_claims(int handler, int n)
{
	GtPrepared *mine = gt_prepared_mine();
	GtPreparedHandler *of = mine == NULL ? NULL : gt_prepared_handler(mine, handler);

	if (of != NULL)
		of->claims += n;
	return of != NULL;
}

bool
gt_prepared_any(void)
{
	int			i;

	for (i = 0; table != NULL && i < room(); i++)
		if (table[i].database == MyDatabaseId)
			return true;
	return false;
}

/* Has it ended, and how? One so old that nothing is known of it any more counts as undone. */
static bool
has_ended(FullTransactionId xid, bool *committed)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(xid);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	*committed = !fcinfo->isnull && strcmp(TextDatumGetCString(status), "committed") == 0;
	return fcinfo->isnull || strcmp(TextDatumGetCString(status), "in progress") != 0;
}

bool
gt_prepared_take(GtPrepared *ended, bool *committed)
{
	bool		taken = false;
	int			i;

	for (i = 0; table != NULL && i < room() && !taken; i++)
	{
		GtPrepared *p = &table[i];
		FullTransactionId xid;

		if (p->database != MyDatabaseId)
			continue;
		LWLockAcquire(gt_shared->lock, LW_SHARED);
		xid = p->xid;
		LWLockRelease(gt_shared->lock);
		if (!has_ended(xid, committed))
			continue;
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		taken = p->database == MyDatabaseId && FullTransactionIdEquals(p->xid, xid);
		if (taken)
		{
			*ended = *p;
			p->database = InvalidOid;
		}
		LWLockRelease(gt_shared->lock);
	}
	return taken;
}

void
gt_prepared_forget(Oid database)
{
	int			i;

	if (table == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < room(); i++)
		if (table[i].database == database)
			table[i].database = InvalidOid;
	LWLockRelease(gt_shared->lock);
}
