/*-------------------------------------------------------------------------
 *
 * health_processes.c
 *	  gt_health(): the library, the launcher, the workers and their errors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/garbagetruck.h"
#include "base/library.h"
#include "report/health_checks.h"
#include "shared/due.h"
#include "shared/shmem.h"

#define RECENT			(5 * USECS_PER_MINUTE)

/* Each library in quotes of its own: a list in one pair would be the name of one library, without which no server starts. */
static const char *
preload_remedy(const GtHealth *health)
{
	char	   *now = pstrdup(GetConfigOption("shared_preload_libraries", false, false));
	StringInfoData list;
	List	   *names;
	ListCell   *lc;

	/* who is not a monitor may not know what else is loaded */
	if (!health->all)
		return "-- a superuser adds 'garbagetruck' to shared_preload_libraries";
	initStringInfo(&list);
	if (SplitDirectoriesString(now, ',', &names))
		foreach(lc, names)
			appendStringInfo(&list, "%s, ", quote_literal_cstr(lfirst(lc)));
	return psprintf("ALTER SYSTEM SET shared_preload_libraries = %s'garbagetruck';", list.data);
}

/* The version of the extension's SQL in this database. */
static char *
sql_version(void)
{
	char	   *result = NULL;
	MemoryContext context = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute("SELECT extversion FROM pg_catalog.pg_extension"
					" WHERE extname OPERATOR(pg_catalog.=) 'garbagetruck'", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		result = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	return result;
}

/* The library that runs, against the extension's SQL and the library on disk. */
void
gt_health_preloaded(GtHealth *health)
{
	char	   *version = sql_version();
	char	   *disk = gt_library_changed();
	bool		well = true;

	if (gt_shared == NULL)
	{
		gt_health_put_setting(health, "the library is not loaded at server start: there are no workers", preload_remedy(health), true);
		gt_health_put(health, false, "or let a job do the workers' work, every minute", psprintf("CALL %s();", gt_health_our("gt_reclaim")));
		well = false;
	}
	if (version != NULL && gt_version_is_newer(version, GT_VERSION))
	{
		gt_health_put(health, false, psprintf("the extension's SQL is of version %s, and the library that is loaded of %s",
									version, GT_VERSION),
					  psprintf("-- install version %s of the library, and restart the server", version));
		well = false;
	}
	if (disk != NULL)
	{
		gt_health_put(health, false, disk, "-- restart the server");
		well = false;
	}
	if (well)
		gt_health_put(health, true, psprintf("version %s is loaded at server start", GT_VERSION), NULL);
}

void
gt_health_launcher(GtHealth *health)
{
	if (gt_shared == NULL)
		gt_health_put_setting(health, "there is none without the library loaded at server start", preload_remedy(health), true);
	else if (health->standby)
		gt_health_put(health, true, "on a standby nothing runs; it starts by itself after a promotion", NULL);
	else if (gt_shared->launcher_procno < 0)
		gt_health_put_setting(health, "it does not run; after an error it is started again within seconds, unless the server's log "
							  "says \"too many background workers\"",
							  psprintf("ALTER SYSTEM SET max_worker_processes = %d;", max_worker_processes + gt_max_workers + 1), true);
	else
		gt_health_put(health, true, psprintf("runs with process id %d", (int) gt_shared->launcher_pid), NULL);
}

/* How many workers run in the cluster, and how many have crashed. */
static int
count_workers(int *crashes)
{
	int			n = 0;
	int			i;

	*crashes = 0;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		n += gt_shared->slots[i].state != GT_SLOT_FREE;
		*crashes += gt_shared->slots[i].crashes;
	}
	LWLockRelease(gt_shared->lock);
	return n;
}

/* The setting with this database added. */
static const char *
databases_with(const char *name)
{
	const char *element = name;

	if (strpbrk(name, "\", \t\n\r") != NULL)
	{
		StringInfoData quoted;
		const char *p;

		initStringInfo(&quoted);
		appendStringInfoChar(&quoted, '"');
		for (p = name; *p != '\0'; p++)
			appendStringInfo(&quoted, *p == '"' ? "\"\"" : "%c", *p);
		appendStringInfoChar(&quoted, '"');
		element = quoted.data;
	}
	return gt_databases[0] == '\0' ? element : psprintf("%s, %s", gt_databases, element);
}

void
gt_health_put_one_worker(GtHealth *health)
{
	gt_health_put_setting(health, "garbagetruck.max_workers is 1: a slow handler stops expiry and all other handlers",
						  "ALTER SYSTEM SET garbagetruck.max_workers = 4;", false);
}

void
gt_health_workers(GtHealth *health)
{
	char	   *here = get_database_name(MyDatabaseId);
	int			crashes;
	int			n;

	if (gt_shared == NULL)
	{
		gt_health_put_setting(health, "there are none without the library loaded at server start", preload_remedy(health), true);
		return;
	}
	n = count_workers(&crashes);
	if (health->standby)
		gt_health_put(health, true, "on a standby nothing runs", NULL);
	else if (gt_max_workers == 0)
		gt_health_put_setting(health, "garbagetruck.max_workers is 0: nothing ends or is cleaned by itself",
							  "ALTER SYSTEM SET garbagetruck.max_workers = 4;", false);
	else if (!gt_is_listed(here))
		gt_health_put_setting(health, "garbagetruck.databases does not name this database",
							  psprintf("ALTER SYSTEM SET garbagetruck.databases = %s;", quote_literal_cstr(databases_with(here))), false);
	else if (gt_max_workers == 1)
		gt_health_put_one_worker(health);
	else
		gt_health_put(health, true, psprintf("%d of at most %d run, %d crashed since the server started", n, gt_max_workers, crashes),
					  NULL);
}

void
gt_health_slots(GtHealth *health)
{
	const char *remedy = psprintf("ALTER SYSTEM SET max_worker_processes = %d;", max_worker_processes + gt_max_workers + 1);
	int64		at;
	uint64		missing;

	if (gt_shared == NULL)
	{
		gt_health_put(health, true, "no worker slots are needed without the library loaded at server start", NULL);
		return;
	}
	at = (int64) pg_atomic_read_u64(&gt_shared->slots_missing_at);
	missing = pg_atomic_read_u64(&gt_shared->slots_missing);
	if (at != 0 && gt_now() - at < RECENT)
		gt_health_put_setting(health, psprintf("no background worker slot was free " UINT64_FORMAT " times since the server started, "
									 "last %s ago", missing, gt_health_seconds(gt_now() - at)), remedy, true);
	else if (max_worker_processes < 2)
		gt_health_put_setting(health, psprintf("max_worker_processes is %d: there is no room for a worker", max_worker_processes),
							  remedy, true);
	else
		gt_health_put(health, true, psprintf("max_worker_processes is %d, of which up to %d are used here",
								   max_worker_processes, gt_max_workers + 1), NULL);
}

/* The last error of a worker outside of handlers. */
void
gt_health_errors(GtHealth *health)
{
	GtDatabase *db = gt_my_database();
	GtDatabase	seen;

	if (db == NULL)
	{
		gt_health_put(health, true, "no worker runs without the library loaded at server start", NULL);
		return;
	}
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	seen = *db;
	LWLockRelease(gt_shared->lock);
	if (seen.errors == 0 || gt_now() - seen.error_at > Max(RECENT, 2 * (int64) gt_naptime * USECS_PER_SEC))
		gt_health_put(health, true, "the workers of this database do their work without errors", NULL);
	else
		gt_health_put_error(health, psprintf("%d errors in a row of the workers of this database, the last %s ago%s%s", seen.errors,
											 gt_health_seconds(gt_now() - seen.error_at), health->all ? ": " : "",
											 health->all ? seen.error : ""), seen.error_code,
							"-- the server's log has them, of the processes \"garbagetruck worker\"");
}
