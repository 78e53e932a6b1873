/*
 * service_gc_admin.c
 *		distributed_gc.DistributedGCService: HealthCheck and GetMetrics.
 *
 * What gt_metrics() gave, and how many leases there are of each service and
 * type, is kept for some seconds, so that probes cost PostgreSQL nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/object_types.h"
#include "distributed_gc.pb-c.h"
#include "services/service_gc.h"
#include "services/services.h"
#include "state.h"

#define COUNTS_US 5000000
#define GROUPS_US 10000000
#define MAX_GROUPS 1000
#define MAX_BOTHS 20000

/* The totals, in the order of totals_statement's columns. */
enum
{
	LEASES, CREATED, RENEWED, RELEASED, EXPIRED, CLEANUPS, FAILED, OVERDUE, TOTALS
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

/* The same by both, for callers with a name, who are told of their own. */
typedef struct Both
{
	char	   *service;
	char	   *type;
	uint64_t	active;
	uint64_t	expired;
} Both;

static Both *boths;
static int	both_count;
static int64_t groups_until_us;
static int64_t groups_asked_us;
static bool groups_known;

#define SUM(metric) "sum(value) FILTER (WHERE name = 'garbagetruck_" metric "')"

static DbStatement totals_statement = {"gc_totals",
	"SELECT " SUM("leases") "::bigint, " SUM("leases_created_total") "::bigint, " SUM("leases_renewed_total") "::bigint, "
	SUM("leases_released_total") "::bigint, " SUM("leases_expired_total") "::bigint, " SUM("cleanups_total") "::bigint,"
	" sum(value) FILTER (WHERE name = 'garbagetruck_cleanups_total' AND labels->>'result' <> 'cleaned')::bigint,"
	" (SELECT sum(leases) FROM gt_forecast('0'))::bigint"
	" FROM gt_metrics()",
0, DB_BINARY | DB_REPEATABLE | DB_ALONE};

static DbStatement groups_statement = {"gc_groups",
	"WITH g AS MATERIALIZED (SELECT service_id, object_type, count(*) FILTER (WHERE state = 'active') AS active,"
	" count(*) FILTER (WHERE state = 'expired') AS expired FROM gt_leases GROUP BY service_id, object_type)"
	" (SELECT 0, service_id, sum(active + expired)::bigint, NULL::text, NULL::bigint FROM g GROUP BY service_id ORDER BY 3 DESC LIMIT 1000)"
	" UNION ALL (SELECT 1, object_type, sum(active + expired)::bigint, NULL::text, NULL::bigint FROM g GROUP BY object_type ORDER BY 3 DESC LIMIT 1000)"
	" UNION ALL (SELECT 2, service_id, active, object_type, expired FROM (SELECT * FROM g ORDER BY active + expired DESC LIMIT 20000) g ORDER BY object_type)",
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
free_groups(void)
{
	int			i;

	for (i = 0; i < 2; i++)
	{
		while (group_counts[i] > 0)
			free(groups[i][--group_counts[i]].name);
	}
	while (both_count > 0)
	{
		free(boths[--both_count].service);
		free(boths[both_count].type);
	}
	groups_until_us = 0;
}

static bool
keep_both(const PGresult *result, int row)
{
	Both	   *both = &boths[both_count];

	both->service = strdup(get_text_or_empty(result, row, 1));
	both->type = strdup(get_text_or_empty(result, row, 3));
	both->active = (uint64_t) get_int8(result, row, 2);
	both->expired = (uint64_t) get_int8(result, row, 4);
	both_count++;
	return both->service != NULL && both->type != NULL;
}

static bool
keep_group(const PGresult *result, int row, int by)
{
	Group	   *group = &groups[by][group_counts[by]];

	group->name = strdup(get_text_or_empty(result, row, 1));
	if (group->name == NULL)
		return false;
	group_counts[by]++;
	group->count = (uint64_t) get_int8(result, row, 2);
	return true;
}

/* False: out of memory, and none are kept. */
static bool
keep_groups(const PGresult *result)
{
	int			rows = PQntuples(result);
	int64_t		took = loop_now() - groups_asked_us;
	bool		ok = true;
	int			i;

	free_groups();
	for (i = 0; i < 2 && ok; i++)
		ok = groups[i] != NULL || (groups[i] = calloc(MAX_GROUPS, sizeof(Group))) != NULL;
	ok = ok && (boths != NULL || (boths = calloc(MAX_BOTHS, sizeof(Both))) != NULL);
	for (i = 0; i < rows && ok; i++)
	{
		int			by = get_int4(result, i, 0);

		if (by == 2)
			ok = both_count == MAX_BOTHS || keep_both(result, i);
		else
			ok = group_counts[by] == MAX_GROUPS || keep_group(result, i, by);
	}
	if (!ok)
		free_groups();
	else
		/* Where counting takes long it is done more seldom. */
		groups_until_us = loop_now() + (took * 20 > GROUPS_US ? took * 20 : GROUPS_US);
	groups_known = ok;
	return ok;
}

/* The leases of a caller with a name. */
static void
count_own(const GrpcCall *call, uint64_t *active, uint64_t *expired)
{
	int			i;

	*active = *expired = 0;
	for (i = 0; i < both_count; i++)
	{
		if (!caller_owns(call, boths[i].service))
			continue;
		*active += boths[i].active;
		*expired += boths[i].expired;
	}
}

static void
answer_health(GrpcCall *call, bool healthy)
{
	DistributedGc__HealthCheckResponse response = DISTRIBUTED_GC__HEALTH_CHECK_RESPONSE__INIT;
	Google__Protobuf__Timestamp started = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
	struct timespec at = state.started;

	started.seconds = at.tv_sec;
	started.nanos = (int32_t) at.tv_nsec;
	response.healthy = healthy && db_serves();
	response.version = (char *) GT_VERSION;
	if (caller_name(call) != NULL && !caller_is_admin(call))
		count_own(call, &response.active_leases, &response.expired_leases);
	else
	{
		response.active_leases = (uint64_t) totals[LEASES];
		response.expired_leases = (uint64_t) totals[OVERDUE];
	}
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
ask_health(GrpcCall *call)
{
	call_sql(call, &health_statement, NULL, 0, true, health_came);
}

static void
health_totals_came(void *arg, const DbOutcome *outcome)
{
	/* A role that may not see metrics, or no preload: the counts stay 0. */
	grpc_set_state(arg, NULL);
	if (outcome->result != NULL)
		keep_totals(outcome->result);
	totals_until_us = loop_now() + COUNTS_US;
	ask_health(arg);
}

static void
health_groups_came(void *arg, const DbOutcome *outcome)
{
	grpc_set_state(arg, NULL);
	if (outcome->result != NULL)
		keep_groups(outcome->result);
	ask_health(arg);
}

/* Are they to be counted anew, and is nobody at it?  One caller of many does it, not each that comes meanwhile. */
static bool
groups_are_due(void)
{
	return groups_until_us < loop_now() && !(groups_known && loop_now() - groups_asked_us < GROUPS_US);
}

static void
ask_groups(GrpcCall *call, DbDone done)
{
	groups_asked_us = loop_now();
	call_sql(call, &groups_statement, NULL, 0, true, done);
}

void
gc_health_check(GrpcCall *call, const ProtobufCMessage *message)
{
	bool		own = caller_name(call) != NULL && !caller_is_admin(call);

	if (own && groups_are_due())
		ask_groups(call, health_groups_came);
	else if (!own && totals_until_us < loop_now())
		call_sql(call, &totals_statement, NULL, 0, true, health_totals_came);
	else
		ask_health(call);
}

/* ---- GetMetrics ---- */

/* The wire's spelling of a type. */
static const char *
spell_type(const char *name)
{
#define SPELLING(name, spelling) #spelling,
	static const char *const spellings[] = {NULL, FOR_OBJECT_TYPES(SPELLING)};
	int			type = object_type_number(name);

	if (type == OBJECT_TYPE_CUSTOM)
		return strcmp(name, "custom") == 0 ? "Custom" : name;
	return spellings[type];
}

/* Count leases of a type, which may come several times in a row. */
static void
add_type(DistributedGc__MetricsResponse *response, DistributedGc__MetricsResponse__LeasesByTypeEntry *types,
		 DistributedGc__MetricsResponse__LeasesByTypeEntry **pointers, const char *name, uint64_t count)
{
	const char *spelling = spell_type(name);
	size_t		n = response->n_leases_by_type;

	if (n > 0 && strcmp(types[n - 1].key, spelling) == 0)
		n--;
	else if (n == MAX_GROUPS)
		return;
	else
	{
		distributed_gc__metrics_response__leases_by_type_entry__init(&types[n]);
		types[n].key = (char *) spelling;
		pointers[n] = &types[n];
		response->n_leases_by_type++;
	}
	types[n].value += count;
}

/* What the whole database has seen: not for one caller of several. */
static void
tell_totals(DistributedGc__MetricsResponse *response)
{
	response->total_leases_created = (uint64_t) totals[CREATED];
	response->total_leases_renewed = (uint64_t) totals[RENEWED];
	response->total_leases_expired = (uint64_t) totals[EXPIRED];
	response->total_leases_released = (uint64_t) totals[RELEASED];
	response->total_cleanup_operations = (uint64_t) totals[CLEANUPS];
	response->failed_cleanup_operations = (uint64_t) totals[FAILED];
	response->active_leases = (uint64_t) totals[LEASES];
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

		if (!caller_owns(call, groups[0][i].name) && !caller_is_admin(call))
			continue;
		distributed_gc__metrics_response__leases_by_service_entry__init(&services[n]);
		services[n].key = groups[0][i].name;
		services[n].value = groups[0][i].count;
		service_pointers[n] = &services[n];
		response.n_leases_by_service++;
	}
	if (caller_name(call) == NULL || caller_is_admin(call))
	{
		for (i = 0; i < group_counts[1]; i++)
			add_type(&response, types, type_pointers, groups[1][i].name, groups[1][i].count);
	}
	else
	{
		for (i = 0; i < both_count; i++)
			if (caller_owns(call, boths[i].service))
				add_type(&response, types, type_pointers, boths[i].type, boths[i].active + boths[i].expired);
	}
	response.leases_by_service = service_pointers;
	response.leases_by_type = type_pointers;
	if (caller_name(call) == NULL || caller_is_admin(call))
		tell_totals(&response);
	else
	{
		uint64_t	expired;

		count_own(call, &response.active_leases, &expired);
		response.active_leases += expired;
	}
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
tell_metrics(GrpcCall *call)
{
	if (groups_are_due())
		ask_groups(call, groups_came);
	else
		answer_metrics(call);
}

static void
metrics_totals_came(void *arg, const DbOutcome *outcome)
{
	if (!call_sql_done(arg, outcome))
		return;
	keep_totals(outcome->result);
	tell_metrics(arg);
}

void
gc_get_metrics(GrpcCall *call, const ProtobufCMessage *message)
{
	if (caller_name(call) != NULL && !caller_is_admin(call))
		tell_metrics(call);
	else
		call_sql(call, &totals_statement, NULL, 0, true, metrics_totals_came);
}
