/*-------------------------------------------------------------------------
 *
 * overdue.h
 *	  What should have begun and has not, and who may know.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OVERDUE_H
#define GT_OVERDUE_H

#include "datatype/timestamp.h"

extern TimestampTz gt_observe_overdue(bool all);	/* since when the oldest work is due that should have begun; GT_NEVER */

extern int	gt_lapsed_claims(void); /* garbage whose last claim has lapsed and that nobody has found dead yet; of many some */
extern int	gt_running_items(int64 **items);	/* cleanup ids in hand in this database, sorted; needs preload */
extern void gt_check_monitor(const char *function); /* 42501, or 55000 without preload */

#endif
