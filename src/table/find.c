/*-------------------------------------------------------------------------
 *
 * find.c
 *	  Rows are looked up one after the other, by the keys of one index.
 *
 * What a look-up costs beside the descent of the index is a snapshot, and a scan that
 * begins and ends: here there is one of either for all of them.  Nothing is locked.
 * So a row may have another version since, which its header tells: by that no
 * transaction has locked or replaced a version, or it may have.  It is a hint, read
 * without a lock; who goes by it deletes that version, and is told if it was wrong.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "table/find.h"
#include "table/table_internal.h"
#include "table/versions.h"

#define MAX_KEYS	4

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
	found = gt_next_of_index(t, finder->scan, finder->snapshot, ForwardScanDirection);
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
