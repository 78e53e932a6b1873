/*
 * service_gc_admin.c
 *		distributed_gc.DistributedGCService: HealthCheck and GetMetrics.
 *
 * What gt_metrics() gave, and how many leases there are of each service and
 * type, is kept for some seconds, so that probes cost PostgreSQL nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "distributed_gc.pb-c.h"
#include "serve.h"
#include "service_gc.h"
#include "services.h"

#define COUNTS_US 5000000
#define GROUPS_US 10000000
#define MAX_GROUPS 1000

/* The totals, in the order of totals_statement's columns. */
enum
{
	LEASES, CREATED, RENEWED, RELEASED, EXPIRED, CLEANUPS, FAILED, TOTALS
};

static int64_t totals[TOTALS];
static int64_t totals_until_us;

typedef struct Group
{
	char	   *name;
	uint64_t	count;
} Group;

static Group *groups[2];		/* by service, by type */
static int	group_counts[2];
static int64_t groups_until_us;

#define SUM(metric) "sum(value) FILTER (WHERE name = 'garbagetruck_" metric "')"

static DbStatement totals_statement = {"gc_totals",
	"SELECT " SUM("leases") "::bigint, " SUM("leases_created_total") "::bigint, " SUM("leases_renewed_total") "::bigint, "
	SUM("leases_released_total") "::bigint, " SUM("leases_expired_total") "::bigint, " SUM("cleanups_total") "::bigint,"
	" sum(value) FILTER (WHERE name = 'garbagetruck_cleanups_total' AND labels->>'result' <> 'cleaned')::bigint"
	" FROM gt_metrics()",
0, DB_BINARY | DB_REPEATABLE | DB_ALONE};

static DbStatement groups_statement = {"gc_groups",
	"(SELECT 0, service_id, count(*) FROM gt_leases GROUP BY service_id ORDER BY 3 DESC LIMIT 1000)"
	" UNION ALL (SELECT 1, object_type, count(*) FROM gt_leases GROUP BY object_type ORDER BY 3 DESC LIMIT 1000)",
0, DB_BINARY | DB_REPEATABLE | DB_ALONE};

/* What makes the service unable to do its work; dead or paused garbage does not. */
static DbStatement health_statement = {"gc_health",
	"SELECT coalesce(bool_and(ok), true) FROM gt_health()"
	" WHERE check_name IN ('preloaded', 'launcher', 'workers', 'overdue', 'place')",
0, DB_BINARY | DB_REPEATABLE | DB_ALONE};

static void
keep_totals(const PGresult *result)
{
	int			i;

	for (i = 0; i < TOTALS; i++)
		totals[i] = get_int8(result, 0, i);
	totals_until_us = loop_now() + COUNTS_US;
}

/* ---- HealthCheck ---- */

static void
answer_health(GrpcCall *call, bool healthy)
{
	DistributedGc__HealthCheckResponse response = DISTRIBUTED_GC__HEALTH_CHECK_RESPONSE__INIT;
	Google__Protobuf__Timestamp started = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
	struct timespec at = serve_started();

	started.seconds = at.tv_sec;
	started.nanos = (int32_t) at.tv_nsec;
	response.healthy = healthy;
	response.version = (char *) GT_VERSION;
	response.active_leases = (uint64_t) totals[LEASES];
	response.expired_leases = (uint64_t) totals[EXPIRED];
	response.uptime = &started;
	grpc_answer(call, &response.base);
}

static void
health_came(void *arg, const DbOutcome *outcome)
{
	if (call_sql_done(arg, outcome))
		answer_health(arg, get_bool(outcome->result, 0, 0));
}

static void
health_totals_came(void *arg, const DbOutcome *outcome)
{
	/* A role that may not see metrics, or no preload: the counts stay 0. */
	if (outcome->result != NULL)
		keep_totals(outcome->result);
	totals_until_us = loop_now() + COUNTS_US;
	call_sql(arg, &health_statement, NULL, 0, true, health_came);
}

void
gc_health_check(GrpcCall *call, const ProtobufCMessage *message)
{
	if (totals_until_us < loop_now())
		call_sql(call, &totals_statement, NULL, 0, true, health_totals_came);
	else
		call_sql(call, &health_statement, NULL, 0, true, health_came);
}

/* ---- GetMetrics ---- */

/* The wire's spelling of a type. */
static const char *
spell_type(const char *name)
{
	static const char *const spellings[] =
	{NULL, "DatabaseRow", "BlobStorage", "TemporaryFile", "WebsocketSession", "CacheEntry"};
	int			type = gc_type_of_name(name);

	if (type == DISTRIBUTED_GC__OBJECT_TYPE__CUSTOM)
		return strcmp(name, "custom") == 0 ? "Custom" : name;
	return spellings[type];
}

/* False: out of memory, and none are kept. */
static bool
keep_groups(const PGresult *result)
{
	int			rows = PQntuples(result);
	int			i;

	for (i = 0; i < 2; i++)
	{
		while (group_counts[i] > 0)
			free(groups[i][--group_counts[i]].name);
		if (groups[i] == NULL)
			groups[i] = calloc(MAX_GROUPS, sizeof(Group));
		if (groups[i] == NULL)
			return false;
	}
	groups_until_us = 0;
	for (i = 0; i < rows; i++)
	{
		int			by = get_int4(result, i, 0) == 1;
		Group	   *group;

		if (group_counts[by] == MAX_GROUPS)
			continue;
		group = &groups[by][group_counts[by]];
		group->name = strdup(get_text_or_empty(result, i, 1));
		if (group->name == NULL)
			return false;
		group_counts[by]++;
		group->count = (uint64_t) get_int8(result, i, 2);
	}
	groups_until_us = loop_now() + GROUPS_US;
	return true;
}

static void
answer_metrics(GrpcCall *call)
{
	static DistributedGc__MetricsResponse__LeasesByServiceEntry services[MAX_GROUPS];
	static DistributedGc__MetricsResponse__LeasesByServiceEntry *service_pointers[MAX_GROUPS];
	static DistributedGc__MetricsResponse__LeasesByTypeEntry types[MAX_GROUPS];
	static DistributedGc__MetricsResponse__LeasesByTypeEntry *type_pointers[MAX_GROUPS];
	DistributedGc__MetricsResponse response = DISTRIBUTED_GC__METRICS_RESPONSE__INIT;
	int			i;

	for (i = 0; i < group_counts[0]; i++)
	{
		int			n = (int) response.n_leases_by_service;

		if (!caller_owns(call, groups[0][i].name))
			continue;
		distributed_gc__metrics_response__leases_by_service_entry__init(&services[n]);
		services[n].key = groups[0][i].name;
		services[n].value = groups[0][i].count;
		service_pointers[n] = &services[n];
		response.n_leases_by_service++;
	}
	for (i = 0; i < group_counts[1]; i++)
	{
		distributed_gc__metrics_response__leases_by_type_entry__init(&types[i]);
		types[i].key = (char *) spell_type(groups[1][i].name);
		types[i].value = groups[1][i].count;
		type_pointers[i] = &types[i];
	}
	response.leases_by_service = service_pointers;
	response.leases_by_type = type_pointers;
	response.n_leases_by_type = (size_t) group_counts[1];
	response.total_leases_created = (uint64_t) totals[CREATED];
	response.total_leases_renewed = (uint64_t) totals[RENEWED];
	response.total_leases_expired = (uint64_t) totals[EXPIRED];
	response.total_leases_released = (uint64_t) totals[RELEASED];
	response.total_cleanup_operations = (uint64_t) totals[CLEANUPS];
	response.failed_cleanup_operations = (uint64_t) totals[FAILED];
	response.active_leases = (uint64_t) totals[LEASES];
	grpc_answer(call, &response.base);
}

static void
groups_came(void *arg, const DbOutcome *outcome)
{
	if (!call_sql_done(arg, outcome))
		return;
	if (keep_groups(outcome->result))
		answer_metrics(arg);
	else
		grpc_fail(arg, GRPC_RESOURCE_EXHAUSTED, "out of memory");
}

static void
metrics_totals_came(void *arg, const DbOutcome *outcome)
{
	if (!call_sql_done(arg, outcome))
		return;
	keep_totals(outcome->result);
	if (groups_until_us >= loop_now())
		answer_metrics(arg);
	else
		call_sql(arg, &groups_statement, NULL, 0, true, groups_came);
}

void
gc_get_metrics(GrpcCall *call, const ProtobufCMessage *message)
{
	call_sql(call, &totals_statement, NULL, 0, true, metrics_totals_came);
}
