/*
 * claims.c
 *		Claiming: which handlers, for which hosts, how often.
 *
 * The claim statement makes everything that needs JSON to be understood: the
 * body of a request, the scalars of the payload that the target's placeholders
 * name, the metadata as pairs.  So there is no JSON parser here.
 *
 * No attempt is used up by waiting: what can not wait where it would have to is
 * given back (hosts.c).
 *
 * What is due first is claimed first.  Where nearly all of that is for hosts that
 * take no more, what they have due behind it is looked through, oldest first, and
 * what is for other hosts claimed by its number: to look costs a fiftieth of
 * claiming and giving back.  What came meanwhile is looked at many times a
 * second, and all of it again after a while, as some comes late (a transaction
 * that lasted).  It is a hint: what is claimed by it is judged as any other.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/object_types.h"
#include "executors/calls.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/util.h"

#define BATCH_CLAIM_MAX	400
#define BATCH_TURN_AWAY 500	/* where what is due is to be given back, to come to what is behind it */
#define BATCH_BYTES		(2 * 1024 * 1024)	/* an answer as large as that was enough */
#define DENIED_MS		5000	/* how often a refused handler is tried */
#define PAUSE_MIN_MS	20		/* between claims without rows */
#define PAUSE_MAX_MS	500
#define PAUSE_ERROR_MS	2000
#define LOOK_ROWS		30000	/* at once */
#define LOOK_TEXT		"300"	/* of a value: its host is at the beginning */
#define LOOK_PAUSE_MS	50
#define LOOK_ANEW_MS	1000	/* until all of it is looked at again, */
#define LOOK_TIMES		4		/* and so many times as long as it took */

/* so that pairs can be told apart, see pairs_parse() */
#define SQL_PART(value) "replace(replace(replace(" value ", '%', '%25'), ',', '%2C'), '=', '%3D')"

#define WHEN_SPELT(name, spelling) " WHEN '" #name "' THEN '" #spelling "'"

static const char claim_sql[] =
"SELECT c.cleanup_id, c.attempt, c.object_id, c.object_type, c.handler, c.kind, c.command,"
" c.lease_id, c.service_id,"
" CASE WHEN c.kind = 'http' AND c.handler = 'http_endpoint' THEN"
"   json_build_object('lease_id', c.lease_id, 'object_id', c.object_id, 'object_type',"
"     CASE c.object_type" FOR_OBJECT_TYPES(WHEN_SPELT) " ELSE 'Custom' END,"
"     'service_id', coalesce(c.service_id, ''), 'metadata', coalesce(c.metadata, '{}'::jsonb),"
"     'payload', coalesce(c.payload ->> 'payload', ''))::text"
"   WHEN c.kind = 'http' THEN row_to_json(c)::text"
"   WHEN c.kind = 'grpc' AND c.handler = 'grpc_endpoint' THEN coalesce(c.payload ->> 'payload', '')"
"   WHEN c.kind = 'grpc' THEN coalesce(c.payload::text, '') END,"
" CASE WHEN strpos(c.command, '{payload.') > 0 THEN (SELECT string_agg(" SQL_PART("k.key") " || '=' || " SQL_PART("c.payload ->> k.key") ", ',')"
"   FROM (SELECT DISTINCT m[1] AS key FROM regexp_matches(c.command, '[{]payload[.]([^{}]+)[}]', 'g') AS m) AS k"
"   WHERE jsonb_typeof(c.payload -> k.key) IN ('string', 'number', 'boolean')) END,"
" CASE WHEN c.kind = 'grpc' AND jsonb_typeof(c.metadata) = 'object' THEN"
"   (SELECT string_agg(" SQL_PART("e.key") " || '=' || " SQL_PART("coalesce(e.value, '')") ", ',')"
"     FROM jsonb_each_text(c.metadata) AS e) END"
" FROM gt_claim(handlers => $1::text[], max_items => $2::int, visibility => $3::interval, cleanup_ids => $4::bigint[]) AS c";

/* what a handler has due after a time, and of that time after a number; with what its target names (target_columns()) */
static const char look_sql[] =
" FROM gt_garbage AS g WHERE g.handler = $1 AND g.due_at >= $2::timestamptz AND g.due_at <= (SELECT gt_clock())"
" AND (g.due_at > $2::timestamptz OR g.cleanup_id > $3::bigint) ORDER BY g.due_at, g.cleanup_id LIMIT $4::int";

/* The next claim is after so long, or when a handler is not held any more. */
static void
pause_claims(Context *context, int64_t for_ms)
{
	int64_t		now = exec_now();
	int64_t		held_until = handlers_held_until(context, now);

	context->database->claim_at = now + for_ms < held_until ? now + for_ms : held_until;
}

/* All that may be claimed of; or, of one handler, what was picked. */
static bool
send_claim_of(Context *context, ArrayParam *names, ArrayParam *ids)
{
	char		size[16];
	char		visibility[40];
	const char *values[4] = {param_end(names), size, visibility, ids != NULL ? param_end(ids) : NULL};

	snprintf(size, sizeof(size), "%d", context->database->claim_size);
	snprintf(visibility, sizeof(visibility), "%d milliseconds", context->settings.visibility_ms);
	context->database->claiming_picked = ids != NULL;
	return send_statement(context, STATEMENT_CLAIM, claim_sql, 4, values);
}

static bool
send_claim(Context *context)
{
	Database   *database = context->database;
	Handler    *untried = handlers_untried(context, exec_now());
	ArrayParam	names;
	bool		sent;
	int			room = context->settings.max_in_flight + MAX_WAITING - context->in_flight - context->waiting;

	free(database->claiming);
	database->claiming = NULL;
	param_begin(&names);
	if (untried != NULL)
	{
		database->claiming = exec_strdup(untried->name);
		param_add(&names, untried->name);
	}
	else if (!handlers_claimable(context, &names))
	{
		pause_claims(context, PAUSE_MAX_MS);
		param_free(&names);
		return false;
	}
	/* no more than would wait for one host */
	database->claim_size = MAX_WAITING / 2 - context->waiting;
	if (database->claim_size > database->claim_batch)
		database->claim_size = database->claim_batch;
	if (database->claim_size < BATCH_CLAIM)
		database->claim_size = BATCH_CLAIM;
	if (database->turning_away)
		database->claim_size = BATCH_TURN_AWAY;
	else if (room < database->claim_size)
		database->claim_size = room;
	sent = send_claim_of(context, &names, NULL);
	param_free(&names);
	return sent;
}

static char *
copy_value(PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : exec_strdup(PQgetvalue(result, row, column));
}

static void
take_claim(Context *context, PGresult *result, int row)
{
	Call	   *call;
	const Handler *handler = handler_find(context, PQgetvalue(result, row, 4));
	int			kind = 0;

	while (kind < EXEC_KINDS && strcmp(executor_kind_names[kind], PQgetvalue(result, row, 5)) != 0)
		kind++;
	if (kind == EXEC_KINDS)
		return;					/* changed a moment ago: not ours any more */
	call = call_create(context);
	call->kind = (ExecutorKind) kind;
	call->cleanup_id = strtoll(PQgetvalue(result, row, 0), NULL, 10);
	call->attempt = atoi(PQgetvalue(result, row, 1));
	call->object_id = exec_strdup(PQgetvalue(result, row, 2));
	call->object_type = exec_strdup(PQgetvalue(result, row, 3));
	call->handler = exec_strdup(PQgetvalue(result, row, 4));
	call->command = exec_strdup(PQgetvalue(result, row, 6));
	call->lease_id = copy_value(result, row, 7);
	call->service_id = copy_value(result, row, 8);
	call->body = copy_value(result, row, 9);
	call->payload_count = pairs_parse(PQgetisnull(result, row, 10) ? NULL : PQgetvalue(result, row, 10), &call->payload);
	call->metadata_count = pairs_parse(PQgetisnull(result, row, 11) ? NULL : PQgetvalue(result, row, 11), &call->metadata);
	call->timeout_ms = handler != NULL ? handler->timeout_ms : 30000;
	if (call->timeout_ms < 100)
		call->timeout_ms = 100;
	else if (call->timeout_ms > 3600 * 1000)
		call->timeout_ms = 3600 * 1000;
	call_claimed(context, call, context->database->sent_at);
	context->stats.claimed++;
	if (!call_is_lost(context, call))
	{
		call_accept(context, call);
		return;
	}
	call->final = true;
	snprintf(call->error, sizeof(call->error), "its text has a character that UTF-8 does not have: it can not be told to the target");
	call_fail(context, call, false);
}

/* A claim was refused: by rights, or because the database is a paused copy. */
static void
take_claim_error(Context *context, PGresult *result)
{
	Database   *database = context->database;
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	Handler    *handler = database->claiming != NULL ? handler_find(context, database->claiming) : NULL;

	database->claim_at = exec_now() + PAUSE_ERROR_MS;
	if (sqlstate != NULL && strcmp(sqlstate, "42501") == 0)
	{
		database->claim_at = 0;
		if (handler == NULL)
			handlers_doubt(context);
		else
		{
			handler->state = HANDLER_DENIED;
			handler->retry_at = exec_now() + DENIED_MS;
			context->problems_changed = true;
		}
	}
	else if (sqlstate != NULL && (strcmp(sqlstate, "GT007") == 0 || strcmp(sqlstate, "22023") == 0))
	{
		/* dropped, or of another kind now */
		if (handler != NULL)
		{
			handler->state = HANDLER_DENIED;
			handler->retry_at = exec_now() + DENIED_MS;
		}
		handlers_doubt(context);
		database->handlers_at = 0;
	}
	else
		exec_problem(context, PROBLEM_CLAIM, "The executors could not claim: %s", message != NULL ? message : PQresultErrorMessage(result));
}

/*
 * Twice as much the next time, as long as there is as much and room for it.  Is
 * most of it for targets that take no more, what others have due is behind that.
 */
static void
choose_batch(Context *context, const PGresult *result, uint64_t given_back)
{
	Database   *database = context->database;
	bool		turned_away = database->turning_away;
	int			rows = PQntuples(result);

	database->turning_away = rows == database->claim_size && 10 * given_back > 9 * (uint64_t) rows &&
		PQresultMemorySize(result) <= BATCH_BYTES;
	if (database->turning_away && !turned_away)
		handlers_look_anew(context);
	if (given_back > 0 || PQresultMemorySize(result) > BATCH_BYTES)
		database->claim_batch = BATCH_CLAIM;
	else if (rows == database->claim_size && database->claim_batch < BATCH_CLAIM_MAX)
		database->claim_batch *= 2;
}

static void
take_claim_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	uint64_t	given_back = context->stats.given_back;
	int			rows = PQntuples(result);
	int			row;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		take_claim_error(context, result);
		return;
	}
	exec_problem(context, PROBLEM_CLAIM, NULL);
	for (row = 0; row < rows; row++)
		take_claim(context, result, row);
	if (database->claiming_picked)
		return;
	choose_batch(context, result, context->stats.given_back - given_back);
	if (database->claiming != NULL)
	{
		Handler    *handler = handler_find(context, database->claiming);

		if (handler != NULL)
		{
			handler->state = HANDLER_OK;
			context->problems_changed = true;
		}
		database->claim_at = 0;
		return;
	}
	if (rows > 0)
		database->claim_pause = PAUSE_MIN_MS;
	if (rows >= database->claim_size)
		database->claim_at = 0;
	else
		pause_claims(context, database->claim_pause);
	if (rows == 0 && (database->claim_pause *= 2) > PAUSE_MAX_MS)
		database->claim_pause = PAUSE_MAX_MS;
}

/* --- looking for what hosts with room have due, where others take no more --- */

/* The next member of the payload that a command names, behind *at; NULL: none. */
static const char *
next_key(const char **at, size_t *len)
{
	const char *key = strstr(*at, "{payload.");

	if (key == NULL)
		return NULL;
	key += strlen("{payload.");
	*len = strcspn(key, "}");
	*at = key + *len;
	return key;
}

static const char *const call_columns[] = {"object_id", "object_type", "lease_id", "service_id"};
#define CALL_COLUMNS ((int) (sizeof(call_columns) / sizeof(call_columns[0])))
#define FIRST_KEY (2 + CALL_COLUMNS)

/* All that the target of a handler may be made of, at most so much of each that its host is in it. */
static void
target_columns(Database *database, const char *command, Buffer *sql)
{
	const char *key;
	size_t		len;
	int			i;

	buffer_text(sql, "SELECT g.cleanup_id, g.due_at");
	for (i = 0; i < CALL_COLUMNS; i++)
	{
		if (strstr(command, call_columns[i]) != NULL)
			buffer_printf(sql, ", left(g.%s::text, " LOOK_TEXT ")", call_columns[i]);
		else
			buffer_text(sql, ", NULL");
	}
	while ((key = next_key(&command, &len)) != NULL)
	{
		char	   *literal = PQescapeLiteral(database->conn, key, len);

		buffer_printf(sql, ", left(g.payload ->> %s, " LOOK_TEXT ")", literal != NULL ? literal : "''");
		PQfreemem(literal);
	}
}

static bool
send_look(Context *context, int64_t now)
{
	Database   *database = context->database;
	Handler    *handler = database->turning_away ? handlers_to_look(context, now) : NULL;
	Buffer		sql = {NULL, 0, 0};
	char		after[24];
	char		rows[16];
	const char *values[4];
	bool		sent;

	if (handler == NULL)
		return false;
	if (handler->looked_to[0] == '\0')
	{
		handler->look_began = now;
		handler->look_anew_at = 0;
		handler->looked_id = 0;
		strcpy(handler->looked_to, "-infinity");
	}
	database->looks++;
	free(database->looking);
	database->looking = exec_strdup(handler->name);
	snprintf(after, sizeof(after), "%lld", (long long) handler->looked_id);
	snprintf(rows, sizeof(rows), "%d", LOOK_ROWS);
	values[0] = handler->name;
	values[1] = handler->looked_to;
	values[2] = after;
	values[3] = rows;
	target_columns(database, handler->command, &sql);
	buffer_text(&sql, look_sql);
	sent = send_statement(context, STATEMENT_LOOK, sql.data, 4, values);
	buffer_free(&sql);
	return sent;
}

/* Is there room for it where it would wait?  Nobody's is where nothing is known: it is found out by its call, as is what is wrong with it. */
static bool
has_room(Context *context, Call *call)
{
	Host	   *host = kind_ops[call->kind]->prepare(context, call) ? host_find(context, call->host_name, call->port) : NULL;

	if (host == NULL)
		return true;
	if (host->picked_in != context->database->looks)
		host->picked = 0;
	host->picked_in = context->database->looks;
	return host->waiting.count + host->picked++ < host_room(context, host);
}

/* A call of which only that is known that its target needs. */
static bool
is_for_others(Context *context, const Handler *handler, PGresult *result, int row)
{
	Call	   *call = call_create(context);
	char	  **const texts[] = {&call->object_id, &call->object_type, &call->lease_id, &call->service_id};
	const char *command = handler->command;
	const char *key;
	size_t		len;
	bool		room;
	int			i;

	call->kind = handler->kind;
	call->command = exec_strdup(command);
	for (i = 0; i < CALL_COLUMNS; i++)
		*texts[i] = copy_value(result, row, 2 + i);
	call->payload = exec_alloc((size_t) PQnfields(result) * sizeof(Pair));
	for (i = FIRST_KEY; i < PQnfields(result) && (key = next_key(&command, &len)) != NULL; i++)
	{
		Pair	   *pair = &call->payload[call->payload_count++];

		pair->name = exec_alloc(len + 1);
		memcpy(pair->name, key, len);
		pair->value = exec_strdup(PQgetvalue(result, row, i));
	}
	room = has_room(context, call);
	call_free(context, call);
	return room;
}

/* All that there was has been seen: when to look for more, and when at all of it. */
static void
looked_through(Handler *handler, int64_t now)
{
	int64_t		took = now - handler->look_began;

	handler->look_at = now + LOOK_PAUSE_MS;
	if (handler->look_anew_at == 0)
		handler->look_anew_at = now + LOOK_ANEW_MS + LOOK_TIMES * took;
	else if (now >= handler->look_anew_at)
	{
		handler->looked_to[0] = '\0';
		handler->crowded = false;	/* what is given back says so again */
	}
}

static void
take_look_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	Handler    *handler = handler_find(context, database->looking);
	int			rows = PQntuples(result);
	int			row;

	if (handler == NULL)
		return;
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		handler->look_at = exec_now() + PAUSE_ERROR_MS;
		return;
	}
	handler->look_at = 0;
	for (row = 0; row < rows && database->picked_count < PICK_MOST; row++)
	{
		if (is_for_others(context, handler, result, row))
			database->picked[database->picked_count++] = strtoll(PQgetvalue(result, row, 0), NULL, 10);
	}
	if (row > 0)
	{
		snprintf(handler->looked_to, sizeof(handler->looked_to), "%s", PQgetvalue(result, row - 1, 1));
		handler->looked_id = strtoll(PQgetvalue(result, row - 1, 0), NULL, 10);
	}
	if (row == rows && rows < LOOK_ROWS)
		looked_through(handler, exec_now());
}

static bool
send_picked(Context *context)
{
	Database   *database = context->database;
	ArrayParam	names;
	ArrayParam	ids;
	bool		sent;

	free(database->claiming);
	database->claiming = NULL;
	param_begin(&names);
	param_begin(&ids);
	param_add(&names, database->looking);
	database->claim_size = database->picked_count;
	while (database->picked_count > 0)
		param_add_number(&ids, database->picked[--database->picked_count]);
	sent = send_claim_of(context, &names, &ids);
	param_free(&names);
	param_free(&ids);
	return sent;
}

/* --- what is next --- */

static bool
may_claim(const Context *context)
{
	return context->database->ready && !context->draining && context->waiting < MAX_WAITING &&
		context->in_flight + context->waiting < context->settings.max_in_flight + MAX_WAITING;
}

/*
 * In turn: a claim, what succeeded, what failed.  While one of them is under way
 * the others gather, so that each is worth its commit, and none of them keeps
 * the targets from their next calls.
 */
static bool
send_turn(Context *context, int64_t now)
{
	Database   *database = context->database;
	int			i;

	for (i = 0; i < TURNS; i++)
	{
		Turn		turn = (Turn) ((database->turn + i) % TURNS);
		bool		sent;

		if (turn == TURN_CLAIM)
			sent = may_claim(context) && now >= database->claim_at && send_claim(context);
		else if (turn == TURN_LOOK)
			sent = may_claim(context) && (database->picked_count > 0 ? send_picked(context) : send_look(context, now));
		else if (turn == TURN_ACK)
			sent = send_outcomes(context, &context->succeeded, STATEMENT_ACK);
		else
			sent = send_outcomes(context, &context->failed, STATEMENT_NACK);
		if (sent)
		{
			database->turn = (Turn) ((turn + 1) % TURNS);
			return true;
		}
	}
	return false;
}

bool
claims_send_next(Context *context)
{
	Database   *database = context->database;
	int64_t		now = exec_now();

	if (database->claim_pause == 0)
		database->claim_pause = PAUSE_MIN_MS;
	/* nothing is said to a database before it is known to be the right one */
	if (database->ready && send_extend(context, now))
		return true;
	if (now >= database->handlers_at && (!context->draining || !database->ready))
		return handlers_send(context);
	return database->ready && send_turn(context, now);
}

void
claims_take_result(Context *context, PGresult *result)
{
	switch (context->database->statement)
	{
		case STATEMENT_SETUP:
			break;
		case STATEMENT_HANDLERS:
			handlers_take_result(context, result);
			break;
		case STATEMENT_CLAIM:
			take_claim_result(context, result);
			break;
		case STATEMENT_LOOK:
			take_look_result(context, result);
			break;
		case STATEMENT_ACK:
		case STATEMENT_NACK:
			take_outcome_result(context, result);
			break;
		case STATEMENT_EXTEND:
			take_extend_result(context, result);
			break;
	}
}

static void
visit_next_extension(Context *context, Call *call, void *arg)
{
	int64_t    *next = arg;

	if (call->extend_at < *next)
		*next = call->extend_at;
}

int64_t
claims_next_time(const Context *context)
{
	const Database *database = context->database;
	int64_t		next = database->handlers_at;
	const Call *call;

	if (!database->ready)
		return next;
	if (may_claim(context) && database->claim_at < next)
		next = database->claim_at;
	for (call = context->succeeded.head; call != NULL; call = call->next)
	{
		if (call->not_before < next)
			next = call->not_before;
	}
	for (call = context->failed.head; call != NULL; call = call->next)
	{
		if (call->not_before < next)
			next = call->not_before;
	}
	calls_visit((Context *) context, visit_next_extension, &next);
	return next;
}
