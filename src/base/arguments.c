/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Arguments of SQL functions: those that must be there, and what is in them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "base/check.h"

void
gt_must_not_be_null(FunctionCallInfo fcinfo, int arg, const char *what)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}

/* A text argument; NULL for NULL. */
char *
gt_text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

Oid
gt_role_argument(FunctionCallInfo fcinfo, int arg, const char *what)
{
	gt_must_not_be_null(fcinfo, arg, what);
	return get_role_oid(NameStr(*PG_GETARG_NAME(arg)), false);
}

int64
gt_interval_argument(FunctionCallInfo fcinfo, int arg, const char *what, int64 min, int64 max, const char *range)
{
	int64		us;
	GtFail		f;

	gt_must_not_be_null(fcinfo, arg, what);
	if (!gt_check_interval(what, PG_GETARG_INTERVAL_P(arg), min, max, range, &us, &f))
		gt_raise(&f);
	return us;
}

/* The elements of an array of ids; NULL elements are unknown ids. */
int
gt_lease_ids_of(ArrayType *array, pg_uuid_t ***ids)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int			i;

	deconstruct_array(array, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &values, &nulls, &n);
	*ids = gt_alloc_array(n, sizeof(pg_uuid_t *));
	for (i = 0; i < n; i++)
		(*ids)[i] = nulls[i] ? NULL : DatumGetUUIDP(values[i]);
	return n;
}

int
gt_int8_array(ArrayType *array, int64 **values)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			count = 0;
	int			i;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &n);
	*values = gt_alloc_array(n, sizeof(int64));
	for (i = 0; i < n; i++)
		if (!nulls[i])
			(*values)[count++] = DatumGetInt64(elements[i]);
	return count;
}
