/*
 * service_create.c
 *		garbagetruck.v1.GarbageTruck: Create and CreateBatch.
 *
 * The requests of a batch are SQL calls of their own: they go in one pipeline
 * like the calls of many clients, and each fails by itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/message.h"
#include "garbagetruck_v1.pb-c.h"
#include "services/services.h"

#define MAX_BATCH 1000

typedef Garbagetruck__V1__CreateRequest CreateRequest;
typedef Garbagetruck__V1__Grant Grant;

#define CREATE_PARAMS 13

static DbStatement create = {"v1_create",
	"SELECT lease_id, fence, expires_at, ttl, created, attempts"
	" FROM gt_lease_grant($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
CREATE_PARAMS, DB_BINARY};

typedef struct CreateParams
{
	const char *params[CREATE_PARAMS];
	char		duration[INTERVAL_SIZE],
				delay[INTERVAL_SIZE],
				regrant_delay[INTERVAL_SIZE],
				attempts[16];
	char		wrong[400];		/* what is, where it has a value in it */
} CreateParams;

/* A Grant with what it points to. */
typedef struct GrantRow
{
	Grant		message;
	char		lease_id[UUID_SIZE];
	Google__Protobuf__Timestamp expires_at;
	Google__Protobuf__Duration ttl;
} GrantRow;

/* Says which parent a request wrongly named. */
static const char *
unknown_parent(const char *parent, char *buffer, size_t size)
{
	snprintf(buffer, size, "parent: lease %.100s not found", parent);
	return buffer;
}

/* Of all that a create names, only the parent is a lease. */
static const char *
create_problem(const DbOutcome *outcome, char *buffer)
{
	char		problem[PROBLEM_SIZE];

	if (strcmp(outcome->sqlstate, "GT001") != 0)
		return outcome_problem(outcome, buffer);
	snprintf(buffer, PROBLEM_SIZE, "parent: %.200s", outcome_problem(outcome, problem));
	return buffer;
}

static void
read_grant(const PGresult *result, GrantRow *row)
{
	garbagetruck__v1__grant__init(&row->message);
	row->message.lease_id = get_uuid(result, 0, 0, row->lease_id);
	row->message.fence = get_int8(result, 0, 1);
	row->message.expires_at = get_timestamp(result, 0, 2, &row->expires_at);
	row->message.ttl = get_duration(result, 0, 3, &row->ttl);
	row->message.created = get_bool(result, 0, 4);
	row->message.attempts = (uint32_t) get_int4(result, 0, 5);
}

/* A cleanup by the built-in handlers whose target could never be called is refused now, not found out by its attempts. */
static bool
target_fits(const char *cleanup, const char *payload, char *wrong, size_t size)
{
	char		url[2048];
	char		why[300];
	bool		http = cleanup != NULL && strcmp(cleanup, "http_endpoint") == 0;

	if (payload == NULL || (!http && (cleanup == NULL || strcmp(cleanup, "grpc_endpoint") != 0)) ||
		!json_member(payload, "url", url, sizeof(url)) ||
		executors_judge_url(http ? EXEC_HTTP : EXEC_GRPC, services_allow_list(), url, why, sizeof(why)))
		return true;
	snprintf(wrong, size, "payload: url: %s", why);
	return false;
}

/*
 * The parameters of a request.  NULL, or what is wrong with it: then *code too.
 */
static const char *
read_request(GrpcCall *call, const CreateRequest *request, CreateParams *out, GrpcCode *code)
{
	const char **p = out->params;
	const char *service = request->service_id;
	int64_t		us;

	*code = GRPC_INVALID_ARGUMENT;
	if (request->object_id[0] == '\0')
		return "object_id must not be empty";
	if (service[0] == '\0' && caller_name(call) != NULL)
		service = caller_name(call);
	if (!caller_owns(call, service))
	{
		*code = GRPC_PERMISSION_DENIED;
		snprintf(out->wrong, sizeof(out->wrong), "%.60s may not act as service \"%.60s\"", caller_name(call), service);
		return out->wrong;
	}
	p[0] = request->object_id;
	p[1] = request->object_type[0] != '\0' ? request->object_type : "custom";
	p[2] = text_or_null(service);
	if (!duration_us(request->duration, &us))
		return "duration is negative or out of range";
	p[3] = request->duration == NULL ? NULL : interval_param(us, out->duration);
	p[4] = request->cleanup[0] != '\0' ? request->cleanup : cleanup_of_type(p[1]);
	p[5] = text_or_null(request->payload);
	p[6] = text_or_null(request->metadata);
	if (!target_fits(p[4], p[5], out->wrong, sizeof(out->wrong)))
		return out->wrong;
	p[7] = text_or_null(request->parent);
	if (p[7] != NULL && !valid_uuid(p[7]))
	{
		*code = GRPC_NOT_FOUND;
		return unknown_parent(p[7], out->wrong, sizeof(out->wrong));
	}
	p[8] = request->exclusive ? "true" : "false";
	p[9] = text_or_null(request->request_key);
	p[10] = NULL;
	if (request->max_attempts_given_case == GARBAGETRUCK__V1__CREATE_REQUEST__MAX_ATTEMPTS_GIVEN_MAX_ATTEMPTS)
	{
		if (request->max_attempts > INT32_MAX)
			return "max_attempts is out of range";
		snprintf(out->attempts, sizeof(out->attempts), "%u", request->max_attempts);
		p[10] = out->attempts;
	}
	if (!duration_us(request->retry_delay, &us))
		return "retry_delay is negative or out of range";
	p[11] = request->retry_delay == NULL ? NULL : interval_param(us, out->delay);
	if (!duration_us(request->regrant_delay, &us))
		return "regrant_delay is negative or out of range";
	p[12] = request->regrant_delay == NULL ? NULL : interval_param(us, out->regrant_delay);
	return NULL;
}

/* ---- Create ---- */

static void
created(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	GrantRow	row;
	char		buffer[PROBLEM_SIZE];

	grpc_set_state(call, NULL);
	if (outcome->result == NULL)
	{
		call_fail_outcome(call, outcome, create_problem(outcome, buffer));
		return;
	}
	read_grant(outcome->result, &row);
	grpc_answer(call, &row.message.base);
}

void
v1_create(GrpcCall *call, const ProtobufCMessage *message)
{
	const CreateRequest *request = (const void *) message;
	CreateParams params;
	GrpcCode	code;
	const char *wrong = read_request(call, request, &params, &code);

	if (wrong != NULL)
		grpc_fail(call, code, "%s", wrong);
	else
		call_sql(call, &create, params.params, route_of_object(params.params[1], params.params[0]),
				 params.params[9] != NULL, created);
}

/* ---- CreateBatch ---- */

typedef struct BatchItem
{
	struct Batch *batch;
	DbCall	   *waiting;
	GrantRow	grant;
	Garbagetruck__V1__Error error;
	Garbagetruck__V1__CreateBatchResponse__Item message;
	char		sqlstate[6];
} BatchItem;

typedef struct Batch
{
	GrpcCall   *call;
	int			count;
	int			open;			/* items without an outcome */
	BatchItem	items[];
} Batch;

static void
set_error(BatchItem *item, GrpcCode code, const char *sqlstate, const char *message)
{
	garbagetruck__v1__error__init(&item->error);
	snprintf(item->sqlstate, sizeof(item->sqlstate), "%s", sqlstate);
	item->error.code = code;
	item->error.sqlstate = item->sqlstate;
	item->error.message = strndup(message, utf8_prefix(message, GRPC_MAX_MESSAGE));
	if (item->error.message != NULL)
		utf8_mend(item->error.message);
	item->message.error = &item->error;
}

static void
answer_batch(Batch *batch)
{
	Garbagetruck__V1__CreateBatchResponse response = GARBAGETRUCK__V1__CREATE_BATCH_RESPONSE__INIT;
	Garbagetruck__V1__CreateBatchResponse__Item *pointers[MAX_BATCH];
	int			i;

	for (i = 0; i < batch->count; i++)
		pointers[i] = &batch->items[i].message;
	response.items = pointers;
	response.n_items = (size_t) batch->count;
	grpc_answer(batch->call, &response.base);
}

static void
item_created(void *arg, const DbOutcome *outcome)
{
	BatchItem  *item = arg;
	Batch	   *batch = item->batch;
	char		buffer[PROBLEM_SIZE];

	item->waiting = NULL;
	if (outcome->result != NULL)
	{
		read_grant(outcome->result, &item->grant);
		item->message.grant = &item->grant.message;
	}
	else
		set_error(item, grpc_code_of_sqlstate(outcome->sqlstate), outcome->sqlstate, create_problem(outcome, buffer));
	if (--batch->open == 0)
		answer_batch(batch);
}

void
v1_create_batch_over(GrpcCall *call)
{
	Batch	   *batch = grpc_state(call);
	int			i;

	if (batch == NULL)
		return;
	grpc_set_state(call, NULL);
	for (i = 0; i < batch->count; i++)
	{
		if (batch->items[i].waiting != NULL)
			db_forget(batch->items[i].waiting);
		free(batch->items[i].error.message == protobuf_c_empty_string ? NULL : batch->items[i].error.message);
	}
	free(batch);
}

/* Start an item, unless something is wrong with it; it is open when it got as far as SQL. */
static void
start_item(GrpcCall *call, const CreateRequest *request, const char *wrong, BatchItem *item)
{
	CreateParams params;
	GrpcCode	code = GRPC_INVALID_ARGUMENT;
	DbHow		how = call_how(call);

	if (wrong == NULL)
		wrong = read_request(call, request, &params, &code);
	if (wrong != NULL)
	{
		set_error(item, code, grpc_sqlstate_of_code(code), wrong);
		return;
	}
	how.route = route_of_object(params.params[1], params.params[0]);
	how.repeatable = params.params[9] != NULL;
	item->batch->open++;
	item->waiting = db_call(&create, params.params, &how, item_created, item);
}

void
v1_create_batch(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__CreateBatchRequest *request = (const void *) message;
	size_t		count = request->n_requests;
	Batch	   *batch;
	size_t		i;

	if (count > MAX_BATCH)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "requests: %zu are too many, %d are allowed", count, MAX_BATCH);
		return;
	}
	/* an item may have an error's message, too */
	if (!grpc_charge(call, sizeof(Batch) + count * (sizeof(BatchItem) + GRPC_MAX_MESSAGE)))
		return;
	batch = calloc(1, sizeof(Batch) + count * sizeof(BatchItem));
	if (batch == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	batch->call = call;
	batch->count = (int) count;
	grpc_set_state(call, batch);
	for (i = 0; i < count; i++)
	{
		batch->items[i].batch = batch;
		garbagetruck__v1__create_batch_response__item__init(&batch->items[i].message);
		start_item(call, request->requests[i], message_fault(i), &batch->items[i]);
	}
	if (batch->open == 0)
		answer_batch(batch);
}
