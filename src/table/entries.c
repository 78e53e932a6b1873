/*-------------------------------------------------------------------------
 *
 * entries.c
 *	  The index entries of our rows, made without the executor.
 *
 * The executor opens every index of a table for each statement and prepares the
 * conditions of those that are partial, which costs more than all else that is
 * done for the two rows of a lease.  So each process keeps what the indexes of our
 * tables are until the relation cache says that a table has changed, sees from it
 * which entries a row needs, and opens those indexes alone, under the lock that the
 * executor would take.
 *
 * It is so where every index of the table is one of ours, ready, and as our script
 * makes them: a B-tree or a BRIN index over columns, of all rows, or of those where a
 * column is not NULL, or a "char" is a certain one.  While there is another one, as
 * REINDEX CONCURRENTLY makes for a while, the executor does it (write.c).  Those of many
 * rows go to the leaves of a B-tree together, where they can (leaves.c); a BRIN index,
 * which knows what is in some pages and not in which row, is told once for each page.
 *
 * Every process that writes runs this, under its lock on the table, which it has
 * had since before it looked here: whoever makes an index, swaps or drops one
 * waits for that, or has told of it before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "nodes/execnodes.h"
#include "nodes/primnodes.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "table/entries.h"
#include "table/leaves.h"
#include "table/relations.h"
#include "table/table_internal.h"

#define MAX_INDEXES 8
#define MAX_COLUMNS 4
#define ALL_ROWS	(-1)

/* An index of ours. */
typedef struct Entry
{
	GtIndexId	index;
	bool		unique;
	bool		ranges;			/* it is a BRIN index */
	int			ncolumns;
	int			columns[MAX_COLUMNS];	/* as in GtRow */
	int			only_if;		/* has entries of rows where this column is not NULL, or ALL_ROWS */
	char		is;				/* and, if that is not 0, is this "char" */
} Entry;

struct GtEntries
{
	uint64		at;				/* gt_table_changes then, and 1; 0: never looked */
	bool		plain;			/* there are no others */
	int			n;
	Entry		entries[MAX_INDEXES];
};

static GtEntries known[GT_NTABLES];

static GtIndexId
index_of_oid(Oid oid)
{
	int			i;

	for (i = 0; i < GT_NINDEXES && gt_index(i) != oid; i++)
		;
	return i;
}

static int
column_of(const void *node)
{
	return IsA(node, Var) ? ((const Var *) node)->varattno - 1 : ALL_ROWS;
}

/* Which rows have an entry; false: that is none of the conditions that we know. */
static bool
read_condition(const List *predicate, Entry *e)
{
	const void *node = predicate != NIL ? linitial(predicate) : NULL;

	e->only_if = ALL_ROWS;
	e->is = 0;
	if (predicate == NIL)
		return true;
	if (IsA(node, NullTest) && ((const NullTest *) node)->nulltesttype == IS_NOT_NULL)
		e->only_if = column_of(((const NullTest *) node)->arg);
	else if (IsA(node, OpExpr) && ((const OpExpr *) node)->opfuncid == F_CHAREQ)
	{
		const List *args = ((const OpExpr *) node)->args;
		const Const *value = lsecond(args);

		if (!IsA(value, Const) || value->constisnull)
			return false;
		e->only_if = column_of(linitial(args));
		e->is = DatumGetChar(value->constvalue);
	}
	return list_length(predicate) == 1 && e->only_if >= 0;
}

/* false: it is not one of those that we know all about. */
static bool
read_index(Relation index, Entry *e)
{
	Form_pg_index form = index->rd_index;
	int			i;

	e->index = index_of_oid(RelationGetRelid(index));
	e->unique = form->indisunique;
	e->ranges = index->rd_rel->relam == BRIN_AM_OID;
	e->ncolumns = form->indnatts;
	if (e->index == GT_NO_INDEX || (index->rd_rel->relam != BTREE_AM_OID && !e->ranges) || form->indnatts > MAX_COLUMNS ||
		!form->indisvalid || !form->indisready || !form->indislive || !form->indimmediate || form->indisexclusion)
		return false;
	for (i = 0; i < form->indnatts; i++)
	{
		if (form->indkey.values[i] <= 0)
			return false;		/* an expression */
		e->columns[i] = form->indkey.values[i] - 1;
	}
	return read_condition(RelationGetIndexPredicate(index), e);
}

/* What an error leaves half read, or a change makes old meanwhile, is not taken for known. */
static void
learn(GtTable *t, GtEntries *all)
{
	uint64		at;
	List	   *oids;
	ListCell   *lc;

	(void) gt_relid(t->id);		/* from here on we hear of changes */
	at = gt_table_changes + 1;
	all->at = 0;
	all->n = 0;
	oids = RelationGetIndexList(t->rel);
	all->plain = list_length(oids) <= MAX_INDEXES;
	foreach(lc, oids)
	{
		Relation	index;

		if (!all->plain)
			break;
		index = index_open(lfirst_oid(lc), RowExclusiveLock);
		all->plain = read_index(index, &all->entries[all->n++]);
		index_close(index, NoLock);
	}
	list_free(oids);
	all->at = at;
}

const GtEntries *
gt_entries_of(GtTable *t)
{
	GtEntries  *all = &known[t->id];

	if (all->at != gt_table_changes + 1)
		learn(t, all);
	return all->plain ? all : NULL;
}

static bool
has_entry(const Entry *e, const GtRow *row)
{
	return e->only_if == ALL_ROWS ||
		(!row->isnull[e->only_if] && (e->is == 0 || GT_CHAR(row, e->only_if) == e->is));
}

/*
 * What the executor knows of an index, of which a B-tree asks for nothing (NULL); a BRIN
 * index keeps there, from row to row, where it is.
 */
static IndexInfo *
begin_entries(GtTable *t, const Entry *e)
{
	MemoryContext old;
	IndexInfo  *info;

	if (!e->ranges)
		return NULL;
	old = MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "gt_ranges", ALLOCSET_SMALL_SIZES));
	info = BuildIndexInfo(gt_index_of(t, e->index));
	MemoryContextSwitchTo(old);
	return info;
}

static void
end_entries(GtTable *t, const Entry *e, IndexInfo *info)
{
	if (info == NULL)
		return;
	gt_index_insert_cleanup(gt_index_of(t, e->index), info);
	MemoryContextDelete(info->ii_Context);
}

/*
 * An object's key never changes, and whoever updates its row has that locked: so
 * nobody is asked.  What would be met is the row, deleted again, of one who came too late
 * to make the object (write.c), and who waits for this very transaction.
 */
static IndexUniqueCheck
check_of(const Entry *e, bool updated, GtIndexId may_have)
{
	if (!e->unique || (updated && e->index == GT_OBJECT_PKEY))
		return UNIQUE_CHECK_NO;
	return e->index == may_have ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_YES;
}

static bool
insert_entry(GtTable *t, const Entry *e, IndexInfo *info, const GtRow *row, ItemPointer tid, bool updated, GtIndexId may_have)
{
	IndexUniqueCheck check = check_of(e, updated, may_have);
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];
	int			i;

	for (i = 0; i < e->ncolumns; i++)
	{
		values[i] = row->v[e->columns[i]];
		isnull[i] = row->isnull[e->columns[i]];
	}
	return index_insert(gt_index_of(t, e->index), values, isnull, tid, t->rel, check, updated, info) ||
		check != UNIQUE_CHECK_PARTIAL;
}

static bool
insert_one(GtTable *t, const Entry *e, const GtRow *row, ItemPointer tid, bool updated, GtIndexId may_have)
{
	IndexInfo  *info = begin_entries(t, e);
	bool		done = insert_entry(t, e, info, row, tid, updated, may_have);

	end_entries(t, e, info);
	return done;
}

static const Entry *
entry_of(const GtEntries *all, GtIndexId index)
{
	int			i;

	for (i = 0; i < all->n; i++)
		if (all->entries[i].index == index)
			return &all->entries[i];
	return NULL;
}

bool
gt_insert_entries(GtTable *t, const GtEntries *all, const GtRow *row, ItemPointer tid, bool updated, GtIndexId may_have)
{
	const Entry *first = entry_of(all, may_have);
	int			i;

	if (first != NULL && has_entry(first, row) && !insert_one(t, first, row, tid, updated, may_have))
		return false;
	for (i = 0; i < all->n; i++)
	{
		const Entry *e = &all->entries[i];

		if (e != first && has_entry(e, row))
			(void) insert_one(t, e, row, tid, updated, GT_NO_INDEX);
	}
	return true;
}

/*
 * Is the row in the page of one that was inserted before, with the same values, so that
 * nothing is new?  Who sums up that page meanwhile sees both, or neither and hears of
 * the first: all rows lie in the table before any is inserted here.
 */
static bool
is_in_range(const Entry *e, const GtRow *row, const GtRow *before)
{
	bool		same = ItemPointerGetBlockNumber(&row->tid) == ItemPointerGetBlockNumber(&before->tid);
	int			i;

	for (i = 0; i < e->ncolumns && same; i++)
		same = row->isnull[e->columns[i]] == before->isnull[e->columns[i]] && row->v[e->columns[i]] == before->v[e->columns[i]];
	return same;
}

static void
insert_ranges(GtTable *t, const Entry *e, GtRow **rows, int n)
{
	IndexInfo  *info = begin_entries(t, e);
	GtRow	   *before = NULL;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (!has_entry(e, rows[i]) || (before != NULL && is_in_range(e, rows[i], before)))
			continue;
		before = rows[i];
		(void) insert_entry(t, e, info, before, &before->tid, false, GT_NO_INDEX);
	}
	end_entries(t, e, info);
}

/*
 * Those of one B-tree, in the order of the rows if that may have the keys of one.
 * Returns how many are done before that.
 */
static int
insert_of_index(GtTable *t, const Entry *e, GtRow **rows, int n, GtIndexId may_have)
{
	GtRow	  **some = palloc(n * sizeof(GtRow *));
	GtLeaves	leaves = {.index = gt_index_of(t, e->index), .heap = t->rel, .unique = e->unique, .columns = e->columns};
	int			nsome = 0;
	int			done = 0;
	int			together;
	bool		many;
	int			i;

	for (i = 0; i < n; i++)
		if (has_entry(e, rows[i]))
			some[nsome++] = rows[i];
	many = gt_leaves_begin(&leaves, some, nsome, e->index == may_have);
	for (; done < nsome; done += together)
	{
		together = many ? gt_leaves_insert(&leaves, done, nsome) : 0;
		if (together == 0 && !insert_entry(t, e, NULL, some[done], &some[done]->tid, false, may_have))
			break;
		together = Max(together, 1);
	}
	pfree(some);
	return done;
}

int
gt_insert_entries_of_many(GtTable *t, const GtEntries *all, GtRow **rows, int n, GtIndexId may_have)
{
	const Entry *first = entry_of(all, may_have);
	int			i;

	if (first != NULL)
		n = insert_of_index(t, first, rows, n, may_have);
	for (i = 0; i < all->n; i++)
		if (all->entries[i].ranges)
			insert_ranges(t, &all->entries[i], rows, n);
		else if (&all->entries[i] != first)
			(void) insert_of_index(t, &all->entries[i], rows, n, GT_NO_INDEX);
	return n;
}
