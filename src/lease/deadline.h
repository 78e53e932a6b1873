/*-------------------------------------------------------------------------
 *
 * deadline.h
 *	  When a lease is over. Of children lease.h tells.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_DEADLINE_H
#define GT_DEADLINE_H

#include "datatype/timestamp.h"

#include "table/table.h"

/* In place of a run: somebody has acted on the expiry of the lease, and no later run gives it grace. */
#define GT_RUN_OVER		0

/* The instant at which a lease is over (GT_NEVER: cannot be judged yet). Not for children. */
extern TimestampTz gt_effective_deadline(const GtRow *lease);
extern TimestampTz gt_least_deadline(const GtRow *lease);	/* the same; where it can not be judged, what it will be at least */
extern int64 gt_grace_of(int64 duration);	/* G of promise I1, us */

#endif
