/*-------------------------------------------------------------------------
 *
 * health_limits.c
 *	  gt_health(): limits and settings, the clock, old snapshots.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/settings.h"
#include "report/health_checks.h"
#include "rights/owner.h"
#include "shared/due.h"
#include "shared/renewals.h"
#include "shared/shmem.h"

#define FULL_FOR	(60 * USECS_PER_SEC)	/* a renewal that found no place so lately */

/* The last id of a handler that was given. */
static int64
last_handler_id(void)
{
	GtSwitch	save;
	int64		result = 0;
	bool		isnull;

	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute("SELECT last_value FROM _garbagetruck.gt__handler_id", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	gt_become_user(&save);
	return result;
}

void
gt_health_capacity(GtHealth *health)
{
	bool		well = true;

	if (gt_shared != NULL && gt_max_workers == 1 && !health->standby)
	{
		gt_health_put_one_worker(health);
		well = false;
	}
	if (gt_shared != NULL && gt_my_database() == NULL)
	{
		gt_health_put(health, false, psprintf("there are more than %d databases: this one is served by nobody", GT_MAX_DATABASES),
					  psprintf("CALL %s();", gt_health_our("gt_reclaim")));
		well = false;
	}
	if (last_handler_id() > PG_INT32_MAX / 10 * 9)
	{
		gt_health_put(health, false, "most ids of handlers have been used: replace handlers instead of dropping and creating them",
					  psprintf("SELECT count(*) FROM %s;", gt_health_our("gt_handlers")));
		well = false;
	}
	if (well)
		gt_health_put(health, true, psprintf("%d workers at most, in the whole cluster", gt_shared != NULL ? gt_max_workers : 0), NULL);
}

void
gt_health_renewal_buffer(GtHealth *health)
{
	int			room;
	int			used;
	TimestampTz missed_at;

	gt_renewals_state(&room, &used, &missed_at);
	if (gt_renewals == GT_RENEWALS_DURABLE || room == 0)
		gt_health_put(health, true, "renewals are durable", NULL);
	else if (missed_at != 0 && gt_now() < missed_at + FULL_FOR)
		gt_health_put_setting(health, psprintf("the buffer of renewals is full (%d of %d entries): those that find no place in it are durable", used, room),
							  psprintf("ALTER SYSTEM SET garbagetruck.renewal_buffer_size = '%dMB';", 2 * Max(gt_renewal_buffer_size / 1024, 1)), true);
	else
		gt_health_put(health, true, psprintf("%d of %d entries are in use", used, room), NULL);
}

/* Databases that the setting names and that are not there. */
static void
check_listed(GtHealth *health, bool *well)
{
	char	   *list = pstrdup(gt_databases);
	List	   *names = NIL;
	ListCell   *lc;

	if (!SplitGUCList(list, ',', &names))
		return;
	foreach(lc, names)
	{
		char	   *name = lfirst(lc);

		if (strcmp(name, "*") == 0 || OidIsValid(get_database_oid(name, true)))
			continue;
		gt_health_put(health, false, psprintf("garbagetruck.databases names \"%s\", which does not exist", name),
					  "SHOW garbagetruck.databases;");
		*well = false;
	}
}

void
gt_health_settings(GtHealth *health)
{
	int64		max = (int64) gt_max_duration * 1000;
	bool		well = true;

	if (gt_min_duration > max)
	{
		gt_health_put_setting(health, psprintf("garbagetruck.min_lease_duration (%d ms) is longer than max_lease_duration (%d s): no duration "
											   "is allowed", gt_min_duration, gt_max_duration),
							  "ALTER SYSTEM RESET garbagetruck.min_lease_duration;", false);
		well = false;
	}
	else if (gt_default_duration < gt_min_duration || gt_default_duration > max)
	{
		gt_health_put_setting(health, psprintf("garbagetruck.default_lease_duration (%d ms) is not between min_lease_duration (%d ms) and "
											   "max_lease_duration (%d s)", gt_default_duration, gt_min_duration, gt_max_duration),
							  psprintf("ALTER SYSTEM SET garbagetruck.default_lease_duration = '%d ms';",
									   (int) Max(gt_min_duration, Min(gt_default_duration, max))), false);
		well = false;
	}
	if (gt_regrant_delay > max)
	{
		gt_health_put_setting(health, psprintf("garbagetruck.regrant_delay (%d ms) is longer than max_lease_duration (%d s)", gt_regrant_delay,
											   gt_max_duration),
							  psprintf("ALTER SYSTEM SET garbagetruck.regrant_delay = '%d s';", gt_max_duration), false);
		well = false;
	}
	if (gt_history != GT_HISTORY_OFF && gt_history_retention == 0)
	{
		gt_health_put_setting(health, "garbagetruck.history_retention is 0: what garbagetruck.history keeps is deleted at once",
							  "ALTER SYSTEM RESET garbagetruck.history_retention;", false);
		well = false;
	}
	check_listed(health, &well);
	if (well)
		gt_health_put(health, true, "no setting contradicts another", NULL);
}

void
gt_health_clock(GtHealth *health)
{
	int64		off = gt_now() - GetCurrentTimestamp();

	if (gt_shared == NULL)
		gt_health_put(health, true, "gt_clock() is the system clock", NULL);
	else if (llabs(off) <= USECS_PER_SEC)
		gt_health_put(health, true, "gt_clock() and the system clock agree", NULL);
	else
		gt_health_put(health, false, psprintf("gt_clock() is %s %s the system clock: leases are judged by gt_clock(), which does not follow "
									"it until the server starts again", gt_health_seconds(llabs(off)), off > 0 ? "ahead of" : "behind"),
			off > 0 ? "-- nothing is wrong with leases; a restart helps once the system clock has caught up" :
			"-- nothing is wrong with leases; a restart makes them agree");
}

/*
 * What holds back the horizon behind which dead rows are removed, of which we
 * make many.  kind, who, for how long, what to do: of the oldest first.  A
 * transaction that has written holds it back between its statements, too, when it
 * has no snapshot; VACUUM does not.
 */
static const char *const holders =
"SELECT 'transaction of process ' || pid || ' (' || coalesce(usename, backend_type) || ', ' || coalesce(state, '-') || ')',"
" now() - xact_start, 'SELECT pg_catalog.pg_terminate_backend(' || pid || ');'"
" FROM pg_stat_activity WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND datname = current_database()"
" AND pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)"
" AND backend_type <> 'walsender' AND xact_start < now() - interval '1 minute'"
" UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner, now() - prepared, 'ROLLBACK PREPARED ' || quote_literal(gid) || ';'"
" FROM pg_prepared_xacts WHERE database = current_database() AND prepared < now() - interval '1 minute'"
" UNION ALL SELECT 'replication slot ' || quote_literal(slot_name) || CASE WHEN active THEN '' ELSE ', which nobody uses' END, NULL,"
" CASE WHEN active THEN 'SELECT * FROM pg_catalog.pg_stat_replication WHERE pid = ' || active_pid || ';'"
" ELSE 'SELECT pg_catalog.pg_drop_replication_slot(' || quote_literal(slot_name) || ');' END"
" FROM pg_replication_slots WHERE xmin IS NOT NULL AND age(xmin) > 10000"
" UNION ALL SELECT 'standby ' || quote_literal(application_name) || ' by hot_standby_feedback, process ' || pid, NULL,"
" 'SELECT * FROM pg_catalog.pg_stat_replication WHERE pid = ' || pid || ';'"
" FROM pg_stat_replication WHERE backend_xmin IS NOT NULL AND age(backend_xmin) > 10000"
" ORDER BY 2 DESC NULLS LAST";

void
gt_health_snapshots(GtHealth *health)
{
	GtSwitch	save;
	uint64		n = 0;
	uint64		i;

	if (!health->standby)
	{
		gt_become_owner(&save);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to the SPI");
		if (SPI_execute(holders, true, GT_HEALTH_ROWS) != SPI_OK_SELECT)
			elog(ERROR, "could not look for old snapshots");
		n = SPI_processed;
		for (i = 0; i < n && health->all; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			char	   *age = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);

			gt_health_put(health, false, psprintf("dead rows are not removed: %s%s%s", SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1),
										age != NULL ? ", for " : "", age != NULL ? age : ""),
				SPI_getvalue(tuple, SPI_tuptable->tupdesc, 3));
		}
		SPI_finish();
		gt_become_user(&save);
	}
	if (n > 0 && !health->all)
		gt_health_put(health, false, "dead rows are not removed: somebody holds an old snapshot", "-- monitors are told who");
	else if (n == 0)
		gt_health_put(health, true, "nothing holds an old snapshot", NULL);
}
