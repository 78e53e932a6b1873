/*-------------------------------------------------------------------------
 *
 * in_hand.h
 *	  Places in the queue of leases, and what passes of expiry have in hand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_IN_HAND_H
#define GT_IN_HAND_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* A place among the leases in the order of check_at, which of equal ones is that of the index. */
typedef struct GtPlaceInQueue
{
	TimestampTz check_at;
	ItemPointerData tid;
} GtPlaceInQueue;

/* What passes of expiry in progress have chosen: what comes before the first place, and what lies from bottom to top. */
typedef struct GtInHand
{
	GtPlaceInQueue upto;
	GtPlaceInQueue bottom;
	GtPlaceInQueue top;
} GtInHand;

#endif
