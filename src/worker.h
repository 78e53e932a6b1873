/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What launcher.c, worker.c, crash.c and reclaim.c know of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WORKER_H
#define GT_WORKER_H

#include "garbagetruck.h"

/* launcher.c */
extern void gt_database_failed(GtDatabase *db); /* a worker could not work there: wait before the next. Lock held */

/* crash.c */
extern bool gt_clean_is_durable(GtCleaner *c);	/* a run is on record */
extern void gt_clean_forget(GtCleaner *c);	/* at exit: gives the lock back that says that we live */

/* reclaim.c */
extern bool gt_history_trim(void);	/* in a transaction: deletes some of what is too old; true: there is more */

#endif
