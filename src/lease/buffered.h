/*-------------------------------------------------------------------------
 *
 * buffered.h
 *	  Renewals that are kept in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_BUFFERED_H
#define GT_BUFFERED_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "table/look.h"
#include "table/table.h"

extern bool gt_renewals_buffered(void); /* is there a buffer, and is it wanted? */

/*
 * Renewals by what the buffer has of the leases, without a look at their rows.
 * duration: us; 0: each its own.  Those that are not done, of which the rows must
 * be read, are as before.  Returns how many are.
 */
typedef struct GtTry
{
	const pg_uuid_t *id;		/* NULL: passed over */
	bool		ok;				/* out, as those below: done */
	TimestampTz now;
	TimestampTz deadline;
} GtTry;

extern int	gt_buffered_try(GtTry *tries, int n, int64 duration, const char *service);

typedef enum
{
	GT_BUFFERED_DONE,			/* acknowledged: it counts */
	GT_BUFFERED_EXPIRED,		/* for good */
	GT_BUFFERED_CHANGED,		/* the row is another one by now: to be read again */
	GT_BUFFERED_WRITE			/* it is to be written to the table */
} GtBuffered;

/* A renewal of the lease whose row this is, as gt_look_at() has found it: free, and no child. Out: when, and until when. */
extern GtBuffered gt_buffered_renew(GtTable *leases, const GtRow *row, const GtVersion *version, int64 duration,
									TimestampTz *now, TimestampTz *deadline);

#endif
