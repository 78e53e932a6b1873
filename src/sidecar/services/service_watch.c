/*
 * service_watch.c
 *		garbagetruck.v1.GarbageTruck: WatchCleanups.
 *
 * The client gives credit; garbage is claimed while there is some and pushed.
 * What was pushed and not yet acknowledged is extended every third of the
 * visibility while the client shows signs of life of its own, which are its
 * messages: a connection lives as long as the kernel of a program that hangs.
 * A claim whose answer finds the client gone lapses by itself.
 *
 * A stream has one statement for all that it extends, and one for what it
 * settles, in flight at a time: what comes meanwhile goes with the next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/service_queue.h"
#include "services/tokens.h"
#include "state.h"

#define CLAIM_AT_ONCE 100
#define UNSENT_MARK (1024 * 1024)	/* a client that does not read gets no more */
#define UNSENT_PAUSE_US 500000
#define EXTEND_LEAST_US 20000	/* a shorter visibility lapses between two extensions */
#define SETTLE_AT_ONCE 1000
#define EXTEND_AT_ONCE 500
#define SILENCE_TIMES 10		/* visibilities that may pass without a message of the client */
#define SILENCE_LEAST_US 5000000

/* An outcome on its way to SQL. */
typedef struct Settling
{
	struct Settling *next;
	size_t		charged;		/* bytes */
	bool		ack;
	OutcomeParams params;
	char		error[];		/* that params point to */
} Settling;

typedef struct Watch
{
	GrpcCall   *call;
	bool		begun;
	bool		ended;			/* the client will send no more */
	uint64_t	credit;
	char	   *handlers;
	char		visibility[INTERVAL_SIZE];
	int64_t		visibility_us;
	int64_t		heard_us;		/* loop_awake() at the last message, or when it had nothing to do before it got something */
	DbCall	   *waiting;		/* of the claim in flight */
	PollWaiter	poll;
	LoopTimer	again;
	LoopTimer	extend;
	Tokens		tokens;
	bool		alone;			/* one by one, as a row is locked */
	DbCall	   *extending;
	Settling   *settlings;		/* the oldest first */
	Settling  **settlings_end;
	size_t		settling;		/* how many, with those in flight */
	size_t		in_flight;		/* the first ones of them */
	bool		plain;			/* the database cannot hold all of an error of them */
} Watch;

static void claim_more(Watch *watch);
static void settle_next(Watch *watch);

/* The client has said all, has what it gave credit for, and what it settled is settled. */
static void
end_if_done(Watch *watch)
{
	if (watch->ended && watch->credit == 0 && watch->settling == 0)
		grpc_ok(watch->call);
}

/* ---- pushing ---- */

static void
remove_token(Watch *watch, int64_t cleanup_id, uint32_t attempt)
{
	size_t		before = watch->tokens.count;

	tokens_remove(&watch->tokens, cleanup_id, attempt);
	grpc_give_back(watch->call, (before - watch->tokens.count) * token_size);
}

/* False after it has failed the call. */
static bool
add_token(Watch *watch, int64_t cleanup_id, uint32_t attempt)
{
	if (!grpc_charge(watch->call, token_size))
		return false;
	if (watch->tokens.count == 0)
		watch->heard_us = loop_awake();
	if (tokens_add(&watch->tokens, cleanup_id, attempt))
		return true;
	grpc_fail(watch->call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
	return false;
}

/* False: the call is over. */
static bool
push(Watch *watch, const PGresult *result, int i)
{
	GrpcCall   *call = watch->call;
	CleanupRow	row;

	cleanup_read(result, i, &row);
	if (!add_token(watch, row.message.cleanup_id, row.message.attempt))
		return false;
	if (watch->credit > 0)
		watch->credit--;
	grpc_send(call, &row.message.base);
	return !grpc_over(call);
}

static void
take_turn(void *arg)
{
	Watch	   *watch = arg;

	/* It has been told to go when the server drains. */
	if (watch->credit == 0 || state.draining)
		poll_leave(&watch->poll);
	else
		claim_more(watch);
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
		if (!push(watch, outcome->result, i))
			return;
	}
	end_if_done(watch);
	if (grpc_over(call))
		return;
	if (watch->poll.poll != NULL)
		poll_asked(&watch->poll, count > 0);
	if (watch->credit == 0)
		poll_leave(&watch->poll);
	else if (watch->poll.poll == NULL && !poll_join(&watch->poll, watch->handlers, take_turn, watch))
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
}

static void
ask_again(void *arg)
{
	claim_more(arg);
}

static void
claim_more(Watch *watch)
{
	char		max_items[16],
				room[24];
	const char *params[CLAIM_PARAMS] = {watch->handlers, max_items, watch->visibility, room, state.expect_identity};
	DbHow		how = call_how(watch->call);

	if (watch->waiting != NULL || watch->credit == 0)
		return;
	if (grpc_unsent(watch->call) > UNSENT_MARK)
	{
		poll_leave(&watch->poll);
		timer_start(&watch->again, UNSENT_PAUSE_US, ask_again, watch);
		return;
	}
	snprintf(max_items, sizeof(max_items), "%d", watch->credit > CLAIM_AT_ONCE ? CLAIM_AT_ONCE : (int) watch->credit);
	snprintf(room, sizeof(room), "%d", ANSWER_MOST);
	how.large = watch->credit > 16;
	watch->waiting = db_call(&claim_statement, params, &how, claimed, watch);
}

/* ---- extending ---- */

/* Those that are not current any more, settled by Ack or lapsed. */
static DbStatement extend_many = {"v1_watch_extend",
	"SELECT u.id, u.attempt FROM (SELECT * FROM unnest($1::bigint[], $2::int[]) u (id, attempt) ORDER BY 1) u"
	" WHERE NOT gt_extend(u.id, u.attempt, $3)",
3, DB_BINARY};

static void extend_some(Watch *watch);

static int64_t
extend_pause(const Watch *watch)
{
	return watch->visibility_us / 3 > EXTEND_LEAST_US ? watch->visibility_us / 3 : EXTEND_LEAST_US;
}

static void
extended(void *arg, const DbOutcome *outcome)
{
	Watch	   *watch = arg;
	int			i;

	watch->extending = NULL;
	for (i = 0; outcome->result != NULL && i < PQntuples(outcome->result); i++)
		remove_token(watch, get_int8(outcome->result, i, 0), (uint32_t) get_int4(outcome->result, i, 1));
	/* A row that somebody has locked keeps the others from nothing but company. */
	if (outcome->result == NULL && strcmp(outcome->sqlstate, "55P03") == 0 && !watch->alone)
	{
		watch->alone = true;
		watch->tokens.next = 0;
	}
	extend_some(watch);
}

static void
extend_all(void *arg)
{
	Watch	   *watch = arg;
	int64_t		silence = watch->visibility_us * SILENCE_TIMES > SILENCE_LEAST_US ? watch->visibility_us * SILENCE_TIMES : SILENCE_LEAST_US;

	timer_start(&watch->extend, extend_pause(watch), extend_all, watch);
	if (watch->tokens.count == 0 || watch->extending != NULL)
		return;
	if (loop_awake() - watch->heard_us + watch->visibility_us > silence)
	{
		grpc_fail(watch->call, GRPC_ABORTED, "nothing was heard of the consumer for %d times its visibility: its claims lapse", SILENCE_TIMES - 1);
		return;
	}
	watch->tokens.next = 0;
	watch->alone = false;
	extend_some(watch);
}

/* The next ones of this round. */
static void
extend_some(Watch *watch)
{
	const char *params[3] = {NULL, NULL, watch->visibility};
	DbHow		how = call_how(watch->call);
	ArrayParam	ids;
	ArrayParam	attempts;
	int			count;

	param_begin(&ids);
	param_begin(&attempts);
	count = tokens_take(&watch->tokens, watch->alone ? 1 : EXTEND_AT_ONCE, &ids, &attempts);
	params[0] = param_end(&ids);
	params[1] = param_end(&attempts);
	how.no_wait = true;
	if (count > 0)
		watch->extending = db_call(&extend_many, params, &how, extended, watch);
	param_free(&ids);
	param_free(&attempts);
}

/* ---- settling ---- */

static DbStatement ack_many = {"v1_watch_ack",
	"SELECT count(gt_ack(u.id, u.attempt)) FROM (SELECT * FROM unnest($1::bigint[], $2::int[]) u (id, attempt) ORDER BY 1) u",
2, DB_BINARY};

static DbStatement nack_many = {"v1_watch_nack",
	"SELECT count(gt_nack(u.id, u.attempt, u.error, u.delay, u.final)) FROM (SELECT * FROM"
	" unnest($1::bigint[], $2::int[], $3::text[], $4::interval[], $5::boolean[]) u (id, attempt, error, delay, final) ORDER BY 1) u",
5, DB_BINARY};

static void
free_settling(Watch *watch)
{
	Settling   *settling = watch->settlings;

	watch->settlings = settling->next;
	if (watch->settlings == NULL)
		watch->settlings_end = &watch->settlings;
	watch->settling--;
	grpc_give_back(watch->call, settling->charged);
	outcome_params_free(&settling->params);
	free(settling);
}

/* What could not be settled must not look settled: the stream ends with the reason. */
static void
settled(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Watch	   *watch = grpc_over(call) ? NULL : grpc_state(call);

	if (watch != NULL && outcome->result == NULL && (watch->plain || !is_untranslatable(outcome->sqlstate)))
		call_fail_outcome(call, outcome, outcome->message);
	else if (watch != NULL)
	{
		watch->plain = outcome->result == NULL;
		for (; watch->in_flight > 0; watch->in_flight--)
			if (!watch->plain)
				free_settling(watch);
		settle_next(watch);
		if (watch->settling == 0)
			end_if_done(watch);
	}
	grpc_release(call);
}

/*
 * The oldest ones, as many as are of one kind.  The call is held meanwhile: they
 * are carried out though the stream may end.
 */
static void
settle_next(Watch *watch)
{
	ArrayParam	arrays[5];
	const char *params[5];
	DbHow		how = call_how(watch->call);
	Settling   *settling = watch->settlings;
	bool		ack;
	int			i;

	if (watch->in_flight > 0 || settling == NULL)
		return;
	ack = settling->ack;
	for (i = 0; i < 5; i++)
		param_begin(&arrays[i]);
	for (; settling != NULL && settling->ack == ack && watch->in_flight < SETTLE_AT_ONCE; settling = settling->next)
	{
		const char *const *p = settling->params.params;

		if (watch->plain)
			text_reduce(settling->error);
		param_add(&arrays[0], p[0]);
		param_add(&arrays[1], p[1]);
		param_add(&arrays[2], p[2]);
		param_add(&arrays[3], p[4]);
		param_add(&arrays[4], p[5]);
		watch->in_flight++;
	}
	for (i = 0; i < 5; i++)
		params[i] = param_end(&arrays[i]);
	/* One after the other. */
	how.route = (uint64_t) (uintptr_t) watch->call;
	how.deadline_us = 0;
	grpc_hold(watch->call);
	db_call(ack ? &ack_many : &nack_many, params, &how, settled, watch->call);
	for (i = 0; i < 5; i++)
		param_free(&arrays[i]);
}

/* The client has gone, but has said what it has done. */
static void
send_unsettled(Watch *watch)
{
	while (watch->settlings != NULL)
	{
		for (; watch->in_flight > 0; watch->in_flight--)
			free_settling(watch);
		settle_next(watch);
	}
}

/* Settle what the stream itself handed out; anything else is Ack's and Nack's. */
static bool
settle_one(Watch *watch, bool ack, const Garbagetruck__V1__Outcome *outcome)
{
	GrpcCall   *call = watch->call;
	size_t		size = sizeof(Settling) + strlen(outcome->error) + 1;
	Settling   *settling;
	const char *wrong;

	if (!grpc_charge(call, size))
		return false;
	settling = calloc(1, size);
	if (settling == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return false;
	}
	wrong = outcome_params(call, outcome, &settling->params);
	if (wrong != NULL)
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", wrong);
	else if (caller_name(call) != NULL && !tokens_have(&watch->tokens, outcome->cleanup_id, outcome->attempt))
		grpc_fail(call, GRPC_PERMISSION_DENIED, "cleanup %lld was not sent over this stream: use Ack or Nack",
				  (long long) outcome->cleanup_id);
	else if (watch->settling > 100000)
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "too many acks and nacks wait");
	else
	{
		remove_token(watch, outcome->cleanup_id, outcome->attempt);
		settling->ack = ack;
		settling->charged = size;
		strcpy(settling->error, outcome->error);
		settling->params.params[2] = text_or_null(settling->error);
		*watch->settlings_end = settling;
		watch->settlings_end = &settling->next;
		watch->settling++;
		return true;
	}
	outcome_params_free(&settling->params);
	free(settling);
	return false;
}

static bool
settle(Watch *watch, bool ack, Garbagetruck__V1__Outcome *const *outcomes, size_t count)
{
	size_t		i;

	for (i = 0; i < count; i++)
	{
		if (!settle_one(watch, ack, outcomes[i]))
			return false;
	}
	return true;
}

/* ---- the stream ---- */

static bool
begin(Watch *watch, const Garbagetruck__V1__WatchRequest *request, int64_t visibility_us)
{
	watch->begun = true;
	watch->visibility_us = visibility_us != 0 ? visibility_us : 60000000;
	interval_param(watch->visibility_us, watch->visibility);
	if (!claim_handlers(watch->call, request->handlers, request->n_handlers, &watch->handlers))
		return false;
	timer_start(&watch->extend, extend_pause(watch), extend_all, watch);
	return true;
}

static Watch *
make_watch(GrpcCall *call)
{
	Watch	   *watch = calloc(1, sizeof(Watch));

	if (watch == NULL || !tokens_make(&watch->tokens))
	{
		free(watch);
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return NULL;
	}
	watch->settlings_end = &watch->settlings;
	watch->call = call;
	grpc_set_state(call, watch);
	return watch;
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
	if (watch == NULL && (watch = make_watch(call)) == NULL)
		return;
	watch->heard_us = loop_awake();
	if (!watch->begun && !begin(watch, request, visibility_us))
		return;
	if (!settle(watch, true, request->acks, request->n_acks) ||
		!settle(watch, false, request->nacks, request->n_nacks))
		return;
	settle_next(watch);
	watch->credit += request->credit;
	if (request->credit > 0)
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
	poll_leave(&watch->poll);
	timer_stop(&watch->again);
	timer_stop(&watch->extend);
	if (watch->waiting != NULL)
		db_forget(watch->waiting);
	if (watch->extending != NULL)
		db_forget(watch->extending);
	send_unsettled(watch);
	tokens_free(&watch->tokens);
	free(watch->handlers);
	free(watch);
}
