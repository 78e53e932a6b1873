/*
 * database.c
 *		SQL calls: which connection takes them, and what their callers are told.
 *
 * Three lanes.  Calls go in batches over a few connections; the same object or
 * lease always over the same one, so that our own batches do not wait for each
 * other.  A call that meets somebody else's lock moves to connections on which
 * it waits alone: of one object one at a time, with the others of it behind,
 * of one caller never on all, and some seconds at a time.  What may be slow (DB_ALONE) has a connection of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "database_internal.h"
#include "log.h"
#include "memory.h"

#define WAITING_CONNECTIONS 2
#define LARGE_BYTES ((size_t) 4 * 1024 * 1024)	/* of a result, at most, and little more */
#define LARGE_PAUSE_US 5000		/* until there may be room for it; doubled each time */
#define LARGE_PAUSE_MOST_US 500000
#define RETRY_US 2000			/* first pause after a deadlock, doubled each time */
#define HOT_ROUTES 64
#define HOT_US 1000000
#define FAILURES_BORNE 3
#define PROBE_US 5000000
#define FIRST_PROBE_US 500000	/* tells the database's clock */
#define PROBE_LIMIT_US 3000000

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

static DbConn *conns;
static int	conn_count;
static int	queued_total;
static int	statement_count;
static DbStatement *statements[MAX_STATEMENTS];
static bool up;
static bool answering = true;
static char problem[600] = "not connected yet";
static char version[32];
static void (*watchers[8]) (bool up);
static int	watcher_count;
static LoopTimer probe_timer;
static bool probe_sent;
static int64_t clock_ahead_us;	/* the database's is so much before ours */

/* Routes that met a lock a moment ago. */
static struct
{
	uint64_t	route;
	int64_t		until_us;
}			hot_routes[HOT_ROUTES];

static double
read_up(void)
{
	return db_up();
}

static double
read_queued(void)
{
	return queued_total;
}

static Metric up_metric = {"database_up", METRIC_GAUGE, "Whether PostgreSQL answers.", .read = read_up};
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

/* ---- up or down ---- */

bool
db_up(void)
{
	return up && answering;
}

const char *
db_problem(void)
{
	return up ? "PostgreSQL does not answer" : problem;
}

const char *
db_extension_version(void)
{
	return version[0] != '\0' ? version : NULL;
}

static bool text_is_bytes;

void
db_note_encoding(bool bytes)
{
	text_is_bytes = bytes;
}

bool
db_text_is_bytes(void)
{
	return text_is_bytes;
}

void
db_note_version(const char *text)
{
	snprintf(version, sizeof(version), "%s", text);
}

void
db_watch(void (*changed) (bool up))
{
	if (watcher_count < 8)
		watchers[watcher_count++] = changed;
}

static void
tell_watchers(bool was)
{
	int			i;

	if (db_up() == was)
		return;
	log_line(was ? LOG_WARNING : LOG_INFO, was ? "PostgreSQL is away: %s" : "PostgreSQL answers%s", was ? db_problem() : "");
	for (i = 0; i < watcher_count; i++)
		watchers[i] (!was);
}

int
db_conn_count(void)
{
	return conn_count;
}

DbConn *
db_conn_at(int i)
{
	return &conns[i];
}

static bool
conn_is_up(const DbConn *conn)
{
	return (conn->state == DBC_IDLE || conn->state == DBC_BUSY) && !conn->stuck;
}

/*
 * Is it up, or will it be in a moment?  Calls on the other lanes can go nowhere
 * else: there an attempt or two to connect may fail while PostgreSQL answers.
 */
static bool
is_usable(const DbConn *conn)
{
	return conn_is_up(conn) || conn->failures == 0 ||
		(conn->lane != LANE_CALLS && up && !conn->stuck && conn->failures <= FAILURES_BORNE);
}

/* A usable connection on the lane; NULL: none. */
static DbConn *
usable_conn(DbLane lane, uint64_t route)
{
	DbConn	   *best = NULL;
	int			of_lane = 0;
	int			nth;
	int			i;

	for (i = 0; i < conn_count; i++)
		of_lane += conns[i].lane == lane;
	nth = route != 0 ? (int) (route % (uint64_t) of_lane) : -1;
	for (i = 0; i < conn_count; i++)
	{
		DbConn	   *conn = &conns[i];

		if (conn->lane != lane)
			continue;
		if (nth-- == 0 && is_usable(conn))
			return conn;
		if (!is_usable(conn))
			continue;
		if (best == NULL || (conn_is_up(conn) && !conn_is_up(best)) ||
			(conn_is_up(conn) == conn_is_up(best) && conn->queued + (conn->state == DBC_BUSY) < best->queued + (best->state == DBC_BUSY)))
			best = conn;
	}
	return best;
}

void
conn_state_changed(DbConn *conn, const char *why)
{
	static bool told;			/* the log has said something of it */
	bool		was = db_up();
	bool		was_up = up;
	DbCall	   *call;
	DbCall	   *all = NULL;
	int			i;

	if (why != NULL)
		snprintf(problem, sizeof(problem), "%s", why);
	up = false;
	for (i = 0; i < conn_count; i++)
		up = up || (conns[i].lane == LANE_CALLS && conn_is_up(&conns[i]));
	if (conn->lane == LANE_CALLS && conn_is_up(conn))
		answering = true;
	tell_watchers(was);
	for (i = 0; up && !was_up && i < conn_count; i++)
		dbconn_hurry(&conns[i]);
	/* At the start it may be away without ever having been there. */
	if (!told && !was && !up && why != NULL)
		log_line(LOG_WARNING, "PostgreSQL is away: %s", problem);
	told = told || up || why != NULL;
	if (conn_is_up(conn) || conn->failures == 0)
		return;

	/* It can not be had: its queue goes elsewhere, or nowhere. */
	while ((call = queue_pop(conn)) != NULL)
	{
		call->next = all;
		all = call;
	}
	while ((call = all) != NULL)
	{
		all = call->next;
		dbcall_queue(call);
	}
}

/* ---- queues ---- */

static void
unlink_call(DbCall *call)
{
	DbConn	   *conn = call->conn;

	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		conn->first = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	else
		conn->last = call->prev;
	call->next = call->prev = NULL;
	call->conn = NULL;
	conn->queued--;
	queued_total--;
}

DbCall *
queue_pop(DbConn *conn)
{
	DbCall	   *call = conn->first;

	if (call != NULL)
		unlink_call(call);
	return call;
}

/*
 * May it wait for a lock now?  Who waits for the same object would only wait
 * behind that call, and in the way of others.
 */
static bool
may_wait(const DbCall *call)
{
	int			of_party = 0;
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		const DbConn *conn = &conns[i];

		if (conn->lane != LANE_WAITING || !conn->waits)
			continue;
		if (call->route != 0 && conn->wait_route == call->route)
			return false;
		of_party += call->party != NULL && conn->wait_party == call->party;
	}
	return of_party < (call->party != NULL && call->party->named ? WAITING_CONNECTIONS - 1 : WAITING_CONNECTIONS);
}

DbCall *
queue_pop_waiter(DbConn *conn)
{
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		/* Its own queue first, then what the others have no place for. */
		DbConn	   *from = &conns[(conn->number + i) % conn_count];
		DbCall	   *call;

		if (from->lane != LANE_WAITING)
			continue;
		for (call = from->first; call != NULL; call = call->next)
		{
			if (!may_wait(call))
				continue;
			unlink_call(call);
			return call;
		}
	}
	return NULL;
}

void
dbconn_waits(DbConn *conn, const DbCall *call)
{
	int			i;

	conn->waits = call != NULL;
	conn->wait_route = call != NULL ? call->route : 0;
	conn->wait_party = call != NULL ? call->party : NULL;
	/* One that did not may go now. */
	for (i = 0; call == NULL && i < conn_count; i++)
	{
		if (conns[i].lane == LANE_WAITING)
			pump_soon(&conns[i]);
	}
}

bool
db_somebody_waits(void)
{
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		if (conns[i].lane == LANE_WAITING && conns[i].first != NULL)
			return true;
	}
	return false;
}

void
dbcall_queue_on(DbCall *call, DbConn *conn)
{
	call->conn = conn;
	call->next = NULL;
	call->prev = conn->last;
	if (conn->last != NULL)
		conn->last->next = call;
	else
		conn->first = call;
	conn->last = call;
	conn->queued++;
	queued_total++;
	pump_soon(conn);
}

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
	conn = usable_conn(lane, lane == LANE_CALLS ? call->route : 0);
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

/* Into the queue, or not: of that and of memory each party has its part. */
static void
enter(DbCall *call, const DbHow *how)
{
	Party	   *party = how != NULL ? how->party : NULL;
	size_t		bytes = sizeof(DbCall) + call->bytes;

	if (queued_total >= queue_max)
		timer_start(&call->again, 0, fail_as_overloaded, call);
	else if (party != NULL && !party_may_take(party->queued, queued_total, queue_max))
		timer_start(&call->again, 0, fail_as_greedy, call);
	else if (!party_charge(party, bytes))
		timer_start(&call->again, 0, fail_as_full, call);
	else
	{
		call->party = party_hold(party);
		call->charged = bytes;
		if (party != NULL)
			party->queued++;
		dbcall_queue(call);
	}
}

DbCall *
db_call(DbStatement *statement, const char *const *params, const DbHow *how, DbDone done, void *arg)
{
	size_t		bytes = 0;
	DbCall	   *call;
	bool		fits;
	char	   *at;
	int			i;

	if (statement->number == 0)
		number_statement(statement);
	for (i = 0; i < statement->params; i++)
		bytes += params[i] != NULL ? strlen(params[i]) + 1 : 0;
	call = malloc(sizeof(DbCall) + sizeof(char *) * (size_t) statement->params + bytes);
	fits = call != NULL;
	if (!fits)
		call = needed(malloc(sizeof(DbCall)));
	memset(call, 0, sizeof(DbCall));
	call->statement = statement;
	call->done = done;
	call->arg = arg;
	if (!fits)
	{
		timer_start(&call->again, 0, fail_as_too_large, call);
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
	enter(call, how);

	return call;
}

void
db_forget(DbCall *call)
{
	call->done = NULL;
	if (call->in_flight)
		return;
	if (call->conn != NULL)
		unlink_call(call);
	free_call(call);
}

/* ---- is anybody there? ---- */

/* On the lane of calls: what is slow elsewhere says nothing about them. */
static DbStatement probe_statement = {"gt_probe", "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint", 0, DB_REPEATABLE};
static void probe(void *arg);

static int64_t
own_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
db_clock(void)
{
	return own_clock() + clock_ahead_us;
}

static void
probe_answered(void *arg, const DbOutcome *outcome)
{
	bool		was = db_up();

	probe_sent = false;
	if (outcome->result != NULL)
		clock_ahead_us = strtoll(PQgetvalue(outcome->result, 0, 0), NULL, 10) - own_clock();
	answering = outcome->result != NULL || !up;
	tell_watchers(was);
	timer_start(&probe_timer, PROBE_US, probe, NULL);
}

/*
 * A server that hangs keeps its connections.  The probe that is late stays in
 * flight: its answer tells that the server is back.
 */
static void
probe(void *arg)
{
	bool		was = db_up();
	int			i;

	for (i = 0; i < conn_count; i++)
		dbconn_check(&conns[i]);
	timer_start(&probe_timer, PROBE_LIMIT_US, probe, NULL);
	if (probe_sent)
	{
		answering = false;
		tell_watchers(was);
		return;
	}
	probe_sent = true;
	db_call(&probe_statement, NULL, NULL, probe_answered, NULL);
}

static void
register_metrics(void)
{
	metric_register(&up_metric);
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
	conn_count = (int) connections + WAITING_CONNECTIONS + 1;
	conns = calloc((size_t) conn_count, sizeof(DbConn));
	if (conns == NULL)
	{
		snprintf(error, error_size, "out of memory");
		return false;
	}
	/* Numbers start at 1: 0 is a statement that has none yet. */
	statement_count = 1;
	register_metrics();
	for (i = 0; i < conn_count; i++)
	{
		conns[i].number = i;
		conns[i].lane = i < connections ? LANE_CALLS : i < conn_count - 1 ? LANE_WAITING : LANE_CONTROL;
	}
	for (i = 0; i < conn_count; i++)
		dbconn_start(&conns[i]);
	timer_start(&probe_timer, FIRST_PROBE_US, probe, NULL);
	return true;
}

bool
db_idle(void)
{
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		if (conns[i].state == DBC_BUSY || conns[i].first != NULL)
			return false;
	}
	return true;
}

void
db_stop(void)
{
	int			i;

	timer_stop(&probe_timer);
	for (i = 0; i < conn_count; i++)
		dbconn_close(&conns[i]);
}
