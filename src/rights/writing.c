/*-------------------------------------------------------------------------
 *
 * writing.c
 *	  What every SQL function that writes begins with.
 *
 * Its caller must have the right to it, and the transaction must be one that may
 * write.  One that is prepared is to be known by a lock on gt_object, whatever it has
 * written: so who commits it, even after a restart, can tell that it is of ours
 * (process/prepared.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "base/transaction.h"
#include "rights/may.h"
#include "rights/writing.h"
#include "shared/prepared.h"
#include "table/relations.h"

static bool wrote;				/* this transaction has called a function that writes */

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	/* it may have dropped the extension since */
	if (event == XACT_EVENT_PRE_PREPARE && wrote && OidIsValid(gt_extension()))
		LockRelationOid(gt_relid(GT_OBJECT), RowExclusiveLock);
	if (event == XACT_EVENT_PREPARE && wrote)
		(void) gt_prepared_mine();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wrote = false;
}

void
gt_mark_prepared(void)
{
	gt_at_end(GT_AT_END_WRITING, at_end_of_transaction, NULL);
	wrote = true;
}

void
gt_mark_write(const char *function)
{
	gt_must_be_allowed(function);
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	PreventCommandIfParallelMode(function); /* called by a function that says it is parallel safe */
	gt_mark_prepared();
}
