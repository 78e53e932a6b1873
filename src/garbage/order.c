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

static int
compare_text(Datum a, Datum b)
{
	text	   *x = DatumGetTextPP(a);
	text	   *y = DatumGetTextPP(b);
	int			xlen = VARSIZE_ANY_EXHDR(x);
	int			ylen = VARSIZE_ANY_EXHDR(y);
	int			order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(xlen, ylen));

	return order != 0 ? order : xlen - ylen;
}

int
gt_object_row_order(const GtRow *object, const GtRow *other)
{
	int			order = compare_text(object->v[O_OBJECT_TYPE], other->v[O_OBJECT_TYPE]);

	return order != 0 ? order : compare_text(object->v[O_OBJECT_ID], other->v[O_OBJECT_ID]);
}
