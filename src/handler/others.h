/*-------------------------------------------------------------------------
 *
 * others.h
 *	  What other processes have in hand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OTHERS_H
#define GT_OTHERS_H

#include "shared/shmem.h"

extern GtSlot *gt_session_slot; /* of a session in gt_reclaim(); NULL elsewhere */
extern GtSlot *gt_slot_own(void);	/* of this process, whether a worker's or that; NULL: it has none */
extern int64 *gt_slot_others(int *n);	/* items of other processes in this database, sorted; palloc'd */
extern TimestampTz gt_slot_others_upto(int handler);	/* up to this due time they have most of its queue in hand */

#endif
