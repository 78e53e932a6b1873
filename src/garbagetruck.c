/*-------------------------------------------------------------------------
 *
 * garbagetruck.c
 *	  The settings, and what is done when the library is loaded.
 *
 * Loaded by shared_preload_libraries it has shared memory, a launcher and hooks
 * on commands that concern databases.  Loaded later, by the first call of one of
 * its functions, it has none of these and everything else works.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "garbagetruck.h"
#include "lease.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(gt__needs_library);

extern void _PG_init(void);

char	   *gt_databases;
int			gt_max_workers;
int			gt_naptime;
int			gt_batch_size;
int			gt_default_duration;
int			gt_min_duration;
int			gt_max_duration;
int			gt_regrant_delay;
int			gt_restart_grace;
int			gt_max_leases_per_service;
int			gt_max_payload;
int			gt_history;
int			gt_history_retention;
int			gt_renewals;
int			gt_renewal_buffer_size;
char	   *gt_identity;
char	   *gt_caller;
bool		gt_newest_first;
bool		gt_in_cleanup;
bool		gt_preloaded = false;

static const struct config_enum_entry history_modes[] = {
	{"off", GT_HISTORY_OFF, false},
	{"errors", GT_HISTORY_ERRORS, false},
	{"all", GT_HISTORY_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry renewal_modes[] = {
	{"buffered", GT_RENEWALS_BUFFERED, false},
	{"durable", GT_RENEWALS_DURABLE, false},
	{NULL, 0, false}
};

static bool
check_renewals(int *newval, void **extra, GucSource source)
{
	if (*newval == GT_RENEWALS_BUFFERED)
	{
		GUC_check_errmsg("buffered renewals are not supported by garbagetruck " GT_VERSION);
		GUC_check_errhint("Use \"durable\".");
		return false;
	}
	return true;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *list = pstrdup(*newval);
	List	   *names;
	bool		ok = SplitGUCList(list, ',', &names);

	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(names);
	pfree(list);
	return ok;
}

/* Empty, or a name as all of ours are. */
static bool
check_name(const char *what, const char *value, int max_bytes)
{
	GtFail		f;

	if (value[0] == '\0' || gt_check_name(what, value, max_bytes, &f))
		return true;
	GUC_check_errdetail("The %s.", f.message);
	return false;
}

/* An unnamed copy of a name with control characters would be told apart by nobody. */
static bool
check_identity(char **newval, void **extra, GucSource source)
{
	return check_name("identity", *newval, 1024);
}

/* It is kept with each object, and the services that it acts for begin with it. */
static bool
check_caller(char **newval, void **extra, GucSource source)
{
	return check_name("caller", *newval, 255);
}

static void
define_settings(void)
{
	/* read at start only; without preload there is no start of ours, and reloading them is harmless */
	GucContext	at_start = gt_preloaded ? PGC_POSTMASTER : PGC_SIGHUP;

	DefineCustomStringVariable("garbagetruck.databases",
							   "Databases that the workers serve: * or a list of names.",
							   "Empty: none, the workers stop.",
							   &gt_databases, "*", PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.max_workers",
							"Workers at most, in the whole cluster; each takes a slot of max_worker_processes.",
							"0: none, nothing expires or is cleaned by itself.",
							&gt_max_workers, 4, 0, GT_MAX_WORKERS, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.naptime",
							"Longest sleep of the launcher. It wakes for work when that is due, not by this.",
							NULL,
							&gt_naptime, 60, 1, 86400, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.batch_size",
							"Leases ended, or objects given to one sql_batch statement, in one transaction.",
							NULL,
							&gt_batch_size, 1000, 1, GT_MAX_ITEMS, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.default_lease_duration",
							"Duration of leases that are created without one.",
							NULL,
							&gt_default_duration, 5 * 60 * 1000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.min_lease_duration",
							"Shortest duration that a lease may be given.",
							NULL,
							&gt_min_duration, 100, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.max_lease_duration",
							"Longest duration that a lease may be given.",
							NULL,
							&gt_max_duration, 30 * 86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.regrant_delay",
							"For how long after an expiry an object is not leased exclusively again.",
							NULL,
							&gt_regrant_delay, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.max_leases_per_service",
							"Leases at most of one role and service. 0: no limit.",
							NULL,
							&gt_max_leases_per_service, 0, 0, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.max_payload",
							"Bytes at most of payload and metadata of a lease together, as text.",
							NULL,
							&gt_max_payload, 64 * 1024, 0, 256 * 1024 * 1024, PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomEnumVariable("garbagetruck.history",
							 "What gt_history keeps: nothing, errors (failed, dead, redriven, discarded) or all.",
							 NULL,
							 &gt_history, GT_HISTORY_ERRORS, history_modes, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.history_retention",
							"For how long gt_history keeps an event.",
							NULL,
							&gt_history_retention, 7 * 86400, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomEnumVariable("garbagetruck.renewals",
							 "Whether a renewal is kept in shared memory first (buffered) or always written (durable).",
							 NULL,
							 &gt_renewals, GT_RENEWALS_DURABLE, renewal_modes, PGC_SIGHUP, 0, check_renewals, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.restart_grace",
							"How much of its life an absence of the server gives back to a lease at most.",
							NULL,
							&gt_restart_grace, 10 * 60 * 1000, 0, INT_MAX, at_start, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.renewal_buffer_size",
							"Shared memory for buffered renewals.",
							NULL,
							&gt_renewal_buffer_size, 32 * 1024, 0, INT_MAX / 1024, at_start, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomStringVariable("garbagetruck.identity",
							   "What this cluster is, told by a file of the host: a file-level copy elsewhere has another or none.",
							   "Empty: the system identifier, which such a copy shares.",
							   &gt_identity, "", at_start, 0, check_identity, NULL, NULL);
	DefineCustomStringVariable("garbagetruck.caller",
							   "For whom this transaction calls, of those who share the role.",
							   "A server that works as one role for many sets it, with SET LOCAL.",
							   &gt_caller, "", PGC_USERSET,
							   GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   check_caller, NULL, NULL);
	DefineCustomBoolVariable("garbagetruck.newest_first",
							 "gt_lease_list() shows the newest first in this transaction.",
							 "A server whose clients expect that sets it, with SET LOCAL.",
							 &gt_newest_first, false, PGC_USERSET,
							 GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("garbagetruck.in_cleanup",
							 "On while a handler's SQL runs, so that triggers can tell.",
							 NULL,
							 &gt_in_cleanup, false, PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	MarkGUCPrefixReserved("garbagetruck");
}

/* The library as it was when this process, or the postmaster for it, has loaded it. */
static struct stat loaded;

static bool
stat_library(struct stat *st)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/garbagetruck%s", pkglib_path, DLSUFFIX);
	return stat(path, st) == 0;
}

/* See garbagetruck.h. */
char *
gt_library_changed(void)
{
	struct stat now;

	if (loaded.st_ino == 0)
		return NULL;			/* it was loaded from elsewhere */
	if (!stat_library(&now))
		return "the library is not on disk any more: new sessions can not load it";
	if (now.st_ino != loaded.st_ino || now.st_mtime != loaded.st_mtime || now.st_size != loaded.st_size)
		return "the library on disk is another one than the server has loaded";
	return NULL;
}

/* See garbagetruck.h. */
bool
gt_version_is_newer(const char *a, const char *b)
{
	int			major[2] = {0, 0};
	int			minor[2] = {0, 0};

	if (sscanf(a, "%d.%d", &major[0], &minor[0]) < 1 || sscanf(b, "%d.%d", &major[1], &minor[1]) < 1)
		return false;
	return major[0] != major[1] ? major[0] > major[1] : minor[0] > minor[1];
}

/* gt__needs_library(version): first thing in an update script whose SQL a library before that version can not serve. */
Datum
gt__needs_library(PG_FUNCTION_ARGS)
{
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (gt_version_is_newer(version, GT_VERSION))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("version %s of garbagetruck needs a newer library than %s, which is loaded", version, GT_VERSION),
				 errhint("Install it, and restart the server if the library is preloaded.")));
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	/* pg_upgrade moves rows, nothing of ours may act on them meanwhile */
	if (IsBinaryUpgrade)
		return;
	if (!stat_library(&loaded))
		memset(&loaded, 0, sizeof(loaded));
	gt_preloaded = process_shared_preload_libraries_in_progress;
	define_settings();
	if (gt_preloaded)
	{
		gt_shmem_init();
		gt_launcher_init();
		gt_database_init();
	}
}

#ifdef GT_FAULT_POINTS
/* See garbagetruck.h. Called with the data directory as the current one, as all server processes are. */
void
gt_point_at(const char *name)
{
	char		path[MAXPGPATH];
	char		waiting[MAXPGPATH];
	char		action[16] = "";
	struct stat st;
	FILE	   *file;

	snprintf(path, sizeof(path), "gt_point.%s", name);
	if (stat(path, &st) != 0 || (file = AllocateFile(path, "r")) == NULL)
		return;
	if (fscanf(file, "%15s", action) != 1)
		action[0] = '\0';
	FreeFile(file);

	if (strcmp(action, "wait") == 0)
	{
		snprintf(waiting, sizeof(waiting), "%s.waiting", path);
		if ((file = AllocateFile(waiting, "w")) != NULL)
			FreeFile(file);
		while (stat(path, &st) == 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		(void) unlink(waiting);
		return;
	}
	if (unlink(path) != 0)
		return;					/* another process was first */
	if (strcmp(action, "error") == 0)
		ereport(ERROR, (errmsg("fault point \"%s\"", name)));
	if (strcmp(action, "fatal") == 0)
		ereport(FATAL, (errmsg("fault point \"%s\"", name)));
	if (strcmp(action, "crash") == 0)
		kill(MyProcPid, SIGKILL);
}
#endif
