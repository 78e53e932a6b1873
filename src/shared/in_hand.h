/*-------------------------------------------------------------------------
 *
 * in_hand.h
 *	  Places in the queues of leases, and what passes of expiry have in hand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_IN_HAND_H
#define GT_IN_HAND_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

#define GT_NOWHERE	PG_INT64_MIN	/* a time before all places */
#define GT_RANGES	32			/* that a pass can tell of */

/* A place among the leases of a role in the order of check_at, which of equal ones is that of the index. */
typedef struct GtPlaceInQueue
{
	TimestampTz check_at;
	ItemPointerData tid;
} GtPlaceInQueue;

/* Leases of a role that a pass in progress has chosen, the ends included. */
typedef struct GtRange
{
	Oid			owner;
	GtPlaceInQueue from;
	GtPlaceInQueue to;
} GtRange;

/* What a pass has in hand. */
typedef struct GtInHand
{
	int			n;
	GtRange		ranges[GT_RANGES];
} GtInHand;

#endif
