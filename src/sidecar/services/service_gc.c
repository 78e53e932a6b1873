/*
 * service_gc.c
 *		distributed_gc.DistributedGCService: leases.
 *
 * HealthCheck and GetMetrics are in service_gc_admin.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/object_types.h"
#include "distributed_gc.pb-c.h"
#include "services/service_gc.h"
#include "services/services.h"

#define MAX_SECONDS UINT64_C(31556952000)	/* a thousand years: fits, and is refused by SQL */
#define MAX_LIST 1000

_Static_assert((int) OBJECT_TYPE_CUSTOM == (int) DISTRIBUTED_GC__OBJECT_TYPE__CUSTOM, "base/object_types.h has the types of the wire");

/* ---- checks; each fails the call and returns false ---- */

static bool
check_given(GrpcCall *call, const char *field, const char *value)
{
	if (value[0] != '\0')
		return true;
	grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s must not be empty", field);
	return false;
}

static bool
check_seconds(GrpcCall *call, const char *field, uint64_t seconds)
{
	if (seconds <= MAX_SECONDS)
		return true;
	grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s %llu is out of range", field, (unsigned long long) seconds);
	return false;
}

static bool
check_type(GrpcCall *call, int type)
{
	if (type >= 0 && type < OBJECT_TYPES)
		return true;
	grpc_fail(call, GRPC_INVALID_ARGUMENT, "object_type %d is not known", type);
	return false;
}

static const char *
seconds_param(uint64_t seconds, char *buffer)
{
	return seconds == 0 ? NULL : interval_param((int64_t) seconds * 1000000, buffer);
}

/* ---- CreateLease ---- */

/* The parameters of both statements; the second has all of them. */
enum
{
	CREATE_OBJECT_ID, CREATE_OBJECT_TYPE, CREATE_SERVICE_ID, CREATE_DURATION, CREATE_HANDLER,
	CREATE_REQUEST_KEY, CREATE_PLAIN_PARAMS, CREATE_URL = CREATE_PLAIN_PARAMS, CREATE_PAYLOAD,
	CREATE_KEYS, CREATE_VALUES, CREATE_MAX_ATTEMPTS, CREATE_RETRY_DELAY, CREATE_PARAMS
};

static DbStatement create_plain = {"gc_create_plain",
	"SELECT lease_id, expires_at FROM gt_lease_grant($1, $2, $3, $4, $5, request_key => $6)",
CREATE_PLAIN_PARAMS, DB_BINARY};

static DbStatement create_full = {"gc_create_full",
	"SELECT lease_id, expires_at FROM gt_lease_grant($1, $2, $3, $4, $5, request_key => $6,"
	" payload => CASE WHEN $7::text IS NOT NULL THEN pg_catalog.jsonb_build_object('url', $7::text, 'payload', $8::text)"
	" WHEN $8::text IS NOT NULL THEN pg_catalog.jsonb_build_object('payload', $8::text) END,"
	" metadata => pg_catalog.jsonb_object($9::text[], $10::text[]),"
	" max_attempts => $11, retry_delay => $12)",
CREATE_PARAMS, DB_BINARY};

static void
created(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	DistributedGc__CreateLeaseResponse response = DISTRIBUTED_GC__CREATE_LEASE_RESPONSE__INIT;
	Google__Protobuf__Timestamp expires_at;
	char		lease_id[UUID_SIZE];

	if (!call_sql_done(call, outcome))
		return;
	response.lease_id = get_uuid(outcome->result, 0, 0, lease_id);
	response.expires_at = get_timestamp(outcome->result, 0, 1, &expires_at);
	response.success = true;
	grpc_answer(call, &response.base);
}

/* The handler and its options, of the request's cleanup_config. */
static bool
read_cleanup(GrpcCall *call, const DistributedGc__CleanupConfig *config, const char *type_name,
			 const char **params, char *attempts, char *delay)
{
	char		why[300];

	if (config == NULL)
	{
		params[CREATE_HANDLER] = cleanup_of_type(type_name);
		return true;
	}
	if (config->cleanup_http_endpoint[0] != '\0')
	{
		params[CREATE_HANDLER] = "http_endpoint";
		params[CREATE_URL] = config->cleanup_http_endpoint;
	}
	else if (config->cleanup_endpoint[0] != '\0')
	{
		params[CREATE_HANDLER] = "grpc_endpoint";
		params[CREATE_URL] = config->cleanup_endpoint;
	}
	else
		params[CREATE_HANDLER] = cleanup_of_type(type_name);
	if (params[CREATE_URL] != NULL &&
		!executors_judge_url(params[CREATE_URL] == config->cleanup_http_endpoint ? EXEC_HTTP : EXEC_GRPC,
							 services_allow_list(), params[CREATE_URL], why, sizeof(why)))
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s: %s",
				  params[CREATE_URL] == config->cleanup_http_endpoint ? "cleanup_http_endpoint" : "cleanup_endpoint", why);
		return false;
	}
	if (config->max_retries >= INT32_MAX)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "max_retries %u is out of range", config->max_retries);
		return false;
	}
	if (!check_seconds(call, "retry_delay_seconds", config->retry_delay_seconds))
		return false;
	if (params[CREATE_HANDLER] == NULL && config->cleanup_payload[0] != '\0')
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "cleanup_payload: it needs a cleanup_http_endpoint or a cleanup_endpoint to be sent to");
		return false;
	}
	if (params[CREATE_HANDLER] == NULL)
		return true;
	params[CREATE_PAYLOAD] = params[CREATE_URL] != NULL ? config->cleanup_payload : text_or_null(config->cleanup_payload);
	if (config->max_retries > 0)
	{
		snprintf(attempts, INTERVAL_SIZE, "%u", config->max_retries + 1);
		params[CREATE_MAX_ATTEMPTS] = attempts;
	}
	params[CREATE_RETRY_DELAY] = seconds_param(config->retry_delay_seconds, delay);
	return true;
}

static void
read_metadata(DistributedGc__CreateLeaseRequest__MetadataEntry **entries, size_t count,
			  ArrayParam *keys, ArrayParam *values)
{
	size_t		i;

	param_begin(keys);
	param_begin(values);
	for (i = 0; i < count; i++)
	{
		param_add(keys, entries[i]->key);
		param_add(values, entries[i]->value);
	}
	param_end(keys);
	param_end(values);
}

static void
create_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const DistributedGc__CreateLeaseRequest *request = (const void *) message;
	const char *params[CREATE_PARAMS] = {NULL};
	char		duration[INTERVAL_SIZE],
				attempts[INTERVAL_SIZE],
				delay[INTERVAL_SIZE];
	const char *type_name;
	ArrayParam	keys = {0};
	ArrayParam	values = {0};
	bool		plain;

	if (!check_given(call, "object_id", request->object_id) ||
		!check_given(call, "service_id", request->service_id) ||
		!check_type(call, request->object_type) ||
		!check_seconds(call, "lease_duration_seconds", request->lease_duration_seconds) ||
		!caller_acts_as(call, request->service_id))
		return;
	type_name = object_type_names[request->object_type];
	params[CREATE_OBJECT_ID] = request->object_id;
	params[CREATE_OBJECT_TYPE] = type_name;
	params[CREATE_SERVICE_ID] = request->service_id;
	params[CREATE_DURATION] = seconds_param(request->lease_duration_seconds, duration);
	params[CREATE_REQUEST_KEY] = grpc_header(call, "idempotency-key");
	if (!read_cleanup(call, request->cleanup_config, type_name, params, attempts, delay))
		return;
	plain = request->n_metadata == 0 && params[CREATE_PAYLOAD] == NULL &&
		params[CREATE_MAX_ATTEMPTS] == NULL && params[CREATE_RETRY_DELAY] == NULL;
	if (request->n_metadata > 0)
	{
		read_metadata(request->metadata, request->n_metadata, &keys, &values);
		params[CREATE_KEYS] = keys.text;
		params[CREATE_VALUES] = values.text;
	}
	call_sql(call, plain ? &create_plain : &create_full, params, route_of_object(type_name, request->object_id),
			 params[CREATE_REQUEST_KEY] != NULL, created);
	param_free(&keys);
	param_free(&values);
}

/* ---- RenewLease, ReleaseLease ---- */

static DbStatement renew = {"gc_renew", "SELECT gt_renew($1, $2, $3)", 3, DB_BINARY | DB_REPEATABLE};
static DbStatement release = {"gc_release", "SELECT gt_release($1, false, $2), $1::text", 2, DB_BINARY};

static void
renewed(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	DistributedGc__RenewLeaseResponse response = DISTRIBUTED_GC__RENEW_LEASE_RESPONSE__INIT;
	Google__Protobuf__Timestamp expires_at;

	if (!call_sql_done(call, outcome))
		return;
	response.new_expires_at = get_timestamp(outcome->result, 0, 0, &expires_at);
	response.success = true;
	grpc_answer(call, &response.base);
}

static void
renew_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const DistributedGc__RenewLeaseRequest *request = (const void *) message;
	char		duration[INTERVAL_SIZE];
	const char *params[3] = {request->lease_id, NULL, request->service_id};

	if (!check_given(call, "service_id", request->service_id) ||
		!check_seconds(call, "extend_duration_seconds", request->extend_duration_seconds) ||
		!caller_acts_as(call, request->service_id))
		return;
	params[1] = seconds_param(request->extend_duration_seconds, duration);
	if (!valid_uuid(request->lease_id))
		fail_unknown_lease(call, request->lease_id);
	else
		call_sql(call, &renew, params, route_of_lease(request->lease_id), true, renewed);
}

static void
released(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	DistributedGc__ReleaseLeaseResponse response = DISTRIBUTED_GC__RELEASE_LEASE_RESPONSE__INIT;

	if (!call_sql_done(call, outcome))
		return;
	if (!get_bool(outcome->result, 0, 0))
	{
		fail_unknown_lease(call, get_text_or_empty(outcome->result, 0, 1));
		return;
	}
	response.success = true;
	grpc_answer(call, &response.base);
}

static void
release_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const DistributedGc__ReleaseLeaseRequest *request = (const void *) message;
	const char *params[2] = {request->lease_id, request->service_id};

	if (!check_given(call, "service_id", request->service_id) ||
		!caller_acts_as(call, request->service_id))
		return;
	if (!valid_uuid(request->lease_id))
		fail_unknown_lease(call, request->lease_id);
	else
		call_sql(call, &release, params, route_of_lease(request->lease_id), false, released);
}

/* ---- GetLease, ListLeases ---- */

/* The columns that read_info() reads. */
#define INFO_COLUMNS \
	"g.lease_id, g.object_id, g.object_type, g.service_id, g.state, g.created_at, g.expires_at, g.renewed_at," \
	" g.renewals, g.cleanup, g.payload->>'url', g.payload->>'payload', g.max_attempts," \
	" extract(epoch FROM g.retry_delay)::bigint," \
	" m.keys, m.vals"
#define INFO_METADATA \
	" LEFT JOIN LATERAL (SELECT pg_catalog.array_agg(e.key) AS keys, pg_catalog.array_agg(e.value) AS vals" \
	" FROM pg_catalog.jsonb_each_text(CASE WHEN pg_catalog.jsonb_typeof(g.metadata) = 'object' THEN g.metadata END) e) m ON true"

static DbStatement get = {"gc_get",
	"SELECT " INFO_COLUMNS " FROM gt_lease_get($1) g" INFO_METADATA " WHERE " OWN_SERVICE("$2"),
2, DB_BINARY | DB_REPEATABLE};

/* Existing clients look at the first page only, and expect what is new there. */
static DbStatement list = {"gc_list",
	"SELECT " INFO_COLUMNS ", $4::int, g.total FROM " ROWS_THAT_FIT("gt_lease_list($1, $2, $3, $4, $5) g", "DESC") INFO_METADATA
	" ORDER BY g.lease_id DESC",
5, DB_BINARY | DB_REPEATABLE | DB_NEWEST};

/*
 * What gt_lease_list() cannot choose: CUSTOM, which is every type that has no
 * number here.  A thousand leases after the other, until there are enough.
 */
#define OR_LITERAL(name, spelling) ", '" #name "'"
static DbStatement list_custom = {"gc_list_custom",
	"WITH RECURSIVE walk (last, ids, found, more) AS (SELECT $5::uuid, '{}'::uuid[], 0, $2 = 'custom' UNION ALL"
	" SELECT p.last, p.ids, walk.found + pg_catalog.cardinality(p.ids), p.looked_at = 1000 FROM walk, LATERAL ("
	"SELECT (pg_catalog.array_agg(l.lease_id ORDER BY l.lease_id))[1] AS last, pg_catalog.count(*) AS looked_at,"
	" coalesce(pg_catalog.array_agg(l.lease_id) FILTER (WHERE l.object_type NOT IN"
	" (''" FOR_OBJECT_TYPES(OR_LITERAL) ")), '{}') AS ids"
	" FROM gt_lease_list($1, NULL, $3, 1000, walk.last) l) p WHERE walk.more AND walk.found < $4::int)"
	" SELECT " INFO_COLUMNS ", $4::int, g.total FROM " ROWS_THAT_FIT("(SELECT g.* FROM (SELECT i.id FROM walk, pg_catalog.unnest(walk.ids) i (id)"
	" ORDER BY i.id DESC LIMIT $4::int) chosen, LATERAL gt_lease_get(chosen.id) g) g", "DESC") INFO_METADATA " ORDER BY g.lease_id DESC",
5, DB_BINARY | DB_REPEATABLE | DB_NEWEST};

/* All that a LeaseInfo points to. */
typedef struct Info
{
	DistributedGc__LeaseInfo message;
	DistributedGc__CleanupConfig config;
	Google__Protobuf__Timestamp created_at,
				expires_at,
				renewed_at;
	char		lease_id[UUID_SIZE];
	DistributedGc__LeaseInfo__MetadataEntry **entries;
	DistributedGc__LeaseInfo__MetadataEntry *entry;
} Info;

/* False: out of memory. */
static bool
read_info_metadata(PGresult *result, int row, int column, Info *info)
{
	int			count = get_array_length(result, row, column);
	char	  **keys;
	char	  **values;
	int			i;

	if (count <= 0 || count > 100000)
		return true;
	keys = calloc((size_t) count * 2, sizeof(char *));
	info->entries = calloc((size_t) count, sizeof(*info->entries));
	info->entry = calloc((size_t) count, sizeof(*info->entry));
	if (keys == NULL || info->entries == NULL || info->entry == NULL)
	{
		free(keys);
		return false;
	}
	values = keys + count;
	if (get_texts(result, row, column, keys, count) == count &&
		get_texts(result, row, column + 1, values, count) == count)
	{
		for (i = 0; i < count; i++)
		{
			distributed_gc__lease_info__metadata_entry__init(&info->entry[i]);
			info->entry[i].key = keys[i];
			info->entry[i].value = values[i];
			info->entries[i] = &info->entry[i];
		}
		info->message.metadata = info->entries;
		info->message.n_metadata = (size_t) count;
	}
	free(keys);
	return true;
}

static void
read_cleanup_config(const PGresult *result, int row, Info *info)
{
	const char *handler = get_text_or_empty(result, row, 9);
	const char *url = get_text_or_empty(result, row, 10);
	int32_t		attempts = get_int4(result, row, 12);
	int64_t		delay = get_int8(result, row, 13);

	if (strcmp(handler, "http_endpoint") != 0 && strcmp(handler, "grpc_endpoint") != 0)
		return;
	distributed_gc__cleanup_config__init(&info->config);
	if (strcmp(handler, "http_endpoint") == 0)
		info->config.cleanup_http_endpoint = (char *) url;
	else
		info->config.cleanup_endpoint = (char *) url;
	info->config.cleanup_payload = (char *) get_text_or_empty(result, row, 11);
	info->config.max_retries = attempts > 0 ? (uint32_t) attempts - 1 : 0;
	info->config.retry_delay_seconds = delay > 0 ? (uint64_t) delay : 0;
	info->message.cleanup_config = &info->config;
}

/* False: out of memory.  To be freed all the same. */
static bool
read_info(PGresult *result, int row, Info *info)
{
	int64_t		renewals = get_int8(result, row, 8);

	memset(info, 0, sizeof(*info));
	distributed_gc__lease_info__init(&info->message);
	info->message.lease_id = get_uuid(result, row, 0, info->lease_id);
	info->message.object_id = (char *) get_text_or_empty(result, row, 1);
	info->message.object_type = (DistributedGc__ObjectType) object_type_number(get_text_or_empty(result, row, 2));
	info->message.service_id = (char *) get_text_or_empty(result, row, 3);
	info->message.state = strcmp(get_text_or_empty(result, row, 4), "active") == 0 ?
		DISTRIBUTED_GC__LEASE_STATE__ACTIVE : DISTRIBUTED_GC__LEASE_STATE__EXPIRED;
	info->message.created_at = get_timestamp(result, row, 5, &info->created_at);
	info->message.expires_at = get_timestamp(result, row, 6, &info->expires_at);
	info->message.last_renewed_at = get_timestamp(result, row, 7, &info->renewed_at);
	info->message.renewal_count = renewals > UINT32_MAX ? UINT32_MAX : (uint32_t) renewals;
	read_cleanup_config(result, row, info);
	return read_info_metadata(result, row, 14, info);
}

static void
free_info(Info *info)
{
	free(info->entries);
	free(info->entry);
}

static void
got_lease(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	DistributedGc__GetLeaseResponse response = DISTRIBUTED_GC__GET_LEASE_RESPONSE__INIT;
	Info		info = {0};

	if (!call_sql_done(call, outcome))
		return;
	if (PQntuples(outcome->result) > 0)
	{
		if (!read_info(outcome->result, 0, &info))
			grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		response.lease = &info.message;
		response.found = true;
	}
	grpc_answer(call, &response.base);
	free_info(&info);
}

static void
get_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const DistributedGc__GetLeaseRequest *request = (const void *) message;
	DistributedGc__GetLeaseResponse response = DISTRIBUTED_GC__GET_LEASE_RESPONSE__INIT;
	const char *params[2] = {request->lease_id, caller_name(call)};

	if (valid_uuid(request->lease_id))
		call_sql(call, &get, params, route_of_lease(request->lease_id), true, got_lease);
	else
		grpc_answer(call, &response.base);
}

static void
listed(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	DistributedGc__ListLeasesResponse response = DISTRIBUTED_GC__LIST_LEASES_RESPONSE__INIT;
	DistributedGc__LeaseInfo **pointers;
	Info	   *infos;
	size_t		size = 0;
	int			rows;
	int			used = 0;
	int			i;

	if (!call_sql_done(call, outcome))
		return;
	rows = PQntuples(outcome->result);
	infos = calloc((size_t) rows + 1, sizeof(Info));
	pointers = calloc((size_t) rows + 1, sizeof(*pointers));
	if (infos == NULL || pointers == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		rows = 0;
	}
	for (i = 0; i < rows && size <= ANSWER_MOST; i++)
	{
		if (!read_info(outcome->result, i, &infos[i]))
			grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		size += answer_share(&infos[i].message.base);
		if (i == 0 || size <= ANSWER_MOST)
			pointers[used++] = &infos[i].message;
	}
	response.leases = pointers;
	response.n_leases = (size_t) used;
	/* A full page may be the last one: then the next is empty. */
	if (used > 0 && (used < get_int8(outcome->result, 0, 17) || rows >= get_int4(outcome->result, 0, 16)))
		response.next_page_token = infos[used - 1].lease_id;
	grpc_answer(call, &response.base);
	for (i = 0; i < rows; i++)
		free_info(&infos[i]);
	free(infos);
	free(pointers);
}

static void
list_leases(GrpcCall *call, const ProtobufCMessage *message)
{
	const DistributedGc__ListLeasesRequest *request = (const void *) message;
	DistributedGc__ListLeasesResponse nothing = DISTRIBUTED_GC__LIST_LEASES_RESPONSE__INIT;
	const char *params[5] = {NULL};
	char		limit[16];

	if (!check_type(call, request->object_type))
		return;
	if (request->state < 0 || request->state > DISTRIBUTED_GC__LEASE_STATE__RELEASED)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "state %d is not known", request->state);
		return;
	}
	if (request->page_token[0] != '\0' && !valid_uuid(request->page_token))
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "page_token is not one that an answer had");
		return;
	}
	if (request->service_id[0] != '\0' && !caller_acts_as(call, request->service_id))
		return;
	if (request->state == DISTRIBUTED_GC__LEASE_STATE__RELEASED)
	{
		grpc_answer(call, &nothing.base);
		return;
	}
	params[0] = text_or_null(request->service_id);
	params[1] = request->object_type == 0 ? NULL : object_type_names[request->object_type];
	params[2] = request->state == DISTRIBUTED_GC__LEASE_STATE__EXPIRED ? "expired" : NULL;
	snprintf(limit, sizeof(limit), "%u", request->limit == 0 ? 100 : request->limit > MAX_LIST ? MAX_LIST : request->limit);
	params[3] = limit;
	params[4] = text_or_null(request->page_token);
	call_sql_large(call, request->object_type == DISTRIBUTED_GC__OBJECT_TYPE__CUSTOM ? &list_custom : &list, params, listed);
}

const GrpcMethod gc_methods[] =
{
#define METHOD(name, request, function) \
	{"distributed_gc.DistributedGCService", name, &distributed_gc__##request##__descriptor, 0, function, NULL, call_sql_over}
	METHOD("CreateLease", create_lease_request, create_lease),
	METHOD("RenewLease", renew_lease_request, renew_lease),
	METHOD("ReleaseLease", release_lease_request, release_lease),
	METHOD("GetLease", get_lease_request, get_lease),
	METHOD("ListLeases", list_leases_request, list_leases),
	METHOD("HealthCheck", health_check_request, gc_health_check),
	METHOD("GetMetrics", metrics_request, gc_get_metrics),
	{NULL}
};
