/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  A copy of a database becomes an original: gt_resume(adopt => true).
 *
 * The session of an administrator runs this in its transaction.  Roles are
 * translated, the place is written anew, what was claimed or ran at the original
 * is waited for by nobody, and every lease lives on for its full duration.  A crash
 * before the commit leaves the copy as it was; the commit tells shared memory, and
 * the workers begin.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/transaction.h"
#include "clean/record.h"
#include "control/adopt.h"
#include "garbage/garbage.h"
#include "lease/start_record.h"
#include "rights/owner.h"
#include "rights/place.h"
#include "rights/roles.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/scan.h"

static bool adopting = false;	/* this transaction has made a copy an original */
static SubTransactionId adopting_subid;

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	GtDatabase *db;

	if (adopting && event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has adopted a copy"),
				 errdetail("Its leases live on for their full duration from the commit, which this session has to see."),
				 errhint("Give gt_resume(adopt => true) in a transaction that is committed.")));
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (adopting && event == XACT_EVENT_COMMIT && (db = gt_my_database()) != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		db->place = GT_PLACE_OURS;
		db->retry_at = 0;
		db->warned = false;
		LWLockRelease(gt_shared->lock);
		gt_due_at(db, gt_now());
	}
	adopting = false;
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (!adopting || adopting_subid != mine)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		adopting_subid = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		adopting = false;
}

/* The commit of this (sub)transaction makes a copy an original. */
static void
note_adoption(void)
{
	gt_at_end(GT_AT_END_ADOPTED, at_end_of_transaction, at_end_of_subtransaction);
	adopting = true;
	adopting_subid = GetCurrentSubTransactionId();
}

static void
end_claim(GtTable *objects, GtRow *row, const GtHandler *h)
{
	if (GT_CHAR(row, O_STATE) != GT_STATE_CLAIMED ||
		gt_lock(objects, row, LockTupleNoKeyExclusive, false) != GT_LOCKED ||
		GT_CHAR(row, O_STATE) != GT_STATE_CLAIMED)
		return;
	if (gt_garbage_lapsed(objects, row, h))
		gt_garbage_wait(row, h, gt_now());
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_BEFORE);
	gt_update(objects, row);
}

/* Claims that were made at the original: their consumers know nothing of us. */
static void
end_claims(void)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck claims", ALLOCSET_DEFAULT_SIZES);
	GtTable		objects;
	ListCell   *cell;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	foreach(cell, gt_handler_list())
	{
		GtHandler  *h = lfirst(cell);
		Datum		key = Int32GetDatum(h->id);
		MemoryContext old;
		GtScan	   *scan;
		GtRow		row;

		if (!GT_KIND_IS_CLAIMABLE(h->kind))
			continue;
		scan = gt_scan_begin(&objects, GT_OBJECT_DUE, 1, &key);
		old = MemoryContextSwitchTo(per_row);
		while (gt_scan_next(scan, &row))
		{
			CHECK_FOR_INTERRUPTS();
			end_claim(&objects, &row, h);
			MemoryContextReset(per_row);
		}
		MemoryContextSwitchTo(old);
		gt_scan_end(scan);
	}
	gt_close(&objects);
	MemoryContextDelete(per_row);
}

/* What was running at the original did not run here; what runs here goes on, and has its name. */
static void
forget_runs(void)
{
	GtTable		runs;
	GtRow		row;
	GtScan	   *scan;

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	scan = gt_scan_begin_once(&runs, GT__RUN_PKEY);
	while (gt_scan_next(scan, &row))
		if (!gt_record_has_writer(GT_INT64(&row, RUN_WORKER)) && gt_lock(&runs, &row, LockTupleExclusive, false) == GT_LOCKED)
			gt_delete(&runs, &row);
	gt_scan_end(scan);
	gt_close(&runs);
}

/*
 * A subscriber has received ids that its own sequences know nothing of: they go
 * on behind what is there, also in what only tells of them.
 */
void
gt_place_advance_sequences(void)
{
	static const char *const steps[] = {
		"SELECT pg_catalog.setval('_garbagetruck.gt__cleanup_id', m.top) FROM (SELECT greatest("
		"(SELECT max(cleanup_id) FROM _garbagetruck.gt_object), (SELECT max(cleanup_id) FROM _garbagetruck.gt__history)) AS top) m"
		" WHERE m.top >= (SELECT last_value FROM _garbagetruck.gt__cleanup_id)",
		"SELECT pg_catalog.setval('_garbagetruck.gt__handler_id', m.top) FROM (SELECT max(id)::bigint AS top FROM"
		" (SELECT id FROM _garbagetruck.gt__handler UNION ALL SELECT id FROM _garbagetruck.gt__ttl UNION ALL SELECT handler FROM _garbagetruck.gt__handler_right"
		" UNION ALL SELECT handler FROM _garbagetruck.gt__tally UNION ALL SELECT handler_id FROM _garbagetruck.gt__history"
		" UNION ALL SELECT handler FROM _garbagetruck.gt_object UNION ALL SELECT handler FROM _garbagetruck.gt_lease) h) m"
		" WHERE m.top >= (SELECT last_value FROM _garbagetruck.gt__handler_id)"
	};
	int			i;

	for (i = 0; i < (int) lengthof(steps); i++)
		gt_execute_as_owner(steps[i]);
}

/* The caller has the rights. */
void
gt_place_adopt(void)
{
	gt_roles_translate();
	gt_place_stamp(true);
	gt_place_advance_sequences();
	end_claims();
	forget_runs();
	gt_start_adopt();
	note_adoption();
}
