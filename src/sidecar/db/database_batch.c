/*
 * database_batch.c
 *		Sends the calls that wait on a connection and sorts out the results.
 *
 * A batch is a pipeline of segments, each ended by a sync: an implicit
 * transaction.  As a rule it has one segment with all calls that wait.  When a
 * segment fails at one call, that one gets its error; those before it, which
 * were rolled back with it, and those after it, which the server skipped, run
 * again as two segments of their own.  So each call runs at most twice for
 * others' errors, however many fail.
 *
 * A result is handed on when the sync after it has come back: until then the
 * commit can still fail.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "db/database_internal.h"

#define BATCH_BYTES (1024 * 1024)
#define TURN_MS 3000			/* to wait for a lock, before others have their turn */

Metric		db_calls_metric = {"database_calls_total", METRIC_COUNTER, "SQL calls sent to PostgreSQL, repetitions too."};
Metric		db_batches_metric = {"database_batches_total", METRIC_COUNTER, "Pipelined batches sent to PostgreSQL."};
Metric		db_reruns_metric = {"database_reruns_total", METRIC_COUNTER, "Calls that ran again because another one of their batch failed."};
Metric		db_retries_metric = {"database_retries_total", METRIC_COUNTER, "Calls that ran again after a deadlock, a serialisation failure or a lost connection."};
Metric		db_lock_waits_metric = {"database_lock_waits_total", METRIC_COUNTER, "Calls that waited for somebody else's lock."};
Metric		db_batch_seconds = {"database_batch_seconds", METRIC_HISTOGRAM, "Time from sending a batch to its last answer.", .bounds = metric_latency_bounds};

static void send_batch(void *arg);

void
pump_soon(DbConn *conn)
{
	if (conn->state == DBC_IDLE && (conn->turns != NULL || conn->again != NULL ||
									(conn->lane == LANE_WAITING && db_somebody_waits())))
		task_defer(&conn->pump, send_batch, conn);
}

static Segment *
make_segment(int size)
{
	/* Without it, calls would be lost without an answer. */
	Segment    *segment = needed(calloc(1, sizeof(Segment) + sizeof(DbCall *) * (size_t) size));

	segment->failed = -1;
	return segment;
}

static void
append_segment(Segment **list, Segment *segment)
{
	while (*list != NULL)
		list = &(*list)->next;
	segment->next = NULL;
	*list = segment;
}

/* ---- sending ---- */

/* The name under which a statement is prepared on a connection. */
static const char *
statement_name(const DbConn *conn, const DbStatement *statement, char *buffer, size_t size)
{
	if (conn->generation[statement->number] == 0)
		return statement->name;
	snprintf(buffer, size, "%s_%d", statement->name, conn->generation[statement->number]);
	return buffer;
}

static void
put_in_flight(DbConn *conn, Segment *segment)
{
	segment->next = NULL;
	*conn->in_flight_end = segment;
	conn->in_flight_end = &segment->next;
}

/* Prepare what the calls of a segment need and the connection does not have. */
static bool
send_preparations(DbConn *conn, const Segment *segment)
{
	char		name[80];
	int			i;

	for (i = 0; i < segment->count; i++)
	{
		DbStatement *statement = segment->calls[i]->statement;
		Segment    *preparation;

		if (conn->prepared[statement->number])
			continue;
		conn->prepared[statement->number] = true;
		preparation = make_segment(0);
		preparation->prepare = statement;
		put_in_flight(conn, preparation);
		if (!PQsendPrepare(conn->pg, statement_name(conn, statement, name, sizeof(name)), statement->sql, 0, NULL) ||
			!PQpipelineSync(conn->pg))
			return false;
	}
	return true;
}

/*
 * On the lanes where calls may take long, bound the statement by the client's
 * patience.  A setting that is local to the transaction ends with it.
 */
static bool
send_limit(DbConn *conn, Segment *segment)
{
	int64_t		limit = db_call_limit_us;
	int64_t		deadline = segment->calls[0]->deadline_us;
	int64_t		left = deadline - loop_clock();
	char		text[32];
	char		turn[32];
	const char *params[2] = {text, turn};

	if (conn->lane == LANE_WAITING)
		limit -= loop_now() - segment->calls[0]->waits_since_us;
	if (deadline != 0 && left < limit)
		limit = left;
	if (limit < 1000)
		limit = 1000;
	snprintf(text, sizeof(text), "%lld", (long long) (limit / 1000));
	snprintf(turn, sizeof(turn), "%d", conn->lane == LANE_WAITING ? TURN_MS : 0);
	return PQsendQueryParams(conn->pg, "SELECT pg_catalog.set_config('statement_timeout', $1, true),"
							 " pg_catalog.set_config('lock_timeout', $2, true)",
							 2, NULL, params, NULL, NULL, 0);
}

static bool
same_caller(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/*
 * Is this call for another caller than the one before it, or in another order?
 * At the begin of a transaction there is no caller.
 */
static bool
changes_settings(const Segment *segment, int i)
{
	const DbCall *call = segment->calls[i];
	const DbCall *before = i > 0 ? segment->calls[i - 1] : NULL;

	return !same_caller(call->caller, before != NULL ? before->caller : NULL) ||
		(call->statement->flags & DB_NEWEST) != (before != NULL ? before->statement->flags & DB_NEWEST : 0);
}

/* How the calls from here on are meant, to the end of the transaction: nothing of it is left in the session. */
static bool
send_settings(DbConn *conn, const DbCall *call)
{
	const char *params[2] = {call->caller != NULL ? call->caller : "", call->statement->flags & DB_NEWEST ? "on" : "off"};

	return PQsendQueryParams(conn->pg, "SELECT pg_catalog.set_config('garbagetruck.caller', $1, true),"
							 " pg_catalog.set_config('garbagetruck.newest_first', $2, true)",
							 2, NULL, params, NULL, NULL, 0) == 1;
}

/* The segment's next result is of the call at its position, unless another comes before that. */
static void
next_position(Segment *segment)
{
	segment->position++;
	segment->telling = segment->position >= 0 && segment->position < segment->count &&
		segment->calls[segment->position]->has_settings;
}

static bool
send_segment(DbConn *conn, Segment *segment)
{
	char		name[80];
	int			i;

	for (i = 0; i < segment->count; i++)
		segment->calls[i]->has_settings = changes_settings(segment, i);

	if (!send_preparations(conn, segment))
	{
		put_in_flight(conn, segment);
		return false;
	}
	put_in_flight(conn, segment);
	segment->position = -1;
	if (conn->lane == LANE_CALLS)
		next_position(segment);
	else if (!send_limit(conn, segment))
		return false;
	for (i = 0; i < segment->count; i++)
	{
		DbCall	   *call = segment->calls[i];

		if (call->has_settings && !send_settings(conn, call))
			return false;
		if (!PQsendQueryPrepared(conn->pg, statement_name(conn, call->statement, name, sizeof(name)),
								 call->statement->params, call->params, NULL, NULL,
								 (call->statement->flags & DB_BINARY) ? 1 : 0))
			return false;
	}
	metric_add(&db_calls_metric, segment->count);
	return PQpipelineSync(conn->pg) == 1;
}

/*
 * Is it too late to start a call, or in vain?  Then it is over.  By the clock
 * and not by the turn's time: the call may have come in this turn, and its
 * deadline have passed since.
 */
static bool
drop_late(DbCall *call)
{
	if (call->done != NULL && (call->deadline_us == 0 || call->deadline_us > loop_clock()))
		return false;
	dbcall_fail(call, "57014", "the time limit passed before the call could be started", false);
	return true;
}

/* The calls that a failed batch took along were rolled back: running again is a new start. */
static void
drop_late_of(Segment *segment)
{
	int			count = segment->count;
	int			i;

	segment->count = 0;
	for (i = 0; i < count; i++)
	{
		if (!drop_late(segment->calls[i]))
			segment->calls[segment->count++] = segment->calls[i];
	}
}

/* What waits, as one segment; NULL: nothing does. */
static Segment *
gather(DbConn *conn)
{
	int			most = conn->lane == LANE_CALLS ? (int) db_batch_max : 1;
	Segment    *segment = NULL;
	size_t		bytes = 0;

	turns_begin_batch(conn);
	while ((segment == NULL || segment->count < most) && bytes < BATCH_BYTES)
	{
		DbCall	   *call = queue_pop(conn);

		if (call == NULL)
			break;
		if (drop_late(call) || dbcall_postpone_large(call))
			continue;
		if (segment == NULL)
			segment = make_segment(most);
		call->in_flight = true;
		if (conn->lane == LANE_WAITING)
			dbconn_waits(conn, call);
		bytes += call->large ? BATCH_BYTES / 2 : call->bytes;
		segment->calls[segment->count++] = call;
	}
	return segment;
}

static void
send_batch(void *arg)
{
	DbConn	   *conn = arg;
	Segment    *segment;
	bool		ok = true;

	if (conn->state != DBC_IDLE)
		return;
	while (ok && conn->again != NULL)
	{
		segment = conn->again;
		conn->again = segment->next;
		drop_late_of(segment);
		if (segment->count > 0)
			ok = send_segment(conn, segment);
		else
			segment_free(segment);
	}
	if (ok && (segment = gather(conn)) != NULL)
		ok = send_segment(conn, segment);
	if (conn->in_flight == NULL)
		return;
	metric_add(&db_batches_metric, 1);
	conn->state = DBC_BUSY;
	conn->sent_us = conn->heard_us = loop_now();
	if (!ok || PQflush(conn->pg) < 0)
	{
		dbconn_lost(conn, PQerrorMessage(conn->pg));
		return;
	}
	dbconn_watch(conn);
}

/* ---- results ---- */

static const char *
sqlstate_of(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL ? sqlstate : "";
}

static void
rerun(DbConn *conn, Segment *from, int begin, int end)
{
	Segment    *segment;
	int			i;

	if (begin >= end)
		return;
	segment = make_segment(end - begin);
	for (i = begin; i < end; i++)
	{
		PQclear(from->calls[i]->result);
		from->calls[i]->result = NULL;
		segment->calls[segment->count++] = from->calls[i];
	}
	metric_add(&db_reruns_metric, end - begin);
	append_segment(&conn->again, segment);
}

/*
 * What to do with the call whose statement failed.  The error may be worth
 * another try; only then the call is not answered.
 */
static void
judge_culprit(DbConn *conn, DbCall *call, PGresult *error)
{
	const char *sqlstate = sqlstate_of(error);
	bool		serialisation = strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0;
	bool		stale = strcmp(sqlstate, "26000") == 0 ||
		(strcmp(sqlstate, "0A000") == 0 && strstr(PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY), "cached plan") != NULL);

	call->in_flight = false;
	PQclear(call->result);
	call->result = NULL;
	if (call->done == NULL)
	{
		dbcall_fail(call, sqlstate, "", false);
		return;
	}
	if (stale && conn->prepare_sqlstate[0] != '\0' && strcmp(sqlstate, "26000") == 0)
	{
		char		why[6];

		memcpy(why, conn->prepare_sqlstate, sizeof(why));
		conn->prepare_sqlstate[0] = '\0';
		dbcall_fail(call, why, conn->prepare_message, false);
		return;
	}
	if (stale && call->attempts < MAX_ATTEMPTS)
	{
		if (conn->prepared[call->statement->number])
			conn->generation[call->statement->number]++;
		conn->prepared[call->statement->number] = false;
		call->attempts++;
		dbcall_queue_on(call, conn);
		return;
	}
	if (serialisation && call->attempts + 1 < MAX_ATTEMPTS)
	{
		metric_add(&db_retries_metric, 1);
		dbcall_retry(call);
		return;
	}
	if (strcmp(sqlstate, "55P03") == 0 && !call->no_wait &&
		(conn->lane == LANE_CALLS ? !call->waited :
		 conn->lane == LANE_WAITING && call->waits_since_us + db_call_limit_us - TURN_MS * 1000 / 10 > loop_now()))
	{
		if (conn->lane == LANE_CALLS)
			metric_add(&db_lock_waits_metric, 1);
		dbcall_wait_for_lock(call);
		return;
	}
	/* Ended by us or by an administrator before it could commit: nothing happened. */
	if (strncmp(sqlstate, "57P0", 4) == 0 && call->attempts + 1 < MAX_ATTEMPTS)
	{
		metric_add(&db_retries_metric, 1);
		call->attempts++;
		dbcall_queue(call);
		return;
	}
	dbcall_answer(call, error);
}

static void
finish_preparation(DbConn *conn, Segment *segment)
{
	if (segment->error == NULL)
		return;
	conn->prepared[segment->prepare->number] = false;
	snprintf(conn->prepare_sqlstate, sizeof(conn->prepare_sqlstate), "%s", sqlstate_of(segment->error));
	snprintf(conn->prepare_message, sizeof(conn->prepare_message), "%s",
			 PQresultErrorField(segment->error, PG_DIAG_MESSAGE_PRIMARY));
}

/* The sync of a segment came: its calls have an outcome, or run again. */
static void
finish_segment(DbConn *conn, Segment *segment)
{
	int			i;

	if (segment->prepare != NULL)
	{
		finish_preparation(conn, segment);
		return;
	}
	if (segment->error == NULL)
	{
		for (i = 0; i < segment->count; i++)
		{
			PGresult   *result = segment->calls[i]->result;

			segment->calls[i]->result = NULL;
			dbcall_answer(segment->calls[i], result);
			PQclear(result);
		}
		return;
	}
	/* The commit itself failed, or the time limit: who is to blame is found one by one. */
	if (segment->failed < 0 || segment->failed >= segment->count)
	{
		if (segment->count == 1)
		{
			judge_culprit(conn, segment->calls[0], segment->error);
			return;
		}
		for (i = 0; i < segment->count; i++)
			rerun(conn, segment, i, i + 1);
		return;
	}
	rerun(conn, segment, 0, segment->failed);
	rerun(conn, segment, segment->failed + 1, segment->count);
	judge_culprit(conn, segment->calls[segment->failed], segment->error);
}

/* One result of the pipeline.  Takes it over. */
static void
take_result(DbConn *conn, PGresult *result)
{
	Segment    *segment = conn->in_flight;
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_PIPELINE_SYNC)
	{
		PQclear(result);
		conn->in_flight = segment->next;
		if (conn->in_flight == NULL)
			conn->in_flight_end = &conn->in_flight;
		finish_segment(conn, segment);
		segment_free(segment);
		return;
	}
	if (status == PGRES_FATAL_ERROR && segment->error == NULL && sqlstate_of(result)[0] != '\0')
	{
		segment->error = result;
		segment->failed = segment->prepare == NULL ? segment->position : -1;
		return;
	}
	if (status == PGRES_TUPLES_OK && segment->prepare == NULL && !segment->telling && segment->position >= 0 && segment->position < segment->count)
	{
		PQclear(segment->calls[segment->position]->result);
		segment->calls[segment->position]->result = result;
		return;
	}
	PQclear(result);
}

/*
 * Has a result come?  Without the memory for a sync libpq loses it, takes later
 * ones for it and waits for the last one for ever: then the connection is lost.
 * The words are libpq's, as those of the server are left out (finish_setup()).
 */
static bool
next_is_there(DbConn *conn)
{
	bool		busy = PQisBusy(conn->pg);

	if (strstr(PQerrorMessage(conn->pg), "out of memory") == NULL)
		return !busy;
	dbconn_lost(conn, PQerrorMessage(conn->pg));
	return false;
}

void
batch_receive(DbConn *conn)
{
	while (conn->in_flight != NULL && next_is_there(conn))
	{
		PGresult   *result = PQgetResult(conn->pg);

		conn->heard_us = loop_now();
		if (result != NULL)
			take_result(conn, result);
		else if (conn->in_flight != NULL && conn->in_flight->telling)
			conn->in_flight->telling = false;
		else if (conn->in_flight != NULL)
			next_position(conn->in_flight);
		if (PQstatus(conn->pg) == CONNECTION_BAD)
			return;
	}
	if (conn->in_flight == NULL && conn->state == DBC_BUSY)
	{
		metric_observe(&db_batch_seconds, loop_clock() - conn->sent_us);
		conn->state = DBC_IDLE;
		if (conn->waits && conn->again == NULL)
			dbconn_waits(conn, NULL);
		dbconn_watch(conn);
		if (conn->stuck)
		{
			conn->stuck = false;
			conn->failures = 0;
			conn_state_changed(conn, NULL);
		}
		pump_soon(conn);
	}
}
