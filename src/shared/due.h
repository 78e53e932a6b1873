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

extern GtDatabase *gt_my_database(void);	/* cached; NULL: not preloaded */
/*
 * There is work at this time (gt_clock) once the current transaction has
 * committed: wakes the worker of this database, or the launcher, if it is the
 * earliest known.  Forgotten when the (sub)transaction aborts.
 */
extern void gt_due_after_commit(TimestampTz when);
extern void gt_due_at(GtDatabase *db, TimestampTz when);	/* at once */

#endif
