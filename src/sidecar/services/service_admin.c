/*
 * service_admin.c
 *		garbagetruck.v1.GarbageTruck for administrators: Redrive, Pause, Resume,
 *		Forecast; and Health.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/array.h"
#include "garbagetruck_v1.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "services/services.h"

/* ---- Redrive, Pause, Resume ---- */

static DbStatement redrive = {"v1_redrive", "SELECT gt_redrive($1, $2, $3)", 3, DB_BINARY | DB_ALONE};
static DbStatement pause_handler = {"v1_pause", "SELECT 1 FROM (SELECT gt_pause($1)) p", 1, DB_BINARY | DB_REPEATABLE};
static DbStatement resume_handler = {"v1_resume", "SELECT 1 FROM (SELECT gt_resume($1)) r", 1, DB_BINARY | DB_REPEATABLE};

static void
redriven(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__CountResponse response = GARBAGETRUCK__V1__COUNT_RESPONSE__INIT;

	if (!call_sql_done(call, outcome))
		return;
	response.count = (uint64_t) get_int8(outcome->result, 0, 0);
	grpc_answer(call, &response.base);
}

void
v1_redrive(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__HandlerRequest *request = (const void *) message;
	const char *params[3] = {NULL, text_or_null(request->handler), NULL};
	char		max_items[24];
	ArrayParam	ids = {0};
	size_t		i;

	if (request->max_items > INT32_MAX)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "max_items %llu is out of range", (unsigned long long) request->max_items);
		return;
	}
	if (request->n_cleanup_ids > 0)
	{
		param_begin(&ids);
		for (i = 0; i < request->n_cleanup_ids; i++)
			param_add_number(&ids, request->cleanup_ids[i]);
		params[0] = param_end(&ids);
	}
	snprintf(max_items, sizeof(max_items), "%llu", (unsigned long long) request->max_items);
	params[2] = request->max_items > 0 ? max_items : NULL;
	call_sql(call, &redrive, params, 0, false, redriven);
	param_free(&ids);
}

static void
switched(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Google__Protobuf__Empty response = GOOGLE__PROTOBUF__EMPTY__INIT;

	if (call_sql_done(call, outcome))
		grpc_answer(call, &response.base);
}

void
v1_pause(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__HandlerRequest *request = (const void *) message;
	const char *params[1] = {text_or_null(request->handler)};

	call_sql(call, &pause_handler, params, 0, true, switched);
}

void
v1_resume(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__HandlerRequest *request = (const void *) message;
	const char *params[1] = {text_or_null(request->handler)};

	call_sql(call, &resume_handler, params, 0, true, switched);
}

/* ---- Forecast, Health ---- */

static DbStatement forecast = {"v1_forecast",
	"SELECT minute, object_type, handler, leases FROM gt_forecast(coalesce($1, '1 hour'::interval))",
1, DB_BINARY | DB_REPEATABLE | DB_ALONE};

static DbStatement health = {"v1_health",
	"SELECT check_name, ok, detail, remedy FROM gt_health()",
0, DB_BINARY | DB_REPEATABLE | DB_ALONE};

static void
forecast_came(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__ForecastResponse response = GARBAGETRUCK__V1__FORECAST_RESPONSE__INIT;
	Garbagetruck__V1__ForecastResponse__Row *rows;
	Garbagetruck__V1__ForecastResponse__Row **pointers;
	Google__Protobuf__Timestamp *minutes;
	size_t		size = 0;
	int			count;
	int			i;

	if (!call_sql_done(call, outcome))
		return;
	count = PQntuples(outcome->result);
	rows = calloc((size_t) count + 1, sizeof(*rows));
	pointers = calloc((size_t) count + 1, sizeof(*pointers));
	minutes = calloc((size_t) count + 1, sizeof(*minutes));
	if (rows == NULL || pointers == NULL || minutes == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		count = 0;
	}
	for (i = 0; i < count; i++)
	{
		garbagetruck__v1__forecast_response__row__init(&rows[i]);
		rows[i].minute = get_timestamp(outcome->result, i, 0, &minutes[i]);
		rows[i].object_type = (char *) get_text_or_empty(outcome->result, i, 1);
		rows[i].handler = (char *) get_text_or_empty(outcome->result, i, 2);
		rows[i].leases = (uint64_t) get_int8(outcome->result, i, 3);
		pointers[i] = &rows[i];
		size += answer_share(&rows[i].base);
	}
	/* There are no pages, and a part would say that nothing ends in the other. */
	if (size > ANSWER_MOST)
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "horizon: its %d rows do not fit into one answer, ask for a shorter one", count);
	response.rows = pointers;
	response.n_rows = (size_t) i;
	grpc_answer(call, &response.base);
	free(rows);
	free(pointers);
	free(minutes);
}

void
v1_forecast(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__ForecastRequest *request = (const void *) message;
	char		horizon[INTERVAL_SIZE];
	const char *params[1];

	if (read_duration(call, "horizon", request->horizon, horizon, &params[0]))
		call_sql(call, &forecast, params, 0, true, forecast_came);
}

static void
health_came(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__HealthResponse response = GARBAGETRUCK__V1__HEALTH_RESPONSE__INIT;
	Garbagetruck__V1__HealthResponse__Check checks[64];
	Garbagetruck__V1__HealthResponse__Check *pointers[64];
	bool		told;
	int			i;

	if (!call_sql_done(call, outcome))
		return;
	/* what is wrong is said in counts and names of everybody's */
	told = caller_name(call) == NULL || caller_is_admin(call);
	response.healthy = db_serves();
	response.version = (char *) GT_VERSION;
	for (i = 0; i < PQntuples(outcome->result) && i < 63; i++)
	{
		garbagetruck__v1__health_response__check__init(&checks[i]);
		checks[i].name = (char *) get_text_or_empty(outcome->result, i, 0);
		checks[i].ok = get_bool(outcome->result, i, 1);
		checks[i].detail = (char *) (told ? get_text_or_empty(outcome->result, i, 2) : "");
		checks[i].remedy = (char *) (told ? get_text_or_empty(outcome->result, i, 3) : "");
		response.healthy = response.healthy && checks[i].ok;
		pointers[i] = &checks[i];
	}
	if (!db_serves())
	{
		garbagetruck__v1__health_response__check__init(&checks[i]);
		checks[i].name = (char *) "database";
		checks[i].detail = (char *) db_problem();
		pointers[i] = &checks[i];
		i++;
	}
	response.checks = pointers;
	response.n_checks = (size_t) i;
	grpc_answer(call, &response.base);
}

void
v1_health(GrpcCall *call, const ProtobufCMessage *message)
{
	call_sql(call, &health, NULL, 0, true, health_came);
}
