/*-------------------------------------------------------------------------
 *
 * start_record.h
 *	  The record of this server run, for who judges by it or changes it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_START_RECORD_H
#define GT_START_RECORD_H

#include "datatype/timestamp.h"

/* When this run began, and the larger restart_grace of it and of the run before, us; false: it is not recorded yet. */
extern bool gt_start_of_run(TimestampTz *at, int64 *grace);
/* Have the times of earlier runs that are ahead been put right (rearm.c)? And that they have. */
extern bool gt_start_is_rearmed(void);
extern void gt_start_rearmed(void);
extern TimestampTz gt_history_now(void);	/* by which the history is trimmed: it does not follow a jump of the clock */
extern void gt_start_adopt(void);	/* a copy was adopted: the grace begins now, with the full duration */

#endif
