/*-------------------------------------------------------------------------
 *
 * order.c
 *	  The order in which objects are locked.
 *
 * Whoever waits for the rows of several objects locks them in this order, and so
 * never in a circle with others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "garbage/order.h"

int
gt_object_order(const char *type, const char *id, const char *other_type, const char *other_id)
{
	int			order = type == other_type ? 0 : strcmp(type, other_type);	/* all of a batch have the same */

	return order != 0 ? order : strcmp(id, other_id);
}
