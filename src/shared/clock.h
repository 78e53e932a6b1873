/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  The clock by which leases are judged.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLOCK_H
#define GT_CLOCK_H

#include "datatype/timestamp.h"

extern TimestampTz gt_now(void);	/* gt_clock() */

#define GT_NEVER			PG_INT64_MAX

#endif
