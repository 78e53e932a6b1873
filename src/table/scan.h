/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Scans of an index that are more than keys that are equal, or a bound.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_SCAN_H
#define GT_SCAN_H

#include "datatype/timestamp.h"

#include "table/table.h"

/* also a bound on column nkeys+1: strategy BTLess... of its btree opclass */
extern GtScan *gt_scan_begin_null(GtTable *t, GtIndexId index, TimestampTz from);	/* the leading column IS NULL, the second is a time from there on */
/* and two of them: after the one, and up to the other */
extern GtScan *gt_scan_begin_range(GtTable *t, GtIndexId index, int nkeys, const Datum *keys, Datum after, Datum upto);
/*
 * Of a unique index of one bigint whose keys serve for one row only, and for no other after
 * that is deleted: each row, the highest key first.  Where a snapshot that is held keeps all
 * versions of rows that are often updated they are not walked: what tells enough of a
 * key is the version that counts, or the one that was deleted, and either is among the newest.
 */
extern GtScan *gt_scan_begin_once(GtTable *t, GtIndexId index);
extern void gt_scan_backward(GtScan *scan);	/* before the first row: from the end on */
extern int64 gt_scan_count(GtScan *scan, int64 limit);	/* how many rows it has; stops at limit */
extern bool gt_scan_next_brief(GtScan *scan, GtRow *row);	/* of gt_object: numbers and times up to O_DUE_AT alone are set */
extern bool gt_scan_last(GtScan *scan, GtRow *row);	/* the last row of it, in place of gt_scan_next() */
/*
 * The keys in an index whose first column is an int or an oid and whose second a
 * time: each once, in their order and by the index alone, whatever became of the rows,
 * with a time before which it has nothing.  palloc'd; one descent of the index for each.
 */
typedef struct GtKey
{
	uint32		key;
	TimestampTz first;
} GtKey;
extern GtKey *gt_scan_keys(GtTable *t, GtIndexId index, int *n);
/* Looks at the rows of those that have something next after that time: nobody is to be woken for rows that are gone. */
extern void gt_scan_settle_next(GtTable *t, GtIndexId index, GtKey *keys, int n, TimestampTz after);

#endif
