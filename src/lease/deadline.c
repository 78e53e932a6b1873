/*-------------------------------------------------------------------------
 *
 * deadline.c
 *	  When a lease is over (promise I1): the rule, by which all judge but a renewal in
 *	  memory, which has the lock of its partition (renew_locked() in buffered.c).
 *
 * Every process that serves SQL, and the workers, run this.  Nothing is locked here.
 *
 * A row of this server run is over at its deadline, or at a later one that was
 * acknowledged since it was written (shared/renewals.c).  A row of an earlier run
 * is over at
 *
 *		greatest(least(deadline, S + duration), S) + least(duration, the larger restart_grace)
 *
 * with S, when this run was recorded, and the restart_grace of this run and of the
 * one before as start.c has them.  The grace, because a renewal that was
 * acknowledged but not written through may have been lost with shared memory: none,
 * where somebody has acted on the expiry, as who takes what a child of it had.  The
 * bound, because no lease had more than its duration left when S began: a deadline
 * beyond was written by a clock that was ahead.  Until this run is recorded such a
 * row counts as running, whatever its deadline.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/settings.h"
#include "lease/created.h"
#include "lease/deadline.h"
#include "lease/start.h"
#include "lease/start_record.h"
#include "shared/clock.h"
#include "shared/renewed.h"

PG_FUNCTION_INFO_V1(gt__deadline);
PG_FUNCTION_INFO_V1(gt__running);
PG_FUNCTION_INFO_V1(gt__renewed_at);
PG_FUNCTION_INFO_V1(gt__renewals);

/* G of a lease: how much of its life an absence gives back at most. */
int64
gt_grace_of(int64 duration)
{
	int64		set = (int64) gt_restart_grace * 1000;
	TimestampTz at;
	int64		grace;

	if (!gt_start_of_run(&at, &grace))
		grace = 0;
	return Min(duration, Max(grace, set));
}

static TimestampTz
effective(TimestampTz deadline, int64 duration, int64 run)
{
	TimestampTz at;
	int64		grace;

	if (run == GT_RUN_OVER)
		return Min(deadline, gt_now());
	/* a standby judges nothing, and shows a lower bound */
	if (run == gt_run() || RecoveryInProgress())
		return deadline;
	if (!gt_start_of_run(&at, &grace))
		return GT_NEVER;
	if (deadline > at + duration)
		deadline = at + duration;	/* written by a clock that was ahead of what it was at S */
	return Max(deadline, at) + Min(duration, grace);
}

/*
 * What was acknowledged since it was written, too.  Whoever judges by it has read
 * the clock before: see buffered.c.
 */
static TimestampTz
with_renewals(const pg_uuid_t *id, TimestampTz until, int64 run, TimestampTz renewed_at)
{
	if (until == GT_NEVER || run != gt_run())
		return until;
	return gt_renewal_deadline(id, renewed_at, until);
}

TimestampTz
gt_effective_deadline(const GtRow *lease)
{
	int64		run = GT_INT64(lease, L_RUN);

	return with_renewals(DatumGetUUIDP(lease->v[L_ID]),
						 effective(GT_TIME(lease, L_DEADLINE), GT_INT64(lease, L_DURATION), run),
						 run, GT_TIME(lease, L_RENEWED_AT));
}

static TimestampTz
least(TimestampTz deadline, int64 duration, int64 run)
{
	TimestampTz until = effective(deadline, duration, run);

	return until == GT_NEVER ? Max(deadline, gt_now()) + gt_grace_of(duration) : until;
}

TimestampTz
gt_least_deadline(const GtRow *lease)
{
	int64		run = GT_INT64(lease, L_RUN);

	return with_renewals(DatumGetUUIDP(lease->v[L_ID]),
						 least(GT_TIME(lease, L_DEADLINE), GT_INT64(lease, L_DURATION), run),
						 run, GT_TIME(lease, L_RENEWED_AT));
}

/*
 * gt__deadline(id, deadline, duration, run, renewed_at): the same for views; NULL
 * for a lease that is not there.  Before this run is recorded, a lower bound.
 */
Datum
gt__deadline(PG_FUNCTION_ARGS)
{
	int64		run;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	run = PG_GETARG_INT64(3);
	PG_RETURN_TIMESTAMPTZ(with_renewals(PG_GETARG_UUID_P(0), least(PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_INT64(2), run),
										run, PG_GETARG_TIMESTAMPTZ(4)));
}

/* gt__running(id, deadline): for views; of a child, its parent's id and deadline */
Datum
gt__running(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(gt_now() < PG_GETARG_TIMESTAMPTZ(1) || gt_created_here(PG_GETARG_UUID_P(0)));
}

/* gt__renewed_at(id, renewed_at), gt__renewals(id, renewals): for views; also what is not in the row */
Datum
gt__renewed_at(PG_FUNCTION_ARGS)
{
	TimestampTz renewed_at = PG_GETARG_TIMESTAMPTZ(1);
	int64		renewals = 0;

	gt_renewal_shown(PG_GETARG_UUID_P(0), &renewed_at, &renewals);
	PG_RETURN_TIMESTAMPTZ(renewed_at);
}

Datum
gt__renewals(PG_FUNCTION_ARGS)
{
	TimestampTz renewed_at = 0;
	int64		renewals = PG_GETARG_INT64(1);

	gt_renewal_shown(PG_GETARG_UUID_P(0), &renewed_at, &renewals);
	PG_RETURN_INT64(renewals);
}
