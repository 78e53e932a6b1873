/*-------------------------------------------------------------------------
 *
 * page.c
 *	  A page of leases is found: the first so many that match, in the order of ids.
 *
 * Sessions run this, on a standby too; nothing is written or locked.  What it costs
 * must not depend on how many leases others have, so there are several ways:
 *
 *	- by an index in which all that can match lies together, but not in the order of
 *	  ids: the leases of an object, those of a type, those that are over;
 *	- in the order of ids, through everybody's;
 *	- through those of each role that the caller acts for and each service of it, one
 *	  such queue after the other, each in the order of ids (gt_lease_service).
 *
 * Of all that is seen the first ids are kept, twice as many as the page has rows at
 * most; a queue in the order of ids is left where it is beyond those.  A way that may be a
 * long one is given up for the next after some steps, but for the last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xlog.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "port.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "lease/lease.h"
#include "lease/start_record.h"
#include "report/page.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "table/records.h"
#include "table/scan.h"

#define FEW		5000			/* steps of a way, before it is given up */
#define VAIN	1000			/* leases in the order of ids that are not in the page, likewise */
#define ALL		PG_INT64_MAX

bool
gt_filter_matches(const GtFilter *f, GtTable *leases, const GtRow *lease)
{
	int			order = memcmp(DatumGetUUIDP(lease->v[L_ID]), &f->after, sizeof(pg_uuid_t));

	if (f->newest_first ? order >= 0 : order <= 0)
		return false;
	if (f->service != NULL && strcmp(TextDatumGetCString(lease->v[L_SERVICE_ID]), f->service) != 0)
		return false;
	if (f->type != NULL && strcmp(TextDatumGetCString(lease->v[L_OBJECT_TYPE]), f->type) != 0)
		return false;
	if (f->object != NULL && strcmp(TextDatumGetCString(lease->v[L_OBJECT_ID]), f->object) != 0)
		return false;
	if (!gt_acts_for(GT_OID(lease, L_OWNER)) || !gt_caller_covers(TextDatumGetCString(lease->v[L_SERVICE_ID])))
		return false;
	return f->state == NULL ||
		gt_lease_running(leases, lease, gt_now()) == (strcmp(f->state, "active") == 0);
}

/* ---------------------------------------------------------------- the first ids */

static int
by_id(const void *a, const void *b, void *filter)
{
	return ((const GtFilter *) filter)->newest_first ? memcmp(b, a, sizeof(pg_uuid_t)) : memcmp(a, b, sizeof(pg_uuid_t));
}

/* A lease may have been found twice: by itself, and by its parent. */
static void
sort_ids(GtPage *page)
{
	void	   *filter = unconstify(GtFilter *, page->filter);
	int			max_rows = page->filter->max_rows;

	if (page->n > 1)
	{
		qsort_arg(page->ids, page->n, sizeof(pg_uuid_t), by_id, filter);
		page->n = qunique_arg(page->ids, page->n, sizeof(pg_uuid_t), by_id, filter);
	}
	page->full = page->n >= max_rows;
	page->n = Min(page->n, max_rows);
	page->sort_at = page->n + max_rows;
}

/* Is it after all that the page has room for? */
static bool
is_beyond(const GtPage *page, const pg_uuid_t *id)
{
	return page->full &&
		by_id(id, &page->ids[page->filter->max_rows - 1], unconstify(GtFilter *, page->filter)) > 0;
}

static void
add_id(GtPage *page, const pg_uuid_t *id)
{
	if (page->n == page->room)
		page->ids = repalloc_huge(page->ids, (page->room *= 2) * sizeof(pg_uuid_t));
	page->ids[page->n++] = *id;
	if (page->n == page->sort_at)
		sort_ids(page);
}

/* ---------------------------------------------------------------- one scan */

/* Also looks at what belongs to a lease that was seen. false: that is too much. */
typedef bool (*Also) (GtPage *page, const GtRow *lease);

/*
 * Looks at all that the scan has, which it ends; in order: in that of ids, up to what is
 * beyond the page, and what is in it is no step.  false: that is too much.
 */
static bool
find_in(GtPage *page, GtScan *scan, bool in_order, Also also)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_lease_list", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(per_row);
	bool		few = true;
	GtRow		row;

	while (few && gt_scan_next(scan, &row))
	{
		const pg_uuid_t *id = DatumGetUUIDP(row.v[L_ID]);
		bool		beyond = is_beyond(page, id);
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (beyond && in_order)
			break;
		found = !beyond && gt_filter_matches(page->filter, page->leases, &row);
		few = (found && in_order) || page->left-- > 0;
		if (few && found)
			add_id(page, id);
		if (few && also != NULL)
			few = also(page, &row);
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
	MemoryContextDelete(per_row);
	return few;
}

static bool
find_equal(GtPage *page, GtIndexId index, int nkeys, const Datum *keys, Also also)
{
	return find_in(page, gt_scan_begin(page->leases, index, nkeys, keys), false, also);
}

/* In an index that has the id after these keys, from where the page begins. */
static bool
find_from(GtPage *page, GtIndexId index, int nkeys, const Datum *keys)
{
	const GtFilter *f = page->filter;
	GtScan	   *scan = gt_scan_begin_bound(page->leases, index, nkeys, keys,
										   f->newest_first ? BTLessStrategyNumber : BTGreaterStrategyNumber,
										   UUIDPGetDatum(&f->after));

	if (f->newest_first)
		gt_scan_backward(scan);
	return find_in(page, scan, true, NULL);
}

/* ---------------------------------------------------------------- the ways */

/*
 * The leases of one object; of every type that has one of this name, where no type
 * is given.  Those are asked of the objects: of types there may be any number.
 */
static bool
find_of_object(GtPage *page)
{
	const GtFilter *f = page->filter;
	bool		few = true;
	Datum		key[2];
	GtTable		objects;
	GtScan	   *scan;
	GtRow		object;

	key[1] = CStringGetTextDatum(f->object);
	if (f->type != NULL)
	{
		key[0] = CStringGetTextDatum(f->type);
		return find_equal(page, GT_LEASE_OBJECT, 2, key, NULL);
	}
	gt_open(&objects, GT_OBJECT, AccessShareLock);
	scan = gt_scan_begin(&objects, GT_OBJECT_PKEY, 1, &key[1]);
	while (few && gt_scan_next(scan, &object))
	{
		CHECK_FOR_INTERRUPTS();
		key[0] = object.v[O_OBJECT_TYPE];
		few = find_equal(page, GT_LEASE_OBJECT, 2, key, NULL);
	}
	gt_scan_end(scan);
	gt_close(&objects);
	return few;
}

static bool
find_of_type(GtPage *page)
{
	Datum		key = CStringGetTextDatum(page->filter->type);

	return find_equal(page, GT_LEASE_OBJECT, 1, &key, NULL);
}

static bool
find_children(GtPage *page, const GtRow *parent)
{
	return gt_lease_running(page->leases, parent, gt_now()) ||
		find_equal(page, GT_LEASE_PARENT, 1, &parent->v[L_ID], NULL);
}

/* Children of leases that have ended, which the worker has not ended yet. */
static bool
find_orphans(GtPage *page)
{
	bool		few = true;
	GtTable		orphans;
	GtScan	   *scan;
	GtRow		orphan;

	gt_open(&orphans, GT__ORPHAN, AccessShareLock);
	scan = gt_scan_begin(&orphans, GT__ORPHAN_PKEY, 0, NULL);
	while (few && gt_scan_next(scan, &orphan))
		few = page->left-- > 0 && find_equal(page, GT_LEASE_PARENT, 1, &orphan.v[ORPHAN_PARENT], NULL);
	gt_scan_end(scan);
	gt_close(&orphans);
	return few;
}

/* Leases that are over have come to their check_at, and children are over with their parents, whoever's those are. */
static bool
find_expired(GtPage *page)
{
	TimestampTz now = gt_now();
	GtKey	   *owners;
	bool		few;
	int			n;
	int			i;

	/* until then there may be a check_at of a clock that was ahead */
	if (!RecoveryInProgress() && !gt_start_is_rearmed())
		return false;
	owners = gt_scan_keys(page->leases, GT_LEASE_CHECK, &n);
	few = find_orphans(page);
	for (i = 0; i < n && few; i++)
	{
		Datum		key = ObjectIdGetDatum(owners[i].key);

		if (owners[i].first <= now)
			few = find_in(page, gt_scan_begin_bound(page->leases, GT_LEASE_CHECK, 1, &key, BTLessEqualStrategyNumber,
													TimestampTzGetDatum(now)), false, find_children);
	}
	return few;
}

static bool
find_in_order(GtPage *page)
{
	return find_from(page, GT_LEASE_PKEY, 0, NULL);
}

/* The leases of a role and a service. */
typedef struct Queue
{
	Oid			owner;
	char	   *service;
} Queue;

/* The next service of the same role, of a caller that is named S: S itself, then S/... */
static bool
next_service(GtPage *page, Queue *queue)
{
	bool		below = gt_caller[0] != '\0' && strcmp(queue->service, gt_caller) == 0;
	Datum		owner = ObjectIdGetDatum(queue->owner);
	char	   *bound = below ? psprintf("%s/", gt_caller) : queue->service;
	GtScan	   *scan = gt_scan_begin_bound(page->leases, GT_LEASE_SERVICE, 1, &owner,
										   below ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber,
										   CStringGetTextDatum(bound));
	GtRow		row;
	bool		found = gt_scan_next(scan, &row);

	gt_scan_end(scan);
	if (found)
		queue->service = TextDatumGetCString(row.v[L_SERVICE_ID]);
	return found && gt_caller_covers(queue->service);
}

/* The next role for which the caller acts, with its first service. */
static bool
next_owner(GtPage *page, Queue *queue)
{
	const GtFilter *f = page->filter;
	GtRow		row;

	do
	{
		GtScan	   *scan = gt_scan_begin_bound(page->leases, GT_LEASE_SERVICE, 0, NULL, BTGreaterStrategyNumber,
											   ObjectIdGetDatum(queue->owner));
		bool		found = gt_scan_next(scan, &row);

		CHECK_FOR_INTERRUPTS();
		gt_scan_end(scan);
		if (!found)
			return false;
		queue->owner = GT_OID(&row, L_OWNER);
	} while (!gt_acts_for(queue->owner));
	if (f->service != NULL)
		queue->service = f->service;
	else
		queue->service = gt_caller[0] != '\0' ? gt_caller : TextDatumGetCString(row.v[L_SERVICE_ID]);
	return true;
}

static bool
next_queue(GtPage *page, Queue *queue)
{
	return (OidIsValid(queue->owner) && page->filter->service == NULL && next_service(page, queue)) ||
		next_owner(page, queue);
}

/* Through the queues one after the other; not where there are many. */
static bool
find_own(GtPage *page)
{
	Queue		queue = {InvalidOid, NULL};
	int			n = 0;

	while (next_queue(page, &queue))
	{
		Datum		key[2];

		if (page->left-- <= 0 || ++n > FEW)
			return false;
		key[0] = ObjectIdGetDatum(queue.owner);
		key[1] = CStringGetTextDatum(queue.service);
		if (!find_from(page, GT_LEASE_SERVICE, 2, key))
			return false;
	}
	return true;
}

/* A page that was found; false: not in so many steps. */
static bool
find_by(GtPage *page, bool (*way) (GtPage *page), int64 steps)
{
	page->n = 0;
	page->full = false;
	page->sort_at = page->filter->max_rows;
	page->left = steps;
	return way(page);
}

/* The quickest first, as far as that can be told. */
static bool
find_quickly(GtPage *page)
{
	const GtFilter *f = page->filter;

	if (f->object != NULL)
		return find_by(page, find_of_object, ALL);
	return (f->state != NULL && strcmp(f->state, "expired") == 0 && find_by(page, find_expired, FEW)) ||
		(f->service == NULL && find_by(page, find_in_order, VAIN)) ||
		find_by(page, find_own, VAIN) ||
		(f->type != NULL && find_by(page, find_of_type, FEW));
}

void
gt_page_find(GtPage *page)
{
	if (page->ids == NULL)
	{
		page->room = 16;
		page->ids = palloc(page->room * sizeof(pg_uuid_t));
	}
	if (!find_quickly(page) && !find_by(page, find_own, ALL))
		(void) find_by(page, find_in_order, ALL);
	sort_ids(page);
}
