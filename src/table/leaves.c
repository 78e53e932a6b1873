/*-------------------------------------------------------------------------
 *
 * leaves.c
 *	  Many entries of a B-tree are inserted together, leaf by leaf.
 *
 * An entry is some twenty bytes in a leaf.  What costs is to come there: for each the
 * tree is descended, the leaf locked, and a record of four times as many bytes goes to
 * the log.  Rows that are made together have entries that lie together: ids that were
 * drawn one after the other, the same time, objects with like names.  So the tree is
 * descended for the first of them, and what else belongs to that leaf is inserted under the
 * same lock; the log gets one generic record that has what has changed in the page.
 *
 * Only what is a line pointer and a tuple more in a leaf that has room for it is done
 * here.  The access method sees to all else: a leaf that is full (dead entries, duplicates,
 * a split), a place within a list of the rows of duplicates, a key that a unique index
 * has, or may have, already.  Where the rows turn out to be far apart it sees to all of them.
 *
 * A unique index is looked at as the access method does it: who inserts a key has the
 * first leaf locked on which it can be from the look until it is there, and so have we.
 *
 * Locks: the content lock of one leaf.  A crash leaves entries of rows that did not
 * commit, as ever.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/nbtree.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "table/leaves.h"
#include "table/table_internal.h"

#define FEW		8				/* entries that cost no more each by itself */
#define VAIN	3				/* leaves that took none: others will not, either */
#define WIDE	1024			/* bytes of an entry that is not usual */

/* What goes to a leaf. */
typedef struct Leaf
{
	Buffer		buffer;
	Page		page;
	OffsetNumber last;
	Size		room;
	bool		full;			/* there was none for the next one */
	int			n;
	GtRow	  **rows;
	IndexTuple *tuples;
	OffsetNumber places[GT_MANY];	/* before which entry of those that are there */
} Leaf;

static IndexTuple
form_tuple(const GtLeaves *leaves, const GtRow *row)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	IndexTuple	tuple;
	int			i;

	for (i = 0; i < RelationGetNumberOfAttributes(leaves->index); i++)
	{
		values[i] = row->v[leaves->columns[i]];
		isnull[i] = row->isnull[leaves->columns[i]];
	}
	tuple = index_form_tuple(RelationGetDescr(leaves->index), values, isnull);
	tuple->t_tid = row->tid;
	return tuple;
}

/* Makes the key of the row the one that is looked for. false: it has a NULL in it. */
static bool
set_key(GtLeaves *leaves, GtRow *row)
{
	BTScanInsert key = leaves->key;
	bool		full = true;
	int			i;

	for (i = 0; i < key->keysz; i++)
	{
		ScanKey		k = &key->scankeys[i];
		int			column = leaves->columns[i];

		k->sk_argument = row->v[column];
		k->sk_flags &= ~SK_ISNULL;
		if (row->isnull[column])
			k->sk_flags |= SK_ISNULL;
		full = full && !row->isnull[column];
	}
	key->anynullkeys = !full;
	key->scantid = leaves->unique ? NULL : &row->tid;
	return full;
}

static int
compare_values(ScanKey k, const GtRow *a, const GtRow *b, int column)
{
	int			result;

	if (a->isnull[column] || b->isnull[column])
	{
		result = (int) a->isnull[column] - (int) b->isnull[column];
		return (k->sk_flags & SK_BT_NULLS_FIRST) ? -result : result;
	}
	result = DatumGetInt32(FunctionCall2Coll(&k->sk_func, k->sk_collation, a->v[column], b->v[column]));
	if (k->sk_flags & SK_BT_DESC)
		INVERT_COMPARE_RESULT(result);
	return result;
}

static int
compare_keys(const GtLeaves *leaves, const GtRow *a, const GtRow *b)
{
	int			result = 0;
	int			i;

	for (i = 0; i < leaves->key->keysz && result == 0; i++)
		result = compare_values(&leaves->key->scankeys[i], a, b, leaves->columns[i]);
	return result;
}

/* The order of the index. */
static int
by_entry(const void *a, const void *b, void *arg)
{
	GtRow	   *row = *(GtRow *const *) a;
	GtRow	   *other = *(GtRow *const *) b;
	int			result = compare_keys(arg, row, other);

	return result != 0 ? result : ItemPointerCompare(&row->tid, &other->tid);
}

bool
gt_leaves_begin(GtLeaves *leaves, GtRow **rows, int n, bool in_place)
{
	int			i;

	leaves->vain = 0;
	if (n < FEW || !gt_may_log_pages())
		return false;
	leaves->key = _bt_mkscankey(leaves->index, form_tuple(leaves, rows[0]));
	if (!leaves->key->heapkeyspace)
		return false;
	if (!in_place)
		qsort_arg(rows, n, sizeof(GtRow *), by_entry, leaves);
	for (i = 1; in_place && i < n; i++)
		if (by_entry(&rows[i - 1], &rows[i], leaves) > 0)
			return false;
	leaves->rows = rows;
	leaves->tuples = palloc(n * sizeof(IndexTuple));
	for (i = 0; i < n; i++)
		leaves->tuples[i] = form_tuple(leaves, rows[i]);
	return true;
}

/*
 * Of keys in their order each goes not far behind the one before it: looks in growing
 * steps from that place on for an entry that is greater.
 */
static void
set_bounds(const GtLeaves *leaves, const Leaf *leaf, OffsetNumber from, BTInsertState state)
{
	OffsetNumber high = from;
	int			step = 1;
	int			result;

	state->low = from;
	while (high <= leaf->last && (result = _bt_compare(leaves->index, leaves->key, leaf->page, high)) >= 0)
	{
		state->low = high + (result > 0);
		high = Min(high + step, leaf->last + 1);
		step *= 2;
	}
	state->stricthigh = high;
	state->bounds_valid = true;
}

/* Where the key goes on the leaf, not before `from`, if that is valid. InvalidOffsetNumber: not for us to say. */
static OffsetNumber
find_place(const GtLeaves *leaves, const Leaf *leaf, IndexTuple tuple, OffsetNumber from)
{
	BTInsertStateData state = {0};
	OffsetNumber place;

	state.itup = tuple;
	state.itemsz = IndexTupleSize(tuple);
	state.itup_key = leaves->key;
	state.buf = leaf->buffer;
	if (OffsetNumberIsValid(from))
		set_bounds(leaves, leaf, from, &state);
	if (state.bounds_valid && state.low == state.stricthigh)
		return state.low;
	place = _bt_binsrch_insert(leaves->index, &state);
	if (state.postingoff != 0 ||
		(leaves->unique && place <= leaf->last && _bt_compare(leaves->index, leaves->key, leaf->page, place) == 0))
		return InvalidOffsetNumber;
	return place;
}

/* Takes the row, if its entry belongs to the leaf, which has room for it, and nothing has to be asked. */
static bool
take_row(GtLeaves *leaves, Leaf *leaf)
{
	GtRow	   *row = leaf->rows[leaf->n];
	BTPageOpaque opaque = BTPageGetOpaque(leaf->page);
	IndexTuple	tuple = leaf->tuples[leaf->n];
	Size		size = IndexTupleSize(tuple) + sizeof(ItemIdData);
	int			beyond;
	OffsetNumber place;

	leaf->full = size > leaf->room;
	if (size > WIDE || leaf->full || (!set_key(leaves, row) && leaves->unique))
		return false;
	if (leaves->unique && leaf->n > 0 && compare_keys(leaves, leaf->rows[leaf->n - 1], row) == 0)
		return false;
	beyond = P_RIGHTMOST(opaque) ? -1 : _bt_compare(leaves->index, leaves->key, leaf->page, P_HIKEY);
	if (beyond > 0 || (leaves->unique && beyond == 0))
		return false;
	place = find_place(leaves, leaf, tuple, leaf->n > 0 ? leaf->places[leaf->n - 1] : InvalidOffsetNumber);
	if (!OffsetNumberIsValid(place))
		return false;
	leaf->places[leaf->n++] = place;
	leaf->room -= size;
	return true;
}

/* Leaf locked. */
static void
write_leaf(const GtLeaves *leaves, const Leaf *leaf)
{
	GenericXLogState *state = GenericXLogStart(leaves->index);
	Page		page = GenericXLogRegisterBuffer(state, leaf->buffer, 0);
	int			i;

	for (i = 0; i < leaf->n; i++)
		if (PageAddItem(page, (Item) leaf->tuples[i], IndexTupleSize(leaf->tuples[i]), leaf->places[i] + i, false, false) == InvalidOffsetNumber)
			elog(ERROR, "could not add an entry to index \"%s\"", RelationGetRelationName(leaves->index));
	(void) GenericXLogFinish(state);
}

int
gt_leaves_insert(GtLeaves *leaves, int from, int n)
{
	Leaf		leaf;
	bool		enough;			/* the few that a leaf has still room for are, too */

	n = Min(n - from, GT_MANY);
	if (n < FEW || leaves->vain == VAIN)
		return 0;
	leaf.rows = leaves->rows + from;
	leaf.tuples = leaves->tuples + from;
	(void) set_key(leaves, leaf.rows[0]);
	_bt_freestack(gt_bt_search(leaves->index, leaves->heap, leaves->key, &leaf.buffer));
	CheckForSerializableConflictIn(leaves->index, NULL, BufferGetBlockNumber(leaf.buffer));
	leaf.page = BufferGetPage(leaf.buffer);
	leaf.last = PageGetMaxOffsetNumber(leaf.page);
	leaf.room = PageGetExactFreeSpace(leaf.page);
	leaf.n = 0;
	while (leaf.n < n && take_row(leaves, &leaf))
		;
	enough = leaf.n >= FEW || (leaf.full && leaf.n > 0);
	if (enough)
		write_leaf(leaves, &leaf);
	_bt_relbuf(leaves->index, leaf.buffer);
	leaves->vain = enough || leaf.full ? 0 : leaves->vain + 1;
	return enough ? leaf.n : 0;
}
