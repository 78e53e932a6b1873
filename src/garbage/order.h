/*-------------------------------------------------------------------------
 *
 * order.h
 *	  The order in which objects are locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ORDER_H
#define GT_ORDER_H

/* By (type, id), bytes. As strcmp(). */
extern int	gt_object_order(const char *type, const char *id, const char *other_type, const char *other_id);

#endif
