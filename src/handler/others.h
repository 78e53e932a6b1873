/*-------------------------------------------------------------------------
 *
 * others.h
 *	  What other processes have in hand.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OTHERS_H
#define GT_OTHERS_H

#include "datatype/timestamp.h"

extern int64 *gt_slot_others(int *n);	/* items of other processes in this database, sorted; palloc'd */
extern TimestampTz gt_slot_others_upto(int handler);	/* up to this due time they have most of its queue in hand */

#endif
