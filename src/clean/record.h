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

/*
 * A handler of which a pass that ends and cleans in one came to no good end is to be
 * handled with care for a while.  That is kept beside the records: in rows that no
 * user's transaction can hold.
 */
extern void gt_record_be_careful(GtTable *runs, int handler);
extern bool gt_record_is_careful(const GtRow *record);	/* it says so, and still holds */
extern bool gt_clean_is_careful(GtCleaner *c, int handler); /* or such a pass is on record, and without its process */

/* Adds what is on record of others, where some of that can not be judged yet; sorted. */
extern void gt_clean_add_unjudged(GtCleaner *c, int64 **items, int *nitems);

extern void gt_clean_end(GtCleaner *c); /* in a transaction: nothing is pending, and no trace shall stay */
extern bool gt_clean_pending(GtCleaner *c); /* a run is recorded and has not been run */
extern bool gt_clean_is_optimistic(GtCleaner *c);	/* it is a pass over leases */
extern bool gt_clean_is_attended(GtCleaner *c); /* others are at those that were left for one */
extern bool gt_clean_is_durable(GtCleaner *c);	/* a run is on record */
extern bool gt_clean_has_begun(GtCleaner *c);	/* in the transaction in progress the run on record is made */
extern void gt_clean_forget(GtCleaner *c);	/* at exit: gives the lock back that says that we live */

#endif
