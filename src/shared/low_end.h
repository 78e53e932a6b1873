/*-------------------------------------------------------------------------
 *
 * low_end.h
 *	  What is remembered of the low end of a queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOW_END_H
#define GT_LOW_END_H

#include "shared/in_hand.h"

#define GT_LOWS		2048		/* queues of which that is remembered; a power of two */

/* A queue is what one role or handler has in an index, in the order of time.  See low.c. */
typedef struct GtLow
{
	Oid			database;		/* InvalidOid: of nothing */
	int			index;			/* GtIndexId */
	uint32		key;			/* of the queue in it */
	TimestampTz low;			/* there was nothing before, */
	TimestampTz looked_at;		/* when all of it was looked at last; 0: never */
	int64		cost;			/* of that look, us */
	uint64		late;			/* GtDatabase.late when it began, */
	uint64		late_now;		/* and when this was recalled */
	bool		behind;			/* more was due than the last pass had of it */
	TimestampTz gap_after;		/* passes have had from the other end all that comes after this, */
	TimestampTz gap_upto;		/* up to this; before the other: there is no such gap */

	/* a round of passes, of which each goes on after the one before: all that they met was locked by others */
	GtPlaceInQueue after;		/* the last of that; GT_NOWHERE: there is no round */
	int			busy;			/* how many those were, */
	TimestampTz busy_from;		/* and when the newest of them was due */
} GtLow;

#endif
