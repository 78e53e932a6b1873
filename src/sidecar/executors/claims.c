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
#include "executors/util.h"

#define BATCH_CLAIM_MAX	400
#define BATCH_TURN_AWAY 500	/* where what is due is to be given back, to come to what is behind it */
#define BATCH_BYTES		(2 * 1024 * 1024)	/* an answer as large as that was enough */
#define HANDLERS_MS		2000	/* how often gt_handlers is read */
#define DENIED_MS		5000	/* how often a refused handler is tried */
#define PAUSE_MIN_MS	20		/* between claims without rows */
#define PAUSE_MAX_MS	500
#define PAUSE_ERROR_MS	2000

/* so that pairs can be told apart, see pairs_parse() */
#define SQL_PART(value) "replace(replace(replace(" value ", '%', '%25'), ',', '%2C'), '=', '%3D')"

static const char handlers_sql[] =
"SELECT h.name, h.kind, (extract(epoch FROM h.timeout) * 1000)::bigint,"
" coalesce(current_setting('garbagetruck.identity', true), ''),"
" has_function_privilege('gt_claim(text[], int, interval, bigint[])', 'EXECUTE'), h.command,"
" (extract(epoch FROM h.retry_delay) * 1000)::bigint,"
/* what tells this database from every other, in eight digits */
" left(md5(coalesce(nullif(current_setting('garbagetruck.identity', true), ''),"
"   (SELECT system_identifier::text FROM pg_control_system())) || '/' ||"
"   (SELECT oid::text FROM pg_database WHERE datname = current_database())), 8)"
/*
 * Whoever grants us `claim` on a handler would make us call whatever it names,
 * with our credentials: so it must be our own, or of somebody whom we trust.
 */
" FROM (SELECT) AS always LEFT JOIN (SELECT * FROM gt_handlers AS g WHERE g.kind = ANY ($1::text[])"
"   AND EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = g.owner AND (r.rolsuper OR pg_has_role(r.oid, 'USAGE')"
"     OR r.rolname = ANY ($2::text[]) OR r.oid = (SELECT extowner FROM pg_extension WHERE extname = 'garbagetruck')))"
" ) AS h ON true";

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
" (SELECT string_agg(" SQL_PART("k.key") " || '=' || " SQL_PART("c.payload ->> k.key") ", ',')"
"   FROM (SELECT DISTINCT m[1] AS key FROM regexp_matches(c.command, '[{]payload[.]([^{}]+)[}]', 'g') AS m) AS k"
"   WHERE jsonb_typeof(c.payload -> k.key) IN ('string', 'number', 'boolean')),"
" CASE WHEN c.kind = 'grpc' AND jsonb_typeof(c.metadata) = 'object' THEN"
"   (SELECT string_agg(" SQL_PART("e.key") " || '=' || " SQL_PART("coalesce(e.value, '')") ", ',')"
"     FROM jsonb_each_text(c.metadata) AS e) END"
" FROM gt_claim(handlers => $1::text[], max_items => $2::int, visibility => $3::interval) AS c";

static bool
send_handlers(Context *context)
{
	ArrayParam	kinds;
	const char *values[2];
	int			kind;
	bool		sent;

	param_begin(&kinds);
	for (kind = 0; kind < EXEC_KINDS; kind++)
	{
		if ((context->settings.kinds & (1u << kind)) != 0)
			param_add(&kinds, executor_kind_names[kind]);
	}
	values[0] = param_end(&kinds);
	values[1] = context->settings.handler_owners;
	sent = send_statement(context, STATEMENT_HANDLERS, handlers_sql, 2, values);
	context->database->handlers_at = exec_now() + HANDLERS_MS;
	param_free(&kinds);
	return sent;
}

/* Is this the database that we were told to expect? */
static bool
identity_fits(Context *context, const char *identity)
{
	const char *expected = context->settings.expect_identity;

	if (expected == NULL || strcmp(expected, identity) == 0)
	{
		exec_problem(context, PROBLEM_HANDLERS, NULL);
		return true;
	}
	exec_problem(context, PROBLEM_HANDLERS, "The executors claim nothing: garbagetruck.identity is \"%s\", and --expect-identity says \"%s\"",
				 identity, expected);
	return false;
}

static void
take_handlers_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	/* who was given nothing may not even read them: handlers_problems() says what it needs */
	if (sqlstate != NULL && strcmp(sqlstate, "42501") == 0)
	{
		exec_problem(context, PROBLEM_HANDLERS, NULL);
		database->refused = true;	/* and not known to be the right one */
		database->ready = database->may_claim = false;
		context->problems_changed = true;
		return;
	}
	database->refused = false;
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		exec_problem(context, PROBLEM_HANDLERS, "The handlers could not be read: %s", PQresultErrorMessage(result));
		return;
	}
	database->ready = PQntuples(result) > 0 && identity_fits(context, PQgetvalue(result, 0, 3));
	if (!database->ready)
		return;
	database->may_claim = PQgetvalue(result, 0, 4)[0] == 't';
	snprintf(context->place, sizeof(context->place), "%s", PQgetvalue(result, 0, 7));
	handlers_take(context, result);
	if (handlers_untried(context, exec_now()) != NULL)
		database->claim_at = 0;
}

/* The next claim is after so long, or when a handler is not held any more. */
static void
pause_claims(Context *context, int64_t for_ms)
{
	int64_t		now = exec_now();
	int64_t		held_until = handlers_held_until(context, now);

	context->database->claim_at = now + for_ms < held_until ? now + for_ms : held_until;
}

static bool
send_claim(Context *context)
{
	Database   *database = context->database;
	Handler    *untried = handlers_untried(context, exec_now());
	ArrayParam	names;
	char		size[16];
	char		visibility[40];
	const char *values[3];
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
	snprintf(size, sizeof(size), "%d", database->claim_size);
	snprintf(visibility, sizeof(visibility), "%d milliseconds", context->settings.visibility_ms);
	values[0] = param_end(&names);
	values[1] = size;
	values[2] = visibility;
	sent = send_statement(context, STATEMENT_CLAIM, claim_sql, 3, values);
	param_free(&names);
	return sent;
}

static char *
copy_value(PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : exec_strdup(PQgetvalue(result, row, column));
}

/* What it is about, or what it would say, could not be read: it would be about something else. */
static bool
call_is_lost(const Context *context, const Call *call)
{
	const char *const texts[] = {call->object_id, call->object_type, call->service_id, call->command, call->body};
	bool		lost = false;
	int			i;

	for (i = 0; i < (int) (sizeof(texts) / sizeof(texts[0])); i++)
		lost = lost || text_is_lost(context, texts[i]);
	for (i = 0; i < call->payload_count; i++)
		lost = lost || text_is_lost(context, call->payload[i].value);
	for (i = 0; i < call->metadata_count; i++)
		lost = lost || text_is_lost(context, call->metadata[i].name) || text_is_lost(context, call->metadata[i].value);
	return lost;
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
choose_batch(Database *database, const PGresult *result, uint64_t given_back)
{
	int			rows = PQntuples(result);

	database->turning_away = rows == database->claim_size && 10 * given_back > 9 * (uint64_t) rows &&
		PQresultMemorySize(result) <= BATCH_BYTES;
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
	choose_batch(database, result, context->stats.given_back - given_back);
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
		return send_handlers(context);
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
			take_handlers_result(context, result);
			break;
		case STATEMENT_CLAIM:
			take_claim_result(context, result);
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
