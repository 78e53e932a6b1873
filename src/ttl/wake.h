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

#define GT_WAKE_TRIGGER "gt_ttl_wake"

extern bool gt_wake_is_set(Relation rel);	/* it has the trigger, which fires */
/* Makes it, of these columns, or sees that it is so. For a superuser: see wake.c. */
extern void gt_wake_set(Oid relation, int ttl, List *columns);
extern void gt_wake_take_away(Oid relation);

#endif
