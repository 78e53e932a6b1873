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
 * same lock.  The log gets what it would get for each of them, or where they are many one
 * generic record that has what has changed in the page.
 *
 * Only what is a line pointer and a tuple more in a leaf that has room for it is done
 * here.  The access method sees to all else: a leaf that is full (dead entries, duplicates,
 * a split), a place within a list of the rows of duplicates, a key that a unique index
 * has, or may have, already.
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
#include "access/nbtxlog.h"
#include "access/xloginsert.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

#include "base/compat.h"
#include "table/leaves.h"
#include "table/table_internal.h"

#define FEW		8				/* entries that are not worth an order */
#define MANY	16				/* entries of a leaf that are worth a look for what has changed in it */
#define WIDE	1024			/* bytes of an entry that is not usual */

/* What goes to a leaf. */
typedef struct Leaf
{
	Buffer		buffer;
	Page		page;
	OffsetNumber last;
	Size		room;
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
compare_keys(const GtLeaves *leaves, const GtRow *a, const GtRow *b)
{
	int			result = 0;
	int			i;

	for (i = 0; i < leaves->key->keysz && result == 0; i++)
	{
		int			column = leaves->columns[i];

		result = ApplySortComparator(a->v[column], a->isnull[column], b->v[column], b->isnull[column], &leaves->order[i]);
	}
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

/* By the functions that sort when an index is built. */
static void
set_order(GtLeaves *leaves)
{
	int			i;

	leaves->order = palloc0(leaves->key->keysz * sizeof(SortSupportData));
	for (i = 0; i < leaves->key->keysz; i++)
	{
		ScanKey		k = &leaves->key->scankeys[i];
		SortSupport order = &leaves->order[i];

		order->ssup_cxt = CurrentMemoryContext;
		order->ssup_collation = k->sk_collation;
		order->ssup_nulls_first = (k->sk_flags & SK_BT_NULLS_FIRST) != 0;
		order->ssup_attno = k->sk_attno;
		gt_prepare_order(leaves->index, (k->sk_flags & SK_BT_DESC) != 0, order);
	}
}

bool
gt_leaves_begin(GtLeaves *leaves, GtRow **rows, int n, bool in_place)
{
	int			i;

	if (n < FEW || !gt_may_log_pages())
		return false;
	leaves->key = _bt_mkscankey(leaves->index, form_tuple(leaves, rows[0]));
	if (!leaves->key->heapkeyspace)
		return false;
	set_order(leaves);
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

	if (size > WIDE || size > leaf->room || (!set_key(leaves, row) && leaves->unique))
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

/* Leaf locked, as all that write it. */
static void
add_tuple(const GtLeaves *leaves, Page page, IndexTuple tuple, OffsetNumber place)
{
	if (PageAddItem(page, (Item) tuple, IndexTupleSize(tuple), place, false, false) == InvalidOffsetNumber)
		elog(ERROR, "could not add an entry to index \"%s\"", RelationGetRelationName(leaves->index));
}

/* What has changed in the page, in one record. */
static void
write_page(const GtLeaves *leaves, const Leaf *leaf)
{
	GenericXLogState *state = GenericXLogStart(leaves->index);
	Page		page = GenericXLogRegisterBuffer(state, leaf->buffer, 0);
	int			i;

	for (i = 0; i < leaf->n; i++)
		add_tuple(leaves, page, leaf->tuples[i], leaf->places[i] + i);
	(void) GenericXLogFinish(state);
}

/* As the access method does. */
static void
log_tuple(const Leaf *leaf, IndexTuple tuple, OffsetNumber place)
{
	xl_btree_insert record = {place};
	XLogRecPtr	at;				/* PageSetLSN() is a macro that asks twice */

	XLogBeginInsert();
	XLogRegisterData((char *) &record, SizeOfBtreeInsert);
	XLogRegisterBuffer(0, leaf->buffer, REGBUF_STANDARD);
	XLogRegisterBufData(0, (char *) tuple, IndexTupleSize(tuple));
	at = XLogInsert(RM_BTREE_ID, XLOG_BTREE_INSERT_LEAF);
	PageSetLSN(leaf->page, at);
}

static void
write_tuples(const GtLeaves *leaves, const Leaf *leaf)
{
	int			i;

	START_CRIT_SECTION();
	for (i = 0; i < leaf->n; i++)
	{
		add_tuple(leaves, leaf->page, leaf->tuples[i], leaf->places[i] + i);
		MarkBufferDirty(leaf->buffer);
		if (RelationNeedsWAL(leaves->index))
			log_tuple(leaf, leaf->tuples[i], leaf->places[i] + i);
	}
	END_CRIT_SECTION();
}

int
gt_leaves_insert(GtLeaves *leaves, int from, int n)
{
	Leaf		leaf;

	n = Min(n - from, GT_MANY);
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
	if (leaf.n >= MANY)
		write_page(leaves, &leaf);
	else
		write_tuples(leaves, &leaf);
	_bt_relbuf(leaves->index, leaf.buffer);
	return leaf.n;
}
