/*-------------------------------------------------------------------------
 *
 * health.c
 *	  gt_health(): what is wrong here, and what helps.
 *
 * Any role may ask, with or without preload, on a standby too; nothing is
 * written.  One row per check, always.  What is looked at is bounded, so that it
 * costs little when there is much of what is wrong.  Monitors are told of
 * everything, others of their own objects and of handlers that they may use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "garbagetruck.h"
#include "observe.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(gt_health);

#define LATE			(10 * USECS_PER_SEC)	/* overdue, or unclaimed */
#define POLLING			(60 * USECS_PER_SEC)	/* a consumer that asked so long ago is still there */
#define RECENT			(5 * USECS_PER_MINUTE)
#define MAX_COUNT		10000	/* rows that are counted, or looked at */
#define MAX_NAMES		5		/* of handlers in one message */

typedef struct Health
{
	ReturnSetInfo *rsinfo;
	bool		all;			/* the caller is a monitor */
	bool		standby;
	List	   *handlers;		/* of GtHandler * that the caller may know of */
} Health;

/* One row; the remedy is for what is not ok. */
static void
put(Health *health, const char *check, bool ok, const char *detail, const char *remedy)
{
	Datum		v[4];
	bool		nulls[4] = {false, false, false, false};

	v[0] = CStringGetTextDatum(check);
	v[1] = BoolGetDatum(ok);
	v[2] = CStringGetTextDatum(detail);
	nulls[3] = ok || remedy == NULL;
	v[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(remedy);
	tuplestore_putvalues(health->rsinfo->setResult, health->rsinfo->setDesc, v, nulls);
}

static bool
knows_handler(const GtHandler *h)
{
	return gt_handler_may_use(h) || gt_handler_may_claim(h);
}

/* Is this row of garbage among what the caller may know of? */
static bool
sees(const Health *health, const GtRow *row, bool may_claim)
{
	return health->all || may_claim || gt_acts_for(GT_OID(row, O_OWNER));
}

static const char *
seconds(int64 us)
{
	return psprintf("%.1f s", (double) us / USECS_PER_SEC);
}

/* Collects up to MAX_NAMES names: "a", "b" and 3 more */
typedef struct Names
{
	StringInfoData text;
	int			n;
} Names;

static void
add_name(Names *names, const char *name)
{
	if (names->n == 0)
		initStringInfo(&names->text);
	if (names->n < MAX_NAMES)
		appendStringInfo(&names->text, "%s\"%s\"", names->n > 0 ? ", " : "", name);
	names->n++;
}

static const char *
names_text(Names *names)
{
	if (names->n > MAX_NAMES)
		appendStringInfo(&names->text, " and %d more", names->n - MAX_NAMES);
	return names->text.data;
}

/* ---------------------------------------------------------------- processes */

/* Each library in quotes of its own: a list in one pair would be the name of one library, without which no server starts. */
static const char *
preload_remedy(const Health *health)
{
	char	   *now = pstrdup(GetConfigOption("shared_preload_libraries", false, false));
	StringInfoData list;
	List	   *names;
	ListCell   *lc;

	initStringInfo(&list);
	/* who is not a monitor may not know what else is loaded */
	if (!health->all)
		appendStringInfoString(&list, "..., ");
	else if (SplitDirectoriesString(now, ',', &names))
		foreach(lc, names)
			appendStringInfo(&list, "%s, ", quote_literal_cstr(lfirst(lc)));
	return psprintf("ALTER SYSTEM SET shared_preload_libraries = %s'garbagetruck'; and restart the server; or let a job "
					"CALL gt_reclaim() every minute", list.data);
}

static void
check_preloaded(Health *health)
{
	int64		off = gt_now() - GetCurrentTimestamp();

	if (gt_shared == NULL)
	{
		put(health, "preloaded", false, "the library is not loaded at server start: there are no workers",
			preload_remedy(health));
		return;
	}
	if (off > USECS_PER_SEC || off < -USECS_PER_SEC)
		put(health, "preloaded", true,
			psprintf("loaded at server start; gt_clock() is %s %s the system clock, which was set since: leases "
					 "are judged by gt_clock()", seconds(llabs(off)), off > 0 ? "ahead of" : "behind"), NULL);
	else
		put(health, "preloaded", true, "loaded at server start", NULL);
}

static void
check_launcher(Health *health)
{
	if (gt_shared == NULL)
		put(health, "launcher", false, "there is none without the library loaded at server start",
			preload_remedy(health));
	else if (health->standby)
		put(health, "launcher", true, "on a standby nothing runs; it starts by itself after a promotion", NULL);
	else if (gt_shared->launcher_procno < 0)
		put(health, "launcher", false, "it does not run; after an error it is started again within seconds",
			psprintf("look for \"garbagetruck\" in the server's log; if that says \"too many background workers\": "
					 "ALTER SYSTEM SET max_worker_processes = %d; and restart the server",
					 max_worker_processes + gt_max_workers + 1));
	else
		put(health, "launcher", true, psprintf("runs with process id %d", (int) gt_shared->launcher_pid), NULL);
}

static void
check_workers(Health *health)
{
	int			n = 0;
	int			crashes = 0;
	int			i;

	if (gt_shared == NULL)
	{
		put(health, "workers", false, "there are none without the library loaded at server start",
			preload_remedy(health));
		return;
	}
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		n += gt_shared->slots[i].state != GT_SLOT_FREE;
		crashes += gt_shared->slots[i].crashes;
	}
	LWLockRelease(gt_shared->lock);

	if (health->standby)
		put(health, "workers", true, "on a standby nothing runs", NULL);
	else if (gt_max_workers == 0)
		put(health, "workers", false, "garbagetruck.max_workers is 0: nothing ends or is cleaned by itself",
			"ALTER SYSTEM SET garbagetruck.max_workers = 4; SELECT pg_reload_conf();");
	else if (!gt_is_listed(get_database_name(MyDatabaseId)))
		put(health, "workers", false, "garbagetruck.databases does not name this database",
			"ALTER SYSTEM SET garbagetruck.databases = '*'; SELECT pg_reload_conf();");
	else if (gt_max_workers == 1)
		put(health, "workers", false, "garbagetruck.max_workers is 1: a slow handler stops expiry and all other handlers",
			"ALTER SYSTEM SET garbagetruck.max_workers = 4; SELECT pg_reload_conf();");
	else
		put(health, "workers", true, psprintf("%d of at most %d run, %d crashed since the server started",
											  n, gt_max_workers, crashes), NULL);
}

static void
check_slots(Health *health)
{
	int64		at;
	uint64		missing;

	if (gt_shared == NULL)
	{
		put(health, "slots", true, "no worker slots are needed without the library loaded at server start", NULL);
		return;
	}
	at = (int64) pg_atomic_read_u64(&gt_shared->slots_missing_at);
	missing = pg_atomic_read_u64(&gt_shared->slots_missing);
	if (at != 0 && gt_now() - at < RECENT)
		put(health, "slots", false,
			psprintf("no background worker slot was free " UINT64_FORMAT " times since the server started, last %s ago",
					 missing, seconds(gt_now() - at)),
			psprintf("ALTER SYSTEM SET max_worker_processes = %d; and restart the server",
					 max_worker_processes + gt_max_workers + 1));
	else if (max_worker_processes < 2)
		put(health, "slots", false, psprintf("max_worker_processes is %d: there is no room for a worker",
											 max_worker_processes),
			psprintf("ALTER SYSTEM SET max_worker_processes = %d; and restart the server",
					 max_worker_processes + gt_max_workers + 1));
	else
		put(health, "slots", true, psprintf("max_worker_processes is %d, of which up to %d are used here",
											max_worker_processes, gt_max_workers + 1), NULL);
}

/* ---------------------------------------------------------------- work */

static void
check_overdue(Health *health)
{
	TimestampTz since = health->standby ? GT_NEVER : gt_observe_overdue(health->all);
	TimestampTz now = gt_now();

	if (since == GT_NEVER || now - since <= LATE)
		put(health, "overdue", true, "nothing has waited for long", NULL);
	else
		put(health, "overdue", false, psprintf("the oldest work is due for %s", seconds(now - since)),
			gt_shared == NULL ? "CALL gt_reclaim();" :
			"CALL gt_reclaim(); if workers run: SELECT * FROM gt_workers; SELECT * FROM gt_garbage ORDER BY since LIMIT 10;");
}

/* Dead garbage of a handler that the caller may know of, up to a limit. */
static int
count_dead(Health *health, GtTable *objects, const GtHandler *h, int limit)
{
	bool		may_claim = gt_handler_may_claim(h);
	TimestampTz now = gt_now();
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	int			n = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin(objects, GT_OBJECT_DEAD, 1, &key);
	while (n < limit && looked++ < MAX_COUNT && gt_scan_next(scan, &row))
		n += sees(health, &row, may_claim);
	gt_scan_end(scan);
	if (!GT_KIND_IS_CLAIMABLE(h->kind))
		return n;

	/* and last claims that have lapsed since anybody looked */
	looked = 0;
	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessEqualStrategyNumber, TimestampTzGetDatum(now));
	while (n < limit && looked++ < MAX_COUNT / 10 && gt_scan_next(scan, &row))
		n += gt_garbage_has_lapsed(&row, now) && GT_INT32(&row, O_ATTEMPTS) >= gt_max_attempts_of(&row, h) &&
			sees(health, &row, may_claim);
	gt_scan_end(scan);
	return n;
}

static void
check_dead(Health *health)
{
	GtTable		objects;
	ListCell   *lc;
	Names		names = {0};
	int			n = 0;
	const char *first = NULL;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	foreach(lc, gt_handler_list())
	{
		GtHandler  *h = lfirst(lc);
		int			of_this = n < MAX_COUNT ? count_dead(health, &objects, h, MAX_COUNT - n) : 0;

		if (of_this == 0)
			continue;
		n += of_this;
		if (first == NULL)
			first = h->name;
		add_name(&names, h->name);
	}
	gt_close(&objects);
	if (n == 0)
		put(health, "dead", true, "no object has used up its attempts", NULL);
	else
		put(health, "dead", false,
			psprintf("objects that used up their attempts: %d%s, of %s", n, n >= MAX_COUNT ? " or more" : "",
					 names_text(&names)),
			psprintf("SELECT * FROM gt_dead; once its cause is gone: SELECT gt_redrive(handler => %s);",
					 quote_literal_cstr(first)));
}

static void
check_paused(Health *health)
{
	Names		names = {0};
	const char *first = NULL;
	const char *reason = NULL;
	ListCell   *lc;

	foreach(lc, health->handlers)
	{
		GtHandler  *h = lfirst(lc);

		if (!h->paused)
			continue;
		if (first == NULL)
		{
			first = h->name;
			reason = h->paused_reason;
		}
		add_name(&names, h->name);
	}
	if (gt_database_paused())
		put(health, "paused", false, "nothing is cleaned in this database: gt_pause()", "SELECT gt_resume();");
	else if (names.n > 0)
		put(health, "paused", false,
			psprintf("%s%s%s", names_text(&names), reason != NULL && names.n == 1 && health->all ? ": " : "",
					 reason != NULL && names.n == 1 && health->all ? reason : ""),
			psprintf("SELECT gt_resume(%s);", quote_literal_cstr(first)));
	else
		put(health, "paused", true, "no handler is paused", NULL);
}

static void
check_suspended(Health *health)
{
	Names		names = {0};
	const char *reason = NULL;
	ListCell   *lc;

	foreach(lc, health->handlers)
	{
		GtHandler  *h = lfirst(lc);
		const char *why = gt_handler_suspended(h);

		if (why == NULL)
			continue;
		if (reason == NULL)
			reason = psprintf("%s: %s", quote_literal_cstr(h->name), why);
		add_name(&names, h->name);
	}
	if (names.n == 0)
		put(health, "suspended", true, "the roles of all handlers are those that they were registered with", NULL);
	else
		put(health, "suspended", false, psprintf("%s; %s", names_text(&names), reason),
			"give the role its name back, or let the owner register the handler anew with gt_handler_create()");
}

static void
check_place(Health *health)
{
	char	   *why = NULL;

	if (gt_place(&why) == GT_PLACE_COPY)
		put(health, "place", false, psprintf("nothing ends and nothing is cleaned here. %s", why),
			"if the objects are this database's own: SELECT gt_resume(adopt => true);");
	else
		put(health, "place", true, "this database acts on its own objects", NULL);
}

/* Since when the oldest garbage of this external handler waits to be claimed; GT_NEVER. */
static TimestampTz
unclaimed_since(Health *health, GtTable *objects, const GtHandler *h)
{
	bool		may_claim = gt_handler_may_claim(h);
	TimestampTz oldest = GT_NEVER;
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessStrategyNumber,
							   TimestampTzGetDatum(gt_now() - LATE));
	while (oldest == GT_NEVER && looked++ < MAX_COUNT && gt_scan_next(scan, &row))
		if (sees(health, &row, may_claim))
			oldest = GT_TIME(&row, O_DUE_AT);
	gt_scan_end(scan);
	return oldest;
}

/* Has a consumer asked lately? Nobody knows without preload. */
static bool
is_polled(const GtHandler *h)
{
	GtHandlerEntry *entry;
	bool		result;

	if (gt_shared == NULL)
		return false;
	gt_observe_lock();
	entry = gt_handler_known(h->id);
	result = entry != NULL && entry->claimed_at != 0 && gt_now() - entry->claimed_at < POLLING;
	gt_observe_unlock();
	return result;
}

static void
check_unclaimed(Health *health)
{
	TimestampTz oldest = GT_NEVER;
	Names		names = {0};
	GtTable		objects;
	ListCell   *lc;

	if (!health->standby && gt_place(NULL) != GT_PLACE_COPY && !gt_database_paused())
	{
		gt_open(&objects, GT_OBJECT, AccessShareLock);
		foreach(lc, gt_handler_list())
		{
			GtHandler  *h = lfirst(lc);
			TimestampTz since;

			if (!GT_KIND_IS_EXTERNAL(h->kind) || h->paused || is_polled(h))
				continue;
			since = unclaimed_since(health, &objects, h);
			if (since == GT_NEVER)
				continue;
			oldest = Min(oldest, since);
			add_name(&names, h->name);
		}
		gt_close(&objects);
	}
	if (names.n == 0)
		put(health, "unclaimed", true, "no garbage waits in vain for somebody who claims it", NULL);
	else
		put(health, "unclaimed", false,
			psprintf("nobody claims the garbage of %s, the oldest is due for %s", names_text(&names),
					 seconds(gt_now() - oldest)),
			"start a sidecar or a consumer that calls gt_claim(), and give its role the right by gt_handler_grant(.., 'claim')");
}

static void
check_history(Health *health)
{
	static const char *const modes[] = {"off", "errors", "all"};
	TimestampTz trim_at = gt_history_trim_at();

	if (trim_at != GT_NEVER && !health->standby && gt_now() - trim_at > USECS_PER_DAY)
		put(health, "history", false, "there are entries that are more than a day older than garbagetruck.history_retention",
			"CALL gt_reclaim();");
	else
		put(health, "history", true, psprintf("garbagetruck.history is %s", modes[gt_history]), NULL);
}

Datum
gt_health(PG_FUNCTION_ARGS)
{
	Health		health;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	memset(&health, 0, sizeof(health));
	health.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	health.all = gt_is_monitor();
	health.standby = RecoveryInProgress();
	foreach(lc, gt_handler_list())
		if (health.all || knows_handler(lfirst(lc)))
			health.handlers = lappend(health.handlers, lfirst(lc));

	check_preloaded(&health);
	check_launcher(&health);
	check_workers(&health);
	check_overdue(&health);
	check_dead(&health);
	check_paused(&health);
	check_suspended(&health);
	check_place(&health);
	check_unclaimed(&health);
	check_slots(&health);
	check_history(&health);
	return (Datum) 0;
}
