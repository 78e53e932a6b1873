/*
 * service_queue.c
 *		garbagetruck.v1.GarbageTruck: the queue of garbage: Claim, Ack, Nack, Extend.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/service_queue.h"
#include "state.h"

/* ---- what WatchCleanups uses too ---- */

DbStatement claim_statement = {"v1_claim",
	"SELECT cleanup_id, attempt, object_id, object_type, handler, kind, command, payload::text, metadata::text,"
	" lease_id, service_id, fence, claimed_until, most, size"
	" FROM (SELECT pg_catalog.pg_size_bytes(coalesce(pg_catalog.current_setting('garbagetruck.max_payload', true), '64kB')) + 8192) s (size),"
	" LATERAL (SELECT least($2::bigint, greatest(1, $4::bigint / size))::int) m (most),"
	" gt_claim($1, most, coalesce($3, '1 minute'::interval))"
	" WHERE $5::text IS NULL OR coalesce(pg_catalog.current_setting('garbagetruck.identity', true), '') = $5"
	" UNION ALL SELECT NULL, NULL, NULL, NULL, pg_catalog.current_setting('garbagetruck.identity', true),"
	" NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
	" WHERE coalesce(pg_catalog.current_setting('garbagetruck.identity', true), '') <> $5::text",
CLAIM_PARAMS, DB_BINARY};

/*
 * A caller with a name must be allowed the garbage's handler: no row is garbage
 * that is gone (stale), NULL is somebody else's.
 */
#define TOKEN_SQL(call) \
	"SELECT CASE WHEN $4::text[] IS NULL THEN (SELECT " call ")" \
	" ELSE (SELECT CASE WHEN g.handler = ANY ($4) OR '*' = ANY ($4) THEN " call " END" \
	" FROM (SELECT handler FROM gt_garbage WHERE cleanup_id = $1" \
	" UNION ALL SELECT handler FROM gt_dead WHERE cleanup_id = $1 LIMIT 1) g) END," \
	" $4::text[] IS NOT NULL AND NOT EXISTS (SELECT FROM gt_garbage WHERE cleanup_id = $1" \
	" UNION ALL SELECT FROM gt_dead WHERE cleanup_id = $1)"

/* For callers without a name, which are most: the bare function. */
static DbStatement ack_statement = {"v1_ack", "SELECT gt_ack($1, $2), false FROM (SELECT $3::text, $4::text[], $5::interval, $6::boolean) unused", 6, DB_BINARY};
static DbStatement nack_statement = {"v1_nack", "SELECT gt_nack($1, $2, $3, $5, $6), false FROM (SELECT $4::text[]) unused", 6, DB_BINARY};
static DbStatement extend_statement = {"v1_extend", "SELECT gt_extend($1, $2, $5), false FROM (SELECT $3::text, $4::text[], $6::boolean) unused", 6, DB_BINARY};

static DbStatement ack_own = {"v1_ack_own", TOKEN_SQL("gt_ack($1, $2)") " FROM (SELECT $3::text, $5::interval, $6::boolean) unused", 6, DB_BINARY};
static DbStatement nack_own = {"v1_nack_own", TOKEN_SQL("gt_nack($1, $2, $3, $5, $6)"), 6, DB_BINARY};
static DbStatement extend_own = {"v1_extend_own", TOKEN_SQL("gt_extend($1, $2, $5)") " FROM (SELECT $3::text, $6::boolean) unused", 6, DB_BINARY};

/* The one row of a claim from a database that is not the expected one. */
static bool
is_refusal(const PGresult *result)
{
	return PQntuples(result) == 1 && PQgetisnull(result, 0, 0);
}

bool
claim_came(GrpcCall *call, const DbOutcome *outcome)
{
	const PGresult *result = outcome->result;

	if (result == NULL)
		call_fail_outcome(call, outcome, outcome->message);
	else if (is_refusal(result))
		grpc_fail(call, GRPC_FAILED_PRECONDITION, "nothing is claimed: garbagetruck.identity is \"%s\", and --expect-identity says \"%s\"",
				  get_text_or_empty(result, 0, 4), state.expect_identity);
	else
		return true;
	return false;
}

void
cleanup_read(const PGresult *result, int i, CleanupRow *row)
{
	Garbagetruck__V1__Cleanup *message = &row->message;

	garbagetruck__v1__cleanup__init(message);
	message->cleanup_id = get_int8(result, i, 0);
	message->attempt = (uint32_t) get_int4(result, i, 1);
	message->object_id = (char *) get_text_or_empty(result, i, 2);
	message->object_type = (char *) get_text_or_empty(result, i, 3);
	message->handler = (char *) get_text_or_empty(result, i, 4);
	message->kind = (char *) get_text_or_empty(result, i, 5);
	message->command = (char *) get_text_or_empty(result, i, 6);
	message->payload = (char *) get_text_or_empty(result, i, 7);
	message->metadata = (char *) get_text_or_empty(result, i, 8);
	message->lease_id = get_uuid(result, i, 9, row->lease_id);
	message->service_id = (char *) get_text_or_empty(result, i, 10);
	message->fence = get_int8(result, i, 11);
	message->claimed_until = get_timestamp(result, i, 12, &row->claimed_until);
}

/* False after it has failed the call of a caller who may claim of no handler. */
static bool
claims_something(GrpcCall *call)
{
	const char *const *own = NULL;

	if (caller_name(call) == NULL || caller_handlers(call, &own) > 0)
		return true;
	grpc_fail(call, GRPC_PERMISSION_DENIED, "%s may not claim: its line in the token file has no claim=", caller_name(call));
	return false;
}

bool
claim_handlers(GrpcCall *call, char *const *names, size_t count, char **param)
{
	const char *const *own = NULL;
	int			own_count = caller_handlers(call, &own);
	ArrayParam	array;
	size_t		bytes = 0;
	size_t		i;

	*param = NULL;
	if (count == 0 && (caller_name(call) == NULL || caller_claims(call, "*")))
		return true;
	if (!claims_something(call))
		return false;
	/* kept by the call and by its wait, in room that was doubled; quoted, each byte may be two */
	for (i = 0; i < count; i++)
		bytes += 6 * (strlen(names[i]) + 2);
	if (!grpc_charge(call, bytes))
		return false;
	param_begin(&array);
	for (i = 0; i < count; i++)
	{
		if (!caller_claims(call, names[i]))
		{
			param_free(&array);
			grpc_fail(call, GRPC_PERMISSION_DENIED, "%s may not claim of handler \"%.100s\"", caller_name(call), names[i]);
			return false;
		}
		param_add(&array, names[i]);
	}
	for (i = 0; count == 0 && (int) i < own_count; i++)
		param_add(&array, own[i]);
	param_end(&array);
	*param = array.text;
	return true;
}

const char *
outcome_params(GrpcCall *call, const Garbagetruck__V1__Outcome *outcome, OutcomeParams *out)
{
	const char *const *own = NULL;
	int			count = caller_handlers(call, &own);
	int64_t		us;
	int			i;

	memset(out, 0, sizeof(*out));
	if (outcome->attempt > INT32_MAX)
		return "attempt is out of range";
	if (!duration_us(outcome->delay, &us))
		return "delay is negative or out of range";
	snprintf(out->cleanup_id, sizeof(out->cleanup_id), "%lld", (long long) outcome->cleanup_id);
	snprintf(out->attempt, sizeof(out->attempt), "%u", outcome->attempt);
	out->params[0] = out->cleanup_id;
	out->params[1] = out->attempt;
	out->params[2] = text_or_null(outcome->error);
	if (caller_name(call) != NULL)
	{
		param_begin(&out->handlers);
		for (i = 0; i < count; i++)
			param_add(&out->handlers, own[i]);
		out->params[3] = param_end(&out->handlers);
	}
	out->params[4] = outcome->delay == NULL ? NULL : interval_param(us, out->delay);
	out->params[5] = outcome->final ? "true" : "false";
	return NULL;
}

void
outcome_params_free(OutcomeParams *params)
{
	param_free(&params->handlers);
}

/* ---- Claim: poll until there is something, or the client's time is over ---- */

typedef struct Claim
{
	GrpcCall   *call;
	DbCall	   *waiting;
	PollWaiter	poll;
	LoopTimer	limit;			/* of waiting */
	int64_t		until_us;
	char	   *handlers;
	char		visibility[INTERVAL_SIZE];
	bool		has_visibility;
	uint32_t	left;			/* how many more may be claimed */
	size_t		size;			/* of the answer so far */
	Garbagetruck__V1__ClaimResponse answer;
} Claim;

static void ask(Claim *claim);
static bool wait_on(Claim *claim);

/* Rows go away with their result; the answer may have those of several. */
static bool
keep_cleanup(Claim *claim, const PGresult *result, int i)
{
	Garbagetruck__V1__ClaimResponse *answer = &claim->answer;
	Garbagetruck__V1__Cleanup **grown;
	CleanupRow	row;
	size_t		len;
	uint8_t    *packed;

	cleanup_read(result, i, &row);
	len = protobuf_c_message_get_packed_size(&row.message.base);
	if (!grpc_charge(claim->call, sizeof(CleanupRow) + len))
		return false;
	grown = realloc(answer->cleanups, (answer->n_cleanups + 1) * sizeof(*grown));
	if (grown != NULL)
		answer->cleanups = grown;
	packed = malloc(len + 1);
	if (grown == NULL || packed == NULL)
	{
		free(packed);
		return false;
	}
	protobuf_c_message_pack(&row.message.base, packed);
	grown[answer->n_cleanups] = garbagetruck__v1__cleanup__unpack(NULL, len, packed);
	free(packed);
	if (grown[answer->n_cleanups] == NULL)
		return false;
	answer->n_cleanups++;
	claim->left--;
	claim->size += answer_share(&row.message.base);
	return true;
}

/* Is there more to claim, and room for it? */
static bool
wants_more(const Claim *claim, const PGresult *result, int count)
{
	return count > 0 && claim->left > 0 && count == get_int4(result, 0, 13) &&
		claim->size + (size_t) get_int8(result, 0, 14) <= ANSWER_MOST;
}

static void
claimed(void *arg, const DbOutcome *outcome)
{
	Claim	   *claim = arg;
	GrpcCall   *call = claim->call;
	int			count = 0;
	int			i;

	claim->waiting = NULL;
	if (claim->answer.n_cleanups == 0 && !claim_came(call, outcome))
		return;
	if (outcome->result != NULL && !is_refusal(outcome->result))
		count = PQntuples(outcome->result);
	for (i = 0; i < count && keep_cleanup(claim, outcome->result, i); i++)
		;
	/* What was claimed and cannot be told lapses. */
	if (grpc_over(call))
		return;
	if (i < count && claim->answer.n_cleanups == 0)
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
	else if (i == count && wants_more(claim, outcome->result, count))
		ask(claim);
	else if (claim->answer.n_cleanups > 0 || !wait_on(claim))
		grpc_answer(call, &claim->answer.base);
}

/* Its turn to ask. */
static void
take_turn(void *arg)
{
	Claim	   *claim = arg;

	if (state.draining)
		grpc_answer(claim->call, &claim->answer.base);
	else
		ask(claim);
}

/* In vain. */
static void
waited_enough(void *arg)
{
	Claim	   *claim = arg;

	/* What is on its way to it would be lost. */
	if (claim->waiting == NULL)
		grpc_answer(claim->call, &claim->answer.base);
}

/* There was nothing: wait, unless the time is over. */
static bool
wait_on(Claim *claim)
{
	bool		waits = claim->poll.poll != NULL;

	if (waits)
		poll_asked(&claim->poll, false);
	if (loop_now() >= claim->until_us || state.draining)
		return false;
	if (waits)
		return true;
	timer_start(&claim->limit, claim->until_us - loop_now(), waited_enough, claim);
	return poll_join(&claim->poll, claim->handlers, take_turn, claim);
}

static void
ask(Claim *claim)
{
	char		max_items[16],
				room[24];
	const char *params[CLAIM_PARAMS] = {claim->handlers, max_items, claim->has_visibility ? claim->visibility : NULL, room,
		state.expect_identity};
	DbHow		how = call_how(claim->call);

	snprintf(max_items, sizeof(max_items), "%u", claim->left);
	snprintf(room, sizeof(room), "%zu", ANSWER_MOST - claim->size);
	how.large = claim->left > 16;
	claim->waiting = db_call(&claim_statement, params, &how, claimed, claim);
}

void
v1_claim_over(GrpcCall *call)
{
	Claim	   *claim = grpc_state(call);

	if (claim == NULL)
		return;
	poll_leave(&claim->poll);
	timer_stop(&claim->limit);
	if (claim->waiting != NULL)
		db_forget(claim->waiting);
	while (claim->answer.n_cleanups > 0)
		garbagetruck__v1__cleanup__free_unpacked(claim->answer.cleanups[--claim->answer.n_cleanups], NULL);
	free(claim->answer.cleanups);
	free(claim->handlers);
	free(claim);
}

void
v1_claim(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__ClaimRequest *request = (const void *) message;
	Claim	   *claim;
	const char *visibility;
	int64_t		wait;

	if (!duration_us(request->wait, &wait))
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "wait is negative or out of range");
		return;
	}
	claim = calloc(1, sizeof(Claim));
	if (claim == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	claim->call = call;
	garbagetruck__v1__claim_response__init(&claim->answer);
	grpc_set_state(call, claim);
	if (!read_duration(call, "visibility", request->visibility, claim->visibility, &visibility) ||
		!claim_handlers(call, request->handlers, request->n_handlers, &claim->handlers))
		return;
	claim->has_visibility = visibility != NULL;
	claim->left = request->max_items == 0 ? 10 : request->max_items > MAX_CLAIM ? MAX_CLAIM : request->max_items;
	claim->until_us = loop_now() + wait;
	ask(claim);
}

/* ---- Ack, Nack, Extend ---- */

static void
judged(void *arg, const DbOutcome *outcome)
{
	GrpcCall   *call = arg;
	Garbagetruck__V1__OutcomeResponse response = GARBAGETRUCK__V1__OUTCOME_RESPONSE__INIT;

	if (!call_sql_done(call, outcome))
		return;
	if (PQgetisnull(outcome->result, 0, 0) && !get_bool(outcome->result, 0, 1))
	{
		grpc_fail(call, GRPC_PERMISSION_DENIED, "%s may not claim of this garbage's handler", caller_name(call));
		return;
	}
	response.current = get_bool(outcome->result, 0, 0);
	grpc_answer(call, &response.base);
}

static void
send_outcome(GrpcCall *call, const ProtobufCMessage *message, DbStatement *any, DbStatement *own, bool needs_delay)
{
	const Garbagetruck__V1__Outcome *outcome = (const void *) message;
	OutcomeParams params;
	const char *wrong;

	if (!claims_something(call))
		return;
	wrong = outcome_params(call, outcome, &params);
	if (wrong == NULL && needs_delay && params.params[4] == NULL)
		wrong = "delay is needed: how long the claim shall last";
	if (wrong != NULL)
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", wrong);
	else
		call_sql(call, caller_name(call) == NULL ? any : own, params.params,
				 db_route(params.cleanup_id, strlen(params.cleanup_id)), false, judged);
	outcome_params_free(&params);
}

void
v1_ack(GrpcCall *call, const ProtobufCMessage *message)
{
	send_outcome(call, message, &ack_statement, &ack_own, false);
}

void
v1_nack(GrpcCall *call, const ProtobufCMessage *message)
{
	send_outcome(call, message, &nack_statement, &nack_own, false);
}

void
v1_extend(GrpcCall *call, const ProtobufCMessage *message)
{
	send_outcome(call, message, &extend_statement, &extend_own, true);
}
