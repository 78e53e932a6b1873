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

#include "serve.h"
#include "service_queue.h"

#define CLAIM_AT_ONCE 100
#define UNSENT_MARK (1024 * 1024)	/* a client that does not read gets no more */
#define EXTEND_LEAST_US 20000	/* a shorter visibility lapses between two extensions */

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
	int			settling;		/* acks and nacks without an answer */
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

/* The client has said all, has what it gave credit for, and what it settled is settled. */
static void
end_if_done(Watch *watch)
{
	if (watch->ended && watch->credit == 0 && watch->settling == 0)
		grpc_ok(watch->call);
}

/* ---- pushing ---- */

static void
push(Watch *watch, const PGresult *result, int i)
{
	CleanupRow	row;
	Token	   *token = calloc(1, sizeof(Token));

	if (token == NULL)
	{
		grpc_fail(watch->call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	cleanup_read(result, i, &row);
	token->cleanup_id = row.message.cleanup_id;
	token->attempt = row.message.attempt;
	token->next = watch->tokens;
	watch->tokens = token;
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
	if (!claim_came(call, outcome))
		return;
	count = PQntuples(outcome->result);
	for (i = 0; i < count; i++)
	{
		push(watch, outcome->result, i);
		if (grpc_over(call))
			return;
	}
	if (count > 0)
		watch->pause_us = POLL_FIRST_US;
	end_if_done(watch);
	if (grpc_over(call))
		return;
	timer_start(&watch->again, count > 0 ? 0 : watch->pause_us, claim_more, watch);
	if (count == 0 && watch->pause_us < POLL_MOST_US)
		watch->pause_us *= 2;
}

static void
claim_more(void *arg)
{
	Watch	   *watch = arg;
	char		max_items[16],
				room[24];
	const char *params[CLAIM_PARAMS] = {watch->handlers, max_items, watch->visibility, room, serve_expect_identity()};

	if (watch->waiting != NULL || watch->credit == 0)
		return;
	if (grpc_unsent(watch->call) > UNSENT_MARK)
	{
		timer_start(&watch->again, POLL_MOST_US, claim_more, watch);
		return;
	}
	snprintf(max_items, sizeof(max_items), "%d", watch->credit > CLAIM_AT_ONCE ? CLAIM_AT_ONCE : (int) watch->credit);
	snprintf(room, sizeof(room), "%d", ANSWER_MOST);
	watch->waiting = db_call(&claim_statement, params, NULL, claimed, watch);
}

/* ---- extending and settling ---- */

/* A token on its way to SQL.  The call is held meanwhile. */
typedef struct Sent
{
	GrpcCall   *call;
	int64_t		cleanup_id;
	uint32_t	attempt;
} Sent;

static bool
send_outcome(Watch *watch, DbStatement *statement, const OutcomeParams *params,
			 const Garbagetruck__V1__Outcome *outcome, DbDone done)
{
	Sent	   *sent = malloc(sizeof(Sent));
	DbHow		how = {.route = db_route(params->cleanup_id, strlen(params->cleanup_id))};

	if (sent == NULL)
		return false;
	sent->call = watch->call;
	sent->cleanup_id = outcome->cleanup_id;
	sent->attempt = outcome->attempt;
	grpc_hold(watch->call);
	db_call(statement, params->params, &how, done, sent);
	return true;
}

/* A token that is not current any more, settled by Ack or lapsed, is forgotten. */
static void
extended(void *arg, const DbOutcome *outcome)
{
	Sent	   *sent = arg;

	if (!grpc_over(sent->call) && outcome->result != NULL && !get_bool(outcome->result, 0, 0))
		remove_token(grpc_state(sent->call), sent->cleanup_id, sent->attempt);
	grpc_release(sent->call);
	free(sent);
}

/* What could not be settled must not look settled: the stream ends with the reason. */
static void
settled(void *arg, const DbOutcome *outcome)
{
	Sent	   *sent = arg;

	if (!grpc_over(sent->call) && outcome->result == NULL)
		grpc_fail_sql(sent->call, outcome->sqlstate, outcome->message, outcome->detail, outcome->hint);
	else if (!grpc_over(sent->call))
	{
		Watch	   *watch = grpc_state(sent->call);

		watch->settling--;
		end_if_done(watch);
	}
	grpc_release(sent->call);
	free(sent);
}

static int64_t
extend_pause(const Watch *watch)
{
	return watch->visibility_us / 3 > EXTEND_LEAST_US ? watch->visibility_us / 3 : EXTEND_LEAST_US;
}

static void
extend_all(void *arg)
{
	Watch	   *watch = arg;
	Garbagetruck__V1__Outcome outcome = GARBAGETRUCK__V1__OUTCOME__INIT;
	Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
	OutcomeParams params;
	Token	   *token;

	delay.seconds = watch->visibility_us / 1000000;
	delay.nanos = (int32_t) (watch->visibility_us % 1000000) * 1000;
	outcome.delay = &delay;
	for (token = watch->tokens; token != NULL; token = token->next)
	{
		outcome.cleanup_id = token->cleanup_id;
		outcome.attempt = token->attempt;
		if (outcome_params(watch->call, &outcome, &params) == NULL)
			send_outcome(watch, &extend_statement, &params, &outcome, extended);
		outcome_params_free(&params);
	}
	timer_start(&watch->extend, extend_pause(watch), extend_all, watch);
}

/* ---- the stream ---- */

/* Settle what the stream itself handed out; anything else is Ack's and Nack's. */
static bool
settle_one(Watch *watch, DbStatement *statement, const Garbagetruck__V1__Outcome *outcome)
{
	GrpcCall   *call = watch->call;
	OutcomeParams params;
	const char *wrong = outcome_params(call, outcome, &params);

	if (wrong != NULL)
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", wrong);
	else if (caller_name(call) != NULL && !has_token(watch, outcome->cleanup_id, outcome->attempt))
		grpc_fail(call, GRPC_PERMISSION_DENIED, "cleanup %lld was not sent over this stream: use Ack or Nack",
				  (long long) outcome->cleanup_id);
	else if (!send_outcome(watch, statement, &params, outcome, settled))
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
	else
	{
		remove_token(watch, outcome->cleanup_id, outcome->attempt);
		watch->settling++;
	}
	outcome_params_free(&params);
	return !grpc_over(call);
}

static bool
settle(Watch *watch, DbStatement *statement, Garbagetruck__V1__Outcome *const *outcomes, size_t count)
{
	size_t		i;

	for (i = 0; i < count; i++)
	{
		if (!settle_one(watch, statement, outcomes[i]))
			return false;
	}
	return true;
}

static bool
begin(Watch *watch, const Garbagetruck__V1__WatchRequest *request, int64_t visibility_us)
{
	watch->begun = true;
	watch->pause_us = POLL_FIRST_US;
	watch->visibility_us = visibility_us != 0 ? visibility_us : 60000000;
	interval_param(watch->visibility_us, watch->visibility);
	if (!claim_handlers(watch->call, request->handlers, request->n_handlers, &watch->handlers))
		return false;
	timer_start(&watch->extend, extend_pause(watch), extend_all, watch);
	return true;
}

void
v1_watch(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__WatchRequest *request = (const void *) message;
	Watch	   *watch = grpc_state(call);
	int64_t		visibility_us;

	if (!duration_us(request->visibility, &visibility_us) || (request->visibility != NULL && visibility_us == 0))
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "visibility is zero, negative or out of range");
		return;
	}
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
	if (!watch->begun && !begin(watch, request, visibility_us))
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

	if (watch == NULL)
	{
		grpc_ok(call);
		return;
	}
	watch->ended = true;
	end_if_done(watch);
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
