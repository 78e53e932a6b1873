/*-------------------------------------------------------------------------
 *
 * record.h
 *	  The record of a run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RECORD_H
#define GT_RECORD_H

#include "clean/clean.h"
#include "table/table.h"

extern void gt_clean_write_record(GtCleaner *c);
extern bool gt_record_has_writer(int64 serial); /* it lives; takes and gives back its lock */
extern int	gt_record_items(const GtRow *record, int64 *items);

/* Adds what is on record of others, where some of that can not be judged yet; sorted. */
extern void gt_clean_add_unjudged(GtCleaner *c, int64 **items, int *nitems);

extern void gt_clean_end(GtCleaner *c); /* in a transaction: nothing is pending, and no trace shall stay */
extern bool gt_clean_is_durable(GtCleaner *c);	/* a run is on record */
extern bool gt_clean_has_begun(GtCleaner *c);	/* in the transaction in progress the run on record is made */
extern void gt_clean_forget(GtCleaner *c);	/* at exit: gives the lock back that says that we live */

#endif
