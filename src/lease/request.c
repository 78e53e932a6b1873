/*-------------------------------------------------------------------------
 *
 * request.c
 *	  A request for a lease: read from arguments or from JSON, and what can be
 *	  said of it without looking at any table.
 *
 * Every process that serves SQL runs this.  Nothing is locked or written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/string.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/check.h"
#include "base/settings.h"
#include "base/text.h"
#include "base/transaction.h"
#include "lease/request.h"
#include "shared/ids.h"

bool
gt_request_check_object(const GtRequest *r, GtFail *f)
{
	if (r->object_id == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_id must not be null");
	if (r->object_type == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_type must not be null");
	return true;
}

/* What can be said of a request without looking at any table; fills in defaults. */
bool
gt_request_check(GtRequest *r, GtFail *f)
{
	if (!gt_request_check_object(r, f))
		return false;
	if (r->key_service == NULL) /* else this is not its first try */
		r->key_service = r->service_id != NULL ? r->service_id : "";
	if (r->service_id == NULL)
		r->service_id = application_name != NULL && application_name[0] != '\0' ?
			application_name : GetUserNameFromId(GetUserId(), false);
	if (!gt_check_name("object_id", r->object_id, 1024, f) ||
		!gt_check_name("object_type", r->object_type, 255, f) ||
		!gt_check_name("service_id", r->service_id, 255, f) ||
		(r->cleanup != NULL && !gt_check_name("cleanup", r->cleanup, 255, f)) ||
		(r->request_key != NULL && !gt_check_name("request_key", r->request_key, 255, f)) ||
		!gt_check_payload(r->payload, r->metadata, f))
		return false;

	if (r->parent != NULL && r->duration != NULL)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "a lease with a parent (%s) has no duration of its own", gt_uuid_cstring(r->parent));
	r->duration_us = (int64) gt_default_duration * 1000;
	if (r->duration != NULL && !gt_check_duration(r->duration, &r->duration_us, f))
		return false;

	return (r->regrant_delay == NULL || gt_check_regrant_delay(r->regrant_delay, &r->regrant_delay_us, f)) &&
		(!r->has_max_attempts || gt_check_max_attempts(r->max_attempts, f)) &&
		(r->retry_delay == NULL || gt_check_retry_delay(r->retry_delay, &r->retry_delay_us, f));
}

/* ---- from arguments ---- */

static pg_uuid_t *
uuid_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_UUID_P(n);
}

/* The arguments from `service_id` on, alike in gt_lease_create and gt_lease_create_many but for request_key. */
void
gt_request_of_args(FunctionCallInfo fcinfo, bool with_key, GtRequest *r)
{
	int			after = with_key ? 10 : 9;

	memset(r, 0, sizeof(GtRequest));
	r->object_type = gt_text_arg(fcinfo, 1);
	r->service_id = gt_text_arg(fcinfo, 2);
	r->duration = PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3);
	r->cleanup = gt_text_arg(fcinfo, 4);
	r->payload = PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5);
	r->metadata = PG_ARGISNULL(6) ? NULL : PG_GETARG_JSONB_P(6);
	r->parent = uuid_arg(fcinfo, 7);
	gt_must_not_be_null(fcinfo, 8, "exclusive");
	r->exclusive = PG_GETARG_BOOL(8);
	if (with_key)
		r->request_key = gt_text_arg(fcinfo, 9);
	r->has_max_attempts = !PG_ARGISNULL(after);
	r->max_attempts = r->has_max_attempts ? PG_GETARG_INT32(after) : 0;
	r->retry_delay = PG_ARGISNULL(after + 1) ? NULL : PG_GETARG_INTERVAL_P(after + 1);
	r->regrant_delay = PG_ARGISNULL(after + 2) ? NULL : PG_GETARG_INTERVAL_P(after + 2);
}

/* ---- from JSON ---- */

/* A value of an element of gt_lease_grant_each, to be shown in an error. */
static char *
shown_json(JsonbValue *v)
{
	Jsonb	   *value = JsonbValueToJsonb(v);

	return gt_shown(JsonbToCString(NULL, &value->root, VARSIZE(value)));
}

static bool
must_be(const char *key, const char *what, JsonbValue *v, GtFail *f)
{
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "\"%s\" must be %s, not %s", key, what, shown_json(v));
}

/* The text of a string; NULL: it is none. */
static char *
text_of(const JsonbValue *v)
{
	return v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

static bool
take_text(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type != jbvString && v->type != jbvNull)
		return must_be(key, "a string", v, f);
	*(char **) member = text_of(v);
	return true;
}

static bool
take_interval(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type == jbvNull)
		return true;
	if (v->type != jbvString)
		return must_be(key, "a string with an interval", v, f);
	*(Interval **) member = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text_of(v)),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return true;
}

static bool
take_json(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	*(Jsonb **) member = v->type == jbvNull ? NULL : JsonbValueToJsonb(v);
	return true;
}

static bool
take_parent(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type == jbvNull)
		return true;
	if (v->type != jbvString)
		return must_be(key, "a string with a lease id", v, f);
	*(pg_uuid_t **) member = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text_of(v))));
	return true;
}

static bool
take_exclusive(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type == jbvNull)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "exclusive must not be null");
	if (v->type != jbvBool)
		return must_be(key, "true or false", v, f);
	r->exclusive = v->val.boolean;
	return true;
}

static bool
take_max_attempts(GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f)
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
	return true;
}

/* One member of an element of gt_lease_grant_each: null is NULL. Raises what input functions raise. */
static bool
take_member(GtRequest *r, const char *key, JsonbValue *v, GtFail *f)
{
	static const struct
	{
		const char *key;
		size_t		offset;
		bool		(*take) (GtRequest *r, void *member, const char *key, JsonbValue *v, GtFail *f);
	}			members[] = {
		{"object_id", offsetof(GtRequest, object_id), take_text},
		{"object_type", offsetof(GtRequest, object_type), take_text},
		{"service_id", offsetof(GtRequest, service_id), take_text},
		{"duration", offsetof(GtRequest, duration), take_interval},
		{"cleanup", offsetof(GtRequest, cleanup), take_text},
		{"payload", offsetof(GtRequest, payload), take_json},
		{"metadata", offsetof(GtRequest, metadata), take_json},
		{"parent", offsetof(GtRequest, parent), take_parent},
		{"exclusive", offsetof(GtRequest, exclusive), take_exclusive},
		{"request_key", offsetof(GtRequest, request_key), take_text},
		{"max_attempts", offsetof(GtRequest, max_attempts), take_max_attempts},
		{"retry_delay", offsetof(GtRequest, retry_delay), take_interval},
		{"regrant_delay", offsetof(GtRequest, regrant_delay), take_interval},
	};
	int			i;

	for (i = 0; i < (int) lengthof(members); i++)
		if (strcmp(key, members[i].key) == 0)
			return members[i].take(r, (char *) r + members[i].offset, key, v, f);
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "unknown key \"%s\"", gt_shown(key));
}

static bool
take_members(GtRequest *r, JsonbValue *v, GtFail *f)
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

typedef struct Members
{
	GtRequest  *r;
	JsonbValue *v;
	GtFail	   *f;
	bool		ok;
} Members;

static void
try_members(void *arg)
{
	Members    *members = arg;

	members->ok = take_members(members->r, members->v, members->f);
}

/*
 * The same; what input functions raise becomes a failure.  The subtransaction
 * writes nothing, so it gets no transaction id.
 */
bool
gt_request_of_json(GtRequest *r, JsonbValue *v, GtFail *f)
{
	Members		members = {r, v, f, false};
	ErrorData  *error;

	memset(r, 0, sizeof(GtRequest));
	r->object_type = "custom";
	error = gt_try(try_members, &members);
	if (error != NULL)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s", error->message);
	return members.ok;
}
