/*-------------------------------------------------------------------------
 *
 * grant.c
 *	  Granting leases: one, or a batch of them.
 *
 * Locks, in this order, each kind for the whole batch before the next: the
 * handlers that are named (see handler.c); the objects' rows by (type, id) FOR NO
 * KEY UPDATE (or new ones, whose index entry waits for others that insert the
 * same), which every create and end on an object holds to its commit;
 * the rows of expired leases that are in the way, and end here; the parents' rows
 * by id FOR KEY SHARE, so that none ends before its child is there; at last the
 * entry of a request_key, whose unique index makes a second call with it wait.  A
 * key belongs to one object, so who repeats a request has waited at the object
 * before, and gets a lease that nobody is just ending; two batches that use the
 * same keys for different objects, which is an error, can meet with 40P01.
 *
 * Rights are judged by the rows as they are read, before anything is locked, and
 * what is locked is the version that was judged: see gt_fetch_lock_if().  So what
 * is refused for rights holds no lock and kept nobody waiting.  What is refused
 * for the state of the object keeps its row to the end of the transaction.
 *
 * Nothing that is read without a lock ends anything: gt_end() judges again.  A
 * child is judged by its parent's row, which is locked for it (lease.c).
 *
 * Everything that can be refused is found out before anything is written, but
 * for a new object row, which is deleted again: so gt_lease_grant_each() needs
 * no subtransaction per element, a thousand of which would overflow the cache of
 * subtransaction ids and slow down every snapshot in the cluster.  Only where a
 * wait for others is given up (lock_timeout, a deadlock) it begins anew, without
 * the element that waited.  A new object row is as its first lease needs it: as a
 * rule it is written once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/garbagetruck.h"
#include "base/settings.h"
#include "base/text.h"
#include "handler/use.h"
#include "lease/created.h"
#include "lease/ending.h"
#include "lease/grant.h"
#include "lease/hold.h"
#include "lease/lease.h"
#include "lease/start.h"
#include "rights/place.h"
#include "rights/roles.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/quota.h"
#include "table/scan.h"

/* ---------------------------------------------------------------- before anything is locked */

/* The handler that a request names, looked up once for a batch. */
static bool
find_handler(GtGranter *g, const char *name, GtHeldHandler **found, GtFail *f)
{
	ListCell   *cell;
	GtHeldHandler *held;

	foreach(cell, g->handlers)
	{
		*found = lfirst(cell);
		if (strcmp((*found)->h.name, name) == 0)
			return true;
	}
	held = palloc0(sizeof(GtHeldHandler));
	if (!gt_handler_hold(name, &held->h))
		return gt_fail(f, ERRCODE_GT_NO_HANDLER, "handler \"%s\" does not exist", gt_shown(name));
	if (!gt_handler_may_use(&held->h))
	{
		gt_handler_let_go(&held->h);
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for handler \"%s\"", gt_shown(name));
		f->hint = gt_handler_grant_hint(&held->h, "use");
		return false;
	}
	g->handlers = lappend(g->handlers, held);
	*found = held;
	return true;
}

/* Is that running lease, of the same request_key, for something else? */
static bool
check_same(const GtRequest *r, const GtRow *lease, GtFail *f)
{
	if (strcmp(TextDatumGetCString(lease->v[L_OBJECT_ID]), r->object_id) != 0 ||
		strcmp(TextDatumGetCString(lease->v[L_OBJECT_TYPE]), r->object_type) != 0)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "request_key \"%s\" was used for another object",
					   gt_shown(r->request_key));
	if (GT_BOOL(lease, L_EXCLUSIVE) != r->exclusive)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "request_key \"%s\" was used for a lease that is %s",
					   gt_shown(r->request_key), r->exclusive ? "not exclusive" : "exclusive");
	return true;
}

/*
 * Looks for a lease of this request_key.  True: it is decided; where the object
 * is held, so that the lease can not end meanwhile, that lease may be the answer.
 * An expired one is in e->old, to be ended.
 */
static bool
find_request(GtGranter *g, GtGrant *e)
{
	TimestampTz now = gt_now();
	GtRow		row;

	e->old = NULL;
	if (!gt_request_fetch(g, e, &row))
		return false;
	if (!gt_lease_running(&g->leases, &row, now))
	{
		e->old = palloc(sizeof(GtLeaseKey));
		gt_lease_key(&row, e->old);
		return false;
	}
	if (!check_same(&e->request, &row, &e->fail))
	{
		gt_grant_refuse(g, e);
		return true;
	}
	if (e->object == NULL)
		return false;
	e->open = false;
	e->ok = true;
	e->granted.id = *DatumGetUUIDP(row.v[L_ID]);
	e->granted.fence = GT_INT64(&row, L_FENCE);
	e->granted.expires_at = gt_lease_shown_until(&g->leases, &row);
	e->granted.now = now;
	e->granted.created = false;
	e->granted.attempts = GT_INT32(&row, L_ATTEMPTS);
	return true;
}

/* What there is that the request names: all that can be found out without a lock on a row. */
static void
begin(GtGranter *g, GtGrant *e)
{
	const GtRequest *r = &e->request;

	e->open = true;
	e->ok = false;
	e->handler = NULL;
	e->parent = NULL;
	e->object = NULL;
	e->old = NULL;
	if (r->cleanup != NULL && !find_handler(g, r->cleanup, &e->handler, &e->fail))
	{
		gt_grant_refuse(g, e);
		return;
	}
	if (r->request_key != NULL && find_request(g, e))
		return;
	if (r->parent != NULL)
	{
		e->parent = gt_parent_find(g, r->parent);
		if (!e->parent->ok)
		{
			e->fail = e->parent->fail;
			gt_grant_refuse(g, e);
			return;
		}
	}
	gt_uuid_v7(&e->granted.id);
}

/* ---------------------------------------------------------------- the lease */

/* How many leases the caller has for the service that a request names, as it is known or else counted. */
static int64
count_leases(GtGranter *g, const GtRequest *r)
{
	int64		limit = gt_max_leases_per_service;
	int64		enough = 2 * limit + 1000;	/* so that one that is over the limit for long is not counted each time */
	Datum		keys[2] = {ObjectIdGetDatum(GetUserId()), r->service};
	GtQuota		quota;
	GtScan	   *scan;
	int64		n;

	if (gt_quota_known(&quota, GetUserId(), r->service, limit))
		return quota.n;
	scan = gt_scan_begin(&g->leases, GT_LEASE_SERVICE, 2, keys);
	n = gt_scan_count(scan, enough);
	gt_scan_end(scan);
	gt_quota_counted(&quota, n, n == enough);
	return n;
}

/* Asked once for a batch, and what it has granted since is added. */
static bool
check_quota(GtGranter *g, const GtRequest *r, GtFail *f)
{
	if (gt_max_leases_per_service == 0)
		return true;
	if (g->counted_service == NULL || strcmp(g->counted_service, r->service_id) != 0)
	{
		g->counted = count_leases(g, r);
		g->counted_service = r->service_id;
	}
	if (g->counted >= gt_max_leases_per_service)
		return gt_fail(f, ERRCODE_GT_QUOTA,
					   "service \"%s\" has " INT64_FORMAT " leases, the limit (garbagetruck.max_leases_per_service) is %d",
					   gt_shown(r->service_id), g->counted, gt_max_leases_per_service);
	return true;
}

static void
write_leases(GtGranter *g)
{
	gt_insert_many(&g->leases, g->unwritten, g->nunwritten);
	g->nunwritten = 0;
}

static void
write_lease(GtGranter *g, GtRow *row)
{
	if (g->unwritten == NULL)
	{
		gt_insert(&g->leases, row);
		return;
	}
	g->unwritten[g->nunwritten++] = *row;
	if (g->nunwritten == GT_MANY)
		write_leases(g);
}

/* The lease row; false: its request_key has been taken meanwhile. */
static bool
insert_lease(GtGranter *g, GtGrant *e, int attempts)
{
	const GtRequest *r = &e->request;
	const GtRow *object = &e->object->row;
	GtRow		row;
	TimestampTz now = gt_now();
	TimestampTz deadline = now + r->duration;

	e->granted.now = now;
	gt_row_init(&row);
	GT_SET(&row, L_ID, UUIDPGetDatum(&e->granted.id));
	GT_SET(&row, L_OBJECT_TYPE, object->v[O_OBJECT_TYPE]);
	GT_SET(&row, L_OBJECT_ID, object->v[O_OBJECT_ID]);
	GT_SET(&row, L_OWNER, ObjectIdGetDatum(GetUserId()));
	GT_SET(&row, L_SERVICE_ID, r->service);
	GT_SET(&row, L_CREATED_AT, TimestampTzGetDatum(now));
	GT_SET(&row, L_RENEWED_AT, TimestampTzGetDatum(now));
	GT_SET(&row, L_RUN, Int64GetDatum(gt_run()));
	GT_SET(&row, L_RENEWALS, Int64GetDatum(0));
	GT_SET(&row, L_FENCE, object->v[O_FENCE]);
	GT_SET(&row, L_EXCLUSIVE, BoolGetDatum(r->exclusive));
	GT_SET(&row, L_ATTEMPTS, Int32GetDatum(attempts));
	if (r->parent != NULL)
	{
		GT_SET(&row, L_PARENT, UUIDPGetDatum(r->parent));
		e->granted.expires_at = e->parent->expires_at;
	}
	else
	{
		GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(deadline));
		GT_SET(&row, L_CHECK_AT, TimestampTzGetDatum(deadline));
		GT_SET(&row, L_DURATION, Int64GetDatum(r->duration));
		e->granted.expires_at = deadline;
	}
	if (e->handler != NULL)
		GT_SET(&row, L_HANDLER, Int32GetDatum(e->handler->h.id));
	if (r->max_attempts > 0)
		GT_SET(&row, L_MAX_ATTEMPTS, Int32GetDatum(r->max_attempts));
	if (r->retry_delay >= 0)
		GT_SET(&row, L_RETRY_DELAY, Int64GetDatum(r->retry_delay));
	if (r->regrant_delay >= 0)
		GT_SET(&row, L_REGRANT_DELAY, Int64GetDatum(r->regrant_delay));
	if (r->payload != NULL)
		GT_SET(&row, L_PAYLOAD, JsonbPGetDatum(r->payload));
	if (r->metadata != NULL)
		GT_SET(&row, L_METADATA, JsonbPGetDatum(r->metadata));
	if (r->request_key != NULL)
	{
		GT_SET(&row, L_REQUEST_KEY, CStringGetTextDatum(r->request_key));
		GT_SET(&row, L_REQUEST_SERVICE, CStringGetTextDatum(r->key_service));
		if (!gt_insert_unique(&g->leases, &row, GT_LEASE_REQUEST))
			return false;
	}
	else
		write_lease(g, &row);

	gt_lease_created(&e->granted.id, r->parent == NULL ? now : GT_NEVER, r->duration);
	gt_quota_note(GetUserId(), r->service, 1);
	e->granted.fence = GT_INT64(object, O_FENCE);
	e->granted.created = true;
	e->granted.attempts = attempts;
	return true;
}

/* In memory, for insert_lease(): the object with one lease more. Returns the attempts to clean it that went before. */
static int
count_lease(GtGrant *e)
{
	GtHeldObject *object = e->object;
	GtRow	   *row = &object->row;
	int			attempts = 0;

	if (object->is_new && object->maker == e)
		return 0;
	if (object->is_new)
	{
		/* only a clock read now, with the row in our hands, is later than the fences of all before */
		object->maker = NULL;
		GT_SET(row, O_FENCE, Int64GetDatum(gt_unique_us()));
		gt_object_set_owner(row, &e->request);
		if (e->handler == NULL)
		{
			/* of a request that was refused since */
			GT_SET_NULL(row, O_HANDLER);
			GT_SET_NULL(row, O_SPEC_LEASE);
		}
		return 0;
	}
	if (GT_CHAR(row, O_STATE) == GT_STATE_FORGOTTEN)
	{
		/* forgotten, but for the delay of exclusive grants: a new object */
		gt_object_set_owner(row, &e->request);
		GT_SET(row, O_KEEP, BoolGetDatum(false));
		GT_SET_NULL(row, O_HANDLER);
	}
	else if (GT_CHAR(row, O_STATE) != GT_STATE_HELD)
		attempts = GT_INT32(row, O_ATTEMPTS);
	GT_SET(row, O_LEASES, Int32GetDatum(GT_INT32(row, O_LEASES) + 1));
	GT_SET(row, O_FENCE, Int64GetDatum(Max(GT_INT64(row, O_FENCE) + 1, gt_unique_us())));
	return attempts;
}

/* Grants one lease, whose object and parent are held, or says in e->fail why not; then nothing of it is written. */
static void
grant_one(GtGranter *g, GtGrant *e)
{
	for (;;)
	{
		List	   *expired = NIL;
		GtRow		before;

		CHECK_FOR_INTERRUPTS();
		gt_object_read_again(g, e);
		if (e->request.request_key != NULL && !e->object->is_new && find_request(g, e))
			return;
		if (!gt_way_is_clear(g, &e->request, e->object, &expired, &e->fail))
		{
			gt_grant_refuse(g, e);
			return;
		}
		if (expired != NIL)
		{
			write_leases(g);	/* one that ends may be the parent of some */
			gt_way_end_expired(expired);
			e->object->stale = true;
			continue;
		}
		if (!check_quota(g, &e->request, &e->fail))
		{
			gt_grant_refuse(g, e);
			return;
		}
		if (e->request.request_key != NULL)
			before = e->object->row;
		if (insert_lease(g, e, count_lease(e)))
			break;

		/* the key is taken by a request for another object, or by one of our own batch */
		e->object->row = before;
		if (find_request(g, e))
			return;
		if (e->old != NULL)
		{
			gt_way_end_expired(list_make1(e->old));
			e->old = NULL;
			e->object->stale = !e->object->is_new;
		}
	}

	if (GT_CHAR(&e->object->row, O_STATE) != GT_STATE_HELD)
		gt_object_take_back(&e->object->row);
	if (e->handler != NULL)
	{
		gt_object_set_cleanup(&e->object->row, e);
		e->handler->used = true;
	}
	/* what was inserted for it is as it shall be */
	if (!e->object->is_new || e->object->maker != e)
		gt_update(&g->objects, &e->object->row);
	e->object->is_new = false;
	g->counted++;
	e->open = false;
	e->ok = true;
}

/* Objects that were made for what was not granted then. */
static void
take_back(GtGranter *g, GtGrant **grants, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (grants[i]->object != NULL && grants[i]->object->is_new)
		{
			gt_delete(&g->objects, &grants[i]->object->row);
			grants[i]->object->is_new = false;
		}
}

void
gt_grant(GtGranter *g, GtGrant **grants, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		gt_grant_set_at(g, grants[i]);
		begin(g, grants[i]);
	}
	gt_hold_objects(g, grants, n);
	gt_way_clear(g, grants, n);
	gt_hold_parents(g, grants, n);
	/* where all or none is granted each has an object of its own: nobody looks for the leases of others */
	if (g->all_or_none && n > 1)
		g->unwritten = palloc(Min(n, GT_MANY) * sizeof(GtRow));
	for (i = 0; i < n; i++)
	{
		gt_grant_set_at(g, grants[i]);
		if (grants[i]->open)
			grant_one(g, grants[i]);
	}
	write_leases(g);
	gt_grant_set_at(g, NULL);
	take_back(g, grants, n);
}

void
gt_granter_open(GtGranter *g, const char *function, bool all_or_none)
{
	gt_mark_write(function);
	gt_start_ensure();
	gt_place_ensure();
	gt_note_role(GetUserId());
	memset(g, 0, sizeof(GtGranter));
	g->all_or_none = all_or_none;
	gt_open(&g->objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&g->leases, GT_LEASE, RowExclusiveLock);
}

void
gt_granter_close(GtGranter *g)
{
	ListCell   *cell;

	foreach(cell, g->handlers)
		if (!((GtHeldHandler *) lfirst(cell))->used)
			gt_handler_let_go(&((GtHeldHandler *) lfirst(cell))->h);
	gt_close(&g->leases);
	gt_close(&g->objects);
}
