/*-------------------------------------------------------------------------
 *
 * rates.c
 *	  How often something of a handler may start, and how it did lately.
 *
 * Workers and sessions in gt_reclaim() ask this (slots.c), and consumers (claim.c).
 * Starts are counted by slices of the second that ends now: so in none there are more
 * than rate_limit.  What is known lies in shared memory (observe.c), without preload
 * in this session; nothing must survive a crash.
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
#define RAMP_FREE_TIME	(30 * USECS_PER_SEC)	/* and of runs of one without: */
#define RAMP_FREE_START	20		/* a second at first, all of them at once, */
#define RAMP_FREE_STEP	(2.0 * USECS_PER_SEC)	/* doubled as often */

#define BURST			10		/* of what a worker may start in a second it starts this part at once, */
#define BURST_SLICES	(GT_RATE_SLICES / BURST)	/* in so many slices */

/* Starts per second that are allowed now; 0: any number. */
static int
rate_of(const GtHandler *h, GtStarter starter, TimestampTz now)
{
	double		since = (double) (now - h->resumed_at);

	if (h->resumed_at == 0 || since < 0)
		return h->rate_limit;
	if (h->rate_limit > 0)
		return Max((int) (h->rate_limit * Min(1.0, 0.1 + 0.9 * since / RAMP_TIME)), 1);
	if (starter == GT_CLAIMS || since >= RAMP_FREE_TIME)
		return 0;
	return (int) (RAMP_FREE_START * pow(2.0, since / RAMP_FREE_STEP));
}

static void
go_on(GtRate *rate, TimestampTz now)
{
	int64		number = now / GT_RATE_SLICE;

	if (number - rate->newest >= GT_RATE_SLICES || number < rate->newest)
		memset(rate->starts, 0, sizeof(rate->starts));
	else
		while (rate->newest < number)
			rate->starts[++rate->newest % GT_RATE_SLICES] = 0;
	rate->newest = number;
}

/* What the last so many slices have left of a limit; *when: where that is nothing, they will have something then. */
static int
left_of(const GtRate *rate, int limit, int slices, TimestampTz *when)
{
	int64		oldest = rate->newest - slices + 1;
	int64		i;

	for (i = oldest; i <= rate->newest; i++)
		limit -= rate->starts[i % GT_RATE_SLICES];
	if (limit > 0)
		return limit;
	for (i = oldest; i <= rate->newest && limit <= 0; i++)
	{
		limit += rate->starts[i % GT_RATE_SLICES];
		*when = (i + slices) * GT_RATE_SLICE;
	}
	return 0;
}

/* The same of a handler's rate. Consumers come when they like, and may have at once what a second allows. */
static int
left_now(const GtRate *rate, const GtHandler *h, GtStarter starter, int limit, TimestampTz *when)
{
	int			left = left_of(rate, limit, GT_RATE_SLICES, when);

	if (left > 0 && starter == GT_RUNS)
		left = Min(left, left_of(rate, Max((limit - 1) / BURST + 1, h->rate_limit > 0 ? 1 : RAMP_FREE_START),
								 BURST_SLICES, when));
	return left;
}

static int
ask(const GtHandler *h, GtStarter starter, int want, bool take, TimestampTz *when)
{
	TimestampTz now = gt_now();
	int			limit = rate_of(h, starter, now);
	GtHandlerEntry *state;

	if (limit <= 0)
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
		GtRate	   *rate = &state->rates[starter];

		go_on(rate, now);
		want = Min(want, left_now(rate, h, starter, limit, when));
		if (take)
			rate->starts[rate->newest % GT_RATE_SLICES] += want;
	}
	gt_observe_unlock();
	return want;
}

int
gt_rate_allows(const GtHandler *h, GtStarter starter, int want, TimestampTz *when)
{
	return ask(h, starter, want, false, when);
}

int
gt_rate_take(const GtHandler *h, GtStarter starter, int want, TimestampTz *when)
{
	return ask(h, starter, want, true, when);
}

void
gt_rate_give_back(const GtHandler *h, GtStarter starter, int n)
{
	GtHandlerEntry *state;

	if (n <= 0 || rate_of(h, starter, gt_now()) <= 0)
		return;
	gt_observe_lock();
	state = gt_handler_known(h->id);
	if (state != NULL)
	{
		GtRate	   *rate = &state->rates[starter];
		int		   *starts = &rate->starts[rate->newest % GT_RATE_SLICES];

		*starts = Max(*starts - n, 0);
	}
	gt_observe_unlock();
}

void
gt_handler_served(const GtHandler *h)
{
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_entry(h->id, h->owner);
	if (state != NULL)
		state->served_at = gt_now();
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

bool
gt_handler_is_reliable(const GtHandler *h)
{
	GtHandlerEntry *state;
	bool		result;

	gt_observe_lock();
	state = gt_handler_known(h->id);
	result = state != NULL && state->reliable && state->speed == GT_SPEED_QUICK && gt_now() >= state->rest_until;
	gt_observe_unlock();
	return result;
}

void
gt_handler_proved(const GtHandler *h, bool reliable)
{
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_known(h->id);
	if (state != NULL)
		state->reliable = reliable;
	gt_observe_unlock();
}

void
gt_handler_rests(const GtHandler *h, int64 rest)
{
	GtHandlerEntry *state;

	gt_observe_lock();
	state = gt_handler_known(h->id);
	if (state != NULL)
		state->rest_until = gt_now() + rest;
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

	if (h->apart)
		return GT_SPEED_SLOW;
	gt_observe_lock();
	state = gt_handler_known(h->id);
	if (state != NULL)
		result = state->speed;
	gt_observe_unlock();
	return result;
}
