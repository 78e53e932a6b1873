/*
 * check.c
 *		Judging a target before there is a call: of a handler, by its template,
 *		and of a lease, by its URL.
 *
 * Each is done by preparing a call, which is without I/O, and dropping it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/allow.h"
#include "executors/calls.h"
#include "executors/check.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/util.h"

/* With this value for each of the keys of the payload that the command names; in brackets is an IPv6 address. */
static void
add_payload(Call *call, const char *value)
{
	const char *at = call->command;

	while ((at = strstr(at, "{payload.")) != NULL)
	{
		bool		brackets = at > call->command && at[-1] == '[';
		size_t		len;
		Pair	   *pair;

		at += strlen("{payload.");
		len = strcspn(at, "}");
		call->payload = exec_realloc(call->payload, ((size_t) call->payload_count + 1) * sizeof(Pair));
		pair = &call->payload[call->payload_count++];
		pair->name = exec_alloc(len + 1);
		memcpy(pair->name, at, len);
		pair->value = exec_strdup(brackets ? "::1" : value);
	}
}

static Call *
make_call(Context *context, ExecutorKind kind, const char *command, const char *value)
{
	Call	   *call = call_create(context);

	call->kind = kind;
	call->command = exec_strdup(command);
	call->object_id = exec_strdup(value);
	call->object_type = exec_strdup(value);
	call->lease_id = exec_strdup(value);
	call->service_id = exec_strdup(value);
	add_payload(call, value);
	return call;
}

static bool
is_possible_with(Context *context, ExecutorKind kind, const char *command, const char *value,
				 char *error, size_t error_size)
{
	Call	   *call = make_call(context, kind, command, value);
	bool		possible = kind_ops[kind]->prepare(context, call);

	snprintf(error, error_size, "%s", call->error);
	call_free(context, call);
	return possible;
}

/* Behind the placeholder that a template begins with, with its method perhaps; NULL: it does not. */
static const char *
behind_first(const char *command)
{
	const char *at = command + strspn(command, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	if (at > command && *at == ' ')
		at += strspn(at, " ");
	if (*at != '{')
		return NULL;
	at += strcspn(at, "}");
	return *at == '}' ? at + 1 : NULL;
}

/* What is in its braces must be known, wherever it is. */
static bool
has_known_placeholders(const char *command, char *error, size_t error_size)
{
	Call	   *call = make_call(NULL, EXEC_FILE, command, "1");
	bool		known = call_expand(call, command, TARGET_FILE);

	snprintf(error, error_size, "%s", call->error);
	call_free(NULL, call);
	return known;
}

/*
 * "1" may be a part of everything else.  What leaves its beginning to leases is
 * judged as a whole only where it leaves all of it to them.
 */
bool
target_is_possible(Context *context, ExecutorKind kind, const char *command, char *error, size_t error_size)
{
	const char *rest = behind_first(command);

	if (!has_known_placeholders(command, error, error_size))
		return false;
	if (rest != NULL)
		return *rest != '\0' || is_possible_with(context, kind, command, kind_ops[kind]->sample, error, error_size);
	return is_possible_with(context, kind, command, "1", error, error_size);
}

bool
executors_judge_url(ExecutorKind kind, const AllowList *list, const char *url, char *error, size_t error_size)
{
	Call	   *call = make_call(NULL, kind, "{payload.url}", url);
	bool		possible = kind_ops[kind]->prepare(NULL, call);

	if (!possible)
		snprintf(error, error_size, "%s", call->error);
	else
		possible = allow_host(list, call->host_name, call->port, error, error_size);
	call_free(NULL, call);
	return possible;
}
