/*-------------------------------------------------------------------------
 *
 * table_internal.h
 *	  What the files of this room share that read and write rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TABLE_INTERNAL_H
#define GT_TABLE_INTERNAL_H

#include "access/genam.h"
#include "access/sdir.h"
#include "access/skey.h"
#include "utils/snapshot.h"

#include "table/table.h"

#define GT_BRIEF_ATTS (O_DUE_AT + 1)	/* see gt_scan_next_brief() */

/* In the slot of the table is a row: copied; toasted values stay toasted. brief: see gt_scan_next_brief(). */
extern void gt_copy_columns(GtTable *t, GtRow *row, bool brief);
extern void gt_copy_row(GtTable *t, GtRow *row);
extern Relation gt_index_of(GtTable *t, GtIndexId id);	/* opened when it is wanted first */
extern void gt_equality_keys(Relation index, int nkeys, const Datum *keys, ScanKeyData *scankeys);
extern void gt_bound_key(ScanKeyData *scankey, Relation index, int column, int strategy, Datum bound);	/* a bound on a column, from 0 */
extern Snapshot gt_read_snapshot(Snapshot snapshot);	/* that the access methods are given for reads by this one */
extern void gt_note_write(const GtTable *t);	/* after each write: the next read sees it, and who keeps something of the table is told */
extern bool gt_may_log_pages(void); /* by generic records: not while those are checked, which takes hints in a page for differences */
/* The next row of an index scan, in the slot of the table. */
extern bool gt_next_of_index(GtTable *t, IndexScanDesc scan, Snapshot snapshot, ScanDirection direction);

#endif
