/*-------------------------------------------------------------------------
 *
 * health.c
 *	  gt_health(): what is wrong here, and what helps.
 *
 * Any role may ask, with or without preload, on a standby too; nothing is
 * written.  Each check has at least one row, and several where several things are
 * wrong.  Each runs in a subtransaction of its own: what it can not look at (a
 * corrupt index, a lock that is not to be had) is what it tells, and the others go
 * on.  What is looked at is bounded, so that it costs little when there is much of
 * what is wrong.  Monitors are told of everything, others of their own objects and
 * of handlers that they may use.
 *
 * A remedy runs as it stands: one statement in each row, and where there is none,
 * a comment says what to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "postmaster/bgworker_internals.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/transaction.h"
#include "report/health.h"
#include "report/health_checks.h"
#include "rights/may.h"

PG_FUNCTION_INFO_V1(gt_health);

/* ---------------------------------------------------------------- all of them */

static const struct
{
	const char *name;
	void		(*run) (GtHealth *health);
}			checks[] = {
	{"preloaded", gt_health_preloaded},
	{"launcher", gt_health_launcher},
	{"workers", gt_health_workers},
	{"overdue", gt_health_overdue},
	{"dead", gt_health_dead},
	{"paused", gt_health_paused},
	{"suspended", gt_health_suspended},
	{"place", gt_health_place},
	{"unclaimed", gt_health_unclaimed},
	{"slots", gt_health_slots},
	{"history", gt_health_history},
	{"rights", gt_health_rights},
	{"ttl", gt_health_ttl},
	{"prepared", gt_health_prepared},
	{"consistency", gt_health_consistency},
	{"capacity", gt_health_capacity},
	{"renewal_buffer", gt_health_renewal_buffer},
	{"settings", gt_health_settings},
	{"errors", gt_health_errors},
	{"clock", gt_health_clock},
	{"snapshots", gt_health_snapshots},
};

/* A check has failed itself. */
static void
put_failure(GtHealth *health, const ErrorData *error)
{
	gt_health_put_error(health, psprintf("%s could not be judged: %s", health->check, error->message), error->sqlerrcode,
						"-- the server's log has more");
}

static void
run_check(void *arg)
{
	GtHealth   *health = arg;

	health->run(health);
}

List *
gt_health_rows(void)
{
	GtHealth	health;
	int			i;

	memset(&health, 0, sizeof(health));
	health.context = CurrentMemoryContext;
	health.all = gt_is_monitor();
	health.standby = RecoveryInProgress();
	for (i = 0; i < (int) lengthof(checks); i++)
	{
		ErrorData  *error;

		health.check = checks[i].name;
		health.run = checks[i].run;
		error = gt_try(run_check, &health);
		if (error != NULL)
			put_failure(&health, error);
	}
	return health.rows;
}

Datum
gt_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, gt_health_rows())
	{
		GtHealthRow *row = lfirst(lc);
		Datum		v[4];
		bool		nulls[4] = {false, false, false, false};

		v[0] = CStringGetTextDatum(row->check);
		v[1] = BoolGetDatum(row->ok);
		v[2] = CStringGetTextDatum(row->detail);
		nulls[3] = row->remedy == NULL;
		v[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(row->remedy);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
	}
	return (Datum) 0;
}
