/*-------------------------------------------------------------------------
 *
 * ttls.c
 *	  What the view gt_ttls, gt_health() and gt_metrics() tell of row TTLs.
 *
 * Any role's session runs this; the table is looked at as its owner, and nothing that he
 * has made is called: a function of his could read what the session has open, or stay.
 * No lock is waited for: of a table that somebody has locked nothing is told.  Of a table
 * a bounded number of rows is looked at, from the low end of its index.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/check.h"
#include "base/transaction.h"
#include "handler/use.h"
#include "lease/start.h"
#include "report/health_checks.h"
#include "report/ttls.h"
#include "rights/may.h"
#include "rights/place.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "ttl/batch.h"
#include "ttl/named.h"
#include "ttl/scan.h"
#include "ttl/wake.h"

PG_FUNCTION_INFO_V1(gt__ttl_sees);

#define MAX_LOOK	1000		/* rows */
#define LATE		(30 * USECS_PER_SEC)	/* after which a row that is over is overdue for people */

/* Could it take a function of somebody's to name this row? JSON is made by casts, of types that have one. */
static bool
calls_casts(const GtLeaf *leaf, TupleTableSlot *row)
{
	int			i;

	for (i = 0; i < leaf->nkeys && leaf->nkeys > 1; i++)
		if (getBaseType(TupleDescAttr(row->tts_tupleDescriptor, leaf->keys[i] - 1)->atttypid) >= FirstNormalObjectId)
			return true;
	return false;
}

/* Is this row put aside? It is tried by itself. */
static bool
is_aside(GtTable *objects, const GtTtl *t, const GtLeaf *leaf, TupleTableSlot *row)
{
	Datum		key[2];
	GtRow		object;

	if (calls_casts(leaf, row))
		return false;
	key[0] = gt_row_id(leaf, row);
	key[1] = CStringGetTextDatum(t->type);
	return gt_fetch(objects, GT_OBJECT_PKEY, 2, key, &object) && !object.isnull[O_HANDLER] &&
		GT_INT32(&object, O_HANDLER) == t->id;
}

/* A standby has nothing of a table that is not logged, or of such a partition. */
static bool
has_rows(const GtTarget *target)
{
	bool		has = true;
	int			i;

	for (i = 0; i < target->nleaves && RecoveryInProgress(); i++)
		has = has && target->leaves[i].rel->rd_rel->relpersistence != RELPERSISTENCE_UNLOGGED;
	return has;
}

/* The oldest row that is over, and the first that will be. */
static void
look_at_rows(GtTarget *target, const GtTtl *t, GtTtlSeen *seen)
{
	TimestampTz wait;
	TimestampTz bound = gt_rows_bound(t, RecoveryInProgress() ? 0 : gt_start_after_outage(), &wait);
	int			level = gt_names_begin();
	int			looked = 0;
	GtDeadlines *rows;
	GtTable		objects;
	TupleTableSlot *row;
	int			leaf;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	PushActiveSnapshot(GetLatestSnapshot());
	rows = gt_deadlines_begin(target);
	gt_deadlines_scan(rows, DT_NOBEGIN, bound);
	while (seen->oldest == GT_NEVER && looked++ < MAX_LOOK && (row = gt_deadlines_next(rows, &leaf)) != NULL)
	{
		TimestampTz deadline = gt_deadline_by_index(rows, leaf);

		if (deadline <= bound && !is_aside(&objects, t, &target->leaves[leaf], row))
			seen->oldest = seen->next = TIMESTAMP_NOT_FINITE(deadline) ? deadline : deadline + t->h.grace;
	}
	if (seen->oldest == GT_NEVER)
	{
		TimestampTz first = gt_deadlines_after(rows, bound);

		seen->next = first >= GT_NEVER - t->h.grace ? GT_NEVER : first + t->h.grace;
	}
	if (wait != 0 && seen->next != GT_NEVER)
		seen->next = Max(seen->next, wait);
	if (wait != 0)
		seen->oldest = GT_NEVER;
	gt_deadlines_end(rows);
	PopActiveSnapshot();
	gt_close(&objects);
	gt_names_end(level);
}

/* The owner, as whom this is called, may not use the handler any more, or it is gone. */
static const char *
cleanup_suspended(const GtTtl *t, GtTtlSeen *seen)
{
	GtHandler	h;

	if (t->cleanup == 0)
		return NULL;
	if (!gt_handler_by_id(t->cleanup, &h))
		return "its handler is missing";
	seen->grant = !gt_handler_may_use(&h);
	return seen->grant ? psprintf("role \"%s\" may not use handler \"%s\"", t->h.owner_name, h.name) : NULL;
}

typedef struct Asking
{
	const GtTtl *t;
	GtTtlSeen  *seen;
} Asking;

/* Looks for what the deadline is called now, where its text says nothing any more. */
static void
look_for_name(const GtTtl *t, GtTtlSeen *seen)
{
	Relation	rel = ConditionalLockRelationOid(t->relation, AccessShareLock) ? try_relation_open(t->relation, NoLock) : NULL;

	if (rel == NULL)
		return;
	seen->called_now = gt_target_called_now(rel, gt_wake_columns(rel));
	relation_close(rel, NoLock);
}

/* As the table's owner. */
static void
ask(void *arg)
{
	Asking	   *asking = arg;
	GtTtlSeen  *seen = asking->seen;
	const GtTtl *t = asking->t;
	GtTarget	target;
	const char *why;
	int			level = NewGUCNestLevel();
	int			sec_context;
	Oid			user;

	GetUserIdAndSecContext(&user, &sec_context);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(t->h.owner, sec_context | SECURITY_RESTRICTED_OPERATION);
	why = cleanup_suspended(t, seen);
	if (seen->suspended == NULL)
		seen->suspended = why;
	if (seen->suspended == NULL && gt_target_open(&target, t->relation, t->expression, AccessShareLock, &seen->suspended, &seen->remedy))
	{
		seen->untold = t->wake && gt_wake_is_lost(target.rel);
		if (has_rows(&target))
			look_at_rows(&target, t, seen);
		gt_target_close(&target);
	}
	else if (seen->suspended != NULL && seen->suspended != why && seen->remedy == NULL)
		look_for_name(t, seen);
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(user, sec_context);
}

void
gt_ttl_see(const GtTtl *t, GtTtlSeen *seen)
{
	Asking		asking = {t, seen};
	ErrorData  *error;
	int			sec_context;
	Oid			user;

	memset(seen, 0, sizeof(GtTtlSeen));
	seen->oldest = seen->next = GT_NEVER;
	seen->suspended = gt_ttl_suspended(t);
	seen->declare = seen->suspended != NULL;
	GetUserIdAndSecContext(&user, &sec_context);
	error = gt_try(ask, &asking);
	SetUserIdAndSecContext(user, sec_context);
	if (error != NULL && seen->suspended == NULL)
		seen->suspended = pstrdup(error->message);
}

/* gt__ttl_sees(id): behind the view gt_ttls; all NULL for whoever may not know of it. */
Datum
gt__ttl_sees(PG_FUNCTION_ARGS)
{
	GtTtl	   *t = PG_ARGISNULL(0) ? NULL : gt_ttl_by_id(PG_GETARG_INT32(0));
	TupleDesc	desc;
	Datum		v[5];
	bool		nulls[5] = {false, false, false, false, false};
	GtTtlSeen	seen;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "gt__ttl_sees does not return a row");
	if (t == NULL || !(gt_acts_for(t->h.owner) || gt_is_monitor()))
		PG_RETURN_NULL();
	gt_ttl_see(t, &seen);
	v[0] = ObjectIdGetDatum(t->relation);
	v[1] = ObjectIdGetDatum(t->h.owner);
	nulls[2] = seen.suspended == NULL;
	v[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(seen.suspended);
	nulls[3] = seen.next == GT_NEVER;
	v[3] = TimestampTzGetDatum(seen.next);
	nulls[4] = seen.oldest == GT_NEVER || TIMESTAMP_NOT_FINITE(seen.oldest);
	v[4] = nulls[4] ? (Datum) 0 : PointerGetDatum(gt_us_interval(Max(gt_now() - seen.oldest, 0)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, nulls)));
}

/* The call that declares it anew, as it is. */
static const char *
declaration(const GtTtl *t, const char *expires_at)
{
	int64		grace = t->h.grace;
	StringInfoData sql;
	GtHandler	h;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s(%s, %s", gt_health_our("gt_ttl_create"), quote_literal_cstr(t->type),
					 quote_literal_cstr(expires_at));
	if (t->cleanup != 0 && gt_handler_by_id(t->cleanup, &h))
		appendStringInfo(&sql, ", cleanup => %s", quote_literal_cstr(h.name));
	if (t->batch_size > 0)
		appendStringInfo(&sql, ", batch_size => %d", t->batch_size);
	if (t->h.rate_limit > 0)
		appendStringInfo(&sql, ", rate_limit => %d", t->h.rate_limit);
	if (!t->wake)
		appendStringInfoString(&sql, ", wake => false");
	if (t->h.paused && t->h.paused_reason == NULL)
		appendStringInfoString(&sql, ", paused => true");
	if (grace % USECS_PER_SEC != 0)
		appendStringInfo(&sql, ", grace => '" INT64_FORMAT " microseconds'", grace);
	else if (grace > 0)
		appendStringInfo(&sql, ", grace => '" INT64_FORMAT " seconds'", grace / USECS_PER_SEC);
	appendStringInfoString(&sql, ");");
	return sql.data;
}

static const char *
grant(const GtTtl *t)
{
	GtHandler	h;

	if (!gt_handler_by_id(t->cleanup, &h))
		return NULL;
	return psprintf("SELECT %s(%s, %s);", gt_health_our("gt_handler_grant"), quote_literal_cstr(h.name),
					quote_literal_cstr(t->h.owner_name));
}

/* What brings a row TTL back that is suspended, as SQL, where that can be said. */
static const char *
remedy_of(const GtTtl *t, const GtTtlSeen *seen)
{
	if (seen->declare)
		return declaration(t, t->expires_at);
	if (seen->called_now != NULL)
		return declaration(t, seen->called_now);
	if (seen->grant)
		return grant(t);
	if (seen->remedy != NULL)
		return seen->remedy;
	return psprintf("SELECT %s(%s);", gt_health_our("gt_ttl_drop"), quote_literal_cstr(t->type));
}

void
gt_health_ttl(GtHealth *health)
{
	TimestampTz now = gt_now();
	bool		stopped = health->standby || gt_place(NULL) == GT_PLACE_COPY || gt_database_paused();
	ListCell   *lc;
	int			n = 0;

	foreach(lc, gt_ttl_list())
	{
		GtTtl	   *t = lfirst(lc);
		GtTtlSeen	seen;
		const char *what = NULL;
		const char *remedy = NULL;

		if (!(health->all || gt_acts_for(t->h.owner)))
			continue;
		gt_ttl_see(t, &seen);
		if (seen.declare && seen.grant && n < GT_HEALTH_ROWS)
			gt_health_put(health, false, psprintf("its owner may not use the handler of table %s", t->type), grant(t));
		if (seen.suspended != NULL)
		{
			what = psprintf("table %s is suspended: %s", t->type, seen.suspended);
			remedy = remedy_of(t, &seen);
		}
		else if (t->h.paused && t->h.paused_reason != NULL)
		{
			what = psprintf("table %s is paused: %s", t->type, t->h.paused_reason);
			remedy = declaration(t, t->expires_at);
		}
		else if (seen.untold)
		{
			what = psprintf("nothing tells of the rows of table %s, which is looked at each naptime: its trigger is gone or disabled", t->type);
			remedy = declaration(t, t->expires_at);
		}
		else if (!t->h.paused && !stopped && seen.oldest != GT_NEVER && !TIMESTAMP_NOT_FINITE(seen.oldest) && now - seen.oldest > LATE)
		{
			what = psprintf("table %s has rows that are over for %s", t->type, gt_health_seconds(now - seen.oldest));
			remedy = psprintf("CALL %s();", gt_health_our("gt_reclaim"));
		}
		if (what != NULL && ++n <= GT_HEALTH_ROWS)
			gt_health_put(health, false, what, remedy);
	}
	gt_health_put_more(health, n, "tables");
	if (n == 0)
		gt_health_put(health, true, "rows that are over go from every table that has a row TTL", NULL);
}
