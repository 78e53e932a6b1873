/*-------------------------------------------------------------------------
 *
 * entries.h
 *	  The index entries of our rows, made without the executor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ENTRIES_H
#define GT_ENTRIES_H

#include "table/table.h"

#define GT_NO_INDEX GT_NINDEXES

/* What the indexes of a table are. */
typedef struct GtEntries GtEntries;

/* Of a table that is open for writing; good until the next call. NULL: the executor must make the entries. */
extern const GtEntries *gt_entries_of(GtTable *t);
/*
 * Makes those of a row that lies at tid; updated: of a newer version of it.  false:
 * the unique index `may_have` has these keys, of somebody who is in progress or has
 * committed: the row, which is to be taken back, has got an entry there and no other.
 */
extern bool gt_insert_entries(GtTable *t, const GtEntries *entries, const GtRow *row, ItemPointer tid, bool updated,
							  GtIndexId may_have);
/*
 * Makes those of many new rows, index by index.  Stops before the first row whose
 * keys `may_have` has, which is left as above: returns how many are done.  That is an
 * index of all rows.
 */
extern int	gt_insert_entries_of_many(GtTable *t, const GtEntries *entries, GtRow **rows, int n, GtIndexId may_have);

#endif
