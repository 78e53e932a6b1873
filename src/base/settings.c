/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings garbagetruck.*.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/caller.h"
#include "base/fail.h"
#include "base/garbagetruck.h"
#include "base/settings.h"
#include "base/text.h"
#include "base/workers.h"

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

/*
 * For whom a call is made is said with each call: as a default of a database or a
 * role, which its owner may set, it would shut all others out of what is theirs.
 */
static bool
is_of_the_session(GucSource source)
{
	if (source == PGC_S_DEFAULT || source == PGC_S_CLIENT || source == PGC_S_OVERRIDE || source == PGC_S_SESSION)
		return true;
	GUC_check_errdetail("It can not be a default of a database or a role.");
	return false;
}

/* It is kept with each object, and the services that it acts for begin with it. */
static bool
check_caller(char **newval, void **extra, GucSource source)
{
	return ((*newval)[0] == '\0' || is_of_the_session(source)) && check_name("caller", *newval, 255);
}

static bool
check_newest_first(bool *newval, void **extra, GucSource source)
{
	return !*newval || is_of_the_session(source);
}

/* Of the workers and of what they keep. */
static void
define_for_workers(void)
{
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
	DefineCustomEnumVariable("garbagetruck.history",
							 "What gt_history keeps: nothing, errors (failed, dead, redriven, discarded) or all.",
							 NULL,
							 &gt_history, GT_HISTORY_ERRORS, history_modes, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("garbagetruck.history_retention",
							"For how long gt_history keeps an event.",
							NULL,
							&gt_history_retention, 7 * 86400, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Of leases and of the cluster. */
static void
define_for_leases(bool preloaded)
{
	/* read at start only; without preload there is no start of ours, and reloading them is harmless */
	GucContext	at_start = preloaded ? PGC_POSTMASTER : PGC_SIGHUP;

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
	DefineCustomEnumVariable("garbagetruck.renewals",
							 "Whether a renewal is kept in shared memory first (buffered) or always written (durable).",
							 "Without preload there is no such memory, and each is written.",
							 &gt_renewals, preloaded ? GT_RENEWALS_BUFFERED : GT_RENEWALS_DURABLE, renewal_modes,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
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
}

/* Those that no file of settings has: of one session, or transaction. */
static void
define_for_sessions(void)
{
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
							 check_newest_first, NULL, NULL);
	DefineCustomBoolVariable("garbagetruck.in_cleanup",
							 "On while a handler's SQL runs, so that triggers can tell.",
							 NULL,
							 &gt_in_cleanup, false, PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
}

void
gt_settings_init(bool preloaded)
{
	define_for_workers();
	define_for_leases(preloaded);
	define_for_sessions();
	MarkGUCPrefixReserved("garbagetruck");
}

bool
gt_is_listed(const char *name)
{
	char	   *setting = pstrdup(gt_databases);
	List	   *names;
	ListCell   *cell;

	if (!SplitGUCList(setting, ',', &names))
		return false;			/* checked when it was set */
	foreach(cell, names)
	{
		char	   *listed = lfirst(cell);

		if (strcmp(listed, "*") == 0 || strcmp(listed, name) == 0)
			return true;
	}
	return false;
}
