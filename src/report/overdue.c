/*-------------------------------------------------------------------------
 *
 * overdue.c
 *	  What should have begun and has not, and what is in hand; who may know of it.
 *
 * gt_health(), gt_metrics() and the views ask this.  It reads a bounded number of
 * rows from the low end of the queues.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "garbage/garbage.h"
#include "handler/use.h"
#include "lease/created.h"
#include "lease/deadline.h"
#include "report/overdue.h"
#include "rights/may.h"
#include "rights/place.h"
#include "rights/rights.h"
#include "rights/roles.h"
#include "shared/due.h"
#include "shared/ids.h"
#include "shared/shmem.h"
#include "table/scan.h"

#define MAX_LOOK		1000	/* rows at the end of an index that are looked at */

/* Cleanup ids that processes in this database run now, sorted. */
int
gt_running_items(int64 **items)
{
	int			n = 0;
	int			i;

	*items = palloc(GT_SLOTS * lengthof(gt_shared->slots[0].items) * sizeof(int64));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state == GT_SLOT_FREE || slot->database != MyDatabaseId || slot->nitems <= 0)
			continue;
		memcpy(*items + n, slot->items, slot->nitems * sizeof(int64));
		n += slot->nitems;
	}
	LWLockRelease(gt_shared->lock);
	qsort(*items, n, sizeof(int64), gt_by_id);
	return n;
}

/* Since when the oldest garbage of this handler is due and not in hand; GT_NEVER. */
static TimestampTz
overdue_garbage(GtTable *objects, const GtHandler *h, bool all, const int64 *running, int nrunning)
{
	TimestampTz oldest = GT_NEVER;
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessStrategyNumber,
							   TimestampTzGetDatum(gt_now()));
	while (oldest == GT_NEVER && looked++ < MAX_LOOK + nrunning && gt_scan_next(scan, &row))
	{
		int64		id = row.isnull[O_CLEANUP_ID] ? 0 : GT_INT64(&row, O_CLEANUP_ID);

		if (id != 0 && (all || gt_acts_for(GT_OID(&row, O_OWNER)) || gt_handler_may_claim(h)) &&
			(nrunning == 0 || bsearch(&id, running, nrunning, sizeof(int64), gt_by_id) == NULL))
			oldest = GT_TIME(&row, O_DUE_AT);
	}
	gt_scan_end(scan);
	return oldest;
}

/* Since when the oldest lease of this role is over that nobody has ended; GT_NEVER. */
static TimestampTz
overdue_of_role(GtTable *leases, Oid owner, TimestampTz now)
{
	TimestampTz oldest = GT_NEVER;
	Datum		key = ObjectIdGetDatum(owner);
	int			looked = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin_bound(leases, GT_LEASE_CHECK, 1, &key, BTLessStrategyNumber, TimestampTzGetDatum(now));
	while (oldest == GT_NEVER && looked++ < MAX_LOOK && gt_scan_next(scan, &row))
	{
		TimestampTz over_at = gt_effective_deadline(&row);

		if (over_at < now && !gt_created_here(DatumGetUUIDP(row.v[L_ID])))
			oldest = over_at;
	}
	gt_scan_end(scan);
	return oldest;
}

/* The same of all roles, or of those that the caller acts for. */
static TimestampTz
overdue_lease(bool all)
{
	TimestampTz now = gt_now();
	TimestampTz oldest = GT_NEVER;
	GtTable		leases;
	GtKey	   *keys;
	int			n;
	int			i;

	gt_open(&leases, GT_LEASE, AccessShareLock);
	keys = gt_scan_keys(&leases, GT_LEASE_CHECK, &n);
	for (i = 0; i < n; i++)
		if (keys[i].first < Min(now, oldest) && (all || gt_acts_for(keys[i].key)))
			oldest = Min(oldest, overdue_of_role(&leases, keys[i].key, now));
	gt_close(&leases);
	return oldest;
}

/*
 * Since when the oldest work of the workers is due and not begun: leases to end,
 * garbage to clean.  What is paused or suspended waits for somebody else.
 * `all`: whoever's it is, else only the caller's.
 */
TimestampTz
gt_observe_overdue(bool all)
{
	TimestampTz oldest;
	int64	   *running = NULL;
	int			nrunning = 0;
	GtTable		objects;
	ListCell   *lc;

	if (gt_place(NULL) == GT_PLACE_COPY)
		return GT_NEVER;
	oldest = overdue_lease(all);
	if (gt_database_paused())
		return oldest;
	if (gt_shared != NULL)
		nrunning = gt_running_items(&running);
	gt_open(&objects, GT_OBJECT, AccessShareLock);
	foreach(lc, gt_handler_list())
	{
		GtHandler  *h = lfirst(lc);

		if (!GT_KIND_IS_EXTERNAL(h->kind) && !h->paused && gt_handler_suspended(h) == NULL)
			oldest = Min(oldest, overdue_garbage(&objects, h, all, running, nrunning));
	}
	gt_close(&objects);
	return oldest;
}

int
gt_lapsed_claims_of(GtTable *objects, const GtHandler *h, bool all, int limit)
{
	bool		sees_all = all || gt_handler_may_claim(h);
	TimestampTz now = gt_now();
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	int			n = 0;
	GtScan	   *scan;
	GtRow		row;

	if (h->missing || !GT_KIND_IS_CLAIMABLE(h->kind))
		return 0;
	scan = gt_scan_begin_bound(objects, GT_OBJECT_CLAIMED, 1, &key, BTLessEqualStrategyNumber, TimestampTzGetDatum(now));
	while (n < limit && looked++ < MAX_LOOK && gt_scan_next(scan, &row))
		n += gt_garbage_lapsed_last(&row, h, now) && (sees_all || gt_acts_for(GT_OID(&row, O_OWNER)));
	gt_scan_end(scan);
	return n;
}

int
gt_lapsed_claims(void)
{
	int			n = 0;
	GtTable		objects;
	ListCell   *lc;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	foreach(lc, gt_handler_list())
		n += gt_lapsed_claims_of(&objects, lfirst(lc), true, MAX_LOOK);
	gt_close(&objects);
	return n;
}

/* 42501 for who is not a monitor, 55000 without preload. */
void
gt_check_monitor(const char *function)
{
	if (!gt_is_monitor())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", function),
				 errhint("SELECT gt_allow(%s, 'monitor');", quote_literal_cstr(gt_role_name(GetUserId())))));
	if (gt_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs the library to be loaded at server start", function),
				 errhint("Add garbagetruck to shared_preload_libraries and restart the server.")));
	if (gt_my_database() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are more than %d databases", GT_MAX_DATABASES)));
}
