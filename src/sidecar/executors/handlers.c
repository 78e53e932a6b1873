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

static int
kind_of(const char *name)
{
	int			kind;

	for (kind = 0; kind < EXEC_KINDS; kind++)
	{
		if (strcmp(executor_kind_names[kind], name) == 0)
			return kind;
	}
	return -1;
}

static void
handler_free(Handler *handler)
{
	free(handler->name);
	free(handler->lacks);
}

bool
text_is_lost(const Context *context, const char *text)
{
	return context->database->lossy && text != NULL && strstr(text, "\xef\xbf\xbd") != NULL;
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

void
handlers_take(Context *context, PGresult *result)
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
		int			kind = kind_of(PQgetvalue(result, row, 1));
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

void
handlers_free(Context *context)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
		handler_free(&context->handlers[i]);
	free(context->handlers);
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
handlers_claimable(Context *context, ArrayParam *names)
{
	int64_t		now = exec_now();
	bool		some = false;
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		const Handler *handler = &context->handlers[i];

		if (!handler->seen || handler->lacks != NULL || handler->state != HANDLER_OK || handler->hold_until > now)
			continue;
		param_add(names, handler->name);
		some = true;
	}
	return some;
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

void
handlers_doubt(Context *context)
{
	int			i;

	for (i = 0; i < context->handler_count; i++)
	{
		if (context->handlers[i].state == HANDLER_OK)
			context->handlers[i].state = HANDLER_UNKNOWN;
	}
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
