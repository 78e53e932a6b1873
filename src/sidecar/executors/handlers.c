/*
 * handlers.c
 *		Which handlers there are for us, and which our role may claim.
 *
 * gt_handlers shows a role also handlers that it may only use, and gt_claim
 * refuses as a whole when one of those named is not claimable.  So a handler
 * is first claimed by itself; the refusal is remembered, told in /healthz, and
 * the claim tried again now and then.  A handler for which we were given no
 * credentials or no directory is not claimed at all: its attempts are for a
 * sidecar that can make them, and until there is one it shows as unclaimed.  So
 * is one whose target can not be called, whatever a lease fills in: it is named
 * while that can still be mended, and no attempts are used up until then.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/check.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/kinds.h"
#include "executors/util.h"

#define HANDLERS_MS		2000	/* how often gt_handlers is read */
#define DENIED_MS		5000	/* how often a refused handler is tried */
#define LOOK_PAUSE_MS	50
#define LOOK_AGAIN_MS	1000	/* until all of it is looked at again, */
#define LOOK_TIMES		4		/* and so many times as long as it took */

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

Handler *
handler_find(Context *context, const char *name)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		if (strcmp(context->handlers[i].name, name) == 0)
			return &context->handlers[i];
	}
	return NULL;
}

static void
handler_free(Handler *handler)
{
	free(handler->name);
	free(handler->command);
	free(handler->lacks);
}

/* Does it have a character that could not be read?  See base/session.h. */
static bool
text_is_lost(const Context *context, const char *text)
{
	return context->database->lossy && text != NULL && strstr(text, "\xef\xbf\xbd") != NULL;
}

bool
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

/* Why no call of it could succeed here, whatever the lease; NULL: some may. */
static char *
lack_of(Context *context, ExecutorKind kind, const char *command)
{
	const ExecutorOps *ops = kind_ops[kind];
	char		why[EXEC_ERROR_SIZE * 2];

	if (command == NULL ||
		((ops->lacks == NULL || !ops->lacks(context, command, why, sizeof(why))) &&
		 target_is_possible(context, kind, command, why, sizeof(why))))
		return NULL;
	exec_sanitize(why, sizeof(why) - 1);
	return exec_strdup(why);
}

static void
take_handlers(Context *context, PGresult *result)
{
	int			row;
	int			i;
	int			kept = 0;

	for (i = 0; i < context->handler_count; i++)
		context->handlers[i].seen = false;
	for (row = 0; row < PQntuples(result); row++)
	{
		const char *name = PQgetvalue(result, row, 0);
		const char *command = PQgetisnull(result, row, 5) ? NULL : PQgetvalue(result, row, 5);
		int			kind = executor_kind(PQgetvalue(result, row, 1), (size_t) PQgetlength(result, row, 1));
		Handler    *handler = handler_find(context, name);

		if (kind < 0)
			continue;
		if (handler == NULL)
		{
			context->handlers = exec_realloc(context->handlers, ((size_t) context->handler_count + 1) * sizeof(Handler));
			handler = &context->handlers[context->handler_count++];
			memset(handler, 0, sizeof(*handler));
			handler->name = exec_strdup(name);
		}
		handler->kind = (ExecutorKind) kind;
		handler->timeout_ms = strtoll(PQgetvalue(result, row, 2), NULL, 10);
		handler->retry_delay_ms = strtoll(PQgetvalue(result, row, 6), NULL, 10);
		free(handler->command);
		handler->command = exec_strdup(command);
		free(handler->lacks);
		/* named so, it could not be claimed; nor could others beside it */
		handler->lacks = text_is_lost(context, name) ? exec_strdup("its name has a character that UTF-8 does not have")
			: lack_of(context, (ExecutorKind) kind, command);
		handler->seen = true;
	}
	for (i = 0; i < context->handler_count; i++)
	{
		if (context->handlers[i].seen)
			context->handlers[kept++] = context->handlers[i];
		else
			handler_free(&context->handlers[i]);
	}
	context->handler_count = kept;
	context->problems_changed = true;
}

Handler *
handlers_untried(Context *context, int64_t now)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		Handler    *handler = &context->handlers[i];

		if (handler->seen && handler->lacks == NULL &&
			(handler->state == HANDLER_UNKNOWN || (handler->state == HANDLER_DENIED && now >= handler->retry_at)))
			return handler;
	}
	return NULL;
}

bool
handlers_send(Context *context)
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

void
handlers_take_result(Context *context, PGresult *result)
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
	take_handlers(context, result);
	if (handlers_untried(context, exec_now()) != NULL)
		database->claim_at = 0;
}

void
handlers_free(Context *context)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
		handler_free(&context->handlers[i]);
	free(context->handlers);
}

static bool
is_looked_through(const Handler *handler)
{
	return handler->seen && handler->crowded && handler->lacks == NULL && handler->state == HANDLER_OK && handler->command != NULL;
}

bool
handlers_claimable(Context *context, bool looked_through, ArrayParam *names)
{
	int64_t		now = exec_now();
	bool		some = false;
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		const Handler *handler = &context->handlers[i];

		if (!handler->seen || handler->lacks != NULL || handler->state != HANDLER_OK || handler->hold_until > now ||
			(!looked_through && is_looked_through(handler)))
			continue;
		param_add(names, handler->name);
		some = true;
	}
	return some;
}

bool
handler_looks_again(const Handler *handler)
{
	return handler->again_at != 0 && handler->again_at < handler->look_at;
}

static int64_t
look_time(const Handler *handler)
{
	return handler_looks_again(handler) ? handler->again_at : handler->look_at;
}

/* In the order in which they have waited, those with something new and those with all: none waits for the end of another. */
Handler *
handlers_to_look(Context *context, int64_t now)
{
	Handler    *first = NULL;
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		Handler    *handler = &context->handlers[i];

		if (is_looked_through(handler) && look_time(handler) <= now && (first == NULL || look_time(handler) < look_time(first)))
			first = handler;
	}
	return first;
}

int64_t
handlers_next_look(const Context *context, int64_t next)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		const Handler *handler = &context->handlers[i];

		if (is_looked_through(handler) && look_time(handler) < next)
			next = look_time(handler);
	}
	return next;
}

void
handlers_look_anew(Context *context)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		Handler    *handler = &context->handlers[i];

		handler->look_at = 0;
		if (handler->again_at != 0)
			handler->again_at = exec_now();
	}
}

void
handler_looked(Handler *handler, bool again, bool to_the_end)
{
	int64_t		now = exec_now();

	if (!again)
		handler->look_at = to_the_end ? now + LOOK_PAUSE_MS : now;
	else if (!to_the_end)
		handler->again_at = now;
	/* what is seen for the first time is seen as a whole, too */
	if (to_the_end && (again || handler->again_at == 0))
	{
		handler->again_at = now + LOOK_AGAIN_MS + LOOK_TIMES * (now - handler->again_began);
		handler->again.due[0] = '\0';
	}
}

int64_t
handlers_held_until(const Context *context, int64_t now)
{
	int64_t		until = INT64_MAX;
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		if (context->handlers[i].hold_until > now && context->handlers[i].hold_until < until)
			until = context->handlers[i].hold_until;
	}
	return until;
}

static void
deny(Context *context, Handler *handler)
{
	handler->state = HANDLER_DENIED;
	handler->retry_at = exec_now() + DENIED_MS;
	context->problems_changed = true;
}

/* Forget who may be claimed: one of them may not. */
static void
doubt_all(Context *context)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		if (context->handlers[i].state == HANDLER_OK)
			context->handlers[i].state = HANDLER_UNKNOWN;
	}
}

void
handlers_take_refusal(Context *context, PGresult *result)
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
			doubt_all(context);
		else
			deny(context, handler);
	}
	else if (sqlstate != NULL && (strcmp(sqlstate, "GT007") == 0 || strcmp(sqlstate, "22023") == 0))
	{
		/* dropped, or of another kind now */
		if (handler != NULL)
			deny(context, handler);
		doubt_all(context);
		database->handlers_at = 0;
	}
	else
		exec_problem(context, PROBLEM_CLAIM, "The executors could not claim: %s", message != NULL ? message : PQresultErrorMessage(result));
}

/* A name as an SQL literal. */
static void
add_literal(Buffer *text, const char *name)
{
	buffer_text(text, "'");
	for (; *name != '\0'; name++)
		buffer_add(text, *name == '\'' ? "''" : name, *name == '\'' ? 2 : 1);
	buffer_text(text, "'");
}

/* name: of a handler; NULL: it may not claim at all. */
static void
add_lack(const Context *context, const char *name, Buffer *text)
{
	const char *user = context->database->user != NULL ? context->database->user : "";

	if (name == NULL)
	{
		buffer_printf(text, "role \"%s\" may not claim: SELECT gt_allow(", user);
		add_literal(text, user);
		buffer_text(text, ");\n");
		return;
	}
	buffer_printf(text, "role \"%s\" may not claim handler \"%s\": SELECT gt_handler_grant(", user, name);
	add_literal(text, name);
	buffer_text(text, ", ");
	add_literal(text, user);
	buffer_text(text, ", 'claim');\n");
}

void
handlers_problems(const Context *context, Buffer *text)
{
	static const struct
	{
		const char *name;
		ExecutorKind kind;
	}			builtins[] = {{"http_endpoint", EXEC_HTTP}, {"grpc_endpoint", EXEC_GRPC}};
	size_t		b;
	int			i;

	if (!context->database->ready && !context->database->refused)
		return;
	if (!context->database->may_claim)
		add_lack(context, NULL, text);
	for (i = 0; i < context->handler_count; i++)
	{
		const Handler *handler = &context->handlers[i];

		if (handler->seen && handler->lacks != NULL)
			buffer_printf(text, "handler \"%s\" (%s) is left to others: %s\n", handler->name,
						  executor_kind_names[handler->kind], handler->lacks);
		else if (handler->seen && handler->state == HANDLER_DENIED)
			add_lack(context, handler->name, text);
	}
	/* a role without any right does not even see these */
	for (b = 0; b < sizeof(builtins) / sizeof(builtins[0]); b++)
	{
		if ((context->settings.kinds & (1u << builtins[b].kind)) != 0 &&
			handler_find((Context *) context, builtins[b].name) == NULL)
			add_lack(context, builtins[b].name, text);
	}
}
