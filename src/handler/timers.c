/*-------------------------------------------------------------------------
 *
 * timers.c
 *	  How long a run may last: its timeout, its turn, the last slot.
 *
 * The timer cancels the run at its timeout and every five seconds sends
 * SIGTERM to this process after that: a handler that catches its cancellation
 * loses the worker, and one that catches it and returns has failed none the less.
 * A second timer asks after each turn of a run whether it is where the slow may not
 * be (see admit.c), and cancels it there; that run did not happen, unless it does not
 * heed it.
 * A session in gt_reclaim() goes the same way, and is told whose doing it is; so it
 * does where its own statement_timeout has fired, and the handler has caught that.
 *
 * All of it is of this process, and a crash leaves nothing of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "handler/admit.h"
#include "handler/slots.h"
#include "handler/timers.h"
#include "handler/turns.h"
#include "shared/shmem.h"

#define PATIENCE_S		5		/* after the caller's statement_timeout, in gt_reclaim() */

volatile sig_atomic_t gt_run_overran = false;
volatile sig_atomic_t gt_timed_out = false;
volatile sig_atomic_t gt_given_back = false;

static bool caller_waits = false;	/* only so long: gt_reclaim() was called under a statement_timeout */
static TimeoutId run_timeout;
static TimeoutId turn_timeout;	/* of a worker; a session's is of each second */
static TimestampTz slow_at;		/* when the run in progress will be */
static TimestampTz terminate_at;	/* where it was given back, and is still there */
static bool registered = false;

bool
gt_caller_has_gone(void)
{
	return caller_waits && !get_timeout_active(STATEMENT_TIMEOUT);
}

static void
cancel(void)
{
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
terminate(void)
{
	gt_run_overran = true;
	kill(MyProcPid, SIGTERM);
}

/* In the signal handler: first the cancellation, at the next turns termination. */
static void
on_timeout(void)
{
	if (gt_timed_out)
	{
		terminate();
		return;
	}
	gt_timed_out = true;
	cancel();
}

/* In a session, each second: who does not heed its caller's timeout is told once more, and loses the session. */
static void
on_second(void)
{
	static int	seconds;

	if (!gt_caller_has_gone())
		seconds = 0;
	else if (seconds++ > PATIENCE_S)
		terminate();
	else
		cancel();
}

/*
 * In a worker, after each turn.  Who is not slow yet has not been at much that could
 * not end soon.  A process that goes in the middle of a run has its timers to the
 * end, and its slot no more.
 */
static void
on_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (gt_my_slot == NULL || proc_exit_inprogress)
		return;
	if (gt_given_back && now >= terminate_at)
	{
		terminate_at = now + GT_KILL_AFTER_MS * INT64CONST(1000);
		terminate();
	}
	else if (!gt_given_back && !gt_timed_out && gt_slot_gives_back())
	{
		terminate_at = now + (now < slow_at ? GT_SLOW - GT_TURN : GT_KILL_AFTER_MS * INT64CONST(1000));
		gt_given_back = true;
		cancel();
	}
}

void
gt_timers_begin(void)
{
	caller_waits = gt_my_slot == NULL && get_timeout_active(STATEMENT_TIMEOUT);
}

void
gt_timers_reset(void)
{
	gt_timed_out = gt_given_back = false;
}

void
gt_timers_start(int64 timeout)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!registered)
	{
		run_timeout = RegisterTimeout(USER_TIMEOUT, on_timeout);
		turn_timeout = RegisterTimeout(USER_TIMEOUT, gt_my_slot != NULL ? on_turn : on_second);
		registered = true;
	}
	gt_timers_reset();
	enable_timeout_every(run_timeout, now + timeout, GT_KILL_AFTER_MS);
	slow_at = now + GT_SLOW;
	if (gt_my_slot != NULL)
		enable_timeout_every(turn_timeout, now + GT_TURN, GT_TURN / 1000);
	else if (caller_waits)
		enable_timeout_every(turn_timeout, now + USECS_PER_SEC, 1000);
}

void
gt_timers_shorten(int64 timeout)
{
	if (!gt_timed_out && !gt_given_back)
		enable_timeout_every(run_timeout, GetCurrentTimestamp() + timeout, GT_KILL_AFTER_MS);
}

void
gt_timers_stop(void)
{
	if (registered)
	{
		disable_timeout(run_timeout, false);
		disable_timeout(turn_timeout, false);
	}
	if (gt_timed_out || gt_given_back)
		QueryCancelPending = false;
}
