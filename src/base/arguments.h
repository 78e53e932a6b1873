/*-------------------------------------------------------------------------
 *
 * arguments.h
 *	  Arguments of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ARGUMENTS_H
#define GT_ARGUMENTS_H

#include "fmgr.h"
#include "utils/array.h"
#include "utils/uuid.h"

extern void gt_must_not_be_null(FunctionCallInfo fcinfo, int arg, const char *what);	/* 22004 */
/* us, 22004 or 22023: `range` tells in words what is between min and max */
extern int64 gt_interval_argument(FunctionCallInfo fcinfo, int arg, const char *what, int64 min, int64 max, const char *range);

extern Oid	gt_role_argument(FunctionCallInfo fcinfo, int arg, const char *what);
extern char *gt_text_arg(FunctionCallInfo fcinfo, int n);	/* NULL for NULL */
extern int	gt_lease_ids_of(ArrayType *array, pg_uuid_t ***ids);

extern int	gt_int8_array(ArrayType *array, int64 **values);	/* NULL elements are passed over */

#endif
