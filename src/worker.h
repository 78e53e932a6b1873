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
#define GT_FIRST_RETRY USECS_PER_SEC
extern void gt_database_failed(GtDatabase *db); /* a worker could not work there: wait before the next. Lock held */

extern bool gt_is_listed(const char *name); /* is this database among those of the setting? */

/* process.c */
extern void gt_worker_signals(void);
extern bool gt_worker_attach(int index, int64 serial); /* makes the slot ours; false: there is nothing to do */
extern GtCleaner *gt_worker_connect(void);
extern void gt_pin_settings(void);	/* whatever the cluster, the database or the role say: under these we work */
extern GtDatabase *gt_worker_database;
/* Runs `body` in a transaction. An error is logged and survived; several in a row end the process. */
extern bool gt_in_transaction(void (*body) (void), const char *activity);

/* look.c: is there anything for us here? again: look once more in a while */
extern bool gt_worker_may_work(bool *again);

extern void gt_leave_pass(GtDatabase *database, GtSlot *slot);	/* its expiry pass is over, if it was in one. Lock held */

/* crash.c */
extern bool gt_clean_is_durable(GtCleaner *c);	/* a run is on record */
extern bool gt_clean_has_begun(GtCleaner *c);	/* in the transaction in progress the run on record is made */
extern bool gt_clean_has_failed(GtCleaner *c);	/* a transaction that made it did, and that is to be judged */
extern void gt_clean_disown(GtCleaner *c);	/* of such a run: it can not be judged, and waits for whoever can */
extern void gt_clean_forget(GtCleaner *c);	/* at exit: gives the lock back that says that we live */

/* reclaim.c */
extern bool gt_history_trim(void);	/* in a transaction: deletes some of what is too old; true: there is more */

#endif
