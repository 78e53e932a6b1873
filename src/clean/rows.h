/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Runs of row TTLs in a chain of runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLEAN_ROWS_H
#define GT_CLEAN_ROWS_H

#include "clean/clean.h"
#include "handler/run.h"

/* When this table is to be looked at. */
extern TimestampTz gt_clean_rows_due(GtCleaner *c, int ttl);
/* Takes a run of it, if the rules allow that; else notes when. */
extern bool gt_clean_rows_take(GtCleaner *c, const GtHandler *h, int max_items, TimestampTz until, TimestampTz *when);
extern void gt_clean_rows_run(GtCleaner *c, GtPass *pass);	/* the one on record */
extern void gt_clean_rows_committed(GtCleaner *c);
/* The garbage that stands for rows of this table is tried again: as gt_run_sql(). */
extern int	gt_clean_rows_try_again(GtCleaner *c, const GtHandler *h, GtTable *objects, GtItem *items, int n,
									bool (*judge) (GtItem *item, void *arg), void *arg);

#endif
