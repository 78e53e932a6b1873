/*-------------------------------------------------------------------------
 *
 * rebuild.h
 *	  An object without a row is made anew of its leases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_REBUILD_H
#define GT_REBUILD_H

#include "table/table.h"

/*
 * There are leases on an object that has no row (somebody deleted it): makes it of
 * them, locked.  false: there are none any more, or it has come meanwhile.
 */
extern bool gt_object_rebuild(GtTable *objects, GtTable *leases, const char *object_type, const char *object_id,
							  GtRow *row);
/* How many leases the object has, which is locked; *newest: that with the greatest fence. */
extern int	gt_count_leases(GtTable *leases, Datum type, Datum id, GtRow *newest);

#endif
