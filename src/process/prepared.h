/*-------------------------------------------------------------------------
 *
 * prepared.h
 *	  The end of a prepared transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PREPARED_END_H
#define GT_PREPARED_END_H

#include "c.h"

/* What there is before a prepared transaction ends. */
typedef struct GtPreparedEnd
{
	Oid			extension;
	bool		ours;			/* some that are prepared have done something of ours */
	int			nunknown;		/* of them were prepared before the server started: */
	TransactionId *unknown;
} GtPreparedEnd;

/* Before and after a COMMIT PREPARED or ROLLBACK PREPARED, in its transaction. */
extern void gt_prepared_ends(GtPreparedEnd *end);
extern void gt_prepared_has_ended(const GtPreparedEnd *end);

#endif
