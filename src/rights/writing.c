/*-------------------------------------------------------------------------
 *
 * writing.c
 *	  What every SQL function that writes begins with.
 *
 * Its caller must have the right to it, the transaction must be one that may
 * write, and what has been written can not be prepared: shared memory learns of it
 * at the commit, by the process that has written it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "base/transaction.h"
#include "rights/may.h"
#include "rights/writing.h"

static bool wrote;				/* this transaction has called a function that writes */

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && wrote)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed leases or garbage")));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wrote = false;
}

void
gt_mark_write(const char *function)
{
	gt_must_be_allowed(function);
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	gt_at_end(GT_AT_END_WRITING, at_end_of_transaction, NULL);
	wrote = true;
}
