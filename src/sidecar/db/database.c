/*
 * database.c
 *		SQL calls: what goes into the queues (database_queue.c), and what callers are told.
 *
 * Three lanes.  Calls go in batches over a few connections; the same object or
 * lease always over the same one, so that our own batches do not wait for each
 * other.  A call that meets somebody else's lock moves to connections on which it
 * waits alone: of one object one at a time, with the others of it behind, of one
 * caller never on all, and some seconds at a time.  What may be slow (DB_ALONE)
 * has a connection of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "db/database_internal.h"

#define LARGE_BYTES ((size_t) 4 * 1024 * 1024)	/* of a result, at most, and little more */
#define LARGE_PAUSE_US 5000		/* until there may be room for it; doubled each time */
#define LARGE_PAUSE_MOST_US 500000
#define RETRY_US 2000			/* first pause after a deadlock, doubled each time */
#define HOT_ROUTES 64
#define HOT_US 1000000

int64_t		db_batch_max;
int64_t		db_lock_wait_us;
int64_t		db_call_limit_us;

static const char *conninfo;
static int64_t connections;
static int64_t queue_max;

const Option database_options[] =
{
	{"db", OPTION_TEXT, &conninfo, "", "CONNINFO", "the database, as a libpq connection string or URI; libpq's environment and password file serve too"},
	{"db-connections", OPTION_NUMBER, &connections, "3", "N", "connections for calls (three more are for what is slow, and one for the executors)", 1, MAX_CONNECTIONS - WAITING_CONNECTIONS - 1},
	{"db-batch", OPTION_NUMBER, &db_batch_max, "128", "N", "calls that may share a transaction", 1, 10000},
	{"db-queue", OPTION_NUMBER, &queue_max, "20000", "N", "calls that may wait for the database; more fail with UNAVAILABLE", 1, 10000000},
	{"db-lock-wait", OPTION_DURATION, &db_lock_wait_us, "300ms", "D", "how long a call may hold up its batch by waiting for a lock, before it waits elsewhere", 1000, 3600000000LL},
	{"db-call-limit", OPTION_DURATION, &db_call_limit_us, "30s", "D", "how long a call may take in the database, unless the client's own limit is shorter", 1000, 86400000000LL},
	OPTION_END
};

static int	statement_count;
static DbStatement *statements[MAX_STATEMENTS];

/* Routes that met a lock a moment ago. */
static struct
{
	uint64_t	route;
	int64_t		until_us;
}			hot_routes[HOT_ROUTES];

static double
read_queued(void)
{
	return db_queued();
}

static Metric queued_metric = {"database_queued_calls", METRIC_GAUGE, "SQL calls that wait for a connection.", .read = read_queued};

const char *
db_conninfo(void)
{
	return conninfo;
}

void
db_set_conninfo(const char *given)
{
	conninfo = given;
}

uint64_t
db_route(const void *data, size_t len)
{
	const unsigned char *at = data;
	uint64_t	hash = 14695981039346656037ULL;

	while (len-- > 0)
		hash = (hash ^ *at++) * 1099511628211ULL;
	hash ^= hash >> 29;
	return hash != 0 ? hash : 1;
}

/* ---- into a queue ---- */

static bool
is_hot(uint64_t route)
{
	int			slot = (int) (route % HOT_ROUTES);

	return route != 0 && hot_routes[slot].route == route && hot_routes[slot].until_us > loop_now();
}

static void
fail_as_away(void *arg)
{
	dbcall_fail(arg, "08006", db_problem(), false);
}

static void
fail_as_overloaded(void *arg)
{
	dbcall_fail(arg, "08006", "too many calls wait for the database (--db-queue)", false);
}

static void
fail_as_greedy(void *arg)
{
	dbcall_fail(arg, "08006", "too many calls of this caller wait for the database (its share of --db-queue)", false);
}

static void
fail_as_too_large(void *arg)
{
	dbcall_fail(arg, "53200", "out of memory", false);
}

static void
fail_as_full(void *arg)
{
	dbcall_fail(arg, "53200", "too much is in progress for this caller", false);
}

void
dbcall_queue(DbCall *call)
{
	DbLane		lane = LANE_CALLS;
	DbConn	   *conn;

	if (!call->no_wait && (call->waited || is_hot(call->route)))
	{
		lane = LANE_WAITING;
		if (!call->waited)
			call->waits_since_us = loop_now();
		call->waited = true;
	}
	if (call->statement->flags & DB_ALONE)
		lane = LANE_CONTROL;
	conn = db_usable_conn(lane, lane == LANE_CALLS ? call->route : 0);
	if (conn == NULL)
	{
		/* Not at once: the caller has not seen the call yet. */
		timer_start(&call->again, 0, fail_as_away, call);
		return;
	}
	dbcall_queue_on(call, conn);
}

/* ---- the outcome of calls ---- */

static void
free_call(DbCall *call)
{
	timer_stop(&call->again);
	PQclear(call->result);
	if (call->party != NULL)
	{
		call->party->queued--;
		party_give_back(call->party, call->charged);
		party_release(call->party);
	}
	free(call);
}

static void
tell_failure(DbCall *call, const char *sqlstate, const char *message, bool unknown)
{
	DbOutcome	outcome = {.message = message, .unknown = unknown};
	DbDone		done = call->done;

	call->done = NULL;
	snprintf(outcome.sqlstate, sizeof(outcome.sqlstate), "%s", sqlstate);
	if (done != NULL)
		done(call->arg, &outcome);
}

void
dbcall_fail(DbCall *call, const char *sqlstate, const char *message, bool unknown)
{
	tell_failure(call, sqlstate, message, unknown);
	free_call(call);
}

void
dbcall_give_up(DbCall *call, const char *sqlstate, const char *message)
{
	tell_failure(call, sqlstate, message, true);
}

void
dbcall_answer(DbCall *call, PGresult *result)
{
	DbOutcome	outcome = {.result = result, .sqlstate = "00000", .message = ""};
	const char *field;

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		outcome.result = NULL;
		field = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		snprintf(outcome.sqlstate, sizeof(outcome.sqlstate), "%s", field != NULL ? field : "XX000");
		field = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
		outcome.message = field != NULL ? field : "PostgreSQL gave no reason";
		outcome.detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
		outcome.hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
	}
	if (call->done != NULL)
		call->done(call->arg, &outcome);
	free_call(call);
}

static void
queue_again(void *arg)
{
	dbcall_queue(arg);
}

bool
dbcall_postpone_large(DbCall *call)
{
	if (!call->large || call->charged >= LARGE_BYTES)
		return false;
	if (call->queued_us + db_call_limit_us < loop_now())
	{
		dbcall_fail(call, "53200", "the client does not read its answers", false);
		return true;
	}
	if (!party_has_room(call->party) || !party_charge(call->party, LARGE_BYTES))
	{
		call->pause_us = call->pause_us == 0 ? LARGE_PAUSE_US : call->pause_us * 2 < LARGE_PAUSE_MOST_US ? call->pause_us * 2 : LARGE_PAUSE_MOST_US;
		timer_start(&call->again, call->pause_us, queue_again, call);
		return true;
	}
	call->charged += LARGE_BYTES;
	return false;
}

void
dbcall_retry(DbCall *call)
{
	int64_t		pause = RETRY_US << call->attempts;

	call->attempts++;
	timer_start(&call->again, pause / 2 + random() % pause, queue_again, call);
}

void
dbcall_wait_for_lock(DbCall *call)
{
	int			slot = (int) (call->route % HOT_ROUTES);

	if (call->route != 0)
	{
		hot_routes[slot].route = call->route;
		hot_routes[slot].until_us = loop_now() + HOT_US;
	}
	if (!call->waited)
		call->waits_since_us = loop_now();
	call->waited = true;
	dbcall_queue(call);
}

/* ---- the interface ---- */

static void
number_statement(DbStatement *statement)
{
	int			i;

	for (i = 0; i < statement_count; i++)
	{
		if (statements[i] == statement)
		{
			statement->number = i;
			return;
		}
	}
	if (statement_count == MAX_STATEMENTS)
		abort();
	statements[statement_count] = statement;
	statement->number = statement_count++;
}

/* Into the queue, or not: each party has its part of it. */
static void
enter(DbCall *call)
{
	Party	   *party = call->party;
	int			queued = db_queued();

	if (queued >= queue_max)
		timer_start(&call->again, 0, fail_as_overloaded, call);
	else if (party != NULL && !party_may_take(party->queued - 1, queued, queue_max))
		timer_start(&call->again, 0, fail_as_greedy, call);
	else
		dbcall_queue(call);
}

/* With room for its parameters; without, when there is no memory for them, or when its party has its fill. */
static DbCall *
make_call(int params, size_t bytes, Party *party, bool *full, bool *fits)
{
	size_t		size = sizeof(DbCall) + sizeof(char *) * (size_t) params + bytes;
	DbCall	   *call;

	*full = !party_charge(party, size);
	call = *full ? NULL : malloc(size);
	*fits = call != NULL;
	if (!*fits)
		call = needed(malloc(sizeof(DbCall)));
	memset(call, 0, sizeof(DbCall));
	if (*full)
		return call;
	call->party = party_hold(party);
	call->charged = size;
	if (party != NULL)
		party->queued++;
	return call;
}

DbCall *
db_call(DbStatement *statement, const char *const *params, const DbHow *how, DbDone done, void *arg)
{
	size_t		bytes = 0;
	DbCall	   *call;
	bool		full;
	bool		fits;
	char	   *at;
	int			i;

	if (statement->number == 0)
		number_statement(statement);
	for (i = 0; i < statement->params; i++)
		bytes += params[i] != NULL ? strlen(params[i]) + 1 : 0;
	call = make_call(statement->params, bytes, how != NULL ? how->party : NULL, &full, &fits);
	call->statement = statement;
	call->done = done;
	call->arg = arg;
	if (!fits)
	{
		timer_start(&call->again, 0, full ? fail_as_full : fail_as_too_large, call);
		return call;
	}
	call->bytes = bytes + 64;
	call->queued_us = loop_now();
	if (how != NULL)
	{
		call->route = how->route;
		call->deadline_us = how->deadline_us;
		call->repeatable = how->repeatable;
		call->caller = how->caller;
		call->large = how->large;
		call->no_wait = how->no_wait;
	}
	at = (char *) &call->params[statement->params];
	for (i = 0; i < statement->params; i++)
	{
		call->params[i] = NULL;
		if (params[i] != NULL)
		{
			call->params[i] = at;
			at = stpcpy(at, params[i]) + 1;
		}
	}
	enter(call);
	return call;
}

void
db_forget(DbCall *call)
{
	call->done = NULL;
	if (call->in_flight)
		return;
	if (call->conn != NULL)
		queue_remove(call);
	free_call(call);
}

static void
register_metrics(void)
{
	metric_register(&queued_metric);
	metric_register(&db_calls_metric);
	metric_register(&db_batches_metric);
	metric_register(&db_reruns_metric);
	metric_register(&db_retries_metric);
	metric_register(&db_lock_waits_metric);
	metric_register(&db_connects_metric);
	metric_register(&db_batch_seconds);
}

bool
db_start(char *error, size_t error_size)
{
	PQconninfoOption *parsed;
	char	   *why = NULL;
	int			i;

	/* A string without = is taken for a database's name, which is never checked. */
	if (strchr(conninfo, '=') != NULL || strstr(conninfo, "://") != NULL)
	{
		parsed = PQconninfoParse(conninfo, &why);
		if (parsed == NULL)
		{
			snprintf(error, error_size, "--db: %s", why != NULL ? why : "out of memory");
			PQfreemem(why);
			return false;
		}
		PQconninfoFree(parsed);
	}
	if (!db_lanes_make((int) connections))
	{
		snprintf(error, error_size, "out of memory");
		return false;
	}
	/* Numbers start at 1: 0 is a statement that has none yet. */
	statement_count = 1;
	register_metrics();
	for (i = 0; i < db_conn_count(); i++)
		dbconn_start(db_conn_at(i));
	db_up_start();
	return true;
}

bool
db_idle(void)
{
	int			i;

	for (i = 0; i < db_conn_count(); i++)
	{
		const DbConn *conn = db_conn_at(i);

		if (conn->state == DBC_BUSY || conn->turns != NULL)
			return false;
	}
	return true;
}

void
db_stop(void)
{
	int			i;

	db_up_stop();
	for (i = 0; i < db_conn_count(); i++)
		dbconn_close(db_conn_at(i));
}
