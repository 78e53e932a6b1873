/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  The trigger that tells of rows that come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TTL_WAKE_H
#define GT_TTL_WAKE_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

/* It has the trigger, which fires and meets every deadline that comes. */
extern bool gt_wake_is_set(Relation rel);
/* Those columns, by whatever name, that it was made of; NIL: it is not there. */
extern List *gt_wake_columns(Relation rel);
/* It is not as it was made: not there, or disabled. */
extern bool gt_wake_is_lost(Relation rel);
/* Makes it, of these columns, or sees that it is so. For a superuser: see wake.c. */
extern void gt_wake_set(Oid relation, int ttl, List *columns);
extern void gt_wake_take_away(Oid relation);

#endif
