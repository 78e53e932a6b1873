/*
 * service_watch.c
 *		garbagetruck.v1.GarbageTruck: WatchCleanups.
 *
 * The client gives credit; garbage is claimed while there is some and pushed.
 * What was pushed and not yet acknowledged is extended every third of the
 * visibility, until the stream ends.  A claim whose answer finds the client
 * gone lapses by itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service_queue.h"

#define CLAIM_AT_ONCE 100
#define UNSENT_MARK (1024 * 1024)	/* a client that does not read gets no more */

/* Pushed, and neither acked nor nacked. */
typedef struct Token
{
	struct Token *next;
	int64_t		cleanup_id;
	uint32_t	attempt;
} Token;

typedef struct Watch
{
	GrpcCall   *call;
	bool		begun;
	bool		ended;			/* the client will send no more */
	uint64_t	credit;
	char	   *handlers;
	char		visibility[INTERVAL_SIZE];
	int64_t		visibility_us;
	DbCall	   *waiting;		/* of the claim in flight */
	LoopTimer	again;
	LoopTimer	extend;
	int64_t		pause_us;
	Token	   *tokens;
} Watch;

static void claim_more(void *arg);

static void
remove_token(Watch *watch, int64_t cleanup_id, uint32_t attempt)
{
	Token	  **at;

	for (at = &watch->tokens; *at != NULL; at = &(*at)->next)
	{
		if ((*at)->cleanup_id == cleanup_id && (*at)->attempt == attempt)
		{
			Token	   *token = *at;

			*at = token->next;
			free(token);
			return;
		}
	}
}

static bool
has_token(const Watch *watch, int64_t cleanup_id, uint32_t attempt)
{
	const Token *token;

	for (token = watch->tokens; token != NULL; token = token->next)
	{
		if (token->cleanup_id == cleanup_id && token->attempt == attempt)
			return true;
	}
	return false;
}

/* ---- pushing ---- */

static void
push(Watch *watch, const PGresult *result, int i)
{
	CleanupRow	row;
	Token	   *token = calloc(1, sizeof(Token));

	cleanup_read(result, i, &row);
	if (token != NULL)
	{
		token->cleanup_id = row.message.cleanup_id;
		token->attempt = row.message.attempt;
		token->next = watch->tokens;
		watch->tokens = token;
	}
	if (watch->credit > 0)
		watch->credit--;
	grpc_send(watch->call, &row.message.base);
}

static void
claimed(void *arg, const DbOutcome *outcome)
{
	Watch	   *watch = arg;
	GrpcCall   *call = watch->call;
	int			count;
	int			i;

	watch->waiting = NULL;
	if (outcome->result == NULL)
	{
		grpc_fail_sql(call, outcome->sqlstate, outcome->message, outcome->detail, outcome->hint);
		return;
	}
	count = PQntuples(outcome->result);
	for (i = 0; i < count; i++)
	{
		push(watch, outcome->result, i);
		if (grpc_over(call))
			return;
	}
	if (count > 0)
		watch->pause_us = POLL_FIRST_US;
	if (watch->ended && watch->credit == 0)
	{
		grpc_ok(call);
		return;
	}
	timer_start(&watch->again, count > 0 ? 0 : watch->pause_us, claim_more, watch);
	if (count == 0 && watch->pause_us < POLL_MOST_US)
		watch->pause_us *= 2;
}

static void
claim_more(void *arg)
{
	Watch	   *watch = arg;
	const char *params[3] = {watch->handlers, NULL, watch->visibility};
	char		max_items[16];

	if (watch->waiting != NULL || watch->credit == 0)
		return;
	if (grpc_unsent(watch->call) > UNSENT_MARK)
	{
		timer_start(&watch->again, POLL_MOST_US, claim_more, watch);
		return;
	}
	snprintf(max_items, sizeof(max_items), "%d", watch->credit > CLAIM_AT_ONCE ? CLAIM_AT_ONCE : (int) watch->credit);
	params[1] = max_items;
	watch->waiting = db_call(&claim_statement, params, NULL, claimed, watch);
}

/* ---- extending ---- */

/* An outcome on its way to SQL.  The call is held meanwhile. */
typedef struct Settling
{
	GrpcCall   *call;
	int64_t		cleanup_id;
	uint32_t	attempt;
} Settling;

/* A token that is not current any more, settled by Ack or lapsed, is forgotten. */
static void
settled(void *arg, const DbOutcome *outcome)
{
	Settling   *settling = arg;

	if (!grpc_over(settling->call) && outcome->result != NULL && !get_bool(outcome->result, 0, 0))
		remove_token(grpc_state(settling->call), settling->cleanup_id, settling->attempt);
	grpc_release(settling->call);
	free(settling);
}

static void
send_outcome(Watch *watch, DbStatement *statement, const Garbagetruck__V1__Outcome *outcome)
{
	OutcomeParams params;
	Settling   *settling = malloc(sizeof(Settling));

	if (outcome_params(watch->call, outcome, &params) == NULL && settling != NULL)
	{
		DbHow		how = {.route = db_route(params.cleanup_id, strlen(params.cleanup_id))};

		settling->call = watch->call;
		settling->cleanup_id = outcome->cleanup_id;
		settling->attempt = outcome->attempt;
		grpc_hold(watch->call);
		db_call(statement, params.params, &how, settled, settling);
	}
	else
		free(settling);
	outcome_params_free(&params);
}

static void
extend_all(void *arg)
{
	Watch	   *watch = arg;
	Garbagetruck__V1__Outcome outcome = GARBAGETRUCK__V1__OUTCOME__INIT;
	Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
	Token	   *token;

	delay.seconds = watch->visibility_us / 1000000;
	delay.nanos = (int32_t) (watch->visibility_us % 1000000) * 1000;
	outcome.delay = &delay;
	for (token = watch->tokens; token != NULL; token = token->next)
	{
		outcome.cleanup_id = token->cleanup_id;
		outcome.attempt = token->attempt;
		send_outcome(watch, &extend_statement, &outcome);
	}
	timer_start(&watch->extend, watch->visibility_us / 3, extend_all, watch);
}

/* ---- the stream ---- */

/* Settle what the stream itself handed out; anything else is Ack's and Nack's. */
static bool
settle(Watch *watch, DbStatement *statement, Garbagetruck__V1__Outcome *const *outcomes, size_t count)
{
	size_t		i;

	for (i = 0; i < count; i++)
	{
		if (caller_name(watch->call) != NULL && !has_token(watch, outcomes[i]->cleanup_id, outcomes[i]->attempt))
		{
			grpc_fail(watch->call, GRPC_PERMISSION_DENIED, "cleanup %lld was not sent over this stream: use Ack or Nack",
					  (long long) outcomes[i]->cleanup_id);
			return false;
		}
		remove_token(watch, outcomes[i]->cleanup_id, outcomes[i]->attempt);
		send_outcome(watch, statement, outcomes[i]);
	}
	return true;
}

static bool
begin(Watch *watch, const Garbagetruck__V1__WatchRequest *request)
{
	watch->begun = true;
	watch->pause_us = POLL_FIRST_US;
	if (!duration_us(request->visibility, &watch->visibility_us))
	{
		grpc_fail(watch->call, GRPC_INVALID_ARGUMENT, "visibility is negative or out of range");
		return false;
	}
	if (watch->visibility_us == 0)
		watch->visibility_us = 60000000;
	interval_param(watch->visibility_us, watch->visibility);
	if (!claim_handlers(watch->call, request->handlers, request->n_handlers, &watch->handlers))
		return false;
	timer_start(&watch->extend, watch->visibility_us / 3, extend_all, watch);
	return true;
}

void
v1_watch(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__WatchRequest *request = (const void *) message;
	Watch	   *watch = grpc_state(call);

	if (watch == NULL)
	{
		watch = calloc(1, sizeof(Watch));
		if (watch == NULL)
		{
			grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
			return;
		}
		watch->call = call;
		grpc_set_state(call, watch);
	}
	if (!watch->begun && !begin(watch, request))
		return;
	if (!settle(watch, &ack_statement, request->acks, request->n_acks) ||
		!settle(watch, &nack_statement, request->nacks, request->n_nacks))
		return;
	watch->credit += request->credit;
	if (request->credit > 0 && watch->waiting == NULL)
		claim_more(watch);
}

/*
 * The client has no more to say: it still gets what it gave credit for, and
 * settles that by Ack.
 */
void
v1_watch_end(GrpcCall *call)
{
	Watch	   *watch = grpc_state(call);

	if (watch == NULL || watch->credit == 0)
		grpc_ok(call);
	else
		watch->ended = true;
}

void
v1_watch_over(GrpcCall *call)
{
	Watch	   *watch = grpc_state(call);

	if (watch == NULL)
		return;
	timer_stop(&watch->again);
	timer_stop(&watch->extend);
	if (watch->waiting != NULL)
		db_forget(watch->waiting);
	while (watch->tokens != NULL)
		remove_token(watch, watch->tokens->cleanup_id, watch->tokens->attempt);
	free(watch->handlers);
	free(watch);
}
