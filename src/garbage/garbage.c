/*-------------------------------------------------------------------------
 *
 * garbage.c
 *	  What becomes of an object whose last lease has ended.
 *
 * Sessions (gt_release(), gt_claim() and its kin) and workers run this; all of
 * it on an object row that the caller has locked, in the caller's transaction.
 * Nothing here is kept outside the row: a crash leaves the state before.
 *
 *		held --last lease ended--> waiting --attempts--> gone
 *							   |	 ^   |
 *							   |	 |   +--gt_claim()--> claimed --ack--> gone
 *							   |	 |			   |
 *							   |	 +--failed, not the last attempt--+
 *							   |	 +--gt_redrive()-- dead <--failed, the last--+
 *							   +--no handler, or keep--> gone, or forgotten until regrant_at
 *
 * A create takes garbage back from any of these: gt_garbage_revive().
 *
 * Tokens.  (cleanup_id, attempt) names an attempt.  cleanup_id is drawn anew
 * each time that an object becomes garbage, `attempts` only grows while it is,
 * so no token comes twice.  A claim counts its attempt when it is made; an
 * attempt that a worker makes is counted with its outcome (in the column it is
 * then the number of the last one either way).
 *
 * Garbage on which nobody is at work can be discarded, by a token of its own.
 * What is dead has that of its last attempt.  What waits has that of its next
 * one; (cleanup_id, attempts), as the views show them, does as long as no
 * consumer has had that for a claim: a token that was answered is stale for ever.
 *
 * In flight.  flight_until is set while an external attempt is unanswered:
 * claimed, and neither acknowledged nor given up, nor followed by a later one
 * that was.  Until then a create gets GT004; and while it is set at all the
 * token is good, also after its claim has lapsed, also when the object is dead.
 * flight_before is the part of it that is owed to claims before the newest.
 *
 * Steps.  The delay before the next attempt doubles with each failure since the
 * object became garbage or was redriven (`steps`): claims that were given back
 * or that lapsed are no failures.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/settings.h"
#include "base/text.h"
#include "garbage/garbage.h"
#include "garbage/history.h"
#include "garbage/objects.h"
#include "handler/run.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "table/numbers.h"
#include "table/relations.h"
#include "table/versions.h"

#define MAX_STEP		(24 * USECS_PER_HOUR)	/* of back-off */
#define LEAST_DELAY		(100 * INT64CONST(1000))	/* us between two attempts of ours */
#define EXCUSED_DELAY	USECS_PER_SEC	/* after a run that did not happen */
#define MIN_FLIGHT		USECS_PER_MINUTE	/* after claimed_until: see gt_garbage_claimed() */
#define MAX_FLIGHT		USECS_PER_HOUR
#define MAX_EVICTIONS	3		/* in a row: the last one is an attempt */
#define MAX_CONFLICTS	10		/* in a row: after them each is an attempt */
#define HANDLER_MEMORY	(100 * INT64CONST(1000))	/* us for which a handler is remembered */

void		(*gt_object_gone) (const GtRow *row) = NULL;

void
gt_garbage_due(const GtHandler *h, TimestampTz when)
{
	if (GT_KIND_IS_EXTERNAL(h->kind))
		gt_garbage_queued_after_commit(when);
	else
		gt_garbage_due_after_commit(when);
}

/* The lease's or the handler's, whichever is longer: who may only use a handler does not hurry it. */
int64
gt_retry_delay_of(const GtRow *row, const GtHandler *h)
{
	int64		delay = row->isnull[O_RETRY_DELAY] ? 0 : GT_INT64(row, O_RETRY_DELAY);

	return Max(Max(delay, h->retry_delay), LEAST_DELAY);
}

/* How many attempts the object has in all: its lease's number or the handler's, and what was added since. */
static int
max_attempts_of(const GtRow *row, const GtHandler *h)
{
	int64		max = row->isnull[O_MAX_ATTEMPTS] ? h->max_attempts : GT_INT32(row, O_MAX_ATTEMPTS);

	return Min(max + GT_INT32(row, O_EXTRA_ATTEMPTS), PG_INT32_MAX);
}

/*
 * How long to wait after this many failures: the step doubles from retry_delay
 * to a day, and the wait is drawn between half of it and all, so that objects
 * that failed together do not come back together; never under LEAST_DELAY.
 */
int64
gt_back_off(int64 retry_delay, int failures)
{
	int64		step = Max(retry_delay, LEAST_DELAY);

	while (--failures > 0 && step < MAX_STEP)
		step *= 2;
	step = Min(step, MAX_STEP);
	return Max(step / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * (step - step / 2)), LEAST_DELAY);
}

static void
set_error(GtRow *row, const char *error)
{
	if (error != NULL)
		GT_SET(row, O_ERROR, gt_error_text(error));
}

/* All that is true only of garbage, as it is of an object that is held. */
static void
clear_garbage(GtRow *row)
{
	GT_SET(row, O_KEEP, BoolGetDatum(false));
	GT_SET(row, O_ALONE, BoolGetDatum(false));
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	GT_SET(row, O_ATTEMPTS, Int32GetDatum(0));
	GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(0));
	GT_SET(row, O_SENDS, Int32GetDatum(0));
	GT_SET_NULL(row, O_CLEANUP_ID);
	GT_SET_NULL(row, O_DUE_AT);
	GT_SET_NULL(row, O_SINCE);
	GT_SET_NULL(row, O_LEASE_ID);
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_BEFORE);
	GT_SET_NULL(row, O_STEPS);
	GT_SET_NULL(row, O_ERROR);
	GT_SET_NULL(row, O_CONFLICTS);
}

void
gt_object_init(GtRow *row, Datum object_type, Datum object_id)
{
	gt_row_init(row);
	GT_SET(row, O_OBJECT_TYPE, object_type);
	GT_SET(row, O_OBJECT_ID, object_id);
	GT_SET(row, O_LEASES, Int32GetDatum(1));
	GT_SET(row, O_FENCE, Int64GetDatum(0));
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_HELD));
	clear_garbage(row);
}

/* The object is forgotten, but for the time before which nobody is granted it exclusively. */
static void
forget_object(GtTable *objects, GtRow *row)
{
	if (gt_object_gone != NULL)
		gt_object_gone(row);
	if (row->isnull[O_REGRANT_AT] || GT_TIME(row, O_REGRANT_AT) <= gt_now())
	{
		gt_delete(objects, row);
		return;
	}
	clear_garbage(row);
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_FORGOTTEN));
	GT_SET(row, O_DUE_AT, row->v[O_REGRANT_AT]);
	GT_SET_NULL(row, O_HANDLER);
	GT_SET_NULL(row, O_SPEC_LEASE);
	GT_SET_NULL(row, O_SERVICE_ID);
	GT_SET_NULL(row, O_MAX_ATTEMPTS);
	GT_SET_NULL(row, O_RETRY_DELAY);
	GT_SET_NULL(row, O_PAYLOAD);
	GT_SET_NULL(row, O_METADATA);
	gt_update(objects, row);
	gt_garbage_due_after_commit(GT_TIME(row, O_REGRANT_AT));
}

/* ---------------------------------------------------------------- what becomes of it */

void
gt_garbage_number(GtItem *items, int n)
{
	int64	   *ids = palloc(n * sizeof(int64));
	int			i;

	gt_draw_numbers(GT__CLEANUP_ID, ids, n);
	for (i = 0; i < n; i++)
	{
		items[i].cleanup_id = ids[i];
		GT_SET(&items[i].row, O_CLEANUP_ID, Int64GetDatum(ids[i]));
	}
	pfree(ids);
}

/*
 * What matters of the handler of an object that becomes garbage: its kind and
 * its grace.  Endings come by the thousand, so it is remembered for a moment;
 * what this transaction has written counts at once, also when that is undone.
 * NULL: it is missing.
 */
static const GtHandler *
handler_of_garbage(const GtRow *row)
{
	static GtHandler h;			/* id, kind and grace alone */
	static TransactionId xid = InvalidTransactionId;
	static SubTransactionId subid;
	static uint64 writes;
	static TimestampTz read_at;
	int			id = GT_INT32(row, O_HANDLER);
	TimestampTz now = gt_now();
	GtHandler	found;

	if (h.id == id && xid == GetTopTransactionId() && subid == GetCurrentSubTransactionId() &&
		writes == gt_handler_writes && now - read_at < HANDLER_MEMORY)
		return &h;
	if (!gt_handler_by_id(id, &found))
		return NULL;
	memset(&h, 0, sizeof(h));
	h.id = id;
	h.kind = found.kind;
	h.grace = found.grace;
	xid = GetTopTransactionId();
	subid = GetCurrentSubTransactionId();
	writes = gt_handler_writes;
	read_at = now;
	return &h;
}

/* In memory: it waits for its first attempt. */
static void
become_garbage(GtRow *row, TimestampTz ended_at, TimestampTz due_at)
{
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_WAITING));
	GT_SET(row, O_SINCE, TimestampTzGetDatum(ended_at));
	GT_SET(row, O_DUE_AT, TimestampTzGetDatum(due_at));
	GT_SET(row, O_ATTEMPTS, Int32GetDatum(0));
	GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(0));
	GT_SET(row, O_SENDS, Int32GetDatum(0));
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	GT_SET(row, O_ALONE, BoolGetDatum(false));
	GT_SET_NULL(row, O_CONFLICTS);
}

/*
 * The last lease has ended: `row` (locked, leases = 0, not yet written) becomes
 * garbage, or is forgotten.  What the handler is given has been copied into it
 * by gt_end() when the lease that it comes from ended.
 */
void
gt_garbage_make(GtTable *objects, GtRow *row, const pg_uuid_t *last_lease, GtEndReason reason, TimestampTz ended_at)
{
	const GtHandler *h;
	TimestampTz due_at;

	if (last_lease != NULL)
		GT_SET(row, O_LEASE_ID, UUIDPGetDatum(last_lease));
	else
		GT_SET_NULL(row, O_LEASE_ID);
	if (reason == GT_END_KEPT || GT_BOOL(row, O_KEEP))
	{
		gt_history_add("kept", row, NULL, -1, -1, -1, NULL);
		forget_object(objects, row);
		return;
	}
	if (row->isnull[O_HANDLER])
	{
		forget_object(objects, row);
		return;
	}
	h = handler_of_garbage(row);
	due_at = ended_at + (h != NULL ? h->grace : 0);
	/* a handler that leases its own object and releases it again would otherwise be run again at once, without end */
	if (gt_in_cleanup)
		due_at = Max(due_at, gt_now() + LEAST_DELAY);
	become_garbage(row, ended_at, due_at);
	GT_SET(row, O_CLEANUP_ID, Int64GetDatum(nextval_internal(gt_sequence(GT__CLEANUP_ID), false)));
	gt_observe_gauges(0, 1, 0);
	if (h == NULL)
	{
		gt_garbage_put_aside(objects, row);
		return;
	}
	gt_update(objects, row);
	gt_garbage_due(h, due_at);
}

/* The same in memory, without a number, where it is to be cleaned in this very subtransaction: its row goes. */
void
gt_garbage_take(GtRow *row, const pg_uuid_t *last_lease, TimestampTz ended_at)
{
	GT_SET(row, O_LEASE_ID, UUIDPGetDatum(last_lease));
	become_garbage(row, ended_at, ended_at);
}

/*
 * A create takes the object back: as before it became garbage, in memory; the
 * caller counts its lease and writes.  The handler and what it will be given
 * stay until a lease names another: the object is still to be cleaned after
 * this lease.  Of an object that was only forgotten (state f) nothing stays but
 * regrant_at: the caller is the first to lease it, and owns it.
 */
void
gt_garbage_revive(GtRow *row)
{
	char		state = GT_CHAR(row, O_STATE);

	if (state != GT_STATE_FORGOTTEN)
		gt_observe_gauges(0, -1, state == GT_STATE_DEAD ? -1 : 0);
	clear_garbage(row);
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_HELD));
}

/* Garbage goes, whatever became of it. */
static void
remove_garbage(GtTable *objects, GtRow *row)
{
	gt_observe_gauges(0, -1, GT_CHAR(row, O_STATE) == GT_STATE_DEAD ? -1 : 0);
	forget_object(objects, row);
}

void
gt_garbage_forget(GtTable *objects, GtRow *row)
{
	remove_garbage(objects, row);
}

/* The object is clean. took < 0: not known. */
void
gt_garbage_done(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 took)
{
	gt_history_add("cleaned", row, h->name, attempt, gt_garbage_lag(row, h, gt_now()), took, NULL);
	remove_garbage(objects, row);
}

/* The same, by a run of ours. */
void
gt_garbage_cleaned(GtTable *objects, GtRow *row, const GtHandler *h, const GtItem *item)
{
	gt_history_add_attempt("cleaned", row, h->name, item->attempt, gt_garbage_lag(row, h, gt_now()), item->took, NULL, h, item->rows);
	remove_garbage(objects, row);
}

/* From when the object could first be cleaned until then, us. */
int64
gt_garbage_lag(const GtRow *row, const GtHandler *h, TimestampTz then)
{
	return Max(then - (GT_TIME(row, O_SINCE) + h->grace), 0);
}

static void
die(GtRow *row)
{
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_DEAD));
	GT_SET_NULL(row, O_DUE_AT);
	gt_observe_gauges(0, 0, 1);
}

void
gt_garbage_put_aside(GtTable *objects, GtRow *row)
{
	static const char *const error = "its handler is missing";

	set_error(row, error);
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	die(row);
	gt_history_add("dead", row, NULL, GT_INT32(row, O_ATTEMPTS), -1, -1, error);
	gt_update(objects, row);
}

/*
 * The token that was announced (kind notify) may be in the hands of a listener:
 * whoever comes before him has another.  It was no attempt, so the limit grows
 * with it.
 */
void
gt_garbage_pass_over_announced(GtRow *row)
{
	if (GT_INT32(row, O_SENDS) == 0)
		return;
	GT_SET(row, O_ATTEMPTS, Int32GetDatum(GT_INT32(row, O_ATTEMPTS) + 1));
	GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(GT_INT32(row, O_EXTRA_ATTEMPTS) + 1));
	GT_SET(row, O_SENDS, Int32GetDatum(0));
}

/* Waits for its next attempt, at `due_at`. */
void
gt_garbage_wait(GtRow *row, const GtHandler *h, TimestampTz due_at)
{
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_WAITING));
	GT_SET(row, O_DUE_AT, TimestampTzGetDatum(due_at));
	GT_SET(row, O_SENDS, Int32GetDatum(0));
	gt_garbage_due(h, due_at);
}

/*
 * Claimed until then, in memory.  A holder that goes silent may still be at work
 * after that, for as long again as it asked for, within bounds; and so may those
 * of earlier claims that nobody has answered.
 */
void
gt_garbage_claimed(GtRow *row, TimestampTz until, int64 visibility)
{
	TimestampTz flight_until = until + Min(Max(visibility, MIN_FLIGHT), MAX_FLIGHT);

	if (!row->isnull[O_FLIGHT_BEFORE])
		flight_until = Max(flight_until, GT_TIME(row, O_FLIGHT_BEFORE));
	GT_SET(row, O_STATE, CharGetDatum(GT_STATE_CLAIMED));
	GT_SET(row, O_CLAIMED_UNTIL, TimestampTzGetDatum(until));
	GT_SET(row, O_DUE_AT, TimestampTzGetDatum(until));
	GT_SET(row, O_FLIGHT_UNTIL, TimestampTzGetDatum(flight_until));
}

/* This attempt, and with it all before it, is answered, in memory: the next one has another token. */
static void
answered(GtRow *row, int attempt)
{
	if (attempt > GT_INT32(row, O_ATTEMPTS))
	{
		GT_SET(row, O_ATTEMPTS, Int32GetDatum(attempt));
		GT_SET(row, O_SENDS, Int32GetDatum(0));
	}
	else
		gt_garbage_pass_over_announced(row);	/* a late one, when the next was announced */
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	GT_SET(row, O_ALONE, BoolGetDatum(false));
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_UNTIL);
	GT_SET_NULL(row, O_FLIGHT_BEFORE);
}

/* It waits again, at least a moment. */
static void
try_again(GtRow *row, const GtHandler *h, int64 after)
{
	if (GT_CHAR(row, O_STATE) == GT_STATE_DEAD)	/* its last claim had lapsed */
		gt_observe_gauges(0, 0, -1);
	gt_garbage_wait(row, h, gt_now() + Max(after, LEAST_DELAY));
}

/* The attempt failed: the next one after the back-off, or retry_after (us, or GT_BACK_OFF, GT_FINAL); or none any more. */
void
gt_garbage_failed(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, const char *error,
				  int64 retry_after, int64 took)
{
	int			failures = row->isnull[O_STEPS] ? 1 : GT_INT32(row, O_STEPS) + 1;
	bool		dead;

	answered(row, attempt);
	set_error(row, error);
	GT_SET(row, O_STEPS, Int32GetDatum(failures));

	dead = retry_after == GT_FINAL || GT_INT32(row, O_ATTEMPTS) >= max_attempts_of(row, h);
	if (!dead)
		try_again(row, h, retry_after == GT_BACK_OFF ? gt_back_off(gt_retry_delay_of(row, h), failures) : retry_after);
	else if (GT_CHAR(row, O_STATE) != GT_STATE_DEAD)
		die(row);
	gt_history_add_attempt(dead ? "dead" : "failed", row, h->name, attempt, -1, took, error, h, -1);
	gt_update(objects, row);
}

/* No attempt was made: its token is used up all the same, and the limit grows with it. */
void
gt_garbage_not_now(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 retry_after)
{
	answered(row, attempt);
	GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(GT_INT32(row, O_EXTRA_ATTEMPTS) + 1));
	try_again(row, h, retry_after == GT_BACK_OFF ? gt_retry_delay_of(row, h) : retry_after);
	gt_update(objects, row);
}

static int
conflicts_of(const GtRow *row)
{
	return row->isnull[O_CONFLICTS] ? 0 : GT_INT32(row, O_CONFLICTS);
}

/*
 * The run did not happen: no attempt, and soon again (after retry_after, if >= 0).
 * Evictions may have a reason, so three in a row count as an attempt (but not for
 * kind notify: only gt_nack() ends one).
 */
void
gt_garbage_excused(GtTable *objects, GtRow *row, const GtHandler *h, const char *error, GtExcuse excuse,
				   int64 retry_after)
{
	int			sends = GT_INT32(row, O_SENDS);

	if (excuse == GT_EXCUSE_EVICTED && h->kind != GT_KIND_NOTIFY)
	{
		int			evictions = GT_INT32(row, O_EVICTED) + 1;

		if (evictions >= MAX_EVICTIONS)
		{
			gt_garbage_failed(objects, row, h, GT_INT32(row, O_ATTEMPTS) + 1, error, retry_after, -1);
			return;
		}
		GT_SET(row, O_EVICTED, Int32GetDatum(evictions));
	}
	if (excuse == GT_EXCUSE_CONFLICT)
	{
		GT_SET(row, O_CONFLICTS, Int32GetDatum(conflicts_of(row) + 1));
		retry_after = gt_retry_delay_of(row, h);
	}
	if (retry_after < 0)
		retry_after = EXCUSED_DELAY;
	set_error(row, error);
	gt_garbage_wait(row, h, gt_now() + Max(retry_after, LEAST_DELAY));
	GT_SET(row, O_SENDS, Int32GetDatum(sends));
	gt_update(objects, row);
}

bool
gt_garbage_may_conflict(const GtRow *row)
{
	return conflicts_of(row) < MAX_CONFLICTS;
}

/*
 * A claim whose time has passed: the object is due again, or dead when that was
 * its last attempt.  Either way the token is good until somebody else claims.
 * Returns whether another attempt may start now.
 */
bool
gt_garbage_lapsed(GtTable *objects, GtRow *row, const GtHandler *h)
{
	static const char *const message = "the claim lapsed: no gt_ack, gt_nack or gt_extend came in time";
	int			attempt = GT_INT32(row, O_ATTEMPTS);

	if (attempt < max_attempts_of(row, h))
		return true;
	set_error(row, message);
	die(row);
	gt_history_add("dead", row, h->name, attempt, -1, -1, message);
	gt_update(objects, row);
	return false;
}

/* A claim that is over, though nobody has looked at it since. */
bool
gt_garbage_has_lapsed(const GtRow *row, TimestampTz now)
{
	return GT_CHAR(row, O_STATE) == GT_STATE_CLAIMED && GT_TIME(row, O_CLAIMED_UNTIL) <= now;
}

bool
gt_garbage_lapsed_last(const GtRow *row, const GtHandler *h, TimestampTz now)
{
	return gt_garbage_has_lapsed(row, now) && GT_INT32(row, O_ATTEMPTS) >= max_attempts_of(row, h);
}

/* Dead garbage gets another max_attempts attempts, with steps that begin anew, the first one now. */
void
gt_garbage_redriven(GtTable *objects, GtRow *row, const GtHandler *h)
{
	if (GT_CHAR(row, O_STATE) == GT_STATE_DEAD)
		gt_observe_gauges(0, 0, -1);
	GT_SET(row, O_EXTRA_ATTEMPTS, Int32GetDatum(Max(max_attempts_of(row, h), GT_INT32(row, O_ATTEMPTS))));
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	GT_SET_NULL(row, O_STEPS);
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	gt_garbage_wait(row, h, gt_now());
	gt_history_add("redriven", row, h->name, GT_INT32(row, O_ATTEMPTS), -1, -1, NULL);
	gt_update(objects, row);
}

/* What waits for its next attempt does so no longer. What was announced stays so. */
void
gt_garbage_hurried(GtTable *objects, GtRow *row, const GtHandler *h)
{
	GT_SET(row, O_DUE_AT, TimestampTzGetDatum(gt_now()));
	gt_garbage_due(h, GT_TIME(row, O_DUE_AT));
	gt_history_add("redriven", row, h->name, GT_INT32(row, O_ATTEMPTS), -1, -1, NULL);
	gt_update(objects, row);
}

/* Somebody who may has given it up. */
void
gt_garbage_discarded(GtTable *objects, GtRow *row, const GtHandler *h)
{
	gt_history_add("discarded", row, h->name, GT_INT32(row, O_ATTEMPTS), -1, -1, NULL);
	remove_garbage(objects, row);
}
