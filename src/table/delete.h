/*-------------------------------------------------------------------------
 *
 * delete.h
 *	  Many rows are deleted together.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_DELETE_H
#define GT_DELETE_H

#include "table/table.h"

/* As gt_try_delete() of each, in the order of their places: deleted[i] is what it would say of rows[i]. */
extern void gt_try_delete_many(GtTable *t, GtRow **rows, int n, bool *deleted);

#endif
