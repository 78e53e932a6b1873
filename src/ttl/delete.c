/*-------------------------------------------------------------------------
 *
 * delete.c
 *	  The DELETE of a batch of rows.
 *
 * Part of the body of a run (batch.c), in its subtransaction and as the table's owner.
 *
 * The DELETE is one statement over the places of the rows, which nobody can change
 * any more: so all triggers, policies and foreign keys of the table apply, as for
 * whoever else deletes them.  One by one it is executed for each, and none may last
 * for much longer than those before it did.  Its plan is kept by the process for the
 * tables that it has met last.
 * Where a trigger may have kept a row, or brought it back, that is looked for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "handler/role.h"
#include "handler/slots.h"
#include "handler/timers.h"
#include "shared/clock.h"
#include "ttl/delete.h"

#define MANY_LEAVES	16			/* each statement looks at all of them: then there is one for many rows only */
#define MAX_ONE_BY_ONE	(500 * INT64CONST(1000))	/* us for which rows are deleted one by one */
#define SHORT		(5 * INT64CONST(1000))	/* us that any row may take, */
#define LONGER		20			/* and so many times as long as those before it did */
#define MAX_KEPT	8			/* plans */

/* The DELETE of a table, planned. */
typedef struct Kept
{
	Oid			relation;		/* InvalidOid: none */
	SPIPlanPtr	plan;
} Kept;

static Kept kept[MAX_KEPT];		/* of this process */

/* ---------------------------------------------------------------- the statement */

/* The DELETE of these places, in the one table that $2 names where there are more. */
static SPIPlanPtr
prepare(const GtTarget *target)
{
	Oid			types[2] = {TIDARRAYOID, OIDOID};
	SPIPlanPtr	plan;

	plan = SPI_prepare_cursor(psprintf("DELETE FROM %s%s WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)%s", target->partitioned ? "" : "ONLY ",
									   gt_ttl_type(RelationGetRelid(target->rel)),
									   target->partitioned ? " AND tableoid OPERATOR(pg_catalog.=) $2" : ""),
							  target->partitioned ? 2 : 1, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare to delete rows: %s", SPI_result_code_string(SPI_result));
	return plan;
}

static CachedPlanSource *
source_of(SPIPlanPtr plan)
{
	return linitial(SPI_plan_get_plan_sources(plan));
}

/*
 * It names the table in text: but nobody renames what we have locked, and where
 * somebody has before that, it is not valid any more.  Where a rule does nothing
 * instead, it does not depend on the table.
 */
static bool
is_good(const Kept *k, Oid relation)
{
	return k->relation == relation && SPI_plan_is_valid(k->plan) && list_member_oid(source_of(k->plan)->relationOids, relation);
}

/* Has it planned to go to the places, however small the table seems; what its triggers call is planned as ever. */
static void
plan_by_place(SPIPlanPtr plan)
{
	CachedPlan *planned = source_of(plan)->gplan;
	int			level;

	if (planned != NULL && planned->is_valid)
		return;
	level = NewGUCNestLevel();
	gt_set_for_runs("enable_tidscan", "on");
	gt_set_for_runs("enable_seqscan", "off");
	gt_set_for_runs("jit", "off");
	planned = SPI_plan_get_cached_plan(plan);
	if (planned != NULL)
		ReleaseCachedPlan(planned, CurrentResourceOwner);
	AtEOXact_GUC(false, level);
}

/* The plan that is kept for it. */
static SPIPlanPtr
find_plan(const GtTarget *target)
{
	static int	next = 0;
	Oid			relation = RelationGetRelid(target->rel);
	Kept	   *k = NULL;
	int			i;

	for (i = 0; i < MAX_KEPT && k == NULL; i++)
		if (kept[i].relation == relation)
			k = &kept[i];
	if (k == NULL)
		k = &kept[next++ % MAX_KEPT];
	if (!is_good(k, relation))
	{
		if (k->plan != NULL)
			SPI_freeplan(k->plan);
		memset(k, 0, sizeof(Kept));
		k->plan = prepare(target);
		if (SPI_keepplan(k->plan) != 0)
			elog(ERROR, "could not keep a plan");
		k->relation = relation;
	}
	plan_by_place(k->plan);
	return k->plan;
}

/* How many rows it has met. They are there in the latest snapshot, whatever that of the transaction is. */
static uint64
execute(SPIPlanPtr plan, Datum *tids, int n, Oid leaf)
{
	Datum		values[2];

	values[0] = PointerGetDatum(construct_array(tids, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
	values[1] = ObjectIdGetDatum(leaf);
	if (SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot, false, true, 0) < 0)
		elog(ERROR, "could not delete rows: %s", SPI_result_code_string(SPI_result));
	pfree(DatumGetPointer(values[0]));
	return SPI_processed;
}

/* Of those in one table. */
static uint64
delete_from(const GtBatch *b, SPIPlanPtr plan, Oid leaf)
{
	Datum	   *tids = palloc(b->n * sizeof(Datum));
	int			n = 0;
	int			i;

	for (i = 0; i < b->n; i++)
		if (b->victims[i].leaf == leaf)
			tids[n++] = PointerGetDatum(&b->victims[i].tid);
	return n > 0 ? execute(plan, tids, n, leaf) : 0;
}

/* ---------------------------------------------------------------- was it deleted? */

/* Has somebody a trigger there that could bring a row back? */
static bool
has_triggers_itself(Relation rel)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (!rel->trigdesc->triggers[i].tgisinternal && TRIGGER_FOR_DELETE(rel->trigdesc->triggers[i].tgtype))
			return true;
	return false;
}

/* Or on one of its partitions? */
bool
gt_batch_has_triggers(const GtTarget *target)
{
	bool		found = has_triggers_itself(target->rel);
	int			i;

	for (i = 0; i < target->nleaves; i++)
		found = found || has_triggers_itself(target->leaves[i].rel);
	return found;
}

/* Is a row with this key there none the less, and over? */
static bool
is_back(GtDeadlines *rows, GtTarget *target, const GtVictim *v, TimestampTz bound)
{
	const char *names[INDEX_MAX_KEYS];
	GtLeaf	   *of = NULL;
	TupleTableSlot *row;
	int			leaf;
	int			i;

	for (i = 0; i < target->nleaves; i++)
		if (RelationGetRelid(target->leaves[i].rel) == v->leaf)
			of = &target->leaves[i];
	for (i = 0; of != NULL && i < of->nkeys; i++)
		names[i] = NameStr(TupleDescAttr(RelationGetDescr(of->rel), of->keys[i] - 1)->attname);
	row = of != NULL ? gt_deadlines_find(rows, names, v->key, &leaf) : NULL;
	return row != NULL && gt_deadline_of(rows, leaf, row) <= bound;
}

static bool
any_is_back(GtBatch *b, GtTarget *target, TimestampTz bound)
{
	GtDeadlines *rows;
	bool		found = false;
	int			i;

	PushActiveSnapshot(GetLatestSnapshot());
	rows = gt_deadlines_begin(target);
	for (i = 0; i < b->n && !found; i++)
	{
		found = is_back(rows, target, &b->victims[i], bound);
		if (found && b->by_row)
			b->at = i;
	}
	gt_deadlines_end(rows);
	PopActiveSnapshot();
	return found;
}

static void
still_there(const GtBatch *b)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg(b->by_row ? "the row is still there: a trigger, a rule or a policy has kept it" :
					"rows are still there: a trigger, a rule or a policy has kept them")));
}

/* How long this one may take, where those before it took so long together. */
static int64
patience(const GtBatch *b, int at, int64 took)
{
	return at == 0 || !b->suspect ? b->may_last : Min(Max(took / at * LONGER, SHORT), GT_SLOW);
}

/* In the end it is not known who is to blame, where there are more. */
static void
delete_one_by_one(GtBatch *b, const GtTarget *target)
{
	SPIPlanPtr	plan = find_plan(target);
	TimestampTz began = gt_now();
	int64		took = 0;

	for (b->at = 0; b->at < b->n && took < MAX_ONE_BY_ONE; b->at++)
	{
		GtVictim   *v = &b->victims[b->at];
		Datum		tid = PointerGetDatum(&v->tid);

		if (b->may_last != 0)
			gt_timers_shorten(patience(b, b->at, took));
		if (execute(plan, &tid, 1, v->leaf) == 0)
			still_there(b);
		if (gt_timed_out)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceled by its timeout")));
		took = gt_now() - began;
	}
	if (b->may_last != 0)
		gt_timers_shorten(MAX_ONE_BY_ONE);
	b->over = b->n - b->at;
	b->n = b->at;
	b->at = b->n == 1 ? 0 : -1;
}

static void
delete_at_once(GtBatch *b, const GtTarget *target)
{
	SPIPlanPtr	plan = find_plan(target);
	uint64		deleted = 0;
	int			i;

	if (b->may_last != 0)
		gt_timers_shorten(b->may_last);
	for (i = 0; i < target->nleaves; i++)
		deleted += delete_from(b, plan, RelationGetRelid(target->leaves[i].rel));
	if (deleted < (uint64) b->n)
		still_there(b);
}

void
gt_batch_delete(GtBatch *b, GtTarget *target, TimestampTz bound)
{
	if (b->by_row && (target->nleaves < MANY_LEAVES || b->n == 1))
		delete_one_by_one(b, target);
	else
		delete_at_once(b, target);
	if (b->verify && any_is_back(b, target, bound))
		still_there(b);
}
