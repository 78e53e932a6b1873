/*-------------------------------------------------------------------------
 *
 * request.c
 *	  A request for a lease: read from arguments or from JSON, and what can be
 *	  said of it without looking at any table.
 *
 * Every process that serves SQL runs this.  Nothing is locked or written.  Who
 * grants it (grant.c) has only to look at what there is.
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
#include "base/text.h"
#include "base/transaction.h"
#include "lease/request.h"
#include "shared/ids.h"

#define MAX_SHOWN (1024 * 1024)	/* bytes of JSON that are made into text in order to show their beginning */

/* A request as it is read: intervals are not judged yet. */
typedef struct Asked
{
	GtRequest	r;
	Interval   *duration;		/* NULL, as those below: not given */
	Interval   *retry_delay;
	Interval   *regrant_delay;
	bool		has_max_attempts;
} Asked;

static bool
check_object_id(const char *object_id, GtFail *f)
{
	if (object_id == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_id must not be null");
	return gt_check_name("object_id", object_id, 1024, f);
}

/* What can be said of all the rest without looking at any table; fills in defaults. */
static bool
check(Asked *a, GtFail *f)
{
	GtRequest  *r = &a->r;

	if (r->object_type == NULL)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "object_type must not be null");
	r->key_service = r->service_id != NULL ? r->service_id : "";
	if (r->service_id == NULL)
		r->service_id = application_name != NULL && application_name[0] != '\0' ?
			application_name : GetUserNameFromId(GetUserId(), false);
	if (!gt_check_name("object_type", r->object_type, 255, f) ||
		!gt_check_name("service_id", r->service_id, 255, f) ||
		(r->cleanup != NULL && !gt_check_name("cleanup", r->cleanup, 255, f)) ||
		(r->request_key != NULL && !gt_check_name("request_key", r->request_key, 255, f)) ||
		!gt_check_payload(r->payload, r->metadata, f))
		return false;
	r->key[1] = CStringGetTextDatum(r->object_type);
	r->service = CStringGetTextDatum(r->service_id);

	if (r->parent != NULL && a->duration != NULL)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "a lease with a parent (%s) has no duration of its own", gt_uuid_cstring(r->parent));
	r->regrant_delay = r->retry_delay = -1;
	return gt_check_duration(a->duration, &r->duration, f) &&
		(a->regrant_delay == NULL || gt_check_regrant_delay(a->regrant_delay, &r->regrant_delay, f)) &&
		(!a->has_max_attempts || gt_check_max_attempts(r->max_attempts, f)) &&
		(a->retry_delay == NULL || gt_check_retry_delay(a->retry_delay, &r->retry_delay, f));
}

/* ---- from arguments ---- */

static Interval *
interval_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);
}

static Jsonb *
jsonb_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

/* The arguments from object_type on, alike in gt_lease_create() and gt_lease_create_many() but for request_key. */
static void
read_args(FunctionCallInfo fcinfo, bool with_key, Asked *a)
{
	GtRequest  *r = &a->r;
	int			after = with_key ? 10 : 9;

	memset(a, 0, sizeof(Asked));
	r->object_type = gt_text_arg(fcinfo, 1);
	r->service_id = gt_text_arg(fcinfo, 2);
	a->duration = interval_arg(fcinfo, 3);
	r->cleanup = gt_text_arg(fcinfo, 4);
	r->payload = jsonb_arg(fcinfo, 5);
	r->metadata = jsonb_arg(fcinfo, 6);
	r->parent = PG_ARGISNULL(7) ? NULL : PG_GETARG_UUID_P(7);
	gt_must_not_be_null(fcinfo, 8, "exclusive");
	r->exclusive = PG_GETARG_BOOL(8);
	if (with_key)
		r->request_key = gt_text_arg(fcinfo, 9);
	a->has_max_attempts = !PG_ARGISNULL(after);
	r->max_attempts = a->has_max_attempts ? PG_GETARG_INT32(after) : 0;
	a->retry_delay = interval_arg(fcinfo, after + 1);
	a->regrant_delay = interval_arg(fcinfo, after + 2);
}

void
gt_request_of_args(FunctionCallInfo fcinfo, GtRequest *r)
{
	Asked		a;
	GtFail		f;

	read_args(fcinfo, true, &a);
	a.r.object_id = gt_text_arg(fcinfo, 0);
	if (!check_object_id(a.r.object_id, &f) || !check(&a, &f))
		gt_raise(&f);
	a.r.key[0] = CStringGetTextDatum(a.r.object_id);
	*r = a.r;
}

void
gt_request_of_many(FunctionCallInfo fcinfo, GtRequest *r)
{
	Asked		a;
	GtFail		f;

	read_args(fcinfo, false, &a);
	if (!check(&a, &f))
		gt_raise(&f);
	*r = a.r;
}

void
gt_request_set_object(GtRequest *r, const char *object_id)
{
	GtFail		f;

	if (!check_object_id(object_id, &f))
		gt_raise(&f);
	r->object_id = object_id;
	r->key[0] = CStringGetTextDatum(object_id);
}

/* ---- from JSON ---- */

/* A value of an element of gt_lease_grant_each, to be shown in an error. */
static char *
shown_json(JsonbValue *v)
{
	Jsonb	   *value = JsonbValueToJsonb(v);

	if (gt_json_length(value, MAX_SHOWN) > MAX_SHOWN)
		return v->type == jbvString ? "a string" : JsonContainerIsArray(v->val.binary.data) ? "an array" : "an object";
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
take_text(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type != jbvString && v->type != jbvNull)
		return must_be(key, "a string", v, f);
	*(char **) member = text_of(v);
	return true;
}

static bool
take_interval(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
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
take_json(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	*(Jsonb **) member = v->type == jbvNull ? NULL : JsonbValueToJsonb(v);
	return true;
}

static bool
take_parent(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type == jbvNull)
		return true;
	if (v->type != jbvString)
		return must_be(key, "a string with a lease id", v, f);
	*(pg_uuid_t **) member = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text_of(v))));
	return true;
}

static bool
take_exclusive(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	if (v->type == jbvNull)
		return gt_fail(f, ERRCODE_NULL_VALUE_NOT_ALLOWED, "exclusive must not be null");
	if (v->type != jbvBool)
		return must_be(key, "true or false", v, f);
	a->r.exclusive = v->val.boolean;
	return true;
}

static bool
take_max_attempts(Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f)
{
	char	   *end = "";

	if (v->type == jbvNull)
		return true;
	errno = 0;
	if (v->type == jbvNumeric)
		a->r.max_attempts = strtoint(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))),
									 &end, 10);
	if (v->type != jbvNumeric || errno != 0 || *end != '\0')
		return must_be(key, "an integer", v, f);
	a->has_max_attempts = true;
	return true;
}

/* One member of an element of gt_lease_grant_each: null is NULL. Raises what input functions raise. */
static bool
take_member(Asked *a, const char *key, JsonbValue *v, GtFail *f)
{
	static const struct
	{
		const char *key;
		size_t		offset;
		bool		(*take) (Asked *a, void *member, const char *key, JsonbValue *v, GtFail *f);
	}			members[] = {
		{"object_id", offsetof(Asked, r.object_id), take_text},
		{"object_type", offsetof(Asked, r.object_type), take_text},
		{"service_id", offsetof(Asked, r.service_id), take_text},
		{"duration", offsetof(Asked, duration), take_interval},
		{"cleanup", offsetof(Asked, r.cleanup), take_text},
		{"payload", offsetof(Asked, r.payload), take_json},
		{"metadata", offsetof(Asked, r.metadata), take_json},
		{"parent", offsetof(Asked, r.parent), take_parent},
		{"exclusive", offsetof(Asked, r.exclusive), take_exclusive},
		{"request_key", offsetof(Asked, r.request_key), take_text},
		{"max_attempts", offsetof(Asked, r.max_attempts), take_max_attempts},
		{"retry_delay", offsetof(Asked, retry_delay), take_interval},
		{"regrant_delay", offsetof(Asked, regrant_delay), take_interval},
	};
	int			i;

	for (i = 0; i < (int) lengthof(members); i++)
		if (strcmp(key, members[i].key) == 0)
			return members[i].take(a, (char *) a + members[i].offset, key, v, f);
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "unknown key \"%s\"", gt_shown(key));
}

static bool
take_members(Asked *a, JsonbValue *v, GtFail *f)
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
		else if (token == WJB_VALUE && !take_member(a, key, &member, f))
			return false;
	}
	return true;
}

typedef struct Members
{
	Asked	   *a;
	JsonbValue *v;
	GtFail	   *f;
	bool		ok;
} Members;

static void
try_members(void *arg)
{
	Members    *members = arg;

	members->ok = take_members(members->a, members->v, members->f);
}

/*
 * What input functions raise becomes a failure.  The subtransaction writes nothing,
 * so it gets no transaction id.
 */
bool
gt_request_of_json(JsonbValue *v, GtRequest *r, GtFail *f)
{
	Asked		a;
	Members		members = {&a, v, f, false};
	ErrorData  *error;

	memset(&a, 0, sizeof(Asked));
	a.r.object_type = "custom";
	error = gt_try(try_members, &members);
	if (error != NULL)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s", error->message);
	if (!members.ok || !check_object_id(a.r.object_id, f) || !check(&a, f))
		return false;
	a.r.key[0] = CStringGetTextDatum(a.r.object_id);
	*r = a.r;
	return true;
}
