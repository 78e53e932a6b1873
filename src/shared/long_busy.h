/*-------------------------------------------------------------------------
 *
 * long_busy.h
 *	  What is remembered of objects that others have locked for long.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LONG_BUSY_H
#define GT_LONG_BUSY_H

#include "datatype/timestamp.h"

#define GT_LONG_BUSY	256		/* of all databases */

/* An object that others have had locked for long: workers come and go, and none begins anew with it. */
typedef struct GtLongBusy
{
	Oid			database;		/* InvalidOid: free */
	int64		id;				/* cleanup id */
	uint64		ends;			/* GtDatabase.prepared_ends then: worth nothing once that has changed */
	TimestampTz since;
	TimestampTz until;			/* it is passed over */
} GtLongBusy;

#endif
