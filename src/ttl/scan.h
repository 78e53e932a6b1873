/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Rows of a user's table by their deadlines, and by their key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TTL_SCAN_H
#define GT_TTL_SCAN_H

#include "executor/tuptable.h"

#include "ttl/target.h"

typedef struct GtDeadlines GtDeadlines; /* a scan, or what judges rows */

/* All of these by the active snapshot, which stays it until the end. */
extern GtDeadlines *gt_deadlines_begin(GtTarget *target);
extern void gt_deadlines_end(GtDeadlines *d);

/* Rows whose deadline is from `low` to `bound`, the oldest first; NULL: there is none any more. Its leaf is *leaf. */
extern void gt_deadlines_scan(GtDeadlines *d, TimestampTz low, TimestampTz bound);
extern TupleTableSlot *gt_deadlines_next(GtDeadlines *d, int *leaf);
/* The first deadline after `bound`; GT_NEVER: there is none. */
extern TimestampTz gt_deadlines_after(GtDeadlines *d, TimestampTz bound);
/* A row by where it was, or by its key (values of the columns of the target's, as in its leaf); NULL: there is none. */
extern TupleTableSlot *gt_deadlines_fetch(GtDeadlines *d, int leaf, ItemPointer tid);
extern TupleTableSlot *gt_deadlines_find(GtDeadlines *d, const char *const *names, const Datum *keys, int *leaf);
/* That of a row; GT_NEVER: it has none. It may be made of functions of the table's owner. */
extern TimestampTz gt_deadline_of(GtDeadlines *d, int leaf, TupleTableSlot *row);
/* That of the row that was given last, as the index has it. */
extern TimestampTz gt_deadline_by_index(const GtDeadlines *d, int leaf);

typedef enum
{
	GT_ROW_LOCKED, GT_ROW_BUSY, GT_ROW_CHANGED	/* another transaction has written it since it was read */
} GtRowLock;

/* Locks this very version, waiting for nobody; the row in the slot stays. */
extern GtRowLock gt_row_lock(GtDeadlines *d, int leaf, TupleTableSlot *row);

#endif
