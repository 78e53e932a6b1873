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
 * What is due first is claimed first.  Where much of that is for hosts that take
 * no more, what they have due behind it is looked through, oldest first, and what
 * is for hosts with room claimed by its number: to look costs a fiftieth of
 * claiming and giving back, which is done now and then only, to see whether it is
 * still so.  What has come since is looked at many times a second; and all of it
 * again after a while, as some comes late (a transaction that lasted) and hosts
 * get room, in pieces between which what is new has its turn.  It is a hint: what
 * is claimed by it is judged as any other.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/object_types.h"
#include "executors/calls.h"
#include "executors/check.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/util.h"

#define BATCH_CLAIM_MAX	400
#define BATCH_BYTES		(2 * 1024 * 1024)	/* an answer as large as that was enough */
#define PAUSE_MIN_MS	20		/* between claims without rows */
#define PAUSE_MAX_MS	500
#define CLAIM_ALL_MS	250		/* between claims of which most is given back */
#define LOOK_ROWS		65536	/* at once, at most */
#define LOOK_US			60000	/* and as many as take about so long, so that nothing waits long for it */
#define BEGINNING		"-infinity"
#define LOOK_FIRST_MS	500		/* of what is due within so long, at first */
#define LOOK_LEAST_MS	10
#define LOOK_MOST_MS	(INT64_C(1000) * 86400 * 365)

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

/*
 * What a handler has due after a time ($2), and of that time after a number ($3),
 * until so long after it ($5) or until a time ($6), with what its target names
 * (target_columns()); and last to which time that is, and whether that is now: then a
 * second before it, for who commits later than he took his.
 */
static const char look_sql[] =
" FROM gt_garbage AS g WHERE g.handler = $1 AND g.due_at >= $2::timestamptz AND g.due_at <= (SELECT upto FROM look)"
" AND (g.due_at > $2::timestamptz OR g.cleanup_id > $3::bigint) ORDER BY g.due_at, g.cleanup_id LIMIT $4::int)"
" UNION ALL SELECT NULL, CASE WHEN upto < now THEN upto ELSE now - interval '1 second' END, CASE WHEN upto >= now THEN 'now' END";
static const char look_with[] =
"WITH look AS MATERIALIZED (SELECT now, least(now, $2::timestamptz + $5::interval, $6::timestamptz) AS upto FROM (SELECT gt_clock() AS now) c)"
" (SELECT g.cleanup_id, g.due_at";

/* The next claim is after so long, or when a handler is not held any more. */
static void
pause_claims(Context *context, int64_t for_ms)
{
	int64_t		now = exec_now();
	int64_t		held_until = handlers_held_until(context, now);

	context->database->claim_at = now + for_ms < held_until ? now + for_ms : held_until;
	if (context->database->turning_away && context->database->claim_all_at < context->database->claim_at)
		context->database->claim_at = context->database->claim_all_at;
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
	bool		all = !database->turning_away || exec_now() >= database->claim_all_at;
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
	else if (!handlers_claimable(context, all, &names))
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
	if (room < database->claim_size)
		database->claim_size = room;
	database->claiming_rest = !all;
	if (database->turning_away && all)
		database->claim_all_at = exec_now() + CLAIM_ALL_MS;
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
	int			kind = executor_kind(PQgetvalue(result, row, 5), (size_t) PQgetlength(result, row, 5));

	if (kind < 0)
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

/*
 * Twice as much the next time, as long as there is as much and room for it.  Is
 * half of it for targets that do not answer, or nearly all for any that take no
 * more, what others have due is behind that.
 */
static void
choose_batch(Context *context, const PGresult *result, uint64_t given_back, uint64_t turned_away)
{
	Database   *database = context->database;
	bool		before = database->turning_away;
	int			rows = PQntuples(result);

	if (!database->claiming_rest && database->claiming == NULL)
		database->turning_away = rows == database->claim_size &&
			(2 * turned_away > (uint64_t) rows || 10 * given_back > 9 * (uint64_t) rows);
	if (database->turning_away && !before)
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
	uint64_t	turned_away = context->turned_away;
	int			rows = PQntuples(result);
	int			row;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		handlers_take_refusal(context, result);
		return;
	}
	exec_problem(context, PROBLEM_CLAIM, NULL);
	for (row = 0; row < rows; row++)
		take_claim(context, result, row);
	if (database->claiming_picked)
		return;
	choose_batch(context, result, context->stats.given_back - given_back, context->turned_away - turned_away);
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

static bool
send_look(Context *context, int64_t now)
{
	Database   *database = context->database;
	Handler    *handler = database->turning_away ? handlers_to_look(context, now) : NULL;
	LookedTo   *from;
	Buffer		sql = {NULL, 0, 0};
	char		after[24];
	char		rows[16];
	char		within[40];
	const char *values[6] = {NULL, NULL, after, rows, NULL, NULL};
	int			column;
	bool		sent;

	if (handler == NULL)
		return false;
	database->looking_again = handler_looks_again(handler);
	from = database->looking_again ? &handler->again : &handler->newest;
	if (from->due[0] == '\0')
	{
		handler->again_began = now;
		handler->crowded = handler->gave_back;	/* what is given back says so again */
		handler->gave_back = false;
		strcpy(from->due, BEGINNING);
		from->id = 0;
	}
	if (strcmp(from->due, BEGINNING) != 0)
		values[4] = within;
	else if (database->looking_again)
		values[5] = handler->oldest;
	if (handler->look_ms == 0)
		handler->look_ms = LOOK_FIRST_MS;
	context->looks++;
	free(database->looking);
	database->looking = exec_strdup(handler->name);
	snprintf(after, sizeof(after), "%lld", (long long) from->id);
	snprintf(rows, sizeof(rows), "%d", LOOK_ROWS);
	snprintf(within, sizeof(within), "%lld milliseconds", (long long) handler->look_ms);
	values[0] = handler->name;
	values[1] = from->due;
	buffer_text(&sql, look_with);
	target_columns(database->conn, handler->command, &sql);
	buffer_text(&sql, look_sql);
	for (column = 1; column < target_column_count(handler->command); column++)
		buffer_text(&sql, ", NULL");
	buffer_text(&sql, " FROM look");
	sent = send_statement(context, STATEMENT_LOOK, sql.data, 6, values);
	buffer_free(&sql);
	return sent;
}

/* As much of time at once as takes about LOOK_US. */
static void
choose_span(const Database *database, Handler *handler)
{
	int64_t		took = (exec_now() - database->sent_at) * 1000;

	if (took > LOOK_US && handler->look_ms > LOOK_LEAST_MS)
		handler->look_ms /= 2;
	else if (took < LOOK_US / 3 && handler->look_ms < LOOK_MOST_MS)
		handler->look_ms *= 2;
}

/* The rows of a look, and to where it has come; true: to the end. */
static bool
take_looked_at(Context *context, Handler *handler, PGresult *result, LookedTo *to)
{
	Database   *database = context->database;
	TargetsMet	met = {0};
	int			rows = PQntuples(result) - 1;	/* the last is of the end */
	int			last;
	int			row;

	for (row = 0; row < rows && database->picked_count < PICK_MOST; row++)
	{
		if (target_has_room(context, handler->kind, handler->command, result, row, &met))
			database->picked[database->picked_count++] = strtoll(PQgetvalue(result, row, 0), NULL, 10);
	}
	targets_met_free(&met);
	if (handler->oldest[0] == '\0')
		snprintf(handler->oldest, sizeof(handler->oldest), "%s", PQgetvalue(result, 0, 1));
	last = row < rows || rows == LOOK_ROWS ? row - 1 : rows;
	snprintf(to->due, sizeof(to->due), "%s", PQgetvalue(result, last, 1));
	to->id = strtoll(PQgetvalue(result, last, 0), NULL, 10);
	return last == rows && !PQgetisnull(result, last, 2);
}

static void
take_look_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	Handler    *handler = handler_find(context, database->looking);

	if (handler == NULL)
		return;
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) == 0)
	{
		handler->look_at = exec_now() + PAUSE_ERROR_MS;
		if (handler->again_at != 0)
			handler->again_at = handler->look_at;
		return;
	}
	handler_looked(handler, database->looking_again,
				   take_looked_at(context, handler, result, database->looking_again ? &handler->again : &handler->newest));
	choose_span(database, handler);
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

	/* what was found has waited already */
	if (database->picked_count > 0 && may_claim(context) && send_picked(context))
		return true;
	for (i = 0; i < TURNS; i++)
	{
		Turn		turn = (Turn) ((database->turn + i) % TURNS);
		bool		sent;

		if (turn == TURN_CLAIM)
			sent = may_claim(context) && now >= database->claim_at && send_claim(context);
		else if (turn == TURN_LOOK)
			sent = database->picked_count == 0 && may_claim(context) && send_look(context, now);
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

int64_t
claims_next_time(const Context *context)
{
	const Database *database = context->database;
	int64_t		next = database->handlers_at;

	if (!database->ready)
		return next;
	if (may_claim(context) && database->claim_at < next)
		next = database->claim_at;
	if (may_claim(context) && database->turning_away)
		next = handlers_next_look(context, next);
	return outcomes_next_time(context, next);
}
