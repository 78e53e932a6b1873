/*
 * services.c
 *		What the services share: options, waiting for SQL, routes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "services/services.h"

static OptionList cleanup_list;
static OptionList allow_target_list;
static AllowList *allow_list;

const Option services_options[] =
{
	{"cleanup", OPTION_LIST, &cleanup_list, NULL, "TYPE=HANDLER", "handler for objects of a type whose create names no cleanup; repeatable", 0, 0},
	{"allow-target", OPTION_LIST, &allow_target_list, NULL, "HOST[:PORT]", "host that a lease may name as the target of its cleanup: a name, *.name, an address or a network; repeatable, none by default", 0, 0},
	OPTION_END
};

bool
services_start(char *error, size_t error_size)
{
	char		why[256];
	int			i;

	allow_list = allow_create();
	for (i = 0; i < allow_target_list.count; i++)
	{
		if (!allow_add(allow_list, allow_target_list.items[i], why, sizeof(why)))
		{
			snprintf(error, error_size, "--allow-target %s: %s", allow_target_list.items[i], why);
			return false;
		}
	}
	for (i = 0; i < cleanup_list.count; i++)
	{
		const char *equals = strchr(cleanup_list.items[i], '=');

		if (equals == NULL || equals == cleanup_list.items[i] || equals[1] == '\0')
		{
			snprintf(error, error_size, "--cleanup %s: TYPE=HANDLER is expected", cleanup_list.items[i]);
			return false;
		}
	}
	grpc_add_methods(gc_methods);
	grpc_add_methods(v1_methods);
	grpc_add_methods(health_methods);
	grpc_add_methods(reflection_methods);
	return true;
}

/*
 * A create that is refused for its parent after the handler was found good, and
 * so makes nothing.
 */
static DbStatement check_statement = {"check_cleanup",
	"SELECT g.sqlstate, g.message, $1::text FROM gt_lease_grant_each(pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object("
	"'object_id', 'x', 'cleanup', $2::text, 'parent', '00000000-0000-0000-0000-000000000000'))) g",
2, DB_REPEATABLE};

static void
cleanup_checked(void *arg, const DbOutcome *outcome)
{
	const char *sqlstate = outcome->result != NULL ? PQgetvalue(outcome->result, 0, 0) : "";

	if (strcmp(sqlstate, "GT007") == 0 || strcmp(sqlstate, "42501") == 0)
		log_line(LOG_WARNING, "--cleanup %s: %s", PQgetvalue(outcome->result, 0, 2), PQgetvalue(outcome->result, 0, 1));
}

static void
check_cleanups(bool up)
{
	static bool checked;
	int			i;

	for (i = 0; up && !checked && i < cleanup_list.count; i++)
	{
		const char *params[2] = {cleanup_list.items[i], strchr(cleanup_list.items[i], '=') + 1};

		db_call(&check_statement, params, NULL, cleanup_checked, NULL);
	}
	checked = checked || up;
}

void
services_check_cleanups(void)
{
	db_watch(check_cleanups);
}

void
services_allow_loopback(void)
{
	static const char *const loopback[] = {"localhost", "127.0.0.0/8", "::1"};
	char		why[256];
	size_t		i;

	for (i = 0; i < sizeof(loopback) / sizeof(loopback[0]); i++)
		allow_add(allow_list, loopback[i], why, sizeof(why));
}

const AllowList *
services_allow_list(void)
{
	return allow_list;
}

/* TYPE as in SQL, or with - for _ as on the command line. */
static bool
same_type(const char *given, size_t len, const char *object_type)
{
	size_t		i;

	if (strlen(object_type) != len)
		return false;
	for (i = 0; i < len; i++)
	{
		if (given[i] != object_type[i] && !(given[i] == '-' && object_type[i] == '_'))
			return false;
	}
	return true;
}

const char *
cleanup_of_type(const char *object_type)
{
	int			i;

	for (i = 0; i < cleanup_list.count; i++)
	{
		const char *equals = strchr(cleanup_list.items[i], '=');

		if (same_type(cleanup_list.items[i], (size_t) (equals - cleanup_list.items[i]), object_type))
			return equals + 1;
	}
	return NULL;
}

/* ---- waiting for SQL ---- */

DbHow
call_how(const GrpcCall *call)
{
	return (DbHow) {.deadline_us = grpc_deadline(call), .caller = caller_name(call), .party = grpc_party(call)};
}

void
call_sql(GrpcCall *call, DbStatement *statement, const char *const *params,
		 uint64_t route, bool repeatable, DbDone done)
{
	DbHow		how = call_how(call);

	how.route = route;
	how.repeatable = repeatable;
	grpc_set_state(call, db_call(statement, params, &how, done, call));
}

void
call_sql_large(GrpcCall *call, DbStatement *statement, const char *const *params, DbDone done)
{
	DbHow		how = call_how(call);

	how.repeatable = true;
	how.large = true;
	grpc_set_state(call, db_call(statement, params, &how, done, call));
}

void
call_sql_over(GrpcCall *call)
{
	DbCall	   *waiting = grpc_state(call);

	grpc_set_state(call, NULL);
	if (waiting != NULL)
		db_forget(waiting);
}

/*
 * What is wrong with JSON text: PostgreSQL names neither the parameter nor, but
 * in the detail, the place.  Of an object that is taken the detail says by
 * whom, and until when.
 */
const char *
outcome_problem(const DbOutcome *outcome, char *buffer)
{
	static const struct
	{
		const char *sqlstate;
		const char *prefix;
	}			detailed[] = {
		{"22P02", "payload or metadata: "},
		{"22P05", "payload or metadata: "},
		{"GT004", ""},
		{"GT005", ""}
	};
	size_t		i;
	size_t		len = strlen(outcome->message);

	/* One condition has one wording, whoever found it out. */
	if (strcmp(outcome->sqlstate, "GT001") == 0 && len > 15 && len < PROBLEM_SIZE && strcmp(outcome->message + len - 15, " does not exist") == 0)
	{
		snprintf(buffer, PROBLEM_SIZE, "%.*s not found", (int) len - 15, outcome->message);
		return buffer;
	}
	for (i = 0; i < sizeof(detailed) / sizeof(detailed[0]); i++)
	{
		if (strcmp(outcome->sqlstate, detailed[i].sqlstate) != 0)
			continue;
		snprintf(buffer, PROBLEM_SIZE, "%s%.300s%s%.300s", detailed[i].prefix, outcome->message,
				 outcome->detail != NULL ? ": " : "", outcome->detail != NULL ? outcome->detail : "");
		utf8_mend(buffer);
		return buffer;
	}
	return outcome->message;
}

/* The time at the end of a detail, in microseconds since 1970, as ISO in UTC; 0: there is none. */
static int64_t
time_of_detail(const char *detail)
{
	const char *at = strstr(detail, " until ");
	struct tm	utc = {0};
	double		seconds;

	if (at == NULL && (at = strstr(detail, " after ")) == NULL)
		return 0;
	if (sscanf(at + 7, "%d-%d-%d %d:%d:%lf+00", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &seconds) != 6)
		return 0;
	utc.tm_year -= 1900;
	utc.tm_mon--;
	return (int64_t) timegm(&utc) * 1000000 + (int64_t) (seconds * 1e6);
}

/*
 * What a detail of GT004 or GT005 says in words: who has the object, and when to
 * try again, which by the clock of the database is a time, and by any other one
 * a while.
 */
static void
read_detail(const char *detail, GrpcMore *more, char *holder, size_t holder_size, char *after, size_t after_size)
{
	static const char held[] = "It is held by service \"";
	const char *end = strstr(detail, "\"; ");
	int64_t		at = time_of_detail(detail);

	if (strncmp(detail, held, sizeof(held) - 1) == 0 && end != NULL)
	{
		snprintf(holder, holder_size, "%.*s", (int) (end - detail) - (int) sizeof(held) + 1, detail + sizeof(held) - 1);
		utf8_mend(holder);
		more->holder = holder;
	}
	if (at != 0)
	{
		at -= db_clock();
		snprintf(after, after_size, "%.3f", at > 1000 ? (double) at / 1e6 : 0.001);
		more->retry_after = after;
	}
}

void
call_fail_outcome(GrpcCall *call, const DbOutcome *outcome, const char *message)
{
	GrpcMore	more = {.detail = outcome->detail, .hint = outcome->hint};
	char		holder[300];
	char		after[32];

	if (outcome->detail != NULL && (strcmp(outcome->sqlstate, "GT004") == 0 || strcmp(outcome->sqlstate, "GT005") == 0))
		read_detail(outcome->detail, &more, holder, sizeof(holder), after, sizeof(after));
	grpc_fail_sql(call, outcome->sqlstate, message, &more);
}

bool
call_sql_done(GrpcCall *call, const DbOutcome *outcome)
{
	char		buffer[PROBLEM_SIZE];

	grpc_set_state(call, NULL);
	if (outcome->result != NULL)
		return true;
	call_fail_outcome(call, outcome, outcome_problem(outcome, buffer));
	return false;
}

bool
read_duration(GrpcCall *call, const char *field, const Google__Protobuf__Duration *duration,
			  char *buffer, const char **param)
{
	int64_t		us;

	if (!duration_us(duration, &us))
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s is negative or out of range", field);
		return false;
	}
	*param = duration == NULL ? NULL : interval_param(us, buffer);
	return true;
}

/* With its tag and length. */
size_t
answer_share(const ProtobufCMessage *message)
{
	return protobuf_c_message_get_packed_size(message) + 6;
}

uint64_t
route_of_object(const char *object_type, const char *object_id)
{
	return db_route(object_type, strlen(object_type)) * 31 + db_route(object_id, strlen(object_id));
}

uint64_t
route_of_lease(const char *lease_id)
{
	char		lower[37];
	int			i;

	for (i = 0; i < 36 && lease_id[i] != '\0'; i++)
		lower[i] = lease_id[i] >= 'A' && lease_id[i] <= 'F' ? (char) (lease_id[i] + 32) : lease_id[i];
	return db_route(lower, (size_t) i);
}

void
fail_unknown_lease(GrpcCall *call, const char *lease_id)
{
	char		message[200];

	snprintf(message, sizeof(message), "lease %.100s not found", lease_id);
	utf8_mend(message);
	grpc_fail_sql(call, "GT001", message, NULL);
}
