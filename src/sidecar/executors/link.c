/*
 * link.c
 *		The executors' connection to PostgreSQL.
 *
 * Non-blocking, one statement at a time; outcomes gather while one is under
 * way and go with the next.  When the connection is lost the outcome of the
 * statement is unknown: acknowledgements are sent again (they count once),
 * claims that were perhaps made lapse.  A crash of this process leaves claims
 * that lapse.
 */
#include <curl/curl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/session.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/link.h"
#include "executors/util.h"

#define CONNECT_MS		10000
#define STATEMENT_MS	30000
#define RETRY_MIN_MS	100
#define RETRY_MAX_MS	2000

Database *
database_create(Context *context)
{
	Database   *database = exec_alloc(sizeof(*database));

	database->retry_delay = RETRY_MIN_MS;
	database->extend_limit = 1;	/* doubles */
	database->claim_batch = BATCH_CLAIM;
	return database;
}

void
database_free(Database *database)
{
	if (database == NULL)
		return;
	PQclear(database->result);
	PQfinish(database->conn);
	free(database->claiming);
	free(database->looking);
	free(database->user);
	free(database);
}

static void
ignore_notice(void *arg, const PGresult *result)
{
}

static void
lose_connection(Context *context, const char *reason)
{
	Database   *database = context->database;

	exec_problem(context, PROBLEM_CONNECTION, "The database is away: %s", reason);
	database->told_down = true;
	exec_problem(context, PROBLEM_CLAIM, NULL);
	claims_connection_lost(context);
	PQclear(database->result);
	database->result = NULL;
	PQfinish(database->conn);
	database->conn = NULL;
	database->state = DATABASE_DOWN;
	database->ready = database->refused = false;
	database->retry_at = exec_now() + database->retry_delay;
	if (database->retry_delay < RETRY_MAX_MS)
		database->retry_delay *= 2;
	context->stats.connected = false;
}

/* With libpq's reason. */
static void
lose_by_libpq(Context *context)
{
	char		reason[EXEC_ERROR_SIZE];

	snprintf(reason, sizeof(reason), "%s", PQerrorMessage(context->database->conn));
	exec_sanitize(reason, sizeof(reason) - 1);
	lose_connection(context, reason);
}

static void
start_connecting(Context *context)
{
	Database   *database = context->database;
	/* what comes after dbname goes before what is in the connection string */
	const char *keywords[] = {"tcp_user_timeout", "dbname", "fallback_application_name", "client_encoding", NULL};
	const char *values[] = {"15000", context->settings.conninfo, "garbagetruck executors", "UTF8", NULL};

	database->conn = PQconnectStartParams(keywords, values, 1);
	database->deadline = exec_now() + CONNECT_MS;
	database->connect_events = POLLOUT;
	database->state = DATABASE_CONNECTING;
	if (database->conn == NULL)
		lose_connection(context, "out of memory");
	else if (PQstatus(database->conn) == CONNECTION_BAD)
		lose_by_libpq(context);
	else
		PQsetNoticeReceiver(database->conn, ignore_notice, NULL);
}

/*
 * The first statement: settings on which the others rely.  An operator or
 * function of somebody else's must not be found by our statements.
 */
static const char setup_sql[] =
"SELECT current_user, pg_catalog.pg_is_in_recovery(),"
" pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) ALL ('{UTF8,SQL_ASCII}'::pg_catalog.text[]),"
" pg_catalog.set_config('lock_timeout', '200ms', false),"	/* one locked row keeps all the others */
" pg_catalog.set_config('statement_timeout', '20s', false),"
" pg_catalog.set_config('work_mem', '32MB', false),"	/* to look through what is due */
SESSION_SETTINGS
" FROM pg_catalog.pg_extension e"
" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
" WHERE e.extname OPERATOR(pg_catalog.=) 'garbagetruck'";

/*
 * A statement was sent.  sent_at was set before that, so that a claim is never
 * thought to last longer than it does.
 */
static void
note_sent(Database *database)
{
	database->deadline = database->sent_at + STATEMENT_MS;
	database->state = DATABASE_BUSY;
}

static void
connected(Context *context)
{
	Database   *database = context->database;

	PQsetnonblocking(database->conn, 1);
	database->sent_at = exec_now();
	database->statement = STATEMENT_SETUP;
	if (PQsendQueryParams(database->conn, setup_sql, 0, NULL, NULL, NULL, NULL, 0) == 1)
		note_sent(database);
	else
		lose_by_libpq(context);
}

static void
take_setup(Context *context, PGresult *result)
{
	Database   *database = context->database;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		lose_connection(context, PQresultErrorMessage(result));
	else if (PQntuples(result) == 0)
		lose_connection(context, "the extension garbagetruck is not in this database: CREATE EXTENSION garbagetruck");
	else if (PQgetvalue(result, 0, 1)[0] == 't')
		lose_connection(context, "the server is a standby");
	else
	{
		free(database->user);
		database->user = exec_strdup(PQgetvalue(result, 0, 0));
		database->lossy = PQgetvalue(result, 0, 2)[0] == 't';
		database->retry_delay = RETRY_MIN_MS;
		database->handlers_at = database->claim_at = 0;
		exec_problem(context, PROBLEM_CONNECTION, NULL);
		context->stats.connects++;
		context->stats.connected = true;
		if (database->told_down)
			exec_log(context, EXEC_LOG_INFO, "the database is back");
		database->told_down = false;
	}
}

static bool
socket_ready(PGconn *conn, short events)
{
	struct pollfd fd = {PQsocket(conn), events, 0};

	return fd.fd < 0 || poll(&fd, 1, 0) != 0;
}

/* False: nothing more can be done now. */
static bool
go_on_connecting(Context *context)
{
	Database   *database = context->database;

	if (exec_now() >= database->deadline)
	{
		lose_connection(context, "no connection within 10 s");
		return false;
	}
	if (!socket_ready(database->conn, database->connect_events))
		return false;
	switch (PQconnectPoll(database->conn))
	{
		case PGRES_POLLING_READING:
			database->connect_events = POLLIN;
			return true;
		case PGRES_POLLING_WRITING:
			database->connect_events = POLLOUT;
			return true;
		case PGRES_POLLING_OK:
			connected(context);
			return true;
		default:
			lose_by_libpq(context);
			return false;
	}
}

/* It was dropped, or is elsewhere by now: a new session finds it, or says that it is not there. */
static bool
lacks_extension(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL && (strcmp(sqlstate, "42883") == 0 || strcmp(sqlstate, "42P01") == 0);
}

/* Take the whole answer of the statement under way. */
static bool
go_on_reading(Context *context)
{
	Database   *database = context->database;
	PGresult   *result;

	if (exec_now() >= database->deadline)
	{
		lose_connection(context, "no answer within 30 s");
		return false;
	}
	if (PQconsumeInput(database->conn) == 0 || PQflush(database->conn) < 0)
	{
		lose_by_libpq(context);
		return false;
	}
	/* rows may be followed by an error: the commit comes after them */
	while (!PQisBusy(database->conn) && (result = PQgetResult(database->conn)) != NULL)
	{
		PQclear(database->result);
		database->result = result;
	}
	if (PQstatus(database->conn) == CONNECTION_BAD)
	{
		lose_by_libpq(context);
		return false;
	}
	if (PQisBusy(database->conn))
		return false;
	result = database->result;
	database->result = NULL;
	if (result == NULL)
	{
		lose_connection(context, "a statement had no result");
		return false;
	}
	database->state = DATABASE_IDLE;
	if (database->statement == STATEMENT_SETUP)
		take_setup(context, result);
	else if (lacks_extension(result))
	{
		database->retry_delay = RETRY_MAX_MS;	/* not again and again, where a new session does not help */
		lose_connection(context, PQresultErrorMessage(result));
	}
	else
		claims_take_result(context, result);
	PQclear(result);
	return true;
}

static bool
go_on_idle(Context *context)
{
	Database   *database = context->database;

	/* an idle connection says so when it is lost */
	if (PQconsumeInput(database->conn) == 0 || PQstatus(database->conn) == CONNECTION_BAD)
	{
		lose_by_libpq(context);
		return false;
	}
	database->sent_at = exec_now();
	if (!claims_send_next(context))
		return false;
	if (PQstatus(database->conn) == CONNECTION_BAD)
	{
		lose_by_libpq(context);
		return false;
	}
	note_sent(database);
	return true;
}

void
database_step(Context *context)
{
	Database   *database = context->database;
	bool		more = true;

	while (more)
	{
		switch (database->state)
		{
			case DATABASE_DOWN:
				more = exec_now() >= database->retry_at;
				if (more)
					start_connecting(context);
				break;
			case DATABASE_CONNECTING:
				more = go_on_connecting(context);
				break;
			case DATABASE_IDLE:
				more = go_on_idle(context);
				break;
			case DATABASE_BUSY:
				more = go_on_reading(context);
				break;
		}
	}
}

int64_t
database_next_time(const Context *context)
{
	const Database *database = context->database;

	if (database->state == DATABASE_DOWN)
		return database->retry_at;
	if (database->state == DATABASE_IDLE)
		return claims_next_time(context);
	return database->deadline;
}

bool
database_wants_poll(const Context *context, struct curl_waitfd *fd)
{
	const Database *database = context->database;

	if (database->conn == NULL || PQsocket(database->conn) < 0)
		return false;
	fd->fd = PQsocket(database->conn);
	fd->revents = 0;
	fd->events = CURL_WAIT_POLLIN;
	if (database->state == DATABASE_CONNECTING)
		fd->events = database->connect_events == POLLOUT ? CURL_WAIT_POLLOUT : CURL_WAIT_POLLIN;
	else if (PQflush(database->conn) > 0)
		fd->events |= CURL_WAIT_POLLOUT;
	return true;
}

bool
database_settled(const Context *context)
{
	return context->succeeded.count == 0 && context->failed.count == 0 &&
		context->database->sending.count == 0;
}
