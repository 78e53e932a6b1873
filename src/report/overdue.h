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

#include "handler/handler.h"
#include "table/table.h"

extern TimestampTz gt_observe_overdue(bool all);	/* since when the oldest work is due that should have begun; GT_NEVER */

/* Garbage of this handler whose last claim has lapsed and that nobody has found dead yet, up to a limit; of many some. `all`: whoever's it is. */
extern int	gt_lapsed_claims_of(GtTable *objects, const GtHandler *h, bool all, int limit);
extern int	gt_lapsed_claims(void); /* of all handlers */
extern int	gt_running_items(int64 **items);	/* cleanup ids in hand in this database, sorted; needs preload */
extern void gt_check_monitor(const char *function); /* 42501, or 55000 without preload */

#endif
