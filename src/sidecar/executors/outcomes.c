/*
 * outcomes.c
 *		Telling the database what became of the calls, and extending claims
 *		while they last.
 *
 * Outcomes that wait go together.  When such a batch fails, each of them goes
 * alone, so that one object that somebody holds locked does not keep the
 * others.  An acknowledgement counts once, whatever is repeated.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/calls.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/util.h"

#define BATCH_OUTCOME	500
#define OUTCOME_TRIES	20

static const char ack_sql[] = "SELECT gt_ack_many($1::bigint[], $2::int[])";

/* without an error: it was given back, which is no attempt */
static const char nack_sql[] =
"SELECT count(*) FILTER (WHERE gt_nack(t.id, t.attempt, t.error,"
"   CASE WHEN t.after >= 0 THEN t.after * interval '1 millisecond' END, t.final))"
" FROM unnest($1::bigint[], $2::int[], $3::text[], $4::bigint[], $5::bool[]) AS t(id, attempt, error, after, final)";

static const char extend_sql[] =
"SELECT t.id, gt_extend(t.id, t.attempt, $3::interval)"
" FROM unnest($1::bigint[], $2::int[]) AS t(id, attempt)";

/* Take from `list` what goes together: those that failed to go before, alone. */
static void
take_batch(Context *context, CallList *list)
{
	CallList   *sending = &context->database->sending;
	int64_t		now = exec_now();
	Call	   *call;
	Call	   *next;

	for (call = list->head; call != NULL && sending->count < BATCH_OUTCOME; call = next)
	{
		next = call->next;
		if (call->not_before > now || (call->tries > 0 && sending->count > 0))
			continue;
		list_remove(call);
		list_add(sending, call);
		if (call->tries > 0)
			return;
	}
}

/* The database can not hold the text of an error: what it surely can is left of it. */
static void
reduce_to_ascii(char *text)
{
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text >= 0x80)
			*text = '?';
	}
}

/* Put back what could not be told; given up after many tries it lapses. */
static void
return_outcomes(Context *context, CallList *list, bool refused)
{
	CallList   *sending = &context->database->sending;
	Call	   *call;

	while ((call = sending->head) != NULL)
	{
		if (refused && ++call->tries > OUTCOME_TRIES)
		{
			exec_log(context, EXEC_LOG_WARNING, "the outcome of cleanup %lld attempt %d of %s could not be told: its claim lapses",
					 (long long) call->cleanup_id, call->attempt, call->handler);
			call_free(context, call);
			continue;
		}
		list_remove(call);
		list_add(list, call);
		call->not_before = refused ? exec_now() + (call->tries == 1 ? 0 : 500) : 0;
	}
}

/*
 * How long the target wants to be left alone, where that is longer than the
 * step that the database would wait by itself (the handler's delay, doubled
 * with each attempt); -1: as the database does.
 */
static int64_t
wait_of(Context *context, const Call *call)
{
	const Handler *handler = handler_find(context, call->handler);
	int64_t		step = handler != NULL ? handler->retry_delay_ms : 0;
	int			i;

	for (i = 1; i < call->attempt && step < call->retry_after_ms; i++)
		step *= 2;
	return call->retry_after_ms > step ? call->retry_after_ms : -1;
}

bool
send_outcomes(Context *context, CallList *list, Statement statement)
{
	enum
	{
		IDS, ATTEMPTS, ERRORS, AFTERS, FINALS, COLUMNS
	};
	ArrayParam	arrays[COLUMNS];
	const char *values[COLUMNS];
	const Call *call;
	bool		sent;
	int			i;

	take_batch(context, list);
	if (context->database->sending.count == 0)
		return false;
	for (i = 0; i < COLUMNS; i++)
		param_begin(&arrays[i]);
	for (call = context->database->sending.head; call != NULL; call = call->next)
	{
		param_add_number(&arrays[IDS], call->cleanup_id);
		param_add_number(&arrays[ATTEMPTS], call->attempt);
		param_add(&arrays[ERRORS], call->release ? NULL : call->error);
		param_add_number(&arrays[AFTERS], call->release ? call->retry_after_ms : wait_of(context, call));
		param_add(&arrays[FINALS], call->final ? "t" : "f");
	}
	for (i = 0; i < COLUMNS; i++)
		values[i] = param_end(&arrays[i]);
	sent = statement == STATEMENT_ACK ? send_statement(context, statement, ack_sql, ATTEMPTS + 1, values) :
		send_statement(context, statement, nack_sql, COLUMNS, values);
	for (i = 0; i < COLUMNS; i++)
		param_free(&arrays[i]);
	if (!sent)
		return_outcomes(context, list, false);	/* nothing else may join these */
	return sent;
}

void
take_outcome_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	bool		ack = database->statement == STATEMENT_ACK;
	uint64_t	told = (uint64_t) database->sending.count;
	uint64_t	counted;
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	Call	   *call;

	/* untranslatable, or not in the repertoire of its encoding */
	if (sqlstate != NULL && (strcmp(sqlstate, "22P05") == 0 || strcmp(sqlstate, "22021") == 0))
	{
		for (call = database->sending.head; call != NULL; call = call->next)
			reduce_to_ascii(call->error);
		return_outcomes(context, ack ? &context->succeeded : &context->failed, true);
		return;
	}
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
	{
		exec_log(context, EXEC_LOG_WARNING, "%s: %s", ack ? "gt_ack_many" : "gt_nack",
				 PQresultErrorMessage(result));
		return_outcomes(context, ack ? &context->succeeded : &context->failed, true);
		return;
	}
	counted = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
	if (ack)
		context->stats.acked += counted;
	context->stats.stale += told - counted;
	while (database->sending.head != NULL)
		call_free(context, database->sending.head);
}

typedef struct Extending
{
	ArrayParam	ids;
	ArrayParam	attempts;
	int64_t		now;
	int			count;
	int			limit;
} Extending;

static void
visit_due(Context *context, Call *call, void *arg)
{
	Extending  *extending = arg;

	if (call->extend_at > extending->now || extending->count >= extending->limit)
		return;
	param_add_number(&extending->ids, call->cleanup_id);
	param_add_number(&extending->attempts, call->attempt);
	extending->count++;
}

bool
send_extend(Context *context, int64_t now)
{
	Extending	extending = {{0}, {0}, now, 0, context->database->extend_limit};
	char		visibility[40];
	const char *values[3];
	bool		sent = false;

	param_begin(&extending.ids);
	param_begin(&extending.attempts);
	calls_visit(context, visit_due, &extending);
	if (extending.count > 0)
	{
		snprintf(visibility, sizeof(visibility), "%d milliseconds", context->settings.visibility_ms);
		values[0] = param_end(&extending.ids);
		values[1] = param_end(&extending.attempts);
		values[2] = visibility;
		context->database->extending = extending.count;
		sent = send_statement(context, STATEMENT_EXTEND, extend_sql, 3, values);
	}
	param_free(&extending.ids);
	param_free(&extending.attempts);
	return sent;
}

typedef struct Extended
{
	PGresult   *result;
	int64_t		sent_at;
} Extended;

static void
visit_extended(Context *context, Call *call, void *arg)
{
	Extended   *extended = arg;
	int			row;

	if (call->extend_at > extended->sent_at)
		return;
	for (row = 0; row < PQntuples(extended->result); row++)
	{
		if (strtoll(PQgetvalue(extended->result, row, 0), NULL, 10) != call->cleanup_id)
			continue;
		if (PQgetvalue(extended->result, row, 1)[0] == 't')
			call_claimed(context, call, extended->sent_at);
		else if (!call_withdraw(context, call))
			call->extend_at = INT64_MAX;	/* can not be called back */
		else
		{
			/* somebody else has it: this call must end */
			context->stats.stale++;
			call_abandon(context, call);
		}
		return;
	}
}

/* The only one of the statement: it is the first that is due. */
static void
visit_postpone(Context *context, Call *call, void *arg)
{
	Extended   *extended = arg;

	if (call->extend_at > extended->sent_at)
		return;
	call->extend_at = exec_now() + context->settings.visibility_ms / 10;
	extended->sent_at = INT64_MIN;
}

/*
 * What fails is perhaps one row that somebody holds locked: halves are tried,
 * down to that one, so that the claims of all others go on.
 */
void
take_extend_result(Context *context, PGresult *result)
{
	Database   *database = context->database;
	Extended	extended = {result, database->sent_at};

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
	{
		calls_visit(context, visit_extended, &extended);
		if (database->extend_limit < BATCH_OUTCOME)
			database->extend_limit *= 2;
		return;
	}
	if (database->extending > 1)
	{
		database->extend_limit = database->extending / 2;
		return;
	}
	exec_log(context, EXEC_LOG_WARNING, "gt_extend: %s", PQresultErrorMessage(result));
	calls_visit(context, visit_postpone, &extended);
}

static void
visit_next_extension(Context *context, Call *call, void *arg)
{
	int64_t    *next = arg;

	if (call->extend_at < *next)
		*next = call->extend_at;
}

int64_t
outcomes_next_time(const Context *context, int64_t next)
{
	const CallList *const lists[] = {&context->succeeded, &context->failed};
	const Call *call;
	int			i;

	for (i = 0; i < 2; i++)
	{
		for (call = lists[i]->head; call != NULL; call = call->next)
		{
			if (call->not_before < next)
				next = call->not_before;
		}
	}
	calls_visit((Context *) context, visit_next_extension, &next);
	return next;
}

void
claims_connection_lost(Context *context)
{
	/* sent again when it is back: an outcome counts once */
	return_outcomes(context, context->database->statement == STATEMENT_ACK ?
					&context->succeeded : &context->failed, false);
}

