/*-------------------------------------------------------------------------
 *
 * ttls.h
 *	  What is seen of a row TTL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TTLS_H
#define GT_TTLS_H

#include "ttl/ttl.h"

typedef struct GtTtlSeen
{
	const char *suspended;		/* why; NULL: it is not */
	const char *remedy;			/* SQL; or NULL */
	bool		declare;		/* it is to be declared anew, as it is, */
	const char *called_now;		/* but for this name of the deadline, where that is known; else NULL */
	bool		untold;			/* the trigger that is to tell of rows is gone, or disabled */
	bool		grant;			/* the owner may not use its handler */
	TimestampTz oldest;			/* since when the oldest row is over; GT_NEVER: none is */
	TimestampTz next;			/* when the next row is due; GT_NEVER */
} GtTtlSeen;

extern void gt_ttl_see(const GtTtl *t, GtTtlSeen *seen);

#endif
