/*
 * check.c
 *		Judging a target before there is a call: of a handler, by its template,
 *		of a lease, by its URL, and of what is due, by where it would wait.
 *
 * Each is done by preparing a call, which is without I/O, and dropping it.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/allow.h"
#include "executors/calls.h"
#include "executors/check.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/util.h"

#define LOOK_TEXT "300"			/* of a value: its host is at the beginning */

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

/* ---- what is due ---- */

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
#define FIRST_COLUMN 2			/* behind the cleanup's number and when it is due */
#define FIRST_KEY (FIRST_COLUMN + CALL_COLUMNS)

void
target_columns(PGconn *conn, const char *command, Buffer *sql)
{
	const char *key;
	size_t		len;
	int			i;

	for (i = 0; i < CALL_COLUMNS; i++)
	{
		if (strstr(command, call_columns[i]) != NULL)
			buffer_printf(sql, ", left(g.%s::text, " LOOK_TEXT ")", call_columns[i]);
		else
			buffer_text(sql, ", NULL");
	}
	while ((key = next_key(&command, &len)) != NULL)
	{
		char	   *literal = PQescapeLiteral(conn, key, len);

		buffer_printf(sql, ", left(g.payload ->> %s, " LOOK_TEXT ")", literal != NULL ? literal : "''");
		PQfreemem(literal);
	}
}

int
target_column_count(const char *command)
{
	int			count = CALL_COLUMNS;
	size_t		len;

	while (next_key(&command, &len) != NULL)
		count++;
	return count;
}

void
targets_met_free(TargetsMet *met)
{
	int			i;

	for (i = 0; i < TARGETS_MET; i++)
		free(met->places[i].head);
}

/* The host of a call's target; NULL: nothing is known of it.  To read a URL takes long, so those that were met before are not read again. */
static Host *
host_of(Context *context, Call *call, TargetsMet *met)
{
	TargetValues values = {
		call->object_id, call->object_type, call->lease_id, call->service_id, call->payload, call->payload_count
	};
	Buffer		head = {NULL, 0, 0};
	TargetMet  *place;
	Host	   *host;

	target_head(call->command, &values, &head);
	place = &met->places[text_hash(head.data) % TARGETS_MET];
	if (place->head != NULL && strcmp(place->head, head.data) == 0)
	{
		buffer_free(&head);
		return place->host;
	}
	host = kind_ops[call->kind]->prepare(context, call) ? host_find(context, call->host_name, call->port) : NULL;
	if (host != NULL)
	{
		free(place->head);
		place->head = exec_strdup(head.data);
		place->host = host;
	}
	buffer_free(&head);
	return host;
}

/* Is there room for it where it would wait?  Nobody's is where nothing is known: it is found out by its call, as is what is wrong with it. */
static bool
has_room(Context *context, Call *call, TargetsMet *met)
{
	Host	   *host = host_of(context, call, met);

	if (host == NULL)
		return true;
	if (host->picked_in != context->looks)
		host->picked = 0;
	host->picked_in = context->looks;
	return host->waiting.count + host->picked++ < host_room(context, host);
}

/* By a call of which only that is known that its target needs. */
bool
target_has_room(Context *context, ExecutorKind kind, const char *command, PGresult *result, int row, TargetsMet *met)
{
	Call	   *call = call_create(context);
	char	  **const texts[] = {&call->object_id, &call->object_type, &call->lease_id, &call->service_id};
	const char *key;
	size_t		len;
	bool		room;
	int			i;

	call->kind = kind;
	call->command = exec_strdup(command);
	for (i = 0; i < CALL_COLUMNS; i++)
		*texts[i] = exec_strdup(PQgetisnull(result, row, FIRST_COLUMN + i) ? NULL : PQgetvalue(result, row, FIRST_COLUMN + i));
	call->payload = exec_alloc((size_t) PQnfields(result) * sizeof(Pair));
	for (i = FIRST_KEY; i < PQnfields(result) && (key = next_key(&command, &len)) != NULL; i++)
	{
		Pair	   *pair = &call->payload[call->payload_count++];

		pair->name = exec_alloc(len + 1);
		memcpy(pair->name, key, len);
		pair->value = exec_strdup(PQgetvalue(result, row, i));
	}
	room = has_room(context, call, met);
	call_free(context, call);
	return room;
}
