/*-------------------------------------------------------------------------
 *
 * way.c
 *	  What is in the way of a grant: leases that run, attempts in flight, a delay.
 *
 * It is judged by the object's row, which is held.  Leases that are over and in the way
 * are ended, in one go for a batch: the third of the locks of grant.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/check.h"
#include "base/garbagetruck.h"
#include "base/text.h"
#include "lease/ending.h"
#include "lease/hold.h"
#include "lease/lease.h"
#include "rights/rights.h"
#include "shared/clock.h"

void
gt_grant_refuse(GtGranter *g, GtGrant *e)
{
	if (g->all_or_none)
		gt_raise(&e->fail);
	e->open = false;
}

void
gt_grant_set_at(GtGranter *g, GtGrant *e)
{
	if (g->at != NULL)
		*g->at = e;
}

/* The lease of this request_key, if there is one. */
bool
gt_request_fetch(GtGranter *g, const GtGrant *e, GtRow *lease)
{
	Datum		keys[3];

	keys[0] = ObjectIdGetDatum(GetUserId());
	keys[1] = CStringGetTextDatum(e->request.key_service);
	keys[2] = CStringGetTextDatum(e->request.request_key);
	return gt_fetch(&g->leases, GT_LEASE_REQUEST, 3, keys, lease);
}

/* until: GT_NEVER where it can not be judged yet, 0 of a lease that is over and can not end yet. Always false. */
bool
gt_leased_already(const GtRequest *r, const char *holder, TimestampTz until, TimestampTz now, GtFail *f)
{
	const char *shown = holder == NULL ? "" : gt_caller_covers(holder) ? psprintf("service \"%s\"", gt_shown(holder)) : "another service";

	gt_fail(f, ERRCODE_GT_LEASED, "object \"%s\" of type \"%s\" is already leased", gt_shown(r->object_id), gt_shown(r->object_type));
	if (holder == NULL)
		f->detail = psprintf("A lease on it has expired, and its regrant_delay lasts until %s.", timestamptz_to_str(until));
	else if (until == 0)
		f->detail = psprintf("Its lease, of %s, is over, but a transaction that has checked the fence is still in progress.", shown);
	else if (until == GT_NEVER)
		f->detail = psprintf("It is held by %s; the server has just started and does not judge yet.", shown);
	else
		f->detail = psprintf("It is held by %s; retry after %s.", shown, timestamptz_to_str(until));
	f->hint = pstrdup("gt_lease_grant_each() tries without an error, and has holder and retry_after as columns.");
	f->holder = holder != NULL && gt_caller_covers(holder) ? holder : NULL;
	f->retry_after = until == 0 || until == GT_NEVER ? 0 : Max(until - now, 1);
	return false;
}

/* What is in the way of a grant, as far as it was looked. */
typedef struct Way
{
	const GtRequest *r;
	TimestampTz now;
	char	   *holder;			/* of those that run, whose is over last; NULL: none does */
	TimestampTz until;
	List	  **expired;
	MemoryContext context;		/* what is found is kept there */
} Way;

static void
look_at_lease(GtTable *leases, const GtRow *lease, Way *way)
{
	bool		running;
	TimestampTz over_at = 0;
	MemoryContext old;

	if (!way->r->exclusive && !GT_BOOL(lease, L_EXCLUSIVE))
		return;
	running = gt_lease_running(leases, lease, way->now);
	if (running)
		over_at = gt_lease_over_at(leases, lease);
	old = MemoryContextSwitchTo(way->context);
	if (!running)
	{
		GtLeaseKey *key = palloc(sizeof(GtLeaseKey));

		gt_lease_key(lease, key);
		*way->expired = lappend(*way->expired, key);
	}
	else if (way->holder == NULL || over_at > way->until)
	{
		if (way->holder != NULL)
			pfree(way->holder);
		way->holder = TextDatumGetCString(lease->v[L_SERVICE_ID]);
		way->until = over_at;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Does a lease on the object stand in the way of this one?  An exclusive lease
 * is always the only one of its object that has not ended, since creating it
 * ends the expired: so more than one lease means that none is exclusive.
 * Expired ones that do are appended to *expired, to be ended.
 */
bool
gt_way_of_leases(GtGranter *g, const GtRequest *r, const GtRow *object, List **expired, GtFail *f)
{
	int			nleases = GT_INT32(object, O_LEASES);
	Way			way = {r, 0, NULL, 0, expired, CurrentMemoryContext};
	MemoryContext per_row;
	GtScan	   *scan;
	GtRow		lease;

	if (nleases == 0 || (nleases > 1 && !r->exclusive))
		return true;

	scan = gt_scan_begin(&g->leases, GT_LEASE_OBJECT, 2, &object->v[O_OBJECT_TYPE]);
	way.now = gt_now();
	per_row = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck way", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(per_row);
	while (gt_scan_next(scan, &lease))
	{
		CHECK_FOR_INTERRUPTS();
		look_at_lease(&g->leases, &lease, &way);
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(way.context);
	MemoryContextDelete(per_row);
	gt_scan_end(scan);
	return way.holder == NULL || gt_leased_already(r, way.holder, way.until, way.now, f);
}

/* Is an attempt to clean the object on its way outside of this server? */
static bool
check_flight(const GtRequest *r, const GtRow *row, TimestampTz now, GtFail *f)
{
	if (row->isnull[O_FLIGHT_UNTIL] || GT_TIME(row, O_FLIGHT_UNTIL) <= now)
		return true;
	gt_fail(f, ERRCODE_GT_RECLAIMING, "object \"%s\" of type \"%s\" is being reclaimed",
			gt_shown(r->object_id), gt_shown(r->object_type));
	f->detail = psprintf("An attempt to clean it is in flight; creating a lease succeeds at the latest after %s.",
						 timestamptz_to_str(GT_TIME(row, O_FLIGHT_UNTIL)));
	/* The token is for who may claim, of whom the role can not tell the callers. */
	if (gt_caller[0] == '\0')
		f->hint = psprintf("Or once the attempt is acknowledged: gt_ack(" INT64_FORMAT ", %d) or gt_nack(" INT64_FORMAT ", %d, ...).",
						   GT_INT64(row, O_CLEANUP_ID), GT_INT32(row, O_ATTEMPTS),
						   GT_INT64(row, O_CLEANUP_ID), GT_INT32(row, O_ATTEMPTS));
	f->retry_after = GT_TIME(row, O_FLIGHT_UNTIL) - now;
	return false;
}

bool
gt_way_is_clear(GtGranter *g, const GtRequest *r, const GtHeldObject *object, List **expired, GtFail *f)
{
	TimestampTz now;

	if (object->is_new)
		return true;
	now = gt_now();
	if (!check_flight(r, &object->row, now, f) || !gt_way_of_leases(g, r, &object->row, expired, f))
		return false;
	if (*expired == NIL && r->exclusive && !object->row.isnull[O_REGRANT_AT] && GT_TIME(&object->row, O_REGRANT_AT) > now)
		return gt_leased_already(r, NULL, GT_TIME(&object->row, O_REGRANT_AT), now, f);
	return true;
}

/* gt_end() judges each of them again, under its lock. */
void
gt_way_end_expired(List *expired)
{
	int			n = list_length(expired);
	GtLeaseKey *keys = gt_alloc_array(n, sizeof(GtLeaseKey));
	ListCell   *cell;
	int			i = 0;

	foreach(cell, expired)
		keys[i++] = *(GtLeaseKey *) lfirst(cell);
	gt_end(keys, n, GT_END_EXPIRED, false);
	pfree(keys);
	list_free_deep(expired);
}

/*
 * Ends, in one go and so in their order, the expired leases that are in the way
 * of any of a batch.  What expires from here on is found by grant_one().
 */
void
gt_way_clear(GtGranter *g, GtGrant **grants, int n)
{
	List	   *expired = NIL;
	int			i;

	gt_grant_set_at(g, n == 1 ? grants[0] : NULL);
	if (n > 1 && g->one_by_one)
	{
		for (i = 0; i < n; i++)
			gt_way_clear(g, &grants[i], 1);
		return;
	}
	if (n == 1 && grants[0]->old == NULL)
		return;					/* grant_one() has no order to keep */
	for (i = 0; i < n; i++)
	{
		GtGrant    *e = grants[i];
		List	   *mine = NIL;
		GtFail		ignored;

		if (!e->open)
			continue;
		if (e->old != NULL)
			expired = lappend(expired, e->old);
		e->old = NULL;
		if (gt_way_is_clear(g, &e->request, e->object, &mine, &ignored))
			expired = list_concat(expired, mine);
	}
	if (expired == NIL)
		return;
	for (i = 0; i < n; i++)
		if (grants[i]->open)
			grants[i]->object->stale = !grants[i]->object->is_new;
	gt_way_end_expired(expired);
}
