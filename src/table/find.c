/*-------------------------------------------------------------------------
 *
 * find.c
 *	  Rows, or entries of an index, are looked up one after the other by their keys.
 *
 * What a look-up costs beside the descent of the index is a snapshot, and a scan that
 * begins and ends: here there is one of either for all of them.  Nothing is locked.
 * So a row may have another version since, which its header tells: by that no
 * transaction has locked or replaced a version, or it may have.  It is a hint, read
 * without a lock; who goes by it deletes that version, and is told if it was wrong.
 *
 * Who is going to insert rows wants to know of their keys that the index has none of
 * them.  These come in the order of the index, and lie close together more often than
 * not, as the names of objects that somebody makes at once.  So it is looked for the first
 * entry from a key on: of all keys before that one there is none.  Where it has told
 * of no other key twice they are far apart, and each is looked for by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/genam.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "table/find.h"
#include "table/table_internal.h"
#include "table/versions.h"

#define MAX_KEYS	4
#define STEPS		16			/* entries that are passed over on the way behind a key */
#define VAIN		2			/* looks behind a key that have told of no other: there are no more of them */

struct GtFinder
{
	GtTable    *table;
	Snapshot	snapshot;
	IndexScanDesc scan;
	MemoryContext context;		/* index scans allocate as they go on */
	int			nkeys;
	ScanKeyData keys[MAX_KEYS];
};

GtFinder *
gt_finder_begin(GtTable *t, GtIndexId id, int nkeys)
{
	GtFinder   *finder = palloc(sizeof(GtFinder));
	Relation	index = gt_index_of(t, id);
	Datum		none[MAX_KEYS] = {0};

	Assert(nkeys <= MAX_KEYS);
	finder->table = t;
	finder->context = CurrentMemoryContext;
	finder->nkeys = nkeys;
	gt_equality_keys(index, nkeys, none, finder->keys);
	finder->snapshot = RegisterSnapshot(gt_newest_snapshot());
	finder->scan = gt_index_beginscan(t->rel, index, gt_read_snapshot(finder->snapshot), nkeys);
	return finder;
}

bool
gt_find(GtFinder *finder, const Datum *keys, GtRow *row, bool *untouched)
{
	GtTable    *t = finder->table;
	MemoryContext old = MemoryContextSwitchTo(finder->context);
	bool		found;
	int			i;

	for (i = 0; i < finder->nkeys; i++)
		finder->keys[i].sk_argument = keys[i];
	index_rescan(finder->scan, finder->keys, finder->nkeys, NULL, 0);
	found = gt_next_of_index(t, finder->scan, finder->snapshot, BackwardScanDirection);
	MemoryContextSwitchTo(old);
	if (!found)
		return false;
	*untouched = (ExecFetchSlotHeapTuple(t->slot, false, NULL)->t_data->t_infomask & HEAP_XMAX_INVALID) != 0;
	gt_copy_row(t, row);
	return true;
}

void
gt_finder_end(GtFinder *finder)
{
	index_endscan(finder->scan);
	UnregisterSnapshot(finder->snapshot);
	pfree(finder);
}

/* ---------------------------------------------------------------- entries alone */

struct GtMeeter
{
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc scan;			/* by all columns */
	IndexScanDesc behind;		/* from a value of the first column on */
	MemoryContext context;		/* index scans allocate as they go on */
	int			nkeys;
	ScanKeyData keys[MAX_KEYS];
	ScanKeyData from;
	const Datum *last;			/* between these keys and the next entry there is nothing; NULL: that is not known */
	IndexTuple	next;			/* NULL: there is none */
	int			told;			/* of so many keys that has told, */
	int			vain;			/* and so many have told of none */
};

GtMeeter *
gt_meeter_begin(GtTable *t, GtIndexId id, int nkeys)
{
	GtMeeter   *m = palloc0(sizeof(GtMeeter));
	Datum		none[MAX_KEYS] = {0};

	Assert(nkeys <= MAX_KEYS);
	m->index = gt_index_of(t, id);
	m->context = CurrentMemoryContext;
	m->nkeys = nkeys;
	gt_equality_keys(m->index, nkeys, none, m->keys);
	gt_bound_key(&m->from, m->index, 0, BTGreaterEqualStrategyNumber, (Datum) 0);
	m->snapshot = RegisterSnapshot(gt_newest_snapshot());
	m->scan = gt_index_beginscan(t->rel, m->index, gt_read_snapshot(m->snapshot), nkeys);
	m->behind = gt_index_beginscan(t->rel, m->index, gt_read_snapshot(m->snapshot), 1);
	m->behind->xs_want_itup = true;
	return m;
}

static int
compare_column(const GtMeeter *m, int column, Datum a, Datum b)
{
	return DatumGetInt32(FunctionCall2Coll(index_getprocinfo(m->index, column + 1, BTORDER_PROC),
										   m->index->rd_indcollation[column], a, b));
}

static int
compare_keys(const GtMeeter *m, const Datum *a, const Datum *b)
{
	int			order = 0;
	int			i;

	for (i = 0; i < m->nkeys && order == 0; i++)
		order = compare_column(m, i, a[i], b[i]);
	return order;
}

static int
compare_entry(const GtMeeter *m, IndexTuple entry, const Datum *keys)
{
	Datum		of_entry[MAX_KEYS];
	bool		isnull;
	int			i;

	for (i = 0; i < m->nkeys; i++)
		of_entry[i] = index_getattr(entry, i + 1, RelationGetDescr(m->index), &isnull);
	return compare_keys(m, of_entry, keys);
}

/* Does what was found behind the keys before tell of these? */
static bool
is_between(GtMeeter *m, const Datum *keys)
{
	bool		known = m->last != NULL;

	if (known && compare_keys(m, keys, m->last) >= 0 && (m->next == NULL || compare_entry(m, m->next, keys) > 0))
	{
		m->told++;
		return true;
	}
	m->vain = m->told > 0 ? 0 : m->vain + known;
	m->told = 0;
	m->last = NULL;
	return false;
}

/* Looks for the keys, and what comes behind them. Returns whether that has told, in *met, if there are some. */
static bool
look_behind(GtMeeter *m, const Datum *keys, bool *met)
{
	int			order = -1;
	int			i;

	m->from.sk_argument = keys[0];
	index_rescan(m->behind, &m->from, 1, NULL, 0);
	for (i = 0; i < STEPS && order < 0; i++)
	{
		m->next = index_getnext_tid(m->behind, ForwardScanDirection) != NULL ? m->behind->xs_itup : NULL;
		order = m->next == NULL ? 1 : compare_entry(m, m->next, keys);
	}
	*met = order == 0;
	if (order > 0)
		m->last = keys;
	return order >= 0;
}

static bool
look_for(GtMeeter *m, const Datum *keys)
{
	int			i;

	for (i = 0; i < m->nkeys; i++)
		m->keys[i].sk_argument = keys[i];
	index_rescan(m->scan, m->keys, m->nkeys, NULL, 0);
	return index_getnext_tid(m->scan, ForwardScanDirection) != NULL;
}

bool
gt_meets(GtMeeter *m, const Datum *keys)
{
	MemoryContext old;
	bool		met;

	if (is_between(m, keys))
		return false;
	old = MemoryContextSwitchTo(m->context);
	if (m->vain >= VAIN || !look_behind(m, keys, &met))
		met = look_for(m, keys);
	MemoryContextSwitchTo(old);
	m->vain += met;				/* nor has that told of others */
	return met;
}

void
gt_meeter_end(GtMeeter *m)
{
	index_endscan(m->scan);
	index_endscan(m->behind);
	UnregisterSnapshot(m->snapshot);
	pfree(m);
}
