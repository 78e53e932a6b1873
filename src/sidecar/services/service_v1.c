/*
 * service_v1.c
 *		garbagetruck.v1.GarbageTruck: the table of its methods; Release, Update,
 *		Get, List, CheckFence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "garbagetruck_v1.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "services/services.h"

#define MAX_IDS 1000
#define MAX_LIST 1000

/* ---- Release ---- */

static DbStatement release_many = {"v1_release_many", "SELECT gt_release_many($1, $2::boolean)", 2, DB_BINARY};

static DbStatement release_own = {"v1_release_own",
	"SELECT gt_release_many(ARRAY("
	"SELECT coalesce(g.lease_id, '00000000-0000-0000-0000-000000000000') FROM unnest($1::uuid[]) u (id)"
	" LEFT JOIN LATERAL (SELECT * FROM gt_lease_get(u.id) g WHERE " OWN_SERVICE("$3") ") g ON true), $2::boolean)",
3, DB_BINARY};

static void
counted(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__CountResponse response = GARBAGETRUCK__V1__COUNT_RESPONSE__INIT;

	/* What stands for ids that are none, or not the caller's, says nothing to it. */
	if (outcome->result == NULL && strstr(outcome->message, nil_uuid) != NULL)
	{
		grpc_set_state(call, NULL);
		call_fail_outcome(call, outcome, "one of lease_ids is of no lease");
		return;
	}
	if (!call_sql_done(call, outcome))
		return;
	response.count = (uint64_t) get_int8(outcome->result, 0, 0);
	grpc_answer(call, &response.base);
}

static void
release(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__ReleaseRequest *request = (const void *) message;
	const char *params[3] = {NULL, request->keep ? "true" : "false", caller_name(call)};
	ArrayParam	ids;
	size_t		i;

	if (request->n_lease_ids > MAX_IDS)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "lease_ids: %zu are too many, %d are allowed", request->n_lease_ids, MAX_IDS);
		return;
	}
	for (i = 0; i < request->n_lease_ids && request->keep; i++)
	{
		if (valid_uuid(request->lease_ids[i]))
			continue;
		fail_unknown_lease(call, request->lease_ids[i]);
		return;
	}
	param_begin(&ids);
	for (i = 0; i < request->n_lease_ids; i++)
		param_add(&ids, valid_uuid(request->lease_ids[i]) ? request->lease_ids[i] : nil_uuid);
	params[0] = param_end(&ids);
	call_sql(call, params[2] != NULL ? &release_own : &release_many, params,
			 request->n_lease_ids == 1 ? route_of_lease(request->lease_ids[0]) : 0, false, counted);
	param_free(&ids);
}

/* ---- Update ---- */

static DbStatement update = {"v1_update",
	"SELECT '', '', gt_lease_update($1, $2, $3, duration => $4)",
4, DB_BINARY};

static DbStatement update_own = {"v1_update_own",
	"SELECT $1::text, g.lease_id, CASE WHEN g.lease_id IS NOT NULL THEN gt_lease_update(g.lease_id, $2, $3, duration => $4)::text END"
	" FROM (SELECT) one LEFT JOIN LATERAL (SELECT g.lease_id FROM gt_lease_get($1) g WHERE " OWN_SERVICE("$5") ") g ON true",
5, DB_BINARY};

static void
updated(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Google__Protobuf__Empty response = GOOGLE__PROTOBUF__EMPTY__INIT;

	if (!call_sql_done(call, outcome))
		return;
	if (PQgetisnull(outcome->result, 0, 1))
		fail_unknown_lease(call, get_text_or_empty(outcome->result, 0, 0));
	else
		grpc_answer(call, &response.base);
}

static void
update_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__UpdateRequest *request = (const void *) message;
	const char *params[5] = {request->lease_id, NULL, NULL, NULL, caller_name(call)};
	char		duration[INTERVAL_SIZE];

	if (!valid_uuid(request->lease_id))
	{
		fail_unknown_lease(call, request->lease_id);
		return;
	}
	if (request->payload_given_case == GARBAGETRUCK__V1__UPDATE_REQUEST__PAYLOAD_GIVEN_PAYLOAD)
		params[1] = request->payload;
	if (request->metadata_given_case == GARBAGETRUCK__V1__UPDATE_REQUEST__METADATA_GIVEN_METADATA)
		params[2] = request->metadata;
	if (!read_duration(call, "duration", request->duration, duration, &params[3]))
		return;
	if (request->duration != NULL && request->duration->seconds == 0 && request->duration->nanos == 0)
		params[3] = NULL;		/* as it is: unlike elsewhere it is no default that somebody could get by mistake */
	call_sql(call, params[4] != NULL ? &update_own : &update, params, route_of_lease(request->lease_id), true, updated);
}

/* ---- Get, List ---- */

#define LEASE_COLUMNS \
	"g.lease_id, g.object_id, g.object_type, g.service_id, g.state, g.created_at, g.renewed_at, g.expires_at," \
	" g.duration, g.renewals, g.fence, g.exclusive, g.parent, g.cleanup, g.payload::text, g.metadata::text, g.attempts"

static DbStatement get = {"v1_get",
	"SELECT " LEASE_COLUMNS ", $1::text FROM (SELECT) one"
	" LEFT JOIN LATERAL (SELECT * FROM gt_lease_get($1) g WHERE " OWN_SERVICE("$2") ") g ON true",
2, DB_BINARY | DB_REPEATABLE};

static DbStatement list = {"v1_list",
	"SELECT " LEASE_COLUMNS ", $4::int, g.total FROM " ROWS_THAT_FIT("gt_lease_list($1, $2, $3, $4, $5, $6) g", "ASC")
	" ORDER BY g.lease_id",
6, DB_BINARY | DB_REPEATABLE};

typedef struct LeaseRow
{
	Garbagetruck__V1__Lease message;
	char		lease_id[UUID_SIZE],
				parent[UUID_SIZE];
	Google__Protobuf__Timestamp created_at,
				renewed_at,
				expires_at;
	Google__Protobuf__Duration duration;
} LeaseRow;

static void
read_lease(const PGresult *result, int i, LeaseRow *row)
{
	Garbagetruck__V1__Lease *lease = &row->message;

	garbagetruck__v1__lease__init(lease);
	lease->lease_id = get_uuid(result, i, 0, row->lease_id);
	lease->object_id = (char *) get_text_or_empty(result, i, 1);
	lease->object_type = (char *) get_text_or_empty(result, i, 2);
	lease->service_id = (char *) get_text_or_empty(result, i, 3);
	lease->state = (char *) get_text_or_empty(result, i, 4);
	lease->created_at = get_timestamp(result, i, 5, &row->created_at);
	lease->renewed_at = get_timestamp(result, i, 6, &row->renewed_at);
	lease->expires_at = get_timestamp(result, i, 7, &row->expires_at);
	lease->duration = get_duration(result, i, 8, &row->duration);
	lease->renewals = (uint64_t) get_int8(result, i, 9);
	lease->fence = get_int8(result, i, 10);
	lease->exclusive = get_bool(result, i, 11);
	lease->parent = get_uuid(result, i, 12, row->parent);
	lease->cleanup = (char *) get_text_or_empty(result, i, 13);
	lease->payload = (char *) get_text_or_empty(result, i, 14);
	lease->metadata = (char *) get_text_or_empty(result, i, 15);
	lease->attempts = (uint32_t) get_int4(result, i, 16);
}

static void
got(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	LeaseRow	row;

	if (!call_sql_done(call, outcome))
		return;
	if (PQgetisnull(outcome->result, 0, 0))
	{
		fail_unknown_lease(call, get_text_or_empty(outcome->result, 0, 17));
		return;
	}
	read_lease(outcome->result, 0, &row);
	grpc_answer(call, &row.message.base);
}

static void
get_lease(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__GetRequest *request = (const void *) message;
	const char *params[2] = {request->lease_id, caller_name(call)};

	if (valid_uuid(request->lease_id))
		call_sql(call, &get, params, route_of_lease(request->lease_id), true, got);
	else
		fail_unknown_lease(call, request->lease_id);
}

static void
listed(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__ListResponse response = GARBAGETRUCK__V1__LIST_RESPONSE__INIT;
	Garbagetruck__V1__Lease *pointers[MAX_LIST];
	LeaseRow   *rows;
	size_t		size = 0;
	int			count;
	int			i;

	if (!call_sql_done(call, outcome))
		return;
	count = PQntuples(outcome->result);
	rows = calloc((size_t) count + 1, sizeof(LeaseRow));
	if (rows == NULL || count > MAX_LIST)
	{
		free(rows);
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	for (i = 0; i < count; i++)
	{
		read_lease(outcome->result, i, &rows[i]);
		size += answer_share(&rows[i].message.base);
		if (i > 0 && size > ANSWER_MOST)
			break;
		pointers[i] = &rows[i].message;
	}
	response.leases = pointers;
	response.n_leases = (size_t) i;
	/* A full page may be the last one: then the next is empty. */
	if (i > 0 && (i < get_int8(outcome->result, 0, 18) || count >= get_int4(outcome->result, 0, 17)))
		response.next_page_token = rows[i - 1].lease_id;
	grpc_answer(call, &response.base);
	free(rows);
}

static void
list_leases(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__ListRequest *request = (const void *) message;
	char		limit[16];
	const char *params[6] = {
		text_or_null(request->service_id), text_or_null(request->object_type),
		text_or_null(request->state), limit, text_or_null(request->page_token), text_or_null(request->object_id)
	};

	if (params[2] != NULL && strcmp(params[2], "active") != 0 && strcmp(params[2], "expired") != 0)
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "state \"%.100s\" is neither active nor expired", params[2]);
	else if (params[4] != NULL && !valid_uuid(params[4]))
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "page_token is not one that an answer had");
	else if (request->service_id[0] == '\0' || caller_acts_as(call, request->service_id))
	{
		snprintf(limit, sizeof(limit), "%u", request->limit == 0 ? 100 : request->limit > MAX_LIST ? MAX_LIST : request->limit);
		call_sql_large(call, &list, params, listed);
	}
}

/* ---- CheckFence ---- */

static DbStatement fence_check = {"v1_fence_check", "SELECT gt_fence_check($1, $2, $3)", 3, DB_BINARY | DB_REPEATABLE};

static void
fence_checked(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__FenceResponse response = GARBAGETRUCK__V1__FENCE_RESPONSE__INIT;

	if (!call_sql_done(call, outcome))
		return;
	response.current = get_bool(outcome->result, 0, 0);
	grpc_answer(call, &response.base);
}

static void
check_fence(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__FenceRequest *request = (const void *) message;
	const char *type = request->object_type[0] != '\0' ? request->object_type : "custom";
	char		fence[24];
	const char *params[3] = {request->object_id, type, fence};

	if (request->object_id[0] == '\0')
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "object_id must not be empty");
		return;
	}
	snprintf(fence, sizeof(fence), "%lld", (long long) request->fence);
	call_sql(call, &fence_check, params, route_of_object(type, request->object_id), true, fence_checked);
}

/* ---- the table ---- */

#define BOTH (GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS | GRPC_OPEN_ENDED)
#define METHOD(name, request, flags, message, end, over) \
	{"garbagetruck.v1.GarbageTruck", name, &garbagetruck__v1__##request##__descriptor, flags, message, end, over}

const GrpcMethod v1_methods[] =
{
	METHOD("Create", create_request, 0, v1_create, NULL, call_sql_over),
	METHOD("CreateBatch", create_batch_request, GRPC_BY_ELEMENT, v1_create_batch, NULL, v1_create_batch_over),
	METHOD("KeepAlive", keep_alive_request, BOTH, v1_keep_alive, v1_keep_alive_end, v1_keep_alive_over),
	METHOD("RenewBatch", renew_batch_request, 0, v1_renew_batch, NULL, v1_renew_batch_over),
	METHOD("Release", release_request, 0, release, NULL, call_sql_over),
	METHOD("Update", update_request, 0, update_lease, NULL, call_sql_over),
	METHOD("Get", get_request, 0, get_lease, NULL, call_sql_over),
	METHOD("List", list_request, 0, list_leases, NULL, call_sql_over),
	METHOD("CheckFence", fence_request, 0, check_fence, NULL, call_sql_over),
	METHOD("Claim", claim_request, 0, v1_claim, NULL, v1_claim_over),
	METHOD("Ack", outcome, 0, v1_ack, NULL, call_sql_over),
	METHOD("Nack", outcome, 0, v1_nack, NULL, call_sql_over),
	METHOD("Extend", outcome, 0, v1_extend, NULL, call_sql_over),
	METHOD("WatchCleanups", watch_request, BOTH, v1_watch, v1_watch_end, v1_watch_over),
	METHOD("Redrive", handler_request, GRPC_ADMIN, v1_redrive, NULL, call_sql_over),
	METHOD("Pause", handler_request, GRPC_ADMIN, v1_pause, NULL, call_sql_over),
	METHOD("Resume", handler_request, GRPC_ADMIN, v1_resume, NULL, call_sql_over),
	METHOD("Forecast", forecast_request, GRPC_ADMIN, v1_forecast, NULL, call_sql_over),
	{"garbagetruck.v1.GarbageTruck", "Health", &google__protobuf__empty__descriptor, 0, v1_health, NULL, call_sql_over},
	{NULL}
};
