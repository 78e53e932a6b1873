/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  What is done at the end of a transaction, and subtransactions that catch errors.
 *
 * Several files keep something for the transaction in progress: what to tell shared
 * memory once it has committed, what to forget.  They are called here, in the order
 * of GtAtEnd, for each event of every transaction and subtransaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/point.h"
#include "base/transaction.h"

static struct
{
	XactCallback transaction;	/* NULL: has nothing to do */
	SubXactCallback subtransaction;
}			at_end[GT_AT_END_KINDS];

static void
end_of_transaction(XactEvent event, void *arg)
{
	int			i;

	for (i = 0; i < GT_AT_END_KINDS; i++)
		if (at_end[i].transaction != NULL)
			at_end[i].transaction(event, NULL);
}

static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			i;

	for (i = 0; i < GT_AT_END_KINDS; i++)
		if (at_end[i].subtransaction != NULL)
			at_end[i].subtransaction(event, mine, parent, NULL);
}

void
gt_at_end(GtAtEnd who, XactCallback of_transaction, SubXactCallback of_subtransaction)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		RegisterSubXactCallback(end_of_subtransaction, NULL);
		registered = true;
	}
	at_end[who].transaction = of_transaction;
	at_end[who].subtransaction = of_subtransaction;
}

void *
gt_more_notes(void *notes, int *room, Size size)
{
	int			more = Max(*room * 2, 16);

	GT_POINT("more_notes");
	notes = notes == NULL ? MemoryContextAlloc(TopTransactionContext, more * size) : repalloc_huge(notes, more * size);
	*room = more;
	return notes;
}

static uint64 epoch = 1;

static void
end_epoch(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE && event != XACT_EVENT_PARALLEL_PRE_COMMIT)
		epoch++;
}

static void
end_epoch_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		epoch++;
}

uint64
gt_epoch(void)
{
	gt_at_end(GT_AT_END_EPOCH, end_epoch, end_epoch_of_subtransaction);
	return epoch;
}

ErrorData *
gt_try(void (*body) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		body(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}
