/*-------------------------------------------------------------------------
 *
 * look.c
 *	  What a worker finds in its database: is there anything for it to do?
 *
 * Is the extension here, is the database a copy, does anything stand in the way of
 * writes?  Asked with work only, in a transaction of its own, and never waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "lease/start.h"
#include "process/look.h"
#include "process/process.h"
#include "rights/place.h"
#include "shared/shmem.h"
#include "table/relations.h"
#include "table/schema.h"
#include "table/tampered.h"

#define BLOCKED_LAST	(10 * USECS_PER_SEC)	/* at most between two looks while somebody has our tables locked */

bool
gt_database_is_eligible(Form_pg_database form)
{
	return form->datallowconn && !form->datistemplate &&
		form->datconnlimit != DATCONNLIMIT_INVALID_DB &&
		gt_is_listed(NameStr(form->datname));
}

/* Is ours still one in which workers are to be? */
static bool
is_eligible(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	bool		result = HeapTupleIsValid(tuple) && gt_database_is_eligible((Form_pg_database) GETSTRUCT(tuple));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

bool
gt_worker_may_work(bool *again)
{
	GtPlace		place;
	char	   *why = NULL;
	const char *obstructed;
	bool		warn;

	if (!is_eligible())
	{
		*again = true;			/* the launcher sees when it is again */
		return false;
	}
	if (!OidIsValid(gt_extension()))
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		gt_worker_database->absent = true;
		LWLockRelease(gt_shared->lock);
		return false;
	}
	/* somebody is altering or dropping it: we would stand in the way, or wait for long */
	if (!ConditionalLockRelationOid(gt_relid(GT_OBJECT), AccessShareLock) ||
		!ConditionalLockRelationOid(gt_relid(GT_LEASE), AccessShareLock))
	{
		TimestampTz now = gt_now();

		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		if (gt_worker_database->blocked_since == 0)
			gt_worker_database->blocked_since = now;
		/* perhaps a transaction that is prepared */
		gt_worker_database->retry_at = now + Max(Min(now - gt_worker_database->blocked_since, BLOCKED_LAST), USECS_PER_SEC);
		LWLockRelease(gt_shared->lock);
		*again = true;
		return false;
	}

	place = gt_place(&why);
	obstructed = gt_tables_obstructed();
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_worker_database->absent = false;
	gt_worker_database->blocked_since = 0;
	gt_worker_database->place = place;
	warn = (place == GT_PLACE_COPY || obstructed != NULL) && !gt_worker_database->warned;
	gt_worker_database->warned = place == GT_PLACE_COPY || obstructed != NULL;
	if (place == GT_PLACE_COPY)
		gt_worker_database->retry_at = gt_now() + (int64) gt_naptime * USECS_PER_SEC;
	else if (obstructed != NULL)
		gt_worker_database->retry_at = gt_now() + USECS_PER_SEC;
	LWLockRelease(gt_shared->lock);
	*again = place == GT_PLACE_OURS && obstructed != NULL;
	if (warn && place != GT_PLACE_COPY)
		ereport(WARNING,
				(errmsg("garbagetruck does nothing in database \"%s\": %s, which its writes would pass over",
						get_database_name(MyDatabaseId), obstructed),
				 errhint("It goes on as soon as that is gone; see gt_health().")));
	else if (warn)
		ereport(WARNING,
				(errmsg("garbagetruck does nothing in database \"%s\": it is a copy", get_database_name(MyDatabaseId)),
				 errdetail("%s", why),
				 errhint("If its objects are its own, an administrator says so there: SELECT gt_resume(adopt => true);")));
	if (place != GT_PLACE_OURS || obstructed != NULL)
		return false;
	/* recorded at once: nothing is judged before, and a client that records it may stay in its transaction */
	gt_start_ensure();
	return true;
}
