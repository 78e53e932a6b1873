/*-------------------------------------------------------------------------
 *
 * grant.c
 *	  Creating leases.
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

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/string.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "garbagetruck.h"
#include "lease.h"

PG_FUNCTION_INFO_V1(gt_lease_create);
PG_FUNCTION_INFO_V1(gt_lease_grant);
PG_FUNCTION_INFO_V1(gt_lease_create_many);
PG_FUNCTION_INFO_V1(gt_lease_grant_each);

#define MAX_EACH 1000			/* elements of gt_lease_grant_each */
#define MAX_RETRY_DELAY USECS_PER_DAY

/* what a caller asks for; pointers are NULL where nothing was given */
typedef struct Request
{
	char	   *object_id;
	char	   *object_type;
	char	   *service_id;
	Interval   *duration;
	char	   *cleanup;
	Jsonb	   *payload;
	Jsonb	   *metadata;
	pg_uuid_t  *parent;
	bool		exclusive;
	char	   *request_key;
	bool		has_max_attempts;
	int			max_attempts;
	Interval   *retry_delay;
	/* made of these by check_request() */
	int64		duration_us;
	int64		retry_delay_us;
} Request;

typedef struct Granted
{
	pg_uuid_t	id;
	int64		fence;
	TimestampTz expires_at;
	TimestampTz now;
	bool		created;
	int			attempts;
} Granted;

/* the tables and the handler, opened once for a batch */
typedef struct Granter
{
	GtTable		objects;
	GtTable		leases;
	bool		has_handler;
	GtHandler	handler;
} Granter;

/* Sets what went wrong, for the caller to raise or to show; always false. */
bool
gt_fail(GtFail *f, int sqlstate, const char *fmt,...)
{
	va_list		args;
	StringInfoData buf;

	memset(f, 0, sizeof(GtFail));
	f->sqlstate = sqlstate;
	initStringInfo(&buf);
	for (;;)
	{
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	f->message = buf.data;
	return false;
}

void
gt_raise(const GtFail *f)
{
	ereport(ERROR,
			(errcode(f->sqlstate),
			 errmsg("%s", f->message),
			 f->detail ? errdetail("%s", f->detail) : 0,
			 f->hint ? errhint("%s", f->hint) : 0));
}

/* Names are shown in errors: no more of a long one than helps. */
static char *
shown(const char *value)
{
	int			len = strlen(value);

	if (len <= 100)
		return pstrdup(value);
	return psprintf("%.*s...", pg_mbcliplen(value, len, 100), value);
}

/* The control character that begins here, also of the upper range in UTF-8 (U+0080 to U+009F); -1: none. */
static int
control_at(const char *p)
{
	unsigned char c = p[0];
	unsigned char next = c == '\0' ? 0 : p[1];

	if (c < 0x20 || c == 0x7f)
		return c;
	return c == 0xc2 && next >= 0x80 && next < 0xa0 && GetDatabaseEncoding() == PG_UTF8 ? next : -1;
}

static bool
check_name(const char *what, const char *value, int max_bytes, GtFail *f)
{
	size_t		len = strlen(value);
	int			i;

	if (len == 0)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s must not be empty", what);
	if (len > (size_t) max_bytes)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s \"%s\" is too long: %zu bytes, the limit is %d",
					   what, shown(value), len, max_bytes);
	for (i = 0; i < (int) len; i++)
	{
		int			control = control_at(value + i);

		if (control >= 0)
			return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s has a control character (0x%02x) at byte %d",
						   what, control, i + 1);
	}
	return true;
}

/* Raises 22023 unless value has 1 to max_bytes bytes and no control characters. */
void
gt_check_name(const char *what, const char *value, int max_bytes)
{
	GtFail		f;

	if (!check_name(what, value, max_bytes, &f))
		gt_raise(&f);
}

/* Microseconds of an interval; a month is 30 days, a day 24 hours. */
int64
gt_interval_us(Interval *i, bool *ok)
{
	double		us = (double) i->month * 30 * USECS_PER_DAY + (double) i->day * USECS_PER_DAY + (double) i->time;

	*ok = us < 9.0e18 && us > -9.0e18;
	return *ok ? ((int64) i->month * 30 + i->day) * USECS_PER_DAY + i->time : 0;
}

Interval *
gt_us_interval(int64 us)
{
	Interval   *i = palloc0(sizeof(Interval));

	i->time = us;
	return i;
}

/* Microseconds of a lease's duration, judged by the settings; false: out of range, or no duration. */
bool
gt_check_duration(Interval *duration, int64 *us, GtFail *f)
{
	int64		min = (int64) gt_min_duration * 1000;
	int64		max = (int64) gt_max_duration * USECS_PER_SEC;
	bool		ok;

	*us = gt_interval_us(duration, &ok);
	if (!ok || *us < min || *us > max)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "duration %s is out of range: it must be between %s and %s",
					   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(duration))),
					   GetConfigOptionByName("garbagetruck.min_lease_duration", NULL, false),
					   GetConfigOptionByName("garbagetruck.max_lease_duration", NULL, false));
	return true;
}

/* payload and metadata together, as text */
bool
gt_check_payload(Jsonb *payload, Jsonb *metadata, GtFail *f)
{
	size_t		size = 0;

	if (payload != NULL)
		size += strlen(JsonbToCString(NULL, &payload->root, VARSIZE(payload)));
	if (metadata != NULL)
		size += strlen(JsonbToCString(NULL, &metadata->root, VARSIZE(metadata)));
	if (size > (size_t) gt_max_payload)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "payload and metadata are too large: %zu bytes, the limit is %d (garbagetruck.max_payload)",
					   size, gt_max_payload);
	return true;
}

static bool
check_object(const Request *r, GtFail *f)
{
	if (r->object_id == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_id must not be null");
	if (r->object_type == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_type must not be null");
	return true;
}

/* What can be said of a request without looking at any table; fills in defaults. */
static bool
check_request(Request *r, GtFail *f)
{
	if (!check_object(r, f))
		return false;
	if (r->service_id == NULL)
		r->service_id = application_name != NULL && application_name[0] != '\0' ?
			application_name : GetUserNameFromId(GetUserId(), false);
	if (!check_name("object_id", r->object_id, 1024, f) ||
		!check_name("object_type", r->object_type, 255, f) ||
		!check_name("service_id", r->service_id, 255, f) ||
		(r->cleanup != NULL && !check_name("cleanup", r->cleanup, 255, f)) ||
		(r->request_key != NULL && !check_name("request_key", r->request_key, 255, f)) ||
		!gt_check_payload(r->payload, r->metadata, f))
		return false;

	if (r->parent != NULL && r->duration != NULL)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "a lease with a parent (%s) has no duration of its own", gt_uuid_cstring(r->parent));
	r->duration_us = (int64) gt_default_duration * 1000;
	if (r->duration != NULL && !gt_check_duration(r->duration, &r->duration_us, f))
		return false;

	if (r->has_max_attempts && r->max_attempts < 1)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "max_attempts %d is out of range: it must be at least 1", r->max_attempts);
	if (r->retry_delay != NULL)
	{
		bool		ok;

		r->retry_delay_us = gt_interval_us(r->retry_delay, &ok);
		if (!ok || r->retry_delay_us < 0 || r->retry_delay_us > MAX_RETRY_DELAY)
			return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
						   "retry_delay %s is out of range: it must be between 0 and 24 hours",
						   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(r->retry_delay))));
	}
	return true;
}

/* The handler that a request names, looked up once for a batch of the same. */
static bool
find_handler(Granter *g, const char *name, GtFail *f)
{
	if (g->has_handler && strcmp(g->handler.name, name) == 0)
		return true;
	g->has_handler = false;
	if (!gt_handler_hold(name, &g->handler))
		return gt_fail(f, ERRCODE_GT_NO_HANDLER, "handler \"%s\" does not exist", shown(name));
	if (!gt_handler_may_use(&g->handler))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for handler \"%s\"", shown(name));
		f->hint = psprintf("Its owner can grant it: SELECT gt_handler_grant(%s, %s).",
						   quote_literal_cstr(name), quote_literal_cstr(GetUserNameFromId(GetUserId(), false)));
		return false;
	}
	g->has_handler = true;
	return true;
}

static bool
check_quota(Granter *g, const Request *r, GtFail *f)
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
					   shown(r->service_id), n, gt_max_leases_per_service);
	return true;
}

/* A running lease of this request_key, if there is one; an expired one is ended. 1: found, 0: none, -1: failed. */
static int
find_request(Granter *g, const Request *r, Granted *out, GtFail *f)
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
				shown(r->request_key));
		return -1;
	}
	out->id = *DatumGetUUIDP(row.v[L_ID]);
	out->fence = GT_INT64(&row, L_FENCE);
	out->expires_at = gt_lease_over_at(&g->leases, &row);
	out->now = now;
	out->created = false;
	out->attempts = GT_INT32(&row, L_ATTEMPTS);
	return 1;
}

static bool
leased_already(const Request *r, const char *service, TimestampTz until, GtFail *f)
{
	gt_fail(f, ERRCODE_GT_LEASED, "object \"%s\" of type \"%s\" is already leased", shown(r->object_id), shown(r->object_type));
	if (service == NULL)
		f->detail = psprintf("A lease on it has expired, and garbagetruck.regrant_delay lasts until %s.", timestamptz_to_str(until));
	else if (until == GT_NEVER)
		f->detail = psprintf("It is held by service \"%s\"; the server has just started and does not judge yet.", shown(service));
	else
		f->detail = psprintf("It is held by service \"%s\"; retry after %s.", shown(service), timestamptz_to_str(until));
	return false;
}

/*
 * Does a lease on the object stand in the way of this one?  An exclusive lease
 * is always the only one of its object that has not ended, since creating it
 * ends the expired: so more than one lease means that none is exclusive.
 * *passed: expired ones were ended, the object row must be read again.
 */
static bool
check_exclusive(Granter *g, const Request *r, const GtRow *object, bool *passed, GtFail *f)
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
hold_object(Granter *g, const Request *r, GtRow *row, bool *is_new, int *attempts, GtFail *f)
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
					shown(r->object_id), shown(r->object_type));
			f->detail = pstrdup("It belongs to another role.");
			f->hint = psprintf("Its owner can share it: SELECT gt_share(%s).",
							   quote_literal_cstr(GetUserNameFromId(GetUserId(), false)));
			return false;
		}
		if (!row->isnull[O_FLIGHT_UNTIL] && GT_TIME(row, O_FLIGHT_UNTIL) > now)
		{
			gt_fail(f, ERRCODE_GT_RECLAIMING, "object \"%s\" of type \"%s\" is being reclaimed",
					shown(r->object_id), shown(r->object_type));
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
hold_parent(Granter *g, const Request *r, TimestampTz *expires_at, GtFail *f)
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
	*expires_at = gt_lease_over_at(&g->leases, &parent);
	return true;
}

/* The lease row; false: its request_key has been taken meanwhile. */
static bool
insert_lease(Granter *g, const Request *r, const GtRow *object, int attempts, Granted *out)
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
static bool
grant(Granter *g, Request *r, Granted *out, GtFail *f)
{
	GtRow		object;
	bool		is_new;
	int			attempts;

	if (!check_request(r, f) ||
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

static void
open_granter(Granter *g, const char *function)
{
	gt_mark_write(function);
	gt_start_ensure();
	gt_place_ensure();
	gt_note_role(GetUserId());
	memset(g, 0, sizeof(Granter));
	gt_open(&g->objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&g->leases, GT_LEASE, RowExclusiveLock);
}

static void
close_granter(Granter *g)
{
	gt_close(&g->leases);
	gt_close(&g->objects);
}

static pg_uuid_t *
uuid_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_UUID_P(n);
}

/* The arguments from `service_id` on, alike in gt_lease_create and gt_lease_create_many but for request_key. */
static void
request_of_args(FunctionCallInfo fcinfo, bool with_key, Request *r)
{
	int			after = with_key ? 10 : 9;

	memset(r, 0, sizeof(Request));
	r->object_type = gt_text_arg(fcinfo, 1);
	r->service_id = gt_text_arg(fcinfo, 2);
	r->duration = PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3);
	r->cleanup = gt_text_arg(fcinfo, 4);
	r->payload = PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5);
	r->metadata = PG_ARGISNULL(6) ? NULL : PG_GETARG_JSONB_P(6);
	r->parent = uuid_arg(fcinfo, 7);
	if (PG_ARGISNULL(8))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("exclusive must not be null")));
	r->exclusive = PG_GETARG_BOOL(8);
	if (with_key)
		r->request_key = gt_text_arg(fcinfo, 9);
	r->has_max_attempts = !PG_ARGISNULL(after);
	r->max_attempts = r->has_max_attempts ? PG_GETARG_INT32(after) : 0;
	r->retry_delay = PG_ARGISNULL(after + 1) ? NULL : PG_GETARG_INTERVAL_P(after + 1);
}

static void
grant_of_args(FunctionCallInfo fcinfo, Granted *out)
{
	Granter		g;
	Request		r;
	GtFail		f;

	request_of_args(fcinfo, true, &r);
	r.object_id = gt_text_arg(fcinfo, 0);
	open_granter(&g, "gt_lease_create()");
	if (!grant(&g, &r, out, &f))
		gt_raise(&f);
	close_granter(&g);
}

/* gt_lease_create(...) returns uuid: see the SQL script and the README */
Datum
gt_lease_create(PG_FUNCTION_ARGS)
{
	Granted		out;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	grant_of_args(fcinfo, &out);
	*id = out.id;
	PG_RETURN_UUID_P(id);
}

/* gt_lease_grant(...) returns (lease_id, fence, expires_at, ttl, created, attempts) */
Datum
gt_lease_grant(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Granted		out;
	Datum		values[6];
	bool		nulls[6] = {false};

	InitMaterializedSRF(fcinfo, 0);
	grant_of_args(fcinfo, &out);
	values[0] = UUIDPGetDatum(&out.id);
	values[1] = Int64GetDatum(out.fence);
	values[2] = TimestampTzGetDatum(gt_shown_deadline(out.expires_at));
	values[3] = IntervalPGetDatum(gt_us_interval(gt_shown_deadline(out.expires_at) - out.now));
	values[4] = BoolGetDatum(out.created);
	values[5] = Int32GetDatum(out.attempts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

/* an element of a batch, to be sorted */
typedef struct Element
{
	Request		request;
	Granted		granted;
	GtFail		fail;
	bool		ok;
} Element;

/* Those of the same object in input order: the first is served first. */
static int
by_object(const void *a, const void *b)
{
	const Element *x = *(Element *const *) a;
	const Element *y = *(Element *const *) b;
	int			order = strcmp(x->request.object_type, y->request.object_type);

	if (order == 0)
		order = strcmp(x->request.object_id, y->request.object_id);
	return order != 0 ? order : (x > y) - (x < y);
}

static bool
same_object(const Element *x, const Element *y)
{
	return strcmp(x->request.object_type, y->request.object_type) == 0 &&
		strcmp(x->request.object_id, y->request.object_id) == 0;
}

/* gt_lease_create_many(object_ids, ...) returns uuid[]: all or nothing, in input order */
Datum
gt_lease_create_many(PG_FUNCTION_ARGS)
{
	Granter		g;
	Request		common;
	Element    *elements;
	Element   **sorted;
	Datum	   *ids;
	bool	   *nulls;
	Datum	   *result;
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_ids must not be null")));
	request_of_args(fcinfo, false, &common);
	if (common.object_type == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_type must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &ids, &nulls, &n);
	elements = palloc0(Max(n, 1) * sizeof(Element));
	sorted = palloc(Max(n, 1) * sizeof(Element *));
	result = palloc(Max(n, 1) * sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("object_ids must not contain null")));
		elements[i].request = common;
		elements[i].request.object_id = TextDatumGetCString(ids[i]);
		sorted[i] = &elements[i];
	}
	qsort(sorted, n, sizeof(Element *), by_object);

	open_granter(&g, "gt_lease_create_many()");
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && same_object(sorted[i], sorted[i - 1]))
			sorted[i]->granted = sorted[i - 1]->granted;
		else if (!grant(&g, &sorted[i]->request, &sorted[i]->granted, &sorted[i]->fail))
			gt_raise(&sorted[i]->fail);
	}
	close_granter(&g);

	for (i = 0; i < n; i++)
		result[i] = UUIDPGetDatum(&elements[i].granted.id);
	PG_RETURN_ARRAYTYPE_P(construct_array(result, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* A value of an element of gt_lease_grant_each, to be shown in an error. */
static char *
shown_json(JsonbValue *v)
{
	Jsonb	   *value = JsonbValueToJsonb(v);

	return shown(JsonbToCString(NULL, &value->root, VARSIZE(value)));
}

static bool
must_be(const char *key, const char *what, JsonbValue *v, GtFail *f)
{
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "\"%s\" must be %s, not %s", key, what, shown_json(v));
}

/* One member of an element of gt_lease_grant_each: null is NULL. Raises what input functions raise. */
static bool
take_member(Request *r, const char *key, JsonbValue *v, GtFail *f)
{
	static const struct
	{
		const char *key;
		size_t		offset;
	}			strings[] = {
		{"object_id", offsetof(Request, object_id)},
		{"object_type", offsetof(Request, object_type)},
		{"service_id", offsetof(Request, service_id)},
		{"cleanup", offsetof(Request, cleanup)},
		{"request_key", offsetof(Request, request_key)},
	};
	char	   *text = NULL;
	int			i;

	if (v->type == jbvString)
		text = pnstrdup(v->val.string.val, v->val.string.len);
	for (i = 0; i < (int) lengthof(strings); i++)
		if (strcmp(key, strings[i].key) == 0)
		{
			if (text == NULL && v->type != jbvNull)
				return must_be(key, "a string", v, f);
			*(char **) ((char *) r + strings[i].offset) = text;
			return true;
		}

	if (strcmp(key, "payload") == 0 || strcmp(key, "metadata") == 0)
	{
		Jsonb	   *value = v->type == jbvNull ? NULL : JsonbValueToJsonb(v);

		if (key[0] == 'p')
			r->payload = value;
		else
			r->metadata = value;
	}
	else if (strcmp(key, "duration") == 0 || strcmp(key, "retry_delay") == 0)
	{
		Interval   *value;

		if (v->type == jbvNull)
			return true;
		if (text == NULL)
			return must_be(key, "a string with an interval", v, f);
		value = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
													  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		if (key[0] == 'd')
			r->duration = value;
		else
			r->retry_delay = value;
	}
	else if (strcmp(key, "parent") == 0)
	{
		if (v->type == jbvNull)
			return true;
		if (text == NULL)
			return must_be(key, "a string with a lease id", v, f);
		r->parent = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
	}
	else if (strcmp(key, "exclusive") == 0)
	{
		if (v->type == jbvNull)
			return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "exclusive must not be null");
		if (v->type != jbvBool)
			return must_be(key, "true or false", v, f);
		r->exclusive = v->val.boolean;
	}
	else if (strcmp(key, "max_attempts") == 0)
	{
		char	   *end = "";

		if (v->type == jbvNull)
			return true;
		errno = 0;
		if (v->type == jbvNumeric)
			r->max_attempts = strtoint(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))),
									   &end, 10);
		if (v->type != jbvNumeric || errno != 0 || *end != '\0')
			return must_be(key, "an integer", v, f);
		r->has_max_attempts = true;
	}
	else
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "unknown key \"%s\"", shown(key));
	return true;
}

static bool
take_members(Request *r, JsonbValue *v, GtFail *f)
{
	JsonbIterator *it;
	JsonbValue	member;
	JsonbIteratorToken token;
	char	   *key = NULL;

	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "each request must be an object, not %s", shown_json(v));
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &member, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(member.val.string.val, member.val.string.len);
		else if (token == WJB_VALUE && !take_member(r, key, &member, f))
			return false;
	}
	return true;
}

/*
 * The same; what input functions raise becomes a failure.  The subtransaction
 * writes nothing, so it gets no transaction id.
 */
static bool
request_of_json(Request *r, JsonbValue *v, GtFail *f)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	memset(r, 0, sizeof(Request));
	r->object_type = "custom";
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		ok = take_members(r, v, f);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ok = gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s", error->message);
	}
	PG_END_TRY();
	return ok;
}

/* gt_lease_grant_each(requests) returns a row for each, in input order; none raises */
Datum
gt_lease_grant_each(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Granter		g;
	Jsonb	   *requests;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	Element    *elements;
	Element   **sorted;
	int			n;
	int			nsorted = 0;
	int			i = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("requests must not be null")));
	requests = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(requests) || JB_ROOT_IS_SCALAR(requests))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("requests must be an array of objects")));
	n = JB_ROOT_COUNT(requests);
	if (n > MAX_EACH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("requests has %d elements, the limit is %d", n, MAX_EACH)));
	InitMaterializedSRF(fcinfo, 0);
	elements = palloc0(Max(n, 1) * sizeof(Element));
	sorted = palloc(Max(n, 1) * sizeof(Element *));

	it = JsonbIteratorInit(&requests->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_ELEM)
		{
			Element    *e = &elements[i++];

			e->ok = request_of_json(&e->request, &v, &e->fail);
			if (e->ok)
				e->ok = check_object(&e->request, &e->fail);
			if (e->ok)
				sorted[nsorted++] = e;
		}
	qsort(sorted, nsorted, sizeof(Element *), by_object);

	open_granter(&g, "gt_lease_grant_each()");
	for (i = 0; i < nsorted; i++)
	{
		CHECK_FOR_INTERRUPTS();
		sorted[i]->ok = grant(&g, &sorted[i]->request, &sorted[i]->granted, &sorted[i]->fail);
	}
	close_granter(&g);

	for (i = 0; i < n; i++)
	{
		Element    *e = &elements[i];
		Datum		values[7] = {0};
		bool		nulls[7];

		memset(nulls, !e->ok, sizeof(nulls));
		nulls[0] = nulls[1] = false;
		nulls[2] = e->ok;
		values[0] = Int32GetDatum(i + 1);
		values[1] = CStringGetTextDatum(e->ok ? "00000" : unpack_sql_state(e->fail.sqlstate));
		if (e->ok)
		{
			values[3] = UUIDPGetDatum(&e->granted.id);
			values[4] = Int64GetDatum(e->granted.fence);
			values[5] = TimestampTzGetDatum(gt_shown_deadline(e->granted.expires_at));
			values[6] = BoolGetDatum(e->granted.created);
		}
		else
			values[2] = CStringGetTextDatum(e->fail.message);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
