/*-------------------------------------------------------------------------
 *
 * grant.c
 *	  Granting a lease.
 *
 * Locks, in this order: the object's row FOR NO KEY UPDATE (or a new one, whose
 * speculative insertion waits for others that insert the same), which every
 * create and end on that object holds to its commit; the parent's lease row FOR
 * KEY SHARE, so that it can not end before the child is there; the entry of the
 * request_key, whose unique index makes a second call with it wait.
 *
 * Everything that can be refused is found out before anything is written, but
 * for a new object row, which is deleted again: so gt_lease_grant_each() needs
 * no subtransaction per element, a thousand of which would overflow the cache of
 * subtransaction ids and slow down every snapshot in the cluster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "grant.h"
#include "lease.h"

/* The handler that a request names, looked up once for a batch of the same. */
static bool
find_handler(GtGranter *g, const char *name, GtFail *f)
{
	if (g->has_handler && strcmp(g->handler.name, name) == 0)
		return true;
	g->has_handler = false;
	if (!gt_handler_hold(name, &g->handler))
		return gt_fail(f, ERRCODE_GT_NO_HANDLER, "handler \"%s\" does not exist", gt_shown(name));
	if (!gt_handler_may_use(&g->handler))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for handler \"%s\"", gt_shown(name));
		f->hint = gt_handler_grant_hint(&g->handler, "use");
		return false;
	}
	g->has_handler = true;
	return true;
}

static bool
check_quota(GtGranter *g, const GtRequest *r, GtFail *f)
{
	Oid			user = GetUserId();
	Datum		service = CStringGetTextDatum(r->service_id);
	GtScan	   *scan;
	GtRow		row;
	int			n = 0;

	if (gt_max_leases_per_service == 0)
		return true;
	scan = gt_scan_begin(&g->leases, GT_LEASE_SERVICE, 1, &service);
	while (n < gt_max_leases_per_service && gt_scan_next(scan, &row))
		if (GT_OID(&row, L_OWNER) == user)
			n++;
	gt_scan_end(scan);
	if (n >= gt_max_leases_per_service)
		return gt_fail(f, ERRCODE_GT_QUOTA,
					   "service \"%s\" has %d leases, the limit (garbagetruck.max_leases_per_service) is %d",
					   gt_shown(r->service_id), n, gt_max_leases_per_service);
	return true;
}

/* A running lease of this request_key, if there is one; an expired one is ended. 1: found, 0: none, -1: failed. */
static int
find_request(GtGranter *g, const GtRequest *r, GtGranted *out, GtFail *f)
{
	Datum		keys[3];
	GtRow		row;
	GtLeaseKey	key;
	TimestampTz now;

	keys[0] = ObjectIdGetDatum(GetUserId());
	keys[1] = CStringGetTextDatum(r->service_id);
	keys[2] = CStringGetTextDatum(r->request_key);
	for (;;)
	{
		if (!gt_fetch(&g->leases, GT_LEASE_REQUEST, 3, keys, &row))
			return 0;
		now = gt_now();
		if (gt_lease_running(&g->leases, &row, now))
			break;
		CHECK_FOR_INTERRUPTS();
		gt_lease_key(&row, &key);
		gt_end(&key, 1, GT_END_EXPIRED, false);
	}
	if (strcmp(TextDatumGetCString(row.v[L_OBJECT_ID]), r->object_id) != 0 ||
		strcmp(TextDatumGetCString(row.v[L_OBJECT_TYPE]), r->object_type) != 0)
	{
		gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "request_key \"%s\" was used for another object",
				gt_shown(r->request_key));
		return -1;
	}
	out->id = *DatumGetUUIDP(row.v[L_ID]);
	out->fence = GT_INT64(&row, L_FENCE);
	out->expires_at = gt_lease_shown_until(&g->leases, &row);
	out->now = now;
	out->created = false;
	out->attempts = GT_INT32(&row, L_ATTEMPTS);
	return 1;
}

static bool
leased_already(const GtRequest *r, const char *service, TimestampTz until, GtFail *f)
{
	gt_fail(f, ERRCODE_GT_LEASED, "object \"%s\" of type \"%s\" is already leased", gt_shown(r->object_id), gt_shown(r->object_type));
	if (service == NULL)
		f->detail = psprintf("A lease on it has expired, and garbagetruck.regrant_delay lasts until %s.", timestamptz_to_str(until));
	else if (until == GT_NEVER)
		f->detail = psprintf("It is held by service \"%s\"; the server has just started and does not judge yet.", gt_shown(service));
	else
		f->detail = psprintf("It is held by service \"%s\"; retry after %s.", gt_shown(service), timestamptz_to_str(until));
	return false;
}

/*
 * Does a lease on the object stand in the way of this one?  An exclusive lease
 * is always the only one of its object that has not ended, since creating it
 * ends the expired: so more than one lease means that none is exclusive.
 * *passed: expired ones were ended, the object row must be read again.
 */
static bool
check_exclusive(GtGranter *g, const GtRequest *r, const GtRow *object, bool *passed, GtFail *f)
{
	int			nleases = GT_INT32(object, O_LEASES);
	GtLeaseKey *keys;
	GtScan	   *scan;
	GtRow		lease;
	TimestampTz now;
	TimestampTz until = 0;
	char	   *holder = NULL;
	int			n = 0;

	*passed = false;
	if (nleases == 0 || (nleases > 1 && !r->exclusive))
		return true;

	keys = palloc(nleases * sizeof(GtLeaseKey));
	scan = gt_scan_begin(&g->leases, GT_LEASE_OBJECT, 2, &object->v[O_OBJECT_TYPE]);
	now = gt_now();
	while (gt_scan_next(scan, &lease))
	{
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
		else if (n < nleases)
			gt_lease_key(&lease, &keys[n++]);
	}
	gt_scan_end(scan);
	if (holder != NULL)
		return leased_already(r, holder, until, f);
	if (n > 0)
	{
		gt_end(keys, n, GT_END_EXPIRED, false);
		*passed = true;
	}
	return true;
}

/* The object's row, locked, ready for one lease more; *is_new: inserted by us. */
static bool
hold_object(GtGranter *g, const GtRequest *r, GtRow *row, bool *is_new, int *attempts, GtFail *f)
{
	Datum		key[2];
	TimestampTz now;
	bool		passed;

	key[0] = CStringGetTextDatum(r->object_id);
	key[1] = CStringGetTextDatum(r->object_type);
	for (;;)
	{
		*is_new = false;
		*attempts = 0;
		if (gt_fetch_lock(&g->objects, GT_OBJECT_PKEY, 2, key, row, LockTupleNoKeyExclusive, false) == GT_GONE)
		{
			gt_row_init(row);
			GT_SET(row, O_OBJECT_ID, key[0]);
			GT_SET(row, O_OBJECT_TYPE, key[1]);
			GT_SET(row, O_OWNER, ObjectIdGetDatum(GetUserId()));
			GT_SET(row, O_LEASES, Int32GetDatum(1));
			GT_SET(row, O_FENCE, Int64GetDatum(0));
			GT_SET(row, O_STATE, CharGetDatum('h'));
			GT_SET(row, O_KEEP, BoolGetDatum(false));
			GT_SET(row, O_ALONE, BoolGetDatum(false));
			GT_SET(row, O_EVICTED, Int32GetDatum(0));
			GT_SET(row, O_ATTEMPTS, Int32GetDatum(0));
			GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(0));
			GT_SET(row, O_SENDS, Int32GetDatum(0));
			if (!gt_insert_unique(&g->objects, row, GT_OBJECT_PKEY))
				continue;		/* somebody else's has just been committed */

			/*
			 * While we were on our way another may have made the object, leased
			 * it and forgotten it: only a clock read now, with the row in our
			 * hands, is later than its fence.
			 */
			GT_SET(row, O_FENCE, Int64GetDatum(gt_unique_us()));
			*is_new = true;
			return true;
		}

		now = gt_now();
		if (GT_CHAR(row, O_STATE) == 'f')
		{
			/* forgotten, but for the delay of exclusive grants: a new object */
			GT_SET(row, O_OWNER, ObjectIdGetDatum(GetUserId()));
			GT_SET(row, O_KEEP, BoolGetDatum(false));
			GT_SET_NULL(row, O_HANDLER);
		}
		else if (!gt_acts_for(GT_OID(row, O_OWNER)) &&
				 !gt_shared_with(GT_OID(row, O_OWNER), r->object_type, GetUserId()))
		{
			gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for object \"%s\" of type \"%s\"",
					gt_shown(r->object_id), gt_shown(r->object_type));
			f->detail = pstrdup("It belongs to another role.");
			f->hint = psprintf("Its owner can share it: SELECT gt_share(%s).",
							   quote_literal_cstr(GetUserNameFromId(GetUserId(), false)));
			return false;
		}
		if (!row->isnull[O_FLIGHT_UNTIL] && GT_TIME(row, O_FLIGHT_UNTIL) > now)
		{
			gt_fail(f, ERRCODE_GT_RECLAIMING, "object \"%s\" of type \"%s\" is being reclaimed",
					gt_shown(r->object_id), gt_shown(r->object_type));
			f->detail = psprintf("An attempt to clean it is in flight; creating a lease succeeds at the latest after %s.",
								 timestamptz_to_str(GT_TIME(row, O_FLIGHT_UNTIL)));
			f->hint = psprintf("Or once the attempt is acknowledged: gt_ack(" INT64_FORMAT ", %d) or gt_nack(" INT64_FORMAT ", %d, ...).",
							   GT_INT64(row, O_CLEANUP_ID), GT_INT32(row, O_ATTEMPTS),
							   GT_INT64(row, O_CLEANUP_ID), GT_INT32(row, O_ATTEMPTS));
			return false;
		}
		if (!check_exclusive(g, r, row, &passed, f))
			return false;
		if (passed)
			continue;
		if (r->exclusive && !row->isnull[O_REGRANT_AT] && GT_TIME(row, O_REGRANT_AT) > now)
			return leased_already(r, NULL, GT_TIME(row, O_REGRANT_AT), f);

		if (GT_CHAR(row, O_STATE) != 'h')
			*attempts = GT_INT32(row, O_ATTEMPTS);
		GT_SET(row, O_LEASES, Int32GetDatum(GT_INT32(row, O_LEASES) + 1));
		GT_SET(row, O_FENCE, Int64GetDatum(Max(GT_INT64(row, O_FENCE) + 1, gt_unique_us())));
		return true;
	}
}

/* Locks the parent so that it can not end before our commit. */
static bool
hold_parent(GtGranter *g, const GtRequest *r, TimestampTz *expires_at, GtFail *f)
{
	Datum		id = UUIDPGetDatum(r->parent);
	GtRow		parent;
	const char *shown_id = gt_uuid_cstring(r->parent);

	if (gt_fetch_lock(&g->leases, GT_LEASE_PKEY, 1, &id, &parent, LockTupleKeyShare, false) == GT_GONE)
		return gt_fail_not_found(r->parent, f);
	if (!gt_acts_for(GT_OID(&parent, L_OWNER)))
		return gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for lease %s", shown_id);
	if (!parent.isnull[L_PARENT])
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "lease %s has a parent itself and can not be one", shown_id);
	if (!gt_lease_running(&g->leases, &parent, gt_now()))
		return gt_fail(f, ERRCODE_GT_EXPIRED, "lease %s has expired", shown_id);
	*expires_at = gt_lease_shown_until(&g->leases, &parent);
	return true;
}

/* The lease row; false: its request_key has been taken meanwhile. */
static bool
insert_lease(GtGranter *g, const GtRequest *r, const GtRow *object, int attempts, GtGranted *out)
{
	GtRow		row;
	TimestampTz now = gt_now();
	TimestampTz deadline = now + r->duration_us;

	gt_uuid_v7(&out->id);
	out->now = now;
	gt_row_init(&row);
	GT_SET(&row, L_ID, UUIDPGetDatum(&out->id));
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
		GT_SET(&row, L_PARENT, UUIDPGetDatum(r->parent));
	else
	{
		GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(deadline));
		GT_SET(&row, L_CHECK_AT, TimestampTzGetDatum(deadline));
		GT_SET(&row, L_DURATION, Int64GetDatum(r->duration_us));
		out->expires_at = deadline;
	}
	if (r->cleanup != NULL)
		GT_SET(&row, L_HANDLER, Int32GetDatum(g->handler.id));
	if (r->has_max_attempts)
		GT_SET(&row, L_MAX_ATTEMPTS, Int32GetDatum(r->max_attempts));
	if (r->retry_delay != NULL)
		GT_SET(&row, L_RETRY_DELAY, Int64GetDatum(r->retry_delay_us));
	if (r->payload != NULL)
		GT_SET(&row, L_PAYLOAD, JsonbPGetDatum(r->payload));
	if (r->metadata != NULL)
		GT_SET(&row, L_METADATA, JsonbPGetDatum(r->metadata));
	if (r->request_key != NULL)
	{
		GT_SET(&row, L_REQUEST_KEY, CStringGetTextDatum(r->request_key));
		if (!gt_insert_unique(&g->leases, &row, GT_LEASE_REQUEST))
			return false;
	}
	else
		gt_insert(&g->leases, &row);

	gt_lease_created(&out->id, r->parent == NULL ? now : GT_NEVER, r->duration_us);
	out->fence = GT_INT64(object, O_FENCE);
	out->created = true;
	out->attempts = attempts;
	return true;
}

/* Creates one lease, or says in f why not; then nothing is written. */
bool
gt_grant(GtGranter *g, GtRequest *r, GtGranted *out, GtFail *f)
{
	GtRow		object;
	bool		is_new;
	int			attempts;

	if (!gt_request_check(r, f) ||
		(r->cleanup != NULL && !find_handler(g, r->cleanup, f)))
		return false;
	for (;;)
	{
		if (r->request_key != NULL)
		{
			int			found = find_request(g, r, out, f);

			if (found != 0)
				return found > 0;
		}
		if (!check_quota(g, r, f) ||
			!hold_object(g, r, &object, &is_new, &attempts, f))
			return false;
		if (r->parent != NULL && !hold_parent(g, r, &out->expires_at, f))
		{
			if (is_new)
				gt_delete(&g->objects, &object);
			return false;
		}
		if (insert_lease(g, r, &object, attempts, out))
			break;
		if (is_new)
			gt_delete(&g->objects, &object);
		CHECK_FOR_INTERRUPTS();
	}

	if (GT_CHAR(&object, O_STATE) != 'h')
		gt_garbage_revive(&object);

	/* payload and the like come from the newest lease of the owning role that names a cleanup */
	if (r->cleanup != NULL && gt_acts_for(GT_OID(&object, O_OWNER)))
	{
		GT_SET(&object, O_HANDLER, Int32GetDatum(g->handler.id));
		GT_SET(&object, O_SPEC_LEASE, UUIDPGetDatum(&out->id));
		GT_SET(&object, O_KEEP, BoolGetDatum(false));
	}
	gt_update(&g->objects, &object);
	return true;
}

void
gt_granter_open(GtGranter *g, const char *function)
{
	gt_mark_write(function);
	gt_start_ensure();
	gt_place_ensure();
	gt_note_role(GetUserId());
	memset(g, 0, sizeof(GtGranter));
	gt_open(&g->objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&g->leases, GT_LEASE, RowExclusiveLock);
}

void
gt_granter_close(GtGranter *g)
{
	gt_close(&g->leases);
	gt_close(&g->objects);
}
