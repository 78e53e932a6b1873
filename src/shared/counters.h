/*-------------------------------------------------------------------------
 *
 * counters.h
 *	  What is counted of leases since the server started.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_COUNTERS_H
#define GT_COUNTERS_H

/* In the order of gt_metrics(), which has their names. */
typedef enum
{
	GT_LEASES_CREATED,
	GT_LEASES_RENEWED,
	GT_LEASES_RELEASED,
	GT_LEASES_EXPIRED,
	GT_NCOUNTERS
} GtCounter;

#endif
