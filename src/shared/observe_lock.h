/*-------------------------------------------------------------------------
 *
 * observe_lock.h
 *	  The lock of what is observed, in tables of its own: see observe.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OBSERVE_LOCK_H
#define GT_OBSERVE_LOCK_H

#include "datatype/timestamp.h"
#include "utils/hsearch.h"

extern void gt_observe_lock(void);
extern void gt_observe_unlock(void);

/* What is to be known of an entry where its table is full. */
typedef struct GtUse
{
	TimestampTz used_at;
	bool		own;			/* it is the asker's */
	bool		held;			/* it can not be taken out */
} GtUse;

/* Takes one out of a full table, by the rule of observe.c; false: there is none that may go. Lock held. */
extern bool gt_observe_make_room(HTAB *entries, GtUse (*use_of) (const void *entry, Oid asker), Oid asker);
extern void gt_observe_remove(HTAB *entries, Oid database);	/* locks by itself; of keys that begin with their database; NULL: there are none */

#endif
