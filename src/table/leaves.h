/*-------------------------------------------------------------------------
 *
 * leaves.h
 *	  Many entries of a B-tree are inserted together, leaf by leaf.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LEAVES_H
#define GT_LEAVES_H

#include "table/table.h"

/* An index, and rows that are to have an entry in it. */
typedef struct GtLeaves
{
	Relation	index;
	Relation	heap;
	bool		unique;
	const int  *columns;		/* as in GtRow */
	GtRow	  **rows;
	struct IndexTupleData **tuples; /* theirs */
	struct BTScanInsertData *key;
	struct SortSupportData *order;	/* of each column */
} GtLeaves;

/*
 * Puts the rows into the order of the index, where they may change their places.
 * false: there are few of them, or they are in another order: each is to be
 * inserted by itself.
 */
extern bool gt_leaves_begin(GtLeaves *leaves, GtRow **rows, int n, bool in_place);
/*
 * Inserts the entries of as many of the rows from..n-1 as go to the leaf of the first, up
 * to one that the access method has to see to.  0: it has to see to the first of them.
 */
extern int	gt_leaves_insert(GtLeaves *leaves, int from, int n);

#endif
