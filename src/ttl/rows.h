/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Rows whose deadline has passed are deleted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ROWS_H
#define GT_ROWS_H

#include "handler/run.h"
#include "shared/rows_due.h"
#include "ttl/ttl.h"

/* One run: so many rows of a table. */
typedef struct GtRowsRun
{
	const GtTtl *ttl;
	int			limit;
	bool		in_block;		/* of somebody's transaction */
	TimestampTz not_before;		/* the server was away until then: the grace counts from there; 0: it was not */
	TimestampTz low;			/* where to begin; 0: at the first */
	/* what has come of it */
	int64		done;			/* rows deleted, and rows put aside */
	bool		more;			/* there are more to be deleted at once */
	GtRowsSeen	seen;			/* for when it is committed */
} GtRowsRun;

extern void gt_rows_run(GtRowsRun *run);
/* Tries again what was put aside: as gt_run_sql(), of the garbage that stands for rows; those of which nothing is left are `gone`. */
extern int	gt_rows_try_again(const GtTtl *ttl, GtTable *objects, GtItem *items, int n, bool in_block, TimestampTz not_before,
							  bool (*judge) (GtItem *item, void *arg), void *arg);

#endif
