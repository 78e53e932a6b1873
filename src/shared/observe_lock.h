/*-------------------------------------------------------------------------
 *
 * observe_lock.h
 *	  The lock of what is observed, in tables of its own: see observe.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OBSERVE_LOCK_H
#define GT_OBSERVE_LOCK_H

#include "utils/hsearch.h"

extern void gt_observe_lock(void);
extern void gt_observe_unlock(void);
extern void gt_observe_remove(HTAB *entries, Oid database);	/* locks by itself; of keys that begin with their database; NULL: there are none */

#endif
