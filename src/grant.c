/*-------------------------------------------------------------------------
 *
 * grant.c
 *	  Granting leases: one, or a batch of them.
 *
 * Locks, in this order, each kind for the whole batch before the next: the
 * handlers that are named (see handler.c); the objects' rows by (type, id) FOR NO
 * KEY UPDATE (or new ones, whose speculative insertion waits for others that
 * insert the same), which every create and end on an object holds to its commit;
 * the rows of expired leases that are in the way, and end here; the parents' rows
 * by id FOR KEY SHARE, so that none ends before its child is there; at last the
 * entry of a request_key, whose unique index makes a second call with it wait.
 * A key belongs to one object, so who repeats a request has waited at the object
 * before, and gets a lease that nobody is just ending; two batches that use the same keys for different objects, which is an
 * error, can meet with 40P01.
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
 * the element that waited.  A new object row has its handler from the start: so
 * the update that follows when the lease is there touches no index.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "grant.h"
#include "lease.h"

/* A handler that the batch names: neither dropped nor changed in kind to the end of the transaction. */
typedef struct HeldHandler
{
	GtHandler	h;
	bool		used;			/* by something granted */
} HeldHandler;

/* A parent that the batch names. */
typedef struct HeldParent
{
	pg_uuid_t	id;
	bool		ok;
	GtFail		fail;
	bool		wanted;			/* by a request that is not refused */
	TimestampTz expires_at;		/* once it is held */
} HeldParent;

/* An object of the batch, locked. */
typedef struct HeldObject
{
	GtRow		row;
	bool		is_new;			/* the row is ours, and nothing has been granted on it yet */
	bool		stale;			/* leases on it were ended: the row is to be read again */
} HeldObject;

static void
refuse(GtGranter *g, GtGrant *e)
{
	if (g->all_or_none)
		gt_raise(&e->fail);
	e->open = false;
}

/* From here on what is raised concerns this one; NULL: no one of them. */
static void
set_at(GtGranter *g, GtGrant *e)
{
	if (g->at != NULL)
		*g->at = e;
}

/* ---------------------------------------------------------------- before anything is locked */

/* The handler that a request names, looked up once for a batch. */
static bool
find_handler(GtGranter *g, const char *name, HeldHandler **found, GtFail *f)
{
	ListCell   *cell;
	HeldHandler *held;

	foreach(cell, g->handlers)
	{
		*found = lfirst(cell);
		if (strcmp((*found)->h.name, name) == 0)
			return true;
	}
	held = palloc0(sizeof(HeldHandler));
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

/* May the caller give this lease children? Neither answer changes while the row is there. */
static bool
may_be_parent(const GtRow *lease, GtFail *f)
{
	pg_uuid_t  *id = DatumGetUUIDP(lease->v[L_ID]);

	if (!gt_acts_for(GT_OID(lease, L_OWNER)))
		return gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for lease %s", gt_uuid_cstring(id));
	if (!gt_caller_covers(TextDatumGetCString(lease->v[L_SERVICE_ID])))
		return gt_fail_not_found(id, f);
	if (!lease->isnull[L_PARENT])
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "lease %s has a parent itself and can not be one", gt_uuid_cstring(id));
	return true;
}

/*
 * The parent that a request names, once for a batch.  It is held later; what is
 * raised then leaves no lock, so who raises needs no look at it before.
 */
static HeldParent *
find_parent(GtGranter *g, const pg_uuid_t *id)
{
	Datum		key = UUIDPGetDatum(id);
	HeldParent *held;
	ListCell   *cell;
	GtRow		row;

	foreach(cell, g->parents)
	{
		held = lfirst(cell);
		if (memcmp(&held->id, id, sizeof(pg_uuid_t)) == 0)
			return held;
	}
	held = palloc0(sizeof(HeldParent));
	held->id = *id;
	held->ok = g->all_or_none ||
		(gt_fetch(&g->leases, GT_LEASE_PKEY, 1, &key, &row) ?
		 may_be_parent(&row, &held->fail) : gt_fail_not_found(id, &held->fail));
	g->parents = lappend(g->parents, held);
	return held;
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

/* The lease of this request_key, if there is one. */
static bool
fetch_request(GtGranter *g, const GtGrant *e, GtRow *lease)
{
	Datum		keys[3];

	keys[0] = ObjectIdGetDatum(GetUserId());
	keys[1] = CStringGetTextDatum(e->request.key_service);
	keys[2] = CStringGetTextDatum(e->request.request_key);
	return gt_fetch(&g->leases, GT_LEASE_REQUEST, 3, keys, lease);
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
	if (!fetch_request(g, e, &row))
		return false;
	if (!gt_lease_running(&g->leases, &row, now))
	{
		e->old = palloc(sizeof(GtLeaseKey));
		gt_lease_key(&row, e->old);
		return false;
	}
	if (!check_same(&e->request, &row, &e->fail))
	{
		refuse(g, e);
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

/* All that can be said of a request without a lock on a row. */
static void
begin(GtGranter *g, GtGrant *e)
{
	GtRequest  *r = &e->request;

	e->open = true;
	e->ok = false;
	e->handler = NULL;
	e->parent = NULL;
	e->object = NULL;
	e->old = NULL;
	if (!gt_request_check(r, &e->fail) ||
		(r->cleanup != NULL && !find_handler(g, r->cleanup, &e->handler, &e->fail)))
	{
		refuse(g, e);
		return;
	}
	if (r->request_key != NULL && find_request(g, e))
		return;
	if (r->parent != NULL)
	{
		e->parent = find_parent(g, r->parent);
		if (!e->parent->ok)
		{
			e->fail = e->parent->fail;
			refuse(g, e);
			return;
		}
	}
	gt_uuid_v7(&e->granted.id);
}

/* ---------------------------------------------------------------- what is in the way */

/* until: GT_NEVER where it can not be judged yet, 0 of a lease that is over and can not end yet. Always false. */
static bool
leased_already(const GtRequest *r, const char *holder, TimestampTz until, TimestampTz now, GtFail *f)
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

/*
 * Does a lease on the object stand in the way of this one?  An exclusive lease
 * is always the only one of its object that has not ended, since creating it
 * ends the expired: so more than one lease means that none is exclusive.
 * Expired ones that do are appended to *expired, to be ended.
 */
static bool
check_exclusive(GtGranter *g, const GtRequest *r, const GtRow *object, List **expired, GtFail *f)
{
	int			nleases = GT_INT32(object, O_LEASES);
	GtScan	   *scan;
	GtRow		lease;
	TimestampTz now;
	TimestampTz until = 0;
	char	   *holder = NULL;

	if (nleases == 0 || (nleases > 1 && !r->exclusive))
		return true;

	scan = gt_scan_begin(&g->leases, GT_LEASE_OBJECT, 2, &object->v[O_OBJECT_TYPE]);
	now = gt_now();
	while (gt_scan_next(scan, &lease))
	{
		CHECK_FOR_INTERRUPTS();
		if (!r->exclusive && !GT_BOOL(&lease, L_EXCLUSIVE))
			continue;
		if (gt_lease_running(&g->leases, &lease, now))
		{
			TimestampTz over_at = gt_lease_over_at(&g->leases, &lease);

			if (holder == NULL || over_at > until)
			{
				holder = TextDatumGetCString(lease.v[L_SERVICE_ID]);
				until = over_at;
			}
		}
		else
		{
			GtLeaseKey *key = palloc(sizeof(GtLeaseKey));

			gt_lease_key(&lease, key);
			*expired = lappend(*expired, key);
		}
	}
	gt_scan_end(scan);
	return holder == NULL || leased_already(r, holder, until, now, f);
}

/* ---------------------------------------------------------------- objects */

typedef struct MayLease
{
	const GtRequest *request;
	GtFail	   *fail;
} MayLease;

/* May the caller lease this object so? */
static bool
may_lease(const GtRow *object, void *arg)
{
	const GtRequest *r = ((MayLease *) arg)->request;
	GtFail	   *f = ((MayLease *) arg)->fail;
	Oid			owner = GT_OID(object, O_OWNER);

	if (GT_CHAR(object, O_STATE) == 'f' || gt_acts_for_object(object))
		return true;
	if (gt_acts_for(owner))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for object \"%s\" of type \"%s\"",
				gt_shown(r->object_id), gt_shown(r->object_type));
		f->detail = pstrdup("It belongs to another caller.");
		return false;
	}
	if (!gt_shared_with(owner, r->object_type, GetUserId()))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for object \"%s\" of type \"%s\"",
				gt_shown(r->object_id), gt_shown(r->object_type));
		f->detail = pstrdup("It belongs to another role.");
		f->hint = psprintf("Its owner can share it: SELECT gt_share(%s).",
						   quote_literal_cstr(GetUserNameFromId(GetUserId(), false)));
		return false;
	}
	if (r->cleanup == NULL)
		return true;
	gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for the cleanup of object \"%s\" of type \"%s\"",
			gt_shown(r->object_id), gt_shown(r->object_type));
	f->detail = pstrdup("It belongs to another role, which shares it: what is lent is the object, not its cleanup.");
	f->hint = pstrdup("Leave out cleanup: the object is cleaned as its owner has said.");
	return false;
}

/* The same by the row as it is read: of a request for which another object may be locked before its own. */
static bool
may_lease_as_read(GtGranter *g, GtGrant *e)
{
	MayLease	may = {&e->request, &e->fail};
	Datum		key[2];
	GtRow		row;

	key[0] = CStringGetTextDatum(e->request.object_id);
	key[1] = CStringGetTextDatum(e->request.object_type);
	return !gt_fetch(&g->objects, GT_OBJECT_PKEY, 2, key, &row) || may_lease(&row, &may);
}

/* What the handler will be given comes from the newest lease of the owning role that names a cleanup. */
static void
set_cleanup(GtRow *object, const GtGrant *e)
{
	GT_SET(object, O_HANDLER, Int32GetDatum(e->handler->h.id));
	GT_SET(object, O_SPEC_LEASE, UUIDPGetDatum(&e->granted.id));
	GT_SET(object, O_KEEP, BoolGetDatum(false));
}

/* Of its first lease: the role's, and of those who share that the caller's, or else whom the role says that it is for. */
static void
set_owner(GtRow *object, const GtRequest *r)
{
	GT_SET(object, O_OWNER, ObjectIdGetDatum(GetUserId()));
	GT_SET(object, O_CALLER, CStringGetTextDatum(gt_caller[0] != '\0' ? gt_caller : r->service_id));
}

/* The row of a new object, with its first lease counted. */
static void
new_object(GtRow *row, const GtGrant *e, const Datum *key)
{
	gt_object_init(row, key[1], key[0]);
	set_owner(row, &e->request);
	if (e->handler != NULL)
		set_cleanup(row, e);
}

/* Does a transaction that has checked a fence of the object keep this lease from it, and others that are there, too? */
static bool
is_fenced(GtGranter *g, const GtGrant *e, GtRow *object, GtFail *f)
{
	List	   *expired = NIL;
	GtRow		lease;
	Datum		id;

	if (!gt_is_share_locked(&g->objects, object))
		return false;
	if (e->request.request_key != NULL && fetch_request(g, e, &lease) && gt_lease_running(&g->leases, &lease, gt_now()))
		return false;			/* which is the answer */
	if (!check_exclusive(g, &e->request, object, &expired, f))
		return true;
	if (expired == NIL)
		return false;
	id = UUIDPGetDatum(&((GtLeaseKey *) linitial(expired))->id);
	return gt_fetch(&g->leases, GT_LEASE_PKEY, 1, &id, &lease) &&
		!leased_already(&e->request, TextDatumGetCString(lease.v[L_SERVICE_ID]), 0, 0, f);
}

/*
 * Locks the object of a request, or makes it; false: no right, or its lease is
 * in use by a transaction that has checked its fence.  Such a transaction lasts
 * for as long as its client likes, or is stopped: so nobody waits for it who could
 * not have the object beside that lease anyway.
 */
static bool
hold_object(GtGranter *g, GtGrant *e, HeldObject *object)
{
	MayLease	may = {&e->request, &e->fail};
	Datum		key[2];

	key[0] = CStringGetTextDatum(e->request.object_id);
	key[1] = CStringGetTextDatum(e->request.object_type);
	for (;;)
	{
		GtLockResult result = gt_fetch_lock_if(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row,
											   LockTupleNoKeyExclusive, true, may_lease, &may);

		if (result == GT_BUSY && is_fenced(g, e, &object->row, &e->fail))
			return false;
		if (result == GT_BUSY)
			result = gt_fetch_lock_if(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row,
									  LockTupleNoKeyExclusive, false, may_lease, &may);
		if (result == GT_LOCKED)
			return true;
		if (result == GT_REFUSED)
			return false;
		new_object(&object->row, e, key);
		object->is_new = gt_insert_unique(&g->objects, &object->row, GT_OBJECT_PKEY);
		if (object->is_new)
			return true;
		CHECK_FOR_INTERRUPTS(); /* somebody else's has just been committed */
	}
}

/* An object to be locked: of a request, or of an expired lease that used its request_key. */
typedef struct Wanted
{
	const char *type;
	const char *id;
	GtGrant    *grant;
	bool		of_old;			/* it is that of such a lease */
} Wanted;

static int
by_object(const void *a, const void *b)
{
	const Wanted *x = a;
	const Wanted *y = b;
	int			order = strcmp(x->type, y->type);

	return order != 0 ? order : strcmp(x->id, y->id);
}

/* One object for all requests that name it: n of them, at w. */
static void
hold_for(GtGranter *g, const Wanted *w, int n)
{
	HeldObject *object = palloc0(sizeof(HeldObject));
	bool		held = false;
	bool		wanted = false;	/* for an expired lease of a request that is not refused */
	int			i;

	for (i = 0; i < n; i++)
	{
		GtGrant    *e = w[i].grant;
		MayLease	may;

		if (w[i].of_old)
			continue;
		set_at(g, e);
		may.request = &e->request;
		may.fail = &e->fail;
		if (held ? may_lease(&object->row, &may) : hold_object(g, e, object))
		{
			held = true;
			e->object = object;
		}
		else
			refuse(g, e);
	}
	for (i = 0; i < n && !wanted; i++)
	{
		wanted = w[i].of_old && w[i].grant->open;
		if (wanted)
			set_at(g, w[i].grant);
	}
	if (wanted && !held)
	{
		Datum		key[2];

		key[0] = CStringGetTextDatum(w->id);
		key[1] = CStringGetTextDatum(w->type);
		(void) gt_fetch_lock(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row, LockTupleNoKeyExclusive, false);
	}
}

static void
hold_objects(GtGranter *g, GtGrant **grants, int n)
{
	Wanted	   *wanted = gt_alloc_array(n, 2 * sizeof(Wanted));
	int			nwanted = 0;
	int			first;
	int			i;

	for (i = 0; i < n; i++)
	{
		GtGrant    *e = grants[i];

		if (!e->open)
			continue;
		if (e->old != NULL && !may_lease_as_read(g, e))
		{
			refuse(g, e);
			continue;
		}
		wanted[nwanted++] = (Wanted) {e->request.object_type, e->request.object_id, e, false};
		if (e->old != NULL)
			wanted[nwanted++] = (Wanted) {e->old->object_type, e->old->object_id, e, true};
	}
	qsort(wanted, nwanted, sizeof(Wanted), by_object);
	for (first = 0; first < nwanted; first = i)
	{
		CHECK_FOR_INTERRUPTS();
		for (i = first + 1; i < nwanted && by_object(&wanted[i], &wanted[first]) == 0; i++)
			;
		hold_for(g, &wanted[first], i - first);
	}
	pfree(wanted);
}

/* The row as it is after leases on it were ended. */
static void
read_again(GtGranter *g, const GtGrant *e)
{
	HeldObject *object = e->object;
	Datum		key[2];

	if (!object->stale)
		return;
	key[0] = CStringGetTextDatum(e->request.object_id);
	key[1] = CStringGetTextDatum(e->request.object_type);
	object->stale = false;
	if (!gt_fetch(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row))
	{
		/* forgotten by the end of its last lease */
		new_object(&object->row, e, key);
		if (!gt_insert_unique(&g->objects, &object->row, GT_OBJECT_PKEY))
			elog(ERROR, "object \"%s\" is there and is not", e->request.object_id);
		object->is_new = true;
	}
}

/* ---------------------------------------------------------------- the state of the object */

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

/* Could the lease be granted as the object is now? What only has to be ended first is in *expired. */
static bool
check_state(GtGranter *g, const GtRequest *r, const HeldObject *object, List **expired, GtFail *f)
{
	TimestampTz now = gt_now();

	if (object->is_new)
		return true;
	if (!check_flight(r, &object->row, now, f) || !check_exclusive(g, r, &object->row, expired, f))
		return false;
	if (*expired == NIL && r->exclusive && !object->row.isnull[O_REGRANT_AT] && GT_TIME(&object->row, O_REGRANT_AT) > now)
		return leased_already(r, NULL, GT_TIME(&object->row, O_REGRANT_AT), now, f);
	return true;
}

/* gt_end() judges each of them again, under its lock. */
static void
end_expired(List *expired)
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
static void
clear_the_way(GtGranter *g, GtGrant **grants, int n)
{
	List	   *expired = NIL;
	int			i;

	set_at(g, n == 1 ? grants[0] : NULL);
	if (n > 1 && g->one_by_one)
	{
		for (i = 0; i < n; i++)
			clear_the_way(g, &grants[i], 1);
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
		if (check_state(g, &e->request, e->object, &mine, &ignored))
			expired = list_concat(expired, mine);
	}
	if (expired == NIL)
		return;
	for (i = 0; i < n; i++)
		if (grants[i]->open)
			grants[i]->object->stale = !grants[i]->object->is_new;
	end_expired(expired);
}

/* ---------------------------------------------------------------- parents */

typedef struct MayHold
{
	GtFail	   *fail;
	bool		over;			/* as it was read */
} MayHold;

static bool
may_hold(const GtRow *lease, void *arg)
{
	MayHold    *may = arg;

	may->over = false;
	if (!may_be_parent(lease, may->fail))
		return false;
	may->over = gt_lease_is_over(lease);
	return !may->over;
}

/* Locks the parent so that it can not end before our commit. */
static bool
hold_parent(GtGranter *g, HeldParent *parent)
{
	Datum		id = UUIDPGetDatum(&parent->id);
	MayHold		may = {&parent->fail, false};
	GtRow		row;
	TimestampTz over_at;
	bool		expired;

	for (;;)
	{
		switch (gt_fetch_lock_if(&g->leases, GT_LEASE_PKEY, 1, &id, &row, LockTupleKeyShare, false, may_hold, &may))
		{
			case GT_LOCKED:
				parent->expires_at = gt_lease_shown_until(&g->leases, &row);
				return true;
			case GT_REFUSED:
				if (!may.over)
					return false;
				/* unless a renewal is on its way */
				if (gt_parent_is_over(&g->leases, &parent->id, true, &over_at, &expired))
					return gt_fail(&parent->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(&parent->id));
				break;
			default:
				return gt_fail_not_found(&parent->id, &parent->fail);
		}
	}
}

static int
by_id(const ListCell *a, const ListCell *b)
{
	return memcmp(&((HeldParent *) lfirst(a))->id, &((HeldParent *) lfirst(b))->id, sizeof(pg_uuid_t));
}

static void
hold_parents(GtGranter *g, GtGrant **grants, int n)
{
	ListCell   *cell;
	int			i;

	if (g->parents == NIL)
		return;
	for (i = 0; i < n; i++)
		if (grants[i]->open && grants[i]->parent != NULL)
			grants[i]->parent->wanted = true;
	list_sort(g->parents, by_id);
	foreach(cell, g->parents)
	{
		HeldParent *parent = lfirst(cell);

		if (!parent->ok || !parent->wanted)
			continue;
		for (i = 0; i < n && !(grants[i]->open && grants[i]->parent == parent); i++)
			;
		set_at(g, grants[i]);
		parent->ok = hold_parent(g, parent);
	}
	for (i = 0; i < n; i++)
		if (grants[i]->open && grants[i]->parent != NULL && !grants[i]->parent->ok)
		{
			grants[i]->fail = grants[i]->parent->fail;
			refuse(g, grants[i]);
		}
}

/* ---------------------------------------------------------------- the lease */

/* Counted once for a batch, and what it has granted since is added. */
static bool
check_quota(GtGranter *g, const GtRequest *r, GtFail *f)
{
	if (gt_max_leases_per_service == 0)
		return true;
	if (g->counted_service == NULL || strcmp(g->counted_service, r->service_id) != 0)
	{
		Datum		service = CStringGetTextDatum(r->service_id);
		GtScan	   *scan = gt_scan_begin(&g->leases, GT_LEASE_SERVICE, 1, &service);

		g->counted = gt_scan_count(scan, L_OWNER, ObjectIdGetDatum(GetUserId()), gt_max_leases_per_service);
		gt_scan_end(scan);
		g->counted_service = r->service_id;
	}
	if (g->counted >= gt_max_leases_per_service)
		return gt_fail(f, ERRCODE_GT_QUOTA,
					   "service \"%s\" has %d leases, the limit (garbagetruck.max_leases_per_service) is %d",
					   gt_shown(r->service_id), g->counted, gt_max_leases_per_service);
	return true;
}

/* The lease row; false: its request_key has been taken meanwhile. */
static bool
insert_lease(GtGranter *g, GtGrant *e, int attempts)
{
	const GtRequest *r = &e->request;
	const GtRow *object = &e->object->row;
	GtRow		row;
	TimestampTz now = gt_now();
	TimestampTz deadline = now + r->duration_us;

	e->granted.now = now;
	gt_row_init(&row);
	GT_SET(&row, L_ID, UUIDPGetDatum(&e->granted.id));
	GT_SET(&row, L_OBJECT_TYPE, object->v[O_OBJECT_TYPE]);
	GT_SET(&row, L_OBJECT_ID, object->v[O_OBJECT_ID]);
	GT_SET(&row, L_OWNER, ObjectIdGetDatum(GetUserId()));
	GT_SET(&row, L_SERVICE_ID, CStringGetTextDatum(r->service_id));
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
		GT_SET(&row, L_DURATION, Int64GetDatum(r->duration_us));
		e->granted.expires_at = deadline;
	}
	if (e->handler != NULL)
		GT_SET(&row, L_HANDLER, Int32GetDatum(e->handler->h.id));
	if (r->has_max_attempts)
		GT_SET(&row, L_MAX_ATTEMPTS, Int32GetDatum(r->max_attempts));
	if (r->retry_delay != NULL)
		GT_SET(&row, L_RETRY_DELAY, Int64GetDatum(r->retry_delay_us));
	if (r->regrant_delay != NULL)
		GT_SET(&row, L_REGRANT_DELAY, Int64GetDatum(r->regrant_delay_us));
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
		gt_insert(&g->leases, &row);

	gt_lease_created(&e->granted.id, r->parent == NULL ? now : GT_NEVER, r->duration_us);
	e->granted.fence = GT_INT64(object, O_FENCE);
	e->granted.created = true;
	e->granted.attempts = attempts;
	return true;
}

/* In memory, for insert_lease(): the object with one lease more. Returns the attempts to clean it that went before. */
static int
count_lease(GtGrant *e)
{
	HeldObject *object = e->object;
	GtRow	   *row = &object->row;
	int			attempts = 0;

	if (object->is_new)
	{
		/*
		 * While we were on our way another may have made the object, leased it
		 * and forgotten it: only a clock read now, with the row in our hands, is
		 * later than its fence.
		 */
		GT_SET(row, O_FENCE, Int64GetDatum(gt_unique_us()));
		set_owner(row, &e->request);
		if (e->handler == NULL)
		{
			/* of a request that was refused since */
			GT_SET_NULL(row, O_HANDLER);
			GT_SET_NULL(row, O_SPEC_LEASE);
		}
		return 0;
	}
	if (GT_CHAR(row, O_STATE) == 'f')
	{
		/* forgotten, but for the delay of exclusive grants: a new object */
		set_owner(row, &e->request);
		GT_SET(row, O_KEEP, BoolGetDatum(false));
		GT_SET_NULL(row, O_HANDLER);
	}
	else if (GT_CHAR(row, O_STATE) != 'h')
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
		read_again(g, e);
		if (e->request.request_key != NULL && !e->object->is_new && find_request(g, e))
			return;
		if (!check_state(g, &e->request, e->object, &expired, &e->fail))
		{
			refuse(g, e);
			return;
		}
		if (expired != NIL)
		{
			end_expired(expired);
			e->object->stale = true;
			continue;
		}
		if (!check_quota(g, &e->request, &e->fail))
		{
			refuse(g, e);
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
			end_expired(list_make1(e->old));
			e->old = NULL;
			e->object->stale = !e->object->is_new;
		}
	}

	e->object->is_new = false;
	if (GT_CHAR(&e->object->row, O_STATE) != 'h')
		gt_garbage_revive(&e->object->row);
	if (e->handler != NULL)
	{
		set_cleanup(&e->object->row, e);
		e->handler->used = true;
	}
	gt_update(&g->objects, &e->object->row);
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

/* See grant.h. */
void
gt_grant(GtGranter *g, GtGrant **grants, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		set_at(g, grants[i]);
		begin(g, grants[i]);
	}
	hold_objects(g, grants, n);
	clear_the_way(g, grants, n);
	hold_parents(g, grants, n);
	for (i = 0; i < n; i++)
	{
		set_at(g, grants[i]);
		if (grants[i]->open)
			grant_one(g, grants[i]);
	}
	set_at(g, NULL);
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
		if (!((HeldHandler *) lfirst(cell))->used)
			gt_handler_let_go(&((HeldHandler *) lfirst(cell))->h);
	gt_close(&g->leases);
	gt_close(&g->objects);
}
