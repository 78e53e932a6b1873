/*-------------------------------------------------------------------------
 *
 * observe_lock.h
 *	  The lock of what is observed: see observe.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OBSERVE_LOCK_H
#define GT_OBSERVE_LOCK_H

extern void gt_observe_lock(void);
extern void gt_observe_unlock(void);

#endif
