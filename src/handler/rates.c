/*-------------------------------------------------------------------------
 *
 * rates.c
 *	  How often runs of a handler may start, and how it did lately.
 *
 * Workers and sessions in gt_reclaim() ask this, see slots.c.  What is known lies in
 * shared memory (observe.c), without preload in this session; nothing must survive a
 * crash.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "utils/timestamp.h"

#include "base/workers.h"
#include "handler/handler.h"
#include "handler/rates.h"
#include "shared/clock.h"
#include "shared/observe.h"

#define RAMP_TIME		(10 * USECS_PER_SEC)	/* after gt_resume(), of a handler with a rate */
#define RAMP_FREE_TIME	(30 * USECS_PER_SEC)	/* and of one without: */
#define RAMP_FREE_START	20.0	/* runs per second at first, those of one second at once, */
#define RAMP_FREE_STEP	(2.0 * USECS_PER_SEC)	/* doubled as often */

/* Starts per second that are allowed now; 0: any number. */
static double
rate_of(const GtHandler *h, TimestampTz now)
{
	double		since = (double) (now - h->resumed_at);

	if (h->resumed_at == 0 || since < 0)
		return h->rate_limit;
	if (h->rate_limit > 0)
		return h->rate_limit * Min(1.0, 0.1 + 0.9 * since / RAMP_TIME);
	if (since >= RAMP_FREE_TIME)
		return 0;
	return RAMP_FREE_START * pow(2.0, since / RAMP_FREE_STEP);
}

static void
refill(GtHandlerEntry *state, const GtHandler *h, double rate, TimestampTz now)
{
	double		room = Max(h->rate_limit > 0 ? 1.0 : RAMP_FREE_START, rate / 10);

	if (h->rate_limit == 0 && state->resumed_at != h->resumed_at)
		state->tokens = room;
	state->resumed_at = h->resumed_at;
	if (now > state->refilled_at)
		state->tokens += rate * (now - state->refilled_at) / USECS_PER_SEC;
	state->tokens = Min(state->tokens, room);
	state->refilled_at = now;
}

int
gt_rate_allows(const GtHandler *h, int want, TimestampTz *when)
{
	TimestampTz now = gt_now();
	double		rate = rate_of(h, now);
	GtHandlerEntry *state;

	if (rate <= 0)
		return want;
	gt_observe_lock();
	state = gt_handler_entry(h->id, h->owner);
	if (state == NULL)
	{
		want = 0;
		*when = now + USECS_PER_SEC;
	}
	else
	{
		refill(state, h, rate, now);
		if (state->tokens < want)
			want = (int) state->tokens;
		if (want <= 0)
			*when = now + 1 + (TimestampTz) ((1.0 - state->tokens) / rate * USECS_PER_SEC);
	}
	gt_observe_unlock();
	return Max(want, 0);
}

/* Notes that n runs of it begin. */
void
gt_rate_serve(const GtHandler *h, int n)
{
	TimestampTz now = gt_now();
	double		rate = rate_of(h, now);
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_entry(h->id, h->owner);
	if (state != NULL)
	{
		state->served_at = now;
		if (rate > 0)
		{
			refill(state, h, rate, now);
			state->tokens -= n;
		}
	}
	gt_observe_unlock();
}

void
gt_handler_ran(const GtHandler *h, bool slow)
{
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_entry(h->id, h->owner);
	if (state != NULL)
		state->speed = slow ? GT_SPEED_SLOW : GT_SPEED_QUICK;
	gt_observe_unlock();
}

int
gt_batch_limit(int handler)
{
	int			result = 0;
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_known(handler);
	if (state != NULL)
		result = state->batch;
	gt_observe_unlock();
	return result > 0 ? result : GT_MAX_ITEMS;
}

void
gt_batch_set_limit(int handler, int limit)
{
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_known(handler);
	if (state != NULL)
		state->batch = limit < GT_MAX_ITEMS ? limit : 0;
	gt_observe_unlock();
}

void
gt_handler_hint(GtHandlerHint *hints, int n)
{
	int			i;

	gt_observe_lock();
	for (i = 0; i < n; i++)
	{
		GtHandlerEntry *state = gt_handler_known(hints[i].handler);

		hints[i].role = state != NULL ? state->role : InvalidOid;
		hints[i].served_at = state != NULL ? state->served_at : 0;
	}
	gt_observe_unlock();
}

int
gt_handler_speed(const GtHandler *h)
{
	GtSpeed		result = GT_SPEED_UNKNOWN;
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_known(h->id);
	if (state != NULL)
		result = state->speed;
	gt_observe_unlock();
	return result;
}
