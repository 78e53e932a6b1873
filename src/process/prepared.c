/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  COMMIT PREPARED and ROLLBACK PREPARED.
 *
 * Any session may give them, on a server that has been restarted since: it knows
 * nothing of what that transaction did.  Its commit makes leases and garbage visible
 * that nobody has been told of, or lets go of rows that workers pass over at growing
 * intervals.  So where prepared transactions of ours are open (known to
 * shared/prepared.c, or by their lock on gt_object, see rights/writing.c) the utility
 * hook makes the workers of the database look, when the command is over.  What it
 * has done may lie below the low ends that workers remember: they are told that, too.
 *
 * Nothing is locked.  A crash before the workers were woken is a start of the server,
 * at which all is looked at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/inval.h"

#include "process/prepared.h"
#include "shared/counts.h"
#include "shared/due.h"
#include "shared/prepared.h"
#include "shared/renewals.h"
#include "shared/shmem.h"
#include "table/relations.h"

void
gt_prepared_ends(GtPreparedEnd *end)
{
	VirtualTransactionId *holders;
	LOCKTAG		tag;
	int			n;
	int			i;

	end->extension = gt_extension();
	end->ours = gt_prepared_any();
	end->nunknown = 0;
	if (!OidIsValid(end->extension))
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, gt_relid(GT_OBJECT));
	holders = GetLockConflicts(&tag, AccessExclusiveLock, &n);
	end->unknown = palloc(Max(n, 1) * sizeof(TransactionId));
	for (i = 0; i < n; i++)
		if (VirtualTransactionIdIsRecoveredPreparedXact(holders[i]))
			end->unknown[end->nunknown++] = holders[i].localTransactionId;
}

void
gt_prepared_has_ended(const GtPreparedEnd *end)
{
	GtDatabase *db;
	int			i;

	AcceptInvalidationMessages();	/* it may have made the extension, or dropped it */
	if (!end->ours && end->nunknown == 0 && gt_extension() == end->extension)
		return;
	db = gt_my_database();
	if (db != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		db->retry_at = 0;
		LWLockRelease(gt_shared->lock);
		pg_atomic_fetch_add_u64(&db->late, 1);
		pg_atomic_fetch_add_u64(&db->prepared_ends, 1);
		gt_handlers_stir(gt_now());	/* rows with a deadline that it has written */
		gt_due_at(db, gt_now());
	}
	if (OidIsValid(end->extension) && gt_extension() != end->extension)
	{
		gt_observe_forget(MyDatabaseId);
		gt_renewals_forget(MyDatabaseId);
	}
	gt_count_prepared();
	for (i = 0; i < end->nunknown; i++)
		if (!TransactionIdIsInProgress(end->unknown[i]) && TransactionIdDidCommit(end->unknown[i]))
			gt_observe_recount();
}
