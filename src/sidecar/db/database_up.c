/*
 * database_up.c
 *		Does the database answer?  What it is, and who wants to know.
 *
 * Up is a connection for calls that is up.  A server that hangs keeps its
 * connections, so a probe goes over them every few seconds, and tells how far
 * the database's clock is from ours.  A standby answers what only reads, which
 * is not enough for us to serve: it says what it is when a connection is made,
 * and by the probe when it is promoted, which breaks no connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "db/database_internal.h"

#define PROBE_US 5000000
#define FIRST_PROBE_US 500000	/* tells the database's clock */
#define PROBE_STANDBY_US 1000000	/* it may be promoted */
#define PROBE_LIMIT_US 3000000

static bool up;
static bool answering = true;
static bool standby;
static char problem[600] = "not connected yet";
static void (*watchers[8]) (bool up);
static int	watcher_count;
static LoopTimer probe_timer;
static bool probe_sent;
static int64_t clock_ahead_us;	/* the database's is so much before ours */
static bool text_is_bytes;

static double
read_up(void)
{
	return db_serves();
}

static Metric up_metric = {"database_up", METRIC_GAUGE, "Whether PostgreSQL answers, and is no standby.", .read = read_up};

bool
db_up(void)
{
	return up && answering;
}

bool
db_serves(void)
{
	return db_up() && !standby;
}

const char *
db_problem(void)
{
	if (db_up() && standby)
		return "PostgreSQL is a standby, on which nothing can be written";
	return up ? "PostgreSQL does not answer" : problem;
}

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
db_watch(void (*changed) (bool up))
{
	if (watcher_count < 8)
		watchers[watcher_count++] = changed;
}

/* The log, and watchers, of what has changed. */
static void
tell_changes(void)
{
	static bool was_up;
	static bool was_serving;
	static bool was_standby;
	int			i;

	if (db_up() && standby && !was_standby)
		log_line(LOG_WARNING, "%s: see that --db names the primary (target_session_attrs=primary), or promote it", db_problem());
	else if (db_up() != was_up || (db_up() && !standby && was_standby))
		log_line(was_up && !db_up() ? LOG_WARNING : LOG_INFO, was_up && !db_up() ? "PostgreSQL is away: %s" : "PostgreSQL answers%s",
				 was_up && !db_up() ? db_problem() : "");
	was_up = db_up();
	was_standby = was_up && standby;
	if (db_serves() == was_serving)
		return;
	was_serving = db_serves();
	for (i = 0; i < watcher_count; i++)
		watchers[i] (was_serving);
}

/* Before the connection that has told it is said to be up. */
void
db_note_standby(bool now)
{
	standby = now;
	if (db_up())
		tell_changes();
}

void
conn_state_changed(DbConn *conn, const char *why)
{
	static bool told;			/* the log has said something of it */
	bool		was = db_up();
	bool		was_up = up;
	DbCall	   *call;
	DbCall	   *all = NULL;
	DbCall	  **end = &all;
	int			i;

	if (why != NULL)
		snprintf(problem, sizeof(problem), "%s", why);
	up = db_lane_is_up();
	if (conn->lane == LANE_CALLS && dbconn_is_up(conn))
		answering = true;
	tell_changes();
	for (i = 0; up && !was_up && i < db_conn_count(); i++)
		dbconn_hurry(db_conn_at(i));
	/* At the start it may be away without ever having been there. */
	if (!told && !was && !up && why != NULL)
		log_line(LOG_WARNING, "PostgreSQL is away: %s", problem);
	told = told || up || why != NULL;
	if (dbconn_is_up(conn) || conn->failures == 0)
		return;

	/* It can not be had: its queue goes elsewhere, or nowhere. */
	while ((call = queue_pop_any(conn)) != NULL)
	{
		*end = call;
		end = &call->next;
	}
	while ((call = all) != NULL)
	{
		all = call->next;
		dbcall_queue(call);
	}
}

/* On the lane of calls: what is slow elsewhere says nothing about them. */
static DbStatement probe_statement = {"gt_probe",
	"SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint, pg_catalog.pg_is_in_recovery(),"
	" EXISTS (SELECT FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
	" WHERE e.extname = 'garbagetruck' AND n.nspname = ANY (pg_catalog.current_schemas(false)))",
0, DB_REPEATABLE};
static int64_t probe_at_us;		/* when it was sent, by our own clock */
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

/* It was read some time between the question and now, between which this process may have been stopped. */
static void
note_clock(int64_t read)
{
	int64_t		least = read - own_clock();
	int64_t		most = read - probe_at_us;

	if (clock_ahead_us < least)
		clock_ahead_us = least;
	if (clock_ahead_us > most)
		clock_ahead_us = most;
}

/* The extension is not where these sessions look for it: was it dropped?  New ones find it, or say that it is not there. */
static void
connect_anew(void *arg)
{
	int			i;

	for (i = 0; i < db_conn_count(); i++)
		dbconn_renew(db_conn_at(i));
	timer_start(&probe_timer, PROBE_US, probe, NULL);
}

static void
probe_answered(void *arg, const DbOutcome *outcome)
{
	probe_sent = false;
	answering = outcome->result != NULL || !up;
	if (outcome->result != NULL)
	{
		note_clock(strtoll(PQgetvalue(outcome->result, 0, 0), NULL, 10));
		standby = PQgetvalue(outcome->result, 0, 1)[0] == 't';
	}
	tell_changes();
	if (outcome->result != NULL && PQgetvalue(outcome->result, 0, 2)[0] == 'f')
		timer_start(&probe_timer, 0, connect_anew, NULL);
	else
		timer_start(&probe_timer, standby ? PROBE_STANDBY_US : PROBE_US, probe, NULL);
}

/*
 * A server that hangs keeps its connections.  The probe that is late stays in
 * flight: its answer tells that the server is back.
 */
static void
probe(void *arg)
{
	int			i;

	for (i = 0; i < db_conn_count(); i++)
		dbconn_check(db_conn_at(i));
	timer_start_patient(&probe_timer, PROBE_LIMIT_US, probe, NULL);
	if (probe_sent)
	{
		answering = false;
		tell_changes();
		return;
	}
	probe_sent = true;
	probe_at_us = own_clock();
	db_call(&probe_statement, NULL, NULL, probe_answered, NULL);
}

void
db_up_start(void)
{
	metric_register(&up_metric);
	timer_start(&probe_timer, FIRST_PROBE_US, probe, NULL);
}

void
db_up_stop(void)
{
	timer_stop(&probe_timer);
}
