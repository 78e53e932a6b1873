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

#include "access/stratnum.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "consistency.h"
#include "garbagetruck.h"
#include "health.h"
#include "observe.h"
#include "tampered.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(gt_health);

#define LATE			(10 * USECS_PER_SEC)	/* overdue, or unclaimed */
#define POLLING			(60 * USECS_PER_SEC)	/* a consumer that asked so long ago is still there */
#define RECENT			(5 * USECS_PER_MINUTE)
#define MAX_COUNT		10000	/* rows that are counted, or looked at */
#define MAX_ROWS		5		/* of one check that tell of the same kind of thing */

typedef struct Health
{
	List	   *rows;			/* of GtHealthRow * */
	MemoryContext context;		/* theirs */
	const char *check;			/* in progress */
	void		(*run) (struct Health *health); /* likewise */
	bool		all;			/* the caller is a monitor */
	bool		standby;
} Health;

/* One row; the remedy is for what is not ok. */
static void
put(Health *health, bool ok, const char *detail, const char *remedy)
{
	MemoryContext old = MemoryContextSwitchTo(health->context);
	GtHealthRow *row = palloc0(sizeof(GtHealthRow));

	row->check = health->check;
	row->ok = ok;
	row->detail = pstrdup(detail);
	row->remedy = ok || remedy == NULL ? NULL : pstrdup(remedy);
	health->rows = lappend(health->rows, row);
	MemoryContextSwitchTo(old);
}

/* The same, by an ALTER SYSTEM and what makes it count. */
static void
put_setting(Health *health, const char *detail, const char *alter, bool restart)
{
	put(health, false, detail, alter);
	put(health, false, "and then", restart ? "-- restart the server" : "SELECT pg_catalog.pg_reload_conf();");
}

/* A public function or view of ours as a statement of this session names it. */
static const char *
our(const char *name)
{
	if (list_member_oid(fetch_search_path(true), gt_schema()))
		return name;
	return psprintf("%s.%s", quote_identifier(get_namespace_name(gt_schema())), name);
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

/* The handlers that the caller may know of. */
static List *
known_handlers(const Health *health)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, gt_handler_list())
		if (health->all || knows_handler(lfirst(lc)))
			result = lappend(result, lfirst(lc));
	return result;
}

/* After MAX_ROWS of a kind: how many more there are. */
static void
put_more(Health *health, int n, const char *what)
{
	if (n > MAX_ROWS)
		put(health, false, psprintf("and %d more %s", n - MAX_ROWS, what),
			psprintf("SELECT * FROM %s;", our("gt_handlers")));
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
static void
check_preloaded(Health *health)
{
	char	   *version = sql_version();
	char	   *disk = gt_library_changed();
	bool		well = true;

	if (gt_shared == NULL)
	{
		put_setting(health, "the library is not loaded at server start: there are no workers", preload_remedy(health), true);
		put(health, false, "or let a job do the workers' work, every minute", psprintf("CALL %s();", our("gt_reclaim")));
		well = false;
	}
	if (version != NULL && gt_version_is_newer(version, GT_VERSION))
	{
		put(health, false, psprintf("the extension's SQL is of version %s, and the library that is loaded of %s",
									version, GT_VERSION),
			psprintf("-- install version %s of the library, and restart the server", version));
		well = false;
	}
	if (disk != NULL)
	{
		put(health, false, disk, "-- restart the server");
		well = false;
	}
	if (well)
		put(health, true, psprintf("version %s is loaded at server start", GT_VERSION), NULL);
}

static void
check_launcher(Health *health)
{
	if (gt_shared == NULL)
		put_setting(health, "there is none without the library loaded at server start", preload_remedy(health), true);
	else if (health->standby)
		put(health, true, "on a standby nothing runs; it starts by itself after a promotion", NULL);
	else if (gt_shared->launcher_procno < 0)
		put(health, false, "it does not run; after an error it is started again within seconds, unless the server's log "
			"says \"too many background workers\"",
			psprintf("ALTER SYSTEM SET max_worker_processes = %d;", max_worker_processes + gt_max_workers + 1));
	else
		put(health, true, psprintf("runs with process id %d", (int) gt_shared->launcher_pid), NULL);
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

static void
put_one_worker(Health *health)
{
	put_setting(health, "garbagetruck.max_workers is 1: a slow handler stops expiry and all other handlers",
				"ALTER SYSTEM SET garbagetruck.max_workers = 4;", false);
}

static void
check_workers(Health *health)
{
	char	   *here = get_database_name(MyDatabaseId);
	int			crashes;
	int			n;

	if (gt_shared == NULL)
	{
		put_setting(health, "there are none without the library loaded at server start", preload_remedy(health), true);
		return;
	}
	n = count_workers(&crashes);
	if (health->standby)
		put(health, true, "on a standby nothing runs", NULL);
	else if (gt_max_workers == 0)
		put_setting(health, "garbagetruck.max_workers is 0: nothing ends or is cleaned by itself",
					"ALTER SYSTEM SET garbagetruck.max_workers = 4;", false);
	else if (!gt_is_listed(here))
		put_setting(health, "garbagetruck.databases does not name this database",
					psprintf("ALTER SYSTEM SET garbagetruck.databases = %s;", quote_literal_cstr(databases_with(here))), false);
	else if (gt_max_workers == 1)
		put_one_worker(health);
	else
		put(health, true, psprintf("%d of at most %d run, %d crashed since the server started", n, gt_max_workers, crashes),
			NULL);
}

static void
check_slots(Health *health)
{
	const char *remedy = psprintf("ALTER SYSTEM SET max_worker_processes = %d;", max_worker_processes + gt_max_workers + 1);
	int64		at;
	uint64		missing;

	if (gt_shared == NULL)
	{
		put(health, true, "no worker slots are needed without the library loaded at server start", NULL);
		return;
	}
	at = (int64) pg_atomic_read_u64(&gt_shared->slots_missing_at);
	missing = pg_atomic_read_u64(&gt_shared->slots_missing);
	if (at != 0 && gt_now() - at < RECENT)
		put_setting(health, psprintf("no background worker slot was free " UINT64_FORMAT " times since the server started, "
									 "last %s ago", missing, seconds(gt_now() - at)), remedy, true);
	else if (max_worker_processes < 2)
		put_setting(health, psprintf("max_worker_processes is %d: there is no room for a worker", max_worker_processes),
					remedy, true);
	else
		put(health, true, psprintf("max_worker_processes is %d, of which up to %d are used here",
								   max_worker_processes, gt_max_workers + 1), NULL);
}

/* The last error of a worker outside of handlers. */
static void
check_errors(Health *health)
{
	GtDatabase *db = gt_my_database();
	GtDatabase	seen;

	if (db == NULL)
	{
		put(health, true, "no worker runs without the library loaded at server start", NULL);
		return;
	}
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	seen = *db;
	LWLockRelease(gt_shared->lock);
	if (seen.errors == 0 || gt_now() - seen.error_at > Max(RECENT, 2 * (int64) gt_naptime * USECS_PER_SEC))
		put(health, true, "the workers of this database do their work without errors", NULL);
	else
		put(health, false, psprintf("%d errors in a row of the workers of this database, the last %s ago%s%s", seen.errors,
									seconds(gt_now() - seen.error_at), health->all ? ": " : "", health->all ? seen.error : ""),
			"-- the server's log has them, of the processes \"garbagetruck worker\"");
}

/* ---------------------------------------------------------------- work */

/* Garbage of this handler that is due and that nobody has in hand, counted up to a limit. */
static int
count_due(Health *health, GtTable *objects, const GtHandler *h, int limit)
{
	bool		may_claim = gt_handler_may_claim(h);
	Datum		key = Int32GetDatum(h->id);
	int			n = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessStrategyNumber, TimestampTzGetDatum(gt_now()));
	while (n < limit && gt_scan_next(scan, &row))
		n += sees(health, &row, may_claim);
	gt_scan_end(scan);
	return n;
}

/* Whose garbage most of it is; NULL: nobody's, leases wait to be ended. */
static const char *
most_overdue(Health *health)
{
	const char *result = NULL;
	int			most = 0;
	GtTable		objects;
	ListCell   *lc;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	foreach(lc, gt_handler_list())
	{
		GtHandler  *h = lfirst(lc);
		int			n;

		if (GT_KIND_IS_EXTERNAL(h->kind) || h->paused || gt_handler_suspended(h) != NULL)
			continue;
		n = count_due(health, &objects, h, MAX_COUNT / 10);
		if (n <= most)
			continue;
		most = n;
		result = psprintf(", most of it of handler \"%s\" (%d%s objects)", h->name, n, n >= MAX_COUNT / 10 ? " or more" : "");
	}
	gt_close(&objects);
	return result != NULL ? result : "";
}

/* Workers of this database that wait for locks of others. Returns how many workers there are. */
static int
put_blocked(Health *health)
{
	GtSlot	   *slots;
	int			n = 0;
	int			i;

	if (gt_shared == NULL)
		return 0;
	slots = palloc(sizeof(gt_shared->slots));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	memcpy(slots, gt_shared->slots, sizeof(gt_shared->slots));
	LWLockRelease(gt_shared->lock);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		ArrayType  *blockers;
		Datum	   *pids;
		int			npids;

		if (slots[i].state == GT_SLOT_FREE || slots[i].pid == 0 || slots[i].database != MyDatabaseId)
			continue;
		n++;
		if (!health->all)
			continue;
		blockers = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(slots[i].pid)));
		deconstruct_array(blockers, INT4OID, sizeof(int32), true, TYPALIGN_INT, &pids, NULL, &npids);
		if (npids > 0)
			put(health, false, psprintf("worker %d%s%s%s waits for a lock of process %d%s", (int) slots[i].pid,
										slots[i].handler != 0 ? ", in handler \"" : "",
										slots[i].handler != 0 ? slots[i].handler_name : "",
										slots[i].handler != 0 ? "\"," : "", DatumGetInt32(pids[0]),
										npids > 1 ? psprintf(" and %d more", npids - 1) : ""),
				psprintf("SELECT pid, state, xact_start, query FROM pg_catalog.pg_stat_activity WHERE pid = %d;",
						 DatumGetInt32(pids[0])));
	}
	return n;
}

static void
check_overdue(Health *health)
{
	TimestampTz since = health->standby ? GT_NEVER : gt_observe_overdue(health->all);
	TimestampTz now = gt_now();
	int			workers;

	if (since == GT_NEVER || now - since <= LATE)
	{
		put(health, true, "nothing has waited for long", NULL);
		return;
	}
	workers = put_blocked(health);
	put(health, false, psprintf("the oldest work is due for %s%s; %d workers run in this database", seconds(now - since),
								most_overdue(health), workers),
		workers == 0 ? psprintf("CALL %s();", our("gt_reclaim")) :
		psprintf("SELECT * FROM %s ORDER BY since LIMIT 10;", our("gt_garbage")));
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
	if (h->missing || !GT_KIND_IS_CLAIMABLE(h->kind))
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

/* The next handler, by id, that any dead garbage has, whether it is there or not. */
static bool
next_dead_handler(GtTable *objects, int after, GtHandler *h)
{
	GtScan	   *scan;
	GtRow		row;
	bool		found;

	scan = gt_scan_begin_bound(objects, GT_OBJECT_DEAD, 0, NULL, BTGreaterStrategyNumber, Int32GetDatum(after));
	found = gt_scan_next(scan, &row);
	gt_scan_end(scan);
	if (found && !gt_handler_by_id(GT_INT32(&row, O_HANDLER), h))
		gt_handler_missing(GT_INT32(&row, O_HANDLER), h);
	return found;
}

static void
check_dead(Health *health)
{
	GtTable		objects;
	List	   *handlers = gt_handler_list();
	ListCell   *lc;
	GtHandler	h = {0};
	int			kinds = 0;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	while (next_dead_handler(&objects, h.id, &h))
		if (h.missing)
			handlers = lappend(handlers, memcpy(palloc(sizeof(GtHandler)), &h, sizeof(GtHandler)));
	foreach(lc, handlers)
	{
		GtHandler  *of = lfirst(lc);
		int			n = count_dead(health, &objects, of, MAX_COUNT);

		if (n == 0 || ++kinds > MAX_ROWS)
			continue;
		if (of->missing)
			put(health, false, psprintf("objects whose handler is missing: %d%s", n, n >= MAX_COUNT ? " or more" : ""),
				psprintf("SELECT %s(cleanup_id, attempts) FROM %s WHERE handler IS NULL;", our("gt_ack"), our("gt_dead")));
		else
			put(health, false, psprintf("objects that used up their attempts: %d%s, of \"%s\"; gt_dead has the errors", n,
										n >= MAX_COUNT ? " or more" : "", of->name),
				psprintf("SELECT %s(handler => %s);", our("gt_redrive"), quote_literal_cstr(of->name)));
	}
	gt_close(&objects);
	put_more(health, kinds, "handlers");
	if (kinds == 0)
		put(health, true, "no object has used up its attempts", NULL);
}

/* Who has paused the database, and when; NULL: nobody. */
static const char *
paused_by(void)
{
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	const char *result = NULL;
	GtTable		t;
	GtRow	   *row;

	gt_open(&t, GT__PAUSED, AccessShareLock);
	if (gt_fetch_some(&t, snapshot, 1, &row) > 0)
		result = psprintf("by \"%s\" at %s", NameStr(*DatumGetName(row->v[PA_ROLE])), timestamptz_to_str(GT_TIME(row, PA_AT)));
	gt_close(&t);
	UnregisterSnapshot(snapshot);
	return result;
}

static void
check_paused(Health *health)
{
	const char *by = paused_by();
	ListCell   *lc;
	int			n = 0;

	if (by != NULL)
		put(health, false, psprintf("nothing is cleaned in this database: paused %s", by),
			psprintf("SELECT %s();", our("gt_resume")));
	foreach(lc, known_handlers(health))
	{
		GtHandler  *h = lfirst(lc);

		if (!h->paused || ++n > MAX_ROWS)
			continue;
		put(health, false, psprintf("\"%s\"%s%s", h->name, h->paused_reason != NULL && health->all ? ": " : "",
									h->paused_reason != NULL && health->all ? h->paused_reason : ""),
			psprintf("SELECT %s(%s);", our("gt_resume"), quote_literal_cstr(h->name)));
	}
	put_more(health, n, "handlers");
	if (n == 0 && by == NULL)
		put(health, true, "no handler is paused", NULL);
}

static void
check_suspended(Health *health)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, known_handlers(health))
	{
		GtHandler  *h = lfirst(lc);
		const char *why = gt_handler_suspended(h);

		if (why != NULL && ++n <= MAX_ROWS)
			put(health, false, psprintf("\"%s\": %s", h->name, why),
				"-- its owner registers the handler anew with gt_handler_create(); or mend what it says");
	}
	put_more(health, n, "handlers");
	if (n == 0)
		put(health, true, "no handler is suspended", NULL);
}

static void
check_place(Health *health)
{
	char	   *why = NULL;

	if (gt_place(&why) == GT_PLACE_COPY)
		put(health, false, psprintf("nothing ends and nothing is cleaned here, unless the objects are this database's own. %s", why),
			psprintf("SELECT %s(adopt => true);", our("gt_resume")));
	else
		put(health, true, "this database acts on its own objects", NULL);
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
	GtTable		objects;
	ListCell   *lc;
	int			n = 0;

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
			if (since != GT_NEVER && ++n <= MAX_ROWS)
				put(health, false, psprintf("nobody claims the garbage of \"%s\", the oldest is due for %s", h->name,
											seconds(gt_now() - since)),
					"-- start a sidecar or a consumer that calls gt_claim(), with the right by gt_handler_grant(.., 'claim')");
		}
		gt_close(&objects);
	}
	put_more(health, n, "handlers");
	if (n == 0)
		put(health, true, "no garbage waits in vain for somebody who claims it", NULL);
}

static void
check_history(Health *health)
{
	static const char *const modes[] = {"off", "errors", "all"};
	TimestampTz trim_at = gt_history_trim_at();

	if (trim_at != GT_NEVER && !health->standby && gt_now() - trim_at > USECS_PER_DAY)
		put(health, false, "there are entries that are more than a day older than garbagetruck.history_retention",
			psprintf("CALL %s();", our("gt_reclaim")));
	else
		put(health, true, psprintf("garbagetruck.history is %s", modes[gt_history]), NULL);
}

/* What others have, or have put, on our tables: see tampered.c. */
static void
check_rights(Health *health)
{
	List	   *obstacles = gt_table_obstacles();
	List	   *tamperings = gt_table_tamperings();
	ListCell   *lc;

	if (obstacles == NIL && tamperings == NIL)
		put(health, true, "the tables are nobody's but the extension's", NULL);
	else if (!health->all)
		put(health, false, gt_tables_obstructed() != NULL ? "nothing is written: somebody has put something on a table of garbagetruck" :
			gt_tables_tampered() != NULL ? "no handler's SQL is run: a role can write the tables of garbagetruck" :
			"a role can read the tables of garbagetruck", "-- a monitor sees here what is to be done");
	if (!health->all)
		return;
	foreach(lc, obstacles)
	{
		GtObstacle *o = lfirst(lc);

		put(health, false, psprintf("nothing is written: %s, which our writes would pass over", o->what), o->remedy);
	}
	foreach(lc, tamperings)
	{
		GtTampering *t = lfirst(lc);

		put(health, false, t->suspends ? psprintf("no handler's SQL is run: %s", t->what) : t->what, t->remedy);
	}
}

static void
check_consistency(Health *health)
{
	List	   *findings = gt_find_contradictions(true, MAX_ROWS);
	const char *remedy = psprintf("SELECT * FROM %s(repair => true);", our("gt_check"));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, findings)
	{
		GtFinding  *f = lfirst(lc);

		if (!health->all || ++n > MAX_ROWS)
			break;
		put(health, false, f->object_id == NULL ? psprintf("%s: %s", f->name, f->detail) :
			psprintf("%s: object \"%s\" of type \"%s\": %s", f->name, f->object_id, f->object_type, f->detail), remedy);
	}
	if (findings != NIL && n != list_length(findings))
		put(health, false, "there is more that contradicts itself in the tables", remedy);
	if (findings == NIL)
		put(health, true, "the tables agree with each other, where they were looked at", NULL);
}

/* ---------------------------------------------------------------- limits and settings */

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

static void
check_capacity(Health *health)
{
	bool		well = true;

	if (gt_shared != NULL && gt_max_workers == 1 && !health->standby)
	{
		put_one_worker(health);
		well = false;
	}
	if (gt_shared != NULL && gt_my_database() == NULL)
	{
		put(health, false, psprintf("there are more than %d databases: this one is served by nobody", GT_MAX_DATABASES),
			psprintf("CALL %s();", our("gt_reclaim")));
		well = false;
	}
	if (last_handler_id() > PG_INT32_MAX / 10 * 9)
	{
		put(health, false, "most ids of handlers have been used: replace handlers instead of dropping and creating them",
			psprintf("SELECT count(*) FROM %s;", our("gt_handlers")));
		well = false;
	}
	if (well)
		put(health, true, psprintf("%d workers at most, in the whole cluster", gt_shared != NULL ? gt_max_workers : 0), NULL);
}

static void
check_renewal_buffer(Health *health)
{
	put(health, true, "renewals are durable", NULL);
}

/* Databases that the setting names and that are not there. */
static void
check_listed(Health *health, bool *well)
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
		put(health, false, psprintf("garbagetruck.databases names \"%s\", which does not exist", name),
			"SHOW garbagetruck.databases;");
		*well = false;
	}
}

static void
check_settings(Health *health)
{
	int64		max = (int64) gt_max_duration * 1000;
	bool		well = true;

	if (gt_min_duration > max)
	{
		put_setting(health, psprintf("garbagetruck.min_lease_duration (%d ms) is longer than max_lease_duration (%d s): no duration "
									 "is allowed", gt_min_duration, gt_max_duration),
					"ALTER SYSTEM RESET garbagetruck.min_lease_duration;", false);
		well = false;
	}
	else if (gt_default_duration < gt_min_duration || gt_default_duration > max)
	{
		put_setting(health, psprintf("garbagetruck.default_lease_duration (%d ms) is not between min_lease_duration (%d ms) and "
									 "max_lease_duration (%d s)", gt_default_duration, gt_min_duration, gt_max_duration),
					psprintf("ALTER SYSTEM SET garbagetruck.default_lease_duration = '%d ms';",
							 (int) Max(gt_min_duration, Min(gt_default_duration, max))), false);
		well = false;
	}
	if (gt_regrant_delay > max)
	{
		put_setting(health, psprintf("garbagetruck.regrant_delay (%d ms) is longer than max_lease_duration (%d s)", gt_regrant_delay,
									 gt_max_duration),
					psprintf("ALTER SYSTEM SET garbagetruck.regrant_delay = '%d s';", gt_max_duration), false);
		well = false;
	}
	if (gt_history != GT_HISTORY_OFF && gt_history_retention == 0)
	{
		put_setting(health, "garbagetruck.history_retention is 0: what garbagetruck.history keeps is deleted at once",
					"ALTER SYSTEM RESET garbagetruck.history_retention;", false);
		well = false;
	}
	check_listed(health, &well);
	if (well)
		put(health, true, "no setting contradicts another", NULL);
}

/* ---------------------------------------------------------------- the server */

static void
check_clock(Health *health)
{
	int64		off = gt_now() - GetCurrentTimestamp();

	if (gt_shared == NULL)
		put(health, true, "gt_clock() is the system clock", NULL);
	else if (llabs(off) <= USECS_PER_SEC)
		put(health, true, "gt_clock() and the system clock agree", NULL);
	else
		put(health, false, psprintf("gt_clock() is %s %s the system clock: leases are judged by gt_clock(), which does not follow "
									"it until the server starts again", seconds(llabs(off)), off > 0 ? "ahead of" : "behind"),
			off > 0 ? "-- nothing is wrong with leases; a restart helps once the system clock has caught up" :
			"-- nothing is wrong with leases; a restart makes them agree");
}

/*
 * What holds back the horizon behind which dead rows are removed, of which we
 * make many.  kind, who, for how long, what to do: of the oldest first.
 */
static const char *const holders =
"SELECT 'transaction of process ' || pid || ' (' || coalesce(usename, backend_type) || ', ' || coalesce(state, '-') || ')',"
" now() - xact_start, 'SELECT pg_catalog.pg_terminate_backend(' || pid || ');'"
" FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()"
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

static void
check_snapshots(Health *health)
{
	GtSwitch	save;
	uint64		n = 0;
	uint64		i;

	if (!health->standby)
	{
		gt_become_owner(&save);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to the SPI");
		if (SPI_execute(holders, true, MAX_ROWS) != SPI_OK_SELECT)
			elog(ERROR, "could not look for old snapshots");
		n = SPI_processed;
		for (i = 0; i < n && health->all; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			char	   *age = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);

			put(health, false, psprintf("dead rows are not removed: %s%s%s", SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1),
										age != NULL ? ", for " : "", age != NULL ? age : ""),
				SPI_getvalue(tuple, SPI_tuptable->tupdesc, 3));
		}
		SPI_finish();
		gt_become_user(&save);
	}
	if (n > 0 && !health->all)
		put(health, false, "dead rows are not removed: somebody holds an old snapshot", "-- monitors are told who");
	else if (n == 0)
		put(health, true, "nothing holds an old snapshot", NULL);
}

/* ---------------------------------------------------------------- all of them */

static const struct
{
	const char *name;
	void		(*run) (Health *health);
}			checks[] = {
	{"preloaded", check_preloaded},
	{"launcher", check_launcher},
	{"workers", check_workers},
	{"overdue", check_overdue},
	{"dead", check_dead},
	{"paused", check_paused},
	{"suspended", check_suspended},
	{"place", check_place},
	{"unclaimed", check_unclaimed},
	{"slots", check_slots},
	{"history", check_history},
	{"rights", check_rights},
	{"consistency", check_consistency},
	{"capacity", check_capacity},
	{"renewal_buffer", check_renewal_buffer},
	{"settings", check_settings},
	{"errors", check_errors},
	{"clock", check_clock},
	{"snapshots", check_snapshots},
};

/* A check has failed itself. */
static void
put_failure(Health *health, const ErrorData *error)
{
	bool		corrupt = error->sqlerrcode == ERRCODE_DATA_CORRUPTED || error->sqlerrcode == ERRCODE_INDEX_CORRUPTED;

	put(health, false, psprintf("%s could not be judged: %s", health->check, error->message),
		corrupt ? "REINDEX TABLE CONCURRENTLY _garbagetruck.gt_object;" : "-- the server's log has more");
	if (corrupt)
		put(health, false, "and if it is not that table", "REINDEX TABLE CONCURRENTLY _garbagetruck.gt_lease;");
}

static void
run_check(void *arg)
{
	Health	   *health = arg;

	health->run(health);
}

/* See health.h. */
List *
gt_health_rows(void)
{
	Health		health;
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
