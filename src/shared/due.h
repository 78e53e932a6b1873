/*-------------------------------------------------------------------------
 *
 * due.h
 *	  What is due in a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_DUE_H
#define GT_DUE_H

#include "shared/shmem.h"

#define GT_LATE		USECS_PER_SEC	/* us: no low end of a queue is so near to the time of the look (low.c), so what commits sooner lies above all */

extern GtDatabase *gt_my_database(void);	/* cached; NULL: not preloaded */
extern void gt_due_at(GtDatabase *db, TimestampTz when);	/* at once */
extern void gt_due_again(GtDatabase *db, TimestampTz when);	/* likewise: of leases there is nothing new */
/*
 * Who calls this and looks at the queues of all roles then knows what is due in them
 * until that time, as long as the number that is returned is GtDatabase.lease_news.
 */
extern uint64 gt_lease_horizon(GtDatabase *db, TimestampTz until);
extern void gt_lease_beyond(GtDatabase *db, TimestampTz when);	/* and something is due then */

#endif
