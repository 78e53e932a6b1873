/*-------------------------------------------------------------------------
 *
 * versions.h
 *	  Rows by what they were, and what has been written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_VERSIONS_H
#define GT_VERSIONS_H

#include "utils/snapshot.h"

#include "table/table.h"

extern uint64 gt_handler_writes;	/* how often this process has written gt__handler: for caches of handlers */
/* What has committed until now, and what this transaction has done; within a parallel query, what that sees. */
extern Snapshot gt_newest_snapshot(void);
/* The row that was read there before, if that version is still the newest; false: look for it by an index. */
extern bool gt_fetch_version(GtTable *t, ItemPointer tid, GtRow *row);
/* Is there a row with these keys, or may there be: of a transaction, too, that has not committed yet that it is there, or gone? */
extern bool gt_is_there(GtTable *t, GtIndexId index, int nkeys, const Datum *keys);
/* Any row of the table. */
extern bool gt_fetch_any(GtTable *t, GtRow *row);
/* Rows of a small table, at most `limit`, as this snapshot (which is registered or active) shows them; palloc'd. */
extern int	gt_fetch_some(GtTable *t, Snapshot snapshot, int limit, GtRow **rows);
extern Datum gt_random_id(void);	/* bigint: the key of a row that nothing else tells apart */
extern uint64 gt_object_writes; /* by this process, to gt_object: tells whether rows that we hold are still as read */

#endif
