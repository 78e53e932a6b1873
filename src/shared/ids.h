/*-------------------------------------------------------------------------
 *
 * ids.h
 *	  Lease ids, numbers for fences, cleanup ids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_IDS_H
#define GT_IDS_H

#include "utils/uuid.h"

extern char *gt_uuid_cstring(const pg_uuid_t *id);
extern int64 gt_unique_us(void);	/* microseconds since 1970, never twice in a process */
extern void gt_uuid_v7(pg_uuid_t *id);
extern int	gt_by_id(const void *a, const void *b); /* for qsort() and bsearch() of int64 */

/*
 * How often rows of objects of this id (text), or of some others, have been deleted: not at
 * all since a moment ago where that is the same now.  Without preload it never is.
 */
extern uint64 gt_deletions(Datum object_id);
extern void gt_deleting(Datum object_id);	/* before the deletion */
extern void gt_ids_init(void);	/* from _PG_init: its shared memory */

#endif
