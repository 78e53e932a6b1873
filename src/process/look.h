/*-------------------------------------------------------------------------
 *
 * look.h
 *	  What a worker finds in its database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOOK_H
#define GT_LOOK_H

/* Is there anything for us here? again: look once more in a while */
extern bool gt_worker_may_work(bool *again);

#endif
