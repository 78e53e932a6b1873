/*-------------------------------------------------------------------------
 *
 * order.h
 *	  The order in which objects are locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ORDER_H
#define GT_ORDER_H

#include "table/table.h"

/* By (type, id), bytes. As strcmp(); the second of rows of gt_object. */
extern int	gt_object_order(const char *type, const char *id, const char *other_type, const char *other_id);
extern int	gt_object_row_order(const GtRow *object, const GtRow *other);

#endif
