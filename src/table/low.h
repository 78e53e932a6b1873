/*-------------------------------------------------------------------------
 *
 * low.h
 *	  The low end of a queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOW_H
#define GT_LOW_H

#include "shared/low_end.h"
#include "table/schema.h"

extern void gt_low_recall(GtLow *low, GtIndexId index, uint32 key); /* what is known of this queue; of one that is not: nothing */
extern void gt_low_remember(const GtLow *low);
extern bool gt_low_all_is_due(const GtLow *low, TimestampTz now);	/* must all of it be looked at, whatever is found? */
extern TimestampTz gt_low_all_from(const GtLow *low);	/* from when on it may be, because nothing was found */
extern TimestampTz gt_low_late_from(const GtLow *low);	/* or because of a late commit; GT_NEVER: there was none */
extern void gt_low_looked_at_all(GtLow *low, TimestampTz began);
/* A look from there on, that began then, has come upon this first (GT_NEVER: nothing). */
extern void gt_low_found(GtLow *low, TimestampTz from, TimestampTz first, TimestampTz began);

#endif
