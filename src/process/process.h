/*-------------------------------------------------------------------------
 *
 * process.h
 *	  How a worker comes, works in transactions and goes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PROCESS_H
#define GT_PROCESS_H

#include "clean/clean.h"
#include "shared/shmem.h"

#define GT_FIRST_RETRY USECS_PER_SEC

extern void gt_database_failed(GtDatabase *db); /* a worker could not work there: wait before the next. Lock held */

extern void gt_worker_signals(void);
extern bool gt_worker_attach(int index, int64 serial); /* makes the slot ours; false: there is nothing to do */
extern GtCleaner *gt_worker_connect(void);
extern void gt_pin_settings(void);	/* whatever the cluster, the database or the role say: under these we work */
extern GtDatabase *gt_worker_database;

/* What a worker does, each in transactions of its own */
typedef enum
{
	GT_DO_LOOK, GT_DO_JUDGE, GT_DO_EXPIRE, GT_DO_CLEAN, GT_DO_REARM, GT_DO_TRIM, GT_DO_LEAVE, GT_DO_KINDS
} GtDoing;

/*
 * Runs `body` in a transaction.  An error is logged and survived; several in a row,
 * whatever was to be done, end the process.
 */
extern bool gt_in_transaction(GtDoing what, void (*body) (void *arg), void *arg, const char *activity);
extern void gt_worker_give_up(void);	/* the launcher waits before the next */
extern TimestampTz gt_not_before(GtDoing what); /* it has failed, ever more often, and is not to be tried again; else 0 */

extern void gt_leave_pass(GtDatabase *database, GtSlot *slot);	/* its expiry pass is over, if it was in one. Lock held */

#endif
