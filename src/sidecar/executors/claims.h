/*
 * claims.h
 *		The connection (link.c) and what is said on it: claims.c says what is
 *		next, and of claims; outcomes.c of what they came to; handlers.c knows
 *		what may be claimed.
 */
#ifndef GT_CLAIMS_H
#define GT_CLAIMS_H

#include <libpq-fe.h>

#include "base/array.h"
#include "executors/context.h"
#include "executors/util.h"

#define BATCH_CLAIM		100		/* at first, and where there is no room for what is claimed */
#define PICK_MOST		512		/* claimed at once of what was looked for */
#define PAUSE_ERROR_MS	2000

typedef enum DatabaseState
{
	DATABASE_DOWN,				/* to be connected at retry_at */
	DATABASE_CONNECTING,
	DATABASE_IDLE,
	DATABASE_BUSY				/* a statement is under way */
} DatabaseState;

typedef enum Statement
{
	STATEMENT_SETUP,
	STATEMENT_HANDLERS,
	STATEMENT_CLAIM,
	STATEMENT_LOOK,
	STATEMENT_ACK,
	STATEMENT_NACK,
	STATEMENT_EXTEND
} Statement;

/* What takes turns on the connection. */
typedef enum Turn
{
	TURN_CLAIM, TURN_ACK, TURN_NACK, TURN_LOOK, TURNS
} Turn;

typedef enum HandlerState
{
	HANDLER_UNKNOWN,			/* not tried yet */
	HANDLER_OK,
	HANDLER_DENIED				/* no claim on it; tried again at retry_at */
} HandlerState;

/* How far what a handler has due has been looked through, in the order of that. */
typedef struct LookedTo
{
	char		due[40];		/* the due time to which it has come; "": it is not begun, */
	int64_t		id;				/* and the cleanup of that time */
} LookedTo;

/* A handler of one of our kinds, as gt_handlers shows it. */
struct Handler
{
	char	   *name;
	ExecutorKind kind;
	int64_t		timeout_ms;
	int64_t		retry_delay_ms;
	HandlerState state;
	int64_t		retry_at;
	int64_t		hold_until;		/* its own host is crowded: not claimed before */
	bool		crowded;		/* hosts that its leases name are: what is due for others is looked for */
	bool		gave_back;		/* and they were since all of it began to be looked at again */
	LookedTo	newest;			/* what was due before has been seen, but for what came late, */
	LookedTo	again;			/* and is seen again, from the oldest on */
	char		oldest[40];		/* when that was due, at the first look */
	int64_t		look_ms;		/* of what is due within so long is looked at at once */
	int64_t		look_at;		/* when to look at what is due since */
	int64_t		again_at;		/* when to look at more of all; 0: not before it was seen once */
	int64_t		again_began;	/* when that did */
	char	   *command;
	char	   *lacks;			/* why it is left to others; NULL: it is not */
	bool		seen;
};

struct Database
{
	PGconn	   *conn;
	DatabaseState state;
	short		connect_events; /* what PQconnectPoll waits for */
	int64_t		retry_at;
	int64_t		retry_delay;
	int64_t		deadline;		/* of the connection attempt or the statement */
	bool		told_down;		/* the log knows that it is away */

	Statement	statement;		/* the one under way */
	Turn		turn;			/* whose is the next one */
	PGresult   *result;			/* what has come of its answer */
	int64_t		sent_at;
	CallList	sending;		/* what its ack or nack is about */
	int			extending;		/* how many claims it extends */
	int			extend_limit;	/* at most so many at once */
	char	   *claiming;		/* a claim of this handler alone; NULL: of all */
	int			claim_size;		/* of the claim under way */
	int			claim_batch;	/* of the next one, at most */
	bool		turning_away;	/* most of what is due has no room */
	bool		claiming_rest;	/* the claim under way leaves out what is looked through */
	int64_t		claim_all_at;	/* when not to, while turning away */
	char	   *looking;		/* whose garbage is looked through */
	bool		looking_again;	/* at what was seen before, too */
	int64_t		picked[PICK_MOST];	/* what was found there, and is claimed next */
	int			picked_count;
	bool		claiming_picked;	/* the claim under way is of those */

	char	   *user;
	bool		lossy;			/* it is not in UTF-8: U+FFFD is a character that could not be read */
	bool		ready;			/* it is the database that we expect */
	bool		may_claim;		/* our role may call gt_claim at all */
	bool		refused;		/* it may not even read the handlers */
	int64_t		handlers_at;	/* when to read gt_handlers again */
	int64_t		claim_at;		/* when to claim again */
	int64_t		claim_pause;	/* how long to wait after a claim without rows */
};

/* False: it could not be sent. */
static inline bool
send_statement(Context *context, Statement statement, const char *sql, int count, const char *const *values)
{
	context->database->statement = statement;
	return PQsendQueryParams(context->database->conn, sql, count, NULL, values, NULL, NULL, 0) == 1;
}

/* Its claim, or an extension of it, was asked for at this time, from when on it holds. */
static inline void
call_claimed(const Context *context, Call *call, int64_t asked_at)
{
	call->lapses_at = asked_at + context->settings.visibility_ms;
	call->extend_at = asked_at + context->settings.visibility_ms / 3;
}

/* --- claims.c --- */

/* Send what is most due; false when there is nothing, or it failed. */
extern bool claims_send_next(Context *context);

/* The result of the statement under way. */
extern void claims_take_result(Context *context, PGresult *result);

extern int64_t claims_next_time(const Context *context);

/* --- outcomes.c --- */

/* False: nothing to send. */
extern bool send_outcomes(Context *context, CallList *list, Statement statement);
extern bool send_extend(Context *context, int64_t now);
extern void take_outcome_result(Context *context, PGresult *result);
extern void take_extend_result(Context *context, PGresult *result);

/* When an outcome is to be told, or a claim to be extended; at the latest `next`. */
extern int64_t outcomes_next_time(const Context *context, int64_t next);

/* The connection is gone, and the outcome of what was under way unknown. */
extern void claims_connection_lost(Context *context);

/* --- handlers.c --- */

/* Ask which there are; false: it could not be sent.  And what came of it. */
extern bool handlers_send(Context *context);
extern void handlers_take_result(Context *context, PGresult *result);
extern void handlers_free(Context *context);
extern Handler *handler_find(Context *context, const char *name);

/* A claim was refused: by rights, or because the database is a paused copy. */
extern void handlers_take_refusal(Context *context, PGresult *result);

/* A handler to be tried by itself; NULL: none. */
extern Handler *handlers_untried(Context *context, int64_t now);

/* Appends those that may be claimed now, also what is looked through, or not; false when there are none. */
extern bool handlers_claimable(Context *context, bool looked_through, ArrayParam *names);

/* One of which more is due than its hosts take, and it is time to look for what is due for others; NULL: none. */
extern Handler *handlers_to_look(Context *context, int64_t now);

/* When that is the first time; at the latest `next`. */
extern int64_t handlers_next_look(const Context *context, int64_t next);

/* Is that a look at all of it again? Else at what is new. */
extern bool handler_looks_again(const Handler *handler);

/* All of what is due is looked at again as soon as may be. */
extern void handlers_look_anew(Context *context);

/* A look at a handler's has come so far, to the end perhaps. */
extern void handler_looked(Handler *handler, bool again, bool to_the_end);

/* When the first of those that are held now may be claimed again. */
extern int64_t handlers_held_until(const Context *context, int64_t now);

/* What the role or the sidecar lacks, one sentence a line. */
extern void handlers_problems(const Context *context, Buffer *text);

/* What it is about, or what it would say, could not be read: it would be about something else. */
extern bool call_is_lost(const Context *context, const Call *call);

#endif							/* GT_CLAIMS_H */
