/*-------------------------------------------------------------------------
 *
 * health_work.c
 *	  gt_health(): work that is not done, and what keeps it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "clean/trim.h"
#include "control/consistency.h"
#include "handler/use.h"
#include "report/health_checks.h"
#include "report/overdue.h"
#include "rights/place.h"
#include "shared/observe.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/tampered.h"
#include "ttl/ttl.h"
#include "table/versions.h"

#define LATE			(10 * USECS_PER_SEC)	/* overdue, or unclaimed */
#define POLLING			(60 * USECS_PER_SEC)	/* a consumer that asked so long ago is still there */
#define MAX_COUNT		10000	/* rows that are counted, or looked at */

/* Garbage of this handler that is due and that nobody has in hand, counted up to a limit; of who sees little of it not all is looked at. */
static int
count_due(GtHealth *health, GtTable *objects, const GtHandler *h, int limit)
{
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "gt_health", ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	bool		may_claim = gt_handler_may_claim(h);
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	int			n = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin_bound(objects, GT_OBJECT_DUE, 1, &key, BTLessStrategyNumber, TimestampTzGetDatum(gt_now()));
	old = MemoryContextSwitchTo(per_row);
	while (n < limit && looked++ < MAX_COUNT && gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		n += gt_health_sees(health, &row, may_claim);
		MemoryContextReset(per_row);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(per_row);
	gt_scan_end(scan);
	return n;
}

/* Whose garbage most of it is; NULL: nobody's, leases wait to be ended. */
static const char *
most_overdue(GtHealth *health)
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
put_blocked(GtHealth *health)
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
			gt_health_put(health, false, psprintf("worker %d%s%s%s waits for a lock of process %d%s", (int) slots[i].pid,
										slots[i].handler != 0 ? ", in handler \"" : "",
										slots[i].handler != 0 ? slots[i].handler_name : "",
										slots[i].handler != 0 ? "\"," : "", DatumGetInt32(pids[0]),
										npids > 1 ? psprintf(" and %d more", npids - 1) : ""),
						  psprintf("SELECT pid, state, xact_start, query FROM pg_catalog.pg_stat_activity WHERE pid = %d;",
								   DatumGetInt32(pids[0])));
	}
	return n;
}

void
gt_health_overdue(GtHealth *health)
{
	TimestampTz since = health->standby ? GT_NEVER : gt_observe_overdue(health->all);
	TimestampTz now = gt_now();
	int			workers;

	if (since == GT_NEVER || now - since <= LATE)
	{
		gt_health_put(health, true, "nothing has waited for long", NULL);
		return;
	}
	workers = put_blocked(health);
	gt_health_put(health, false, psprintf("the oldest work is due for %s%s; %d workers run in this database", gt_health_seconds(now - since),
								most_overdue(health), workers),
		workers == 0 ? psprintf("CALL %s();", gt_health_our("gt_reclaim")) :
		psprintf("SELECT * FROM %s ORDER BY since LIMIT 10;", gt_health_our("gt_garbage")));
}

/* Dead garbage of a handler that the caller may know of, up to a limit, with claims that have lapsed since anybody looked. */
static int
count_dead(GtHealth *health, GtTable *objects, const GtHandler *h, int limit)
{
	bool		may_claim = gt_handler_may_claim(h);
	Datum		key = Int32GetDatum(h->id);
	int			looked = 0;
	int			n = 0;
	GtScan	   *scan;
	GtRow		row;

	scan = gt_scan_begin(objects, GT_OBJECT_DEAD, 1, &key);
	while (n < limit && looked++ < MAX_COUNT && gt_scan_next(scan, &row))
		n += gt_health_sees(health, &row, may_claim);
	gt_scan_end(scan);
	return n + gt_lapsed_claims_of(objects, h, health->all, limit - n);
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
	if (found && !gt_handler_by_id(GT_INT32(&row, O_HANDLER), h) && !gt_ttl_handler(GT_INT32(&row, O_HANDLER), h))
		gt_handler_missing(GT_INT32(&row, O_HANDLER), h);
	return found;
}

/* Discards what has no handler any more; that of rows, which has none either, is not meant. */
static const char *
remedy_for_missing(void)
{
	StringInfoData types;
	ListCell   *lc;

	initStringInfo(&types);
	foreach(lc, gt_ttl_list())
		appendStringInfo(&types, "%s%s", types.len > 0 ? ", " : " AND object_type NOT IN (",
						 quote_literal_cstr(((GtTtl *) lfirst(lc))->type));
	return psprintf("SELECT %s(cleanup_id, attempts) FROM %s WHERE handler IS NULL%s%s;", gt_health_our("gt_ack"),
					gt_health_our("gt_dead"), types.data, types.len > 0 ? ")" : "");
}

void
gt_health_dead(GtHealth *health)
{
	GtTable		objects;
	List	   *handlers = gt_handler_list();
	ListCell   *lc;
	GtHandler	h = {0};
	int			kinds = 0;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	while (next_dead_handler(&objects, h.id, &h))
		if (h.missing || h.rows)
			handlers = lappend(handlers, memcpy(palloc(sizeof(GtHandler)), &h, sizeof(GtHandler)));
	foreach(lc, handlers)
	{
		GtHandler  *of = lfirst(lc);
		int			n = count_dead(health, &objects, of, MAX_COUNT);

		if (n == 0 || ++kinds > GT_HEALTH_ROWS)
			continue;
		if (of->missing)
			gt_health_put(health, false, psprintf("objects whose handler is missing: %d%s", n, n >= MAX_COUNT ? " or more" : ""),
						  remedy_for_missing());
		else if (of->rows)
			gt_health_put(health, false, psprintf("rows of table %s that can not be deleted: %d%s; gt_dead has the errors", of->name, n,
										n >= MAX_COUNT ? " or more" : ""),
				psprintf("SELECT %s(ARRAY(SELECT cleanup_id FROM %s WHERE handler IS NULL AND object_type = %s));",
						 gt_health_our("gt_redrive"), gt_health_our("gt_dead"), quote_literal_cstr(of->name)));
		else
			gt_health_put(health, false, psprintf("objects that used up their attempts: %d%s, of \"%s\"; gt_dead has the errors", n,
												   n >= MAX_COUNT ? " or more" : "", of->name),
						  psprintf("SELECT %s(handler => %s);", gt_health_our("gt_redrive"), quote_literal_cstr(of->name)));
	}
	gt_close(&objects);
	gt_health_put_more(health, kinds, "handlers");
	if (kinds == 0)
		gt_health_put(health, true, "no object has used up its attempts", NULL);
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
		result = psprintf("by \"%s\" at %s", NameStr(*DatumGetName(row->v[PAUSED_ROLE])),
						  timestamptz_to_str(GT_TIME(row, PAUSED_AT)));
	gt_close(&t);
	UnregisterSnapshot(snapshot);
	return result;
}

void
gt_health_paused(GtHealth *health)
{
	const char *by = paused_by();
	ListCell   *lc;
	int			n = 0;

	if (by != NULL)
		gt_health_put(health, false, psprintf("nothing is cleaned in this database: paused %s", by),
					  psprintf("SELECT %s();", gt_health_our("gt_resume")));
	foreach(lc, gt_health_handlers(health))
	{
		GtHandler  *h = lfirst(lc);

		if (!h->paused || ++n > GT_HEALTH_ROWS)
			continue;
		gt_health_put(health, false, psprintf("\"%s\"%s%s", h->name, h->paused_reason != NULL && health->all ? ": " : "",
									h->paused_reason != NULL && health->all ? h->paused_reason : ""),
					  psprintf("SELECT %s(%s);", gt_health_our("gt_resume"), quote_literal_cstr(h->name)));
	}
	gt_health_put_more(health, n, "handlers");
	if (n == 0 && by == NULL)
		gt_health_put(health, true, "no handler is paused", NULL);
}

void
gt_health_suspended(GtHealth *health)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, gt_health_handlers(health))
	{
		GtHandler  *h = lfirst(lc);
		const char *why = gt_handler_suspended(h);

		if (why != NULL && ++n <= GT_HEALTH_ROWS)
			gt_health_put(health, false, psprintf("\"%s\": %s", h->name, why),
						  "-- its owner registers the handler anew with gt_handler_create(); or mend what it says");
	}
	gt_health_put_more(health, n, "handlers");
	if (n == 0)
		gt_health_put(health, true, "no handler is suspended", NULL);
}

void
gt_health_place(GtHealth *health)
{
	char	   *why = NULL;

	if (gt_place(&why) == GT_PLACE_COPY)
		gt_health_put(health, false, psprintf("nothing ends and nothing is cleaned here, unless the objects are this database's own. %s", why),
					  psprintf("SELECT %s(adopt => true);", gt_health_our("gt_resume")));
	else
		gt_health_put(health, true, "this database acts on its own objects", NULL);
}

/* Since when the oldest garbage of this external handler waits to be claimed; GT_NEVER. */
static TimestampTz
unclaimed_since(GtHealth *health, GtTable *objects, const GtHandler *h)
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
		if (gt_health_sees(health, &row, may_claim))
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

void
gt_health_unclaimed(GtHealth *health)
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
			if (since != GT_NEVER && ++n <= GT_HEALTH_ROWS)
				gt_health_put(health, false, psprintf("nobody claims the garbage of \"%s\", the oldest is due for %s", h->name,
											gt_health_seconds(gt_now() - since)),
							  "-- start a sidecar or a consumer that calls gt_claim(), with the right by gt_handler_grant(.., 'claim')");
		}
		gt_close(&objects);
	}
	gt_health_put_more(health, n, "handlers");
	if (n == 0)
		gt_health_put(health, true, "no garbage waits in vain for somebody who claims it", NULL);
}

void
gt_health_history(GtHealth *health)
{
	static const char *const modes[] = {"off", "errors", "all"};
	TimestampTz trim_at = gt_history_trim_at();

	if (trim_at != GT_NEVER && !health->standby && gt_now() - trim_at > USECS_PER_DAY)
		gt_health_put(health, false, "there are entries that are more than a day older than garbagetruck.history_retention",
					  psprintf("CALL %s();", gt_health_our("gt_reclaim")));
	else
		gt_health_put(health, true, psprintf("garbagetruck.history is %s", modes[gt_history]), NULL);
}

/* What others have, or have put, on our tables: see tampered.c. */
void
gt_health_rights(GtHealth *health)
{
	List	   *obstacles = gt_table_obstacles();
	List	   *tamperings = gt_table_tamperings();
	ListCell   *lc;

	if (obstacles == NIL && tamperings == NIL)
		gt_health_put(health, true, "the tables are nobody's but the extension's", NULL);
	else if (!health->all)
		gt_health_put(health, false, gt_tables_obstructed() != NULL ? "nothing is written: somebody has put something on a table of garbagetruck" :
			gt_tables_tampered() != NULL ? "no handler's SQL is run: a role can write the tables of garbagetruck" :
			"a role can read the tables of garbagetruck", "-- a monitor sees here what is to be done");
	if (!health->all)
		return;
	foreach(lc, obstacles)
	{
		GtObstacle *o = lfirst(lc);

		gt_health_put(health, false, psprintf("nothing is written: %s, which our writes would pass over", o->what), o->remedy);
	}
	foreach(lc, tamperings)
	{
		GtTampering *t = lfirst(lc);

		gt_health_put(health, false, t->suspends ? psprintf("no handler's SQL is run: %s", t->what) : t->what, t->remedy);
	}
}

void
gt_health_consistency(GtHealth *health)
{
	List	   *findings = gt_find_contradictions(true, GT_HEALTH_ROWS);
	const char *remedy = psprintf("SELECT * FROM %s(repair => true);", gt_health_our("gt_check"));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, findings)
	{
		GtFinding  *f = lfirst(lc);

		if (!health->all || ++n > GT_HEALTH_ROWS)
			break;
		gt_health_put(health, false, f->object_id == NULL ? psprintf("%s: %s", f->name, f->detail) :
			psprintf("%s: object \"%s\" of type \"%s\": %s", f->name, f->object_id, f->object_type, f->detail),
			f->otherwise != NULL ? f->otherwise : remedy);
	}
	if (findings != NIL && n != list_length(findings))
		gt_health_put(health, false, "there is more that contradicts itself in the tables", remedy);
	if (findings == NIL)
		gt_health_put(health, true, "the tables agree with each other, where they were looked at", NULL);
}
