/*-------------------------------------------------------------------------
 *
 * start.h
 *	  This server run, and what an absence does to deadlines.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_START_H
#define GT_START_H

#include "datatype/timestamp.h"

#include "table/table.h"

extern int64 gt_run(void);		/* this server run */
/*
 * Sees to it that this server run is recorded in gt__start before any lease is
 * judged over here. Every writing call and every worker pass calls it.
 */
extern void gt_start_ensure(void);
/* The one reader of a lease's deadline: the instant at which it is over (GT_NEVER: cannot be judged yet). Not for children. */
extern TimestampTz gt_effective_deadline(const GtRow *lease);
extern TimestampTz gt_least_deadline(const GtRow *lease);	/* the same; where it can not be judged, what it will be at least */
extern bool gt_start_is_recorded(void); /* by a transaction that has committed */
extern int64 gt_grace_of(int64 duration);	/* G of promise I1, us */

#endif
