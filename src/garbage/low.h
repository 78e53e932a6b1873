/*-------------------------------------------------------------------------
 *
 * low.h
 *	  The low end of the queue of a handler.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOW_H
#define GT_LOW_H

#include "datatype/timestamp.h"

#define GT_LOWS				64	/* handlers for which the low end of the queue is remembered */

/* From where on there was any garbage of a handler: see collect(). */
typedef struct GtLow
{
	int			handler;
	TimestampTz low;
	TimestampTz looked_at_all;
	int64		cost;			/* of that look, us */
	uint64		changes;		/* gt_table_changes then */
} GtLow;

#define GT_LOOK_AT_ALL (10 * USECS_PER_SEC)	/* all of a queue is looked at as often */

extern GtLow *gt_low_of(GtLow *lows, int handler);	/* of GT_LOWS, that of this handler, or an unused one */

#endif
