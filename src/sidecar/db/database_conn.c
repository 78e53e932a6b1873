/*
 * database_conn.c
 *		Keeps the connections to PostgreSQL up.
 *
 * A connection that breaks is tried again at once, then at growing intervals.
 * While it is being made, calls may wait for it; when it cannot be made, those
 * that wait go to another connection or fail.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/session.h"
#include "db/database_internal.h"
#include "net/lookup.h"

#define CONNECT_LIMIT_US 5000000
#define SILENCE_US 5000000		/* beyond --db-call-limit: no answer will come */
#define RETRY_FIRST_US 100000
#define RETRY_MOST_US 2000000

Metric		db_connects_metric = {"database_connects_total", METRIC_COUNTER, "Connections made to PostgreSQL."};

/*
 * The limits are those of a call that is alone; a lane of batches sets its own
 * next, see receive_setup().  A database without the extension is told by an
 * empty result.
 */
static const char db_session_sql[] =
"SELECT pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII', pg_catalog.pg_is_in_recovery(),"
" pg_catalog.set_config('lock_timeout', '0', false), pg_catalog.set_config('statement_timeout', '0', false),"
SESSION_SETTINGS
" FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
" WHERE e.extname OPERATOR(pg_catalog.=) 'garbagetruck'";

static void begin_connecting(void *arg);
static void handle_socket(void *arg, uint32_t events);

/* ---- watching the socket ---- */

static uint32_t
wanted_events(const DbConn *conn)
{
	if (conn->state == DBC_CONNECTING)
		return EPOLLIN;
	return EPOLLIN | (conn->write_blocked ? EPOLLOUT : 0);
}

void
dbconn_watch(DbConn *conn)
{
	int			flush = 0;

	if (conn->state >= DBC_SETTING_UP)
		flush = PQflush(conn->pg);
	conn->write_blocked = flush == 1;
	if (conn->events != wanted_events(conn))
	{
		conn->events = wanted_events(conn);
		loop_modify(conn->watch, conn->events);
	}
}

static bool
watch_socket(DbConn *conn, uint32_t events)
{
	int			fd = PQsocket(conn->pg);

	/* While connecting libpq may change the socket, even under its number. */
	loop_remove(conn->watch);
	conn->watch = NULL;
	if (fd < 0)
		return false;
	conn->fd = fd;
	conn->events = events;
	conn->watch = loop_add(fd, events, handle_socket, conn);
	return conn->watch != NULL;
}

static void
drop_connection(DbConn *conn)
{
	timer_stop(&conn->timer);
	task_cancel(&conn->pump);
	loop_remove(conn->watch);
	conn->watch = NULL;
	PQfinish(conn->pg);
	conn->pg = NULL;
	conn->state = DBC_DOWN;
	conn->looks_up = false;
	if (conn->waits)
		dbconn_waits(conn, NULL);
	conn->stuck = false;
	memset(conn->prepared, 0, sizeof(conn->prepared));
	memset(conn->generation, 0, sizeof(conn->generation));
	conn->prepare_sqlstate[0] = '\0';
}

static int64_t
retry_delay(const DbConn *conn)
{
	int64_t		delay = RETRY_FIRST_US;
	int			i;

	if (conn->failures == 0)
		return 0;
	for (i = 1; i < conn->failures && delay < RETRY_MOST_US; i++)
		delay *= 2;
	if (delay > RETRY_MOST_US)
		delay = RETRY_MOST_US;
	return delay / 2 + random() % (delay / 2 + 1);
}

/* Could not connect: what waits for this connection waits in vain. */
static void
connecting_failed(DbConn *conn, const char *why)
{
	char		problem[512];
	size_t		len;

	snprintf(problem, sizeof(problem), "%s", why);
	len = strlen(problem);
	while (len > 0 && problem[len - 1] == '\n')
		problem[--len] = '\0';
	drop_connection(conn);
	conn->failures++;
	conn_state_changed(conn, problem);
	timer_start(&conn->timer, retry_delay(conn), begin_connecting, conn);
}

void
dbconn_lost(DbConn *conn, const char *why)
{
	char		reason[512];
	bool		was_up = conn->state == DBC_IDLE || conn->state == DBC_BUSY;

	snprintf(reason, sizeof(reason), "%s", why);
	if (!was_up)
	{
		connecting_failed(conn, reason);
		return;
	}
	log_line(LOG_WARNING, "lost a connection to PostgreSQL: %s", reason);
	drop_connection(conn);
	conn->failures = 0;
	conn_state_changed(conn, reason);
	begin_connecting(conn);
	batch_lost(conn, reason);
}

/*
 * A server that hangs keeps its connections, and so do we: others instead would
 * become more and more while it hangs.  Every statement has a limit in the
 * server, so that one that runs is not taken for one that hangs.
 */
void
dbconn_check(DbConn *conn)
{
	static const char why[] = "PostgreSQL does not answer";

	if (conn->state != DBC_BUSY || conn->stuck || conn->heard_us + db_call_limit_us + SILENCE_US > loop_now())
		return;
	/* It may have answered while this process itself did not run. */
	handle_socket(conn, 0);
	if (conn->state != DBC_BUSY || conn->heard_us + db_call_limit_us + SILENCE_US > loop_now())
		return;
	conn->stuck = true;
	conn->failures = 1;
	conn_state_changed(conn, why);
	batch_give_up(conn, why);
}

void
dbconn_renew(DbConn *conn)
{
	if (dbconn_is_up(conn))
		dbconn_lost(conn, "the extension is not there any more");
}

/* ---- connecting ---- */

static void
took_too_long(void *arg)
{
	dbconn_lost(arg, "connecting to PostgreSQL took too long");
}

/* An address is known: go on with libpq, which looks no name up then. */
static void
connect_to(DbConn *conn, const LookedUp *found)
{
	/* A server that vanished without a word is noticed; --db may say otherwise. */
	const char *keywords[] = {
		"tcp_user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count",
		"dbname", "fallback_application_name", "client_encoding", found != NULL ? "host" : NULL, "hostaddr", "port", NULL
	};
	const char *values[] = {"10000", "10", "5", "2", db_conninfo(), "garbagetruck", "UTF8", found != NULL ? found->host : NULL,
		found != NULL ? found->hostaddr : NULL, found != NULL ? found->port : NULL, NULL};

	conn->pg = PQconnectStartParams(keywords, values, 1);
	if (conn->pg == NULL || PQstatus(conn->pg) == CONNECTION_BAD)
	{
		connecting_failed(conn, conn->pg == NULL ? "out of memory" : PQerrorMessage(conn->pg));
		return;
	}
	conn->state = DBC_CONNECTING;
	if (!watch_socket(conn, EPOLLOUT))
	{
		connecting_failed(conn, "could not watch the connection's socket");
		return;
	}
	timer_start_patient(&conn->timer, CONNECT_LIMIT_US, took_too_long, conn);
}

static void
looked_up(const LookedUp *found, const char *problem)
{
	int			i;

	for (i = 0; i < db_conn_count(); i++)
	{
		DbConn	   *conn = db_conn_at(i);

		if (!conn->looks_up)
			continue;
		conn->looks_up = false;
		if (found != NULL)
			connect_to(conn, found);
		else
			connecting_failed(conn, problem);
	}
}

static void
begin_connecting(void *arg)
{
	DbConn	   *conn = arg;

	conn->state = DBC_CONNECTING;
	timer_start_patient(&conn->timer, CONNECT_LIMIT_US, took_too_long, conn);
	switch (lookup_start(db_conninfo(), looked_up))
	{
		case LOOKUP_NOT_NEEDED:
			connect_to(conn, NULL);
			break;
		case LOOKUP_RUNS:
			conn->looks_up = true;
			break;
		case LOOKUP_FAILED:
			connecting_failed(conn, "could not start a thread to look a name up");
			break;
	}
}

void
dbconn_hurry(DbConn *conn)
{
	if (conn->state != DBC_DOWN || !timer_running(&conn->timer))
		return;
	conn->failures = 0;
	timer_start(&conn->timer, 0, begin_connecting, conn);
}

void
dbconn_start(DbConn *conn)
{
	conn->in_flight_end = &conn->in_flight;
	begin_connecting(conn);
}

static void
poll_connecting(DbConn *conn)
{
	switch (PQconnectPoll(conn->pg))
	{
		case PGRES_POLLING_READING:
			if (!watch_socket(conn, EPOLLIN))
				connecting_failed(conn, "could not watch the connection's socket");
			return;
		case PGRES_POLLING_WRITING:
			if (!watch_socket(conn, EPOLLOUT))
				connecting_failed(conn, "could not watch the connection's socket");
			return;
		case PGRES_POLLING_OK:
			break;
		default:
			connecting_failed(conn, PQerrorMessage(conn->pg));
			return;
	}
	PQsetnonblocking(conn->pg, 1);
	conn->state = DBC_SETTING_UP;
	conn->setup_step = 0;
	if (!watch_socket(conn, EPOLLIN) || !PQsendQuery(conn->pg, db_session_sql))
	{
		connecting_failed(conn, PQerrorMessage(conn->pg));
		return;
	}
	dbconn_watch(conn);
}

/* The first query's result, or the second's. */
static bool
check_setup(DbConn *conn, const PGresult *result)
{
	char		why[400];

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		connecting_failed(conn, PQresultErrorMessage(result));
		return false;
	}
	if (conn->setup_step > 0)
		return true;
	if (PQntuples(result) == 0)
	{
		snprintf(why, sizeof(why), "database \"%s\" does not have the extension: CREATE EXTENSION garbagetruck", PQdb(conn->pg));
		connecting_failed(conn, why);
		return false;
	}
	db_note_encoding(PQgetvalue(result, 0, 0)[0] == 't');
	db_note_standby(PQgetvalue(result, 0, 1)[0] == 't');
	return true;
}

static void
finish_setup(DbConn *conn)
{
	if (PQenterPipelineMode(conn->pg) != 1)
	{
		connecting_failed(conn, "could not enter pipeline mode");
		return;
	}
	/* From here on what the server says is taken from its results, and PQerrorMessage() is what libpq itself has to say. */
	PQsetErrorVerbosity(conn->pg, PQERRORS_SQLSTATE);
	timer_stop(&conn->timer);
	conn->failures = 0;
	conn->state = DBC_IDLE;
	metric_add(&db_connects_metric, 1);
	conn_state_changed(conn, NULL);
	pump_soon(conn);
}

static void
receive_setup(DbConn *conn)
{
	char		sql[160];

	while (!PQisBusy(conn->pg))
	{
		PGresult   *result = PQgetResult(conn->pg);
		bool		ok = result != NULL && check_setup(conn, result);

		if (result != NULL)
		{
			PQclear(result);
			if (!ok)
				return;
			continue;
		}
		if (conn->setup_step++ > 0)
		{
			finish_setup(conn);
			return;
		}
		snprintf(sql, sizeof(sql), "SELECT pg_catalog.set_config('lock_timeout', '%lld', false),"
				 " pg_catalog.set_config('statement_timeout', '%lld', false)",
				 conn->lane == LANE_CALLS ? (long long) (db_lock_wait_us / 1000) : 0LL,
				 (long long) (db_call_limit_us / 1000));
		if (!PQsendQuery(conn->pg, sql))
		{
			connecting_failed(conn, PQerrorMessage(conn->pg));
			return;
		}
		dbconn_watch(conn);
	}
}

static void
handle_socket(void *arg, uint32_t events)
{
	DbConn	   *conn = arg;

	if (conn->state == DBC_CONNECTING)
	{
		poll_connecting(conn);
		return;
	}
	if (!PQconsumeInput(conn->pg))
	{
		/* What had arrived before the end still counts. */
		if (conn->state == DBC_BUSY)
			batch_receive(conn);
		if (conn->pg != NULL)
			dbconn_lost(conn, PQerrorMessage(conn->pg));
		return;
	}
	if (events & EPOLLOUT)
		dbconn_watch(conn);
	if (conn->state == DBC_SETTING_UP)
	{
		receive_setup(conn);
		return;
	}
	if (conn->state == DBC_BUSY)
		batch_receive(conn);
	if (conn->state == DBC_IDLE)
	{
		/* Only notices are expected here, or the end. */
		PQisBusy(conn->pg);
	}
	if (conn->pg != NULL && PQstatus(conn->pg) == CONNECTION_BAD)
		dbconn_lost(conn, PQerrorMessage(conn->pg));
}

void
dbconn_close(DbConn *conn)
{
	drop_connection(conn);
}
