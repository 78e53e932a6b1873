/*-------------------------------------------------------------------------
 *
 * delete.h
 *	  The DELETE of a batch of rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_DELETE_H
#define GT_DELETE_H

#include "ttl/batch.h"

/* Of those that are left of the batch; `bound`: what has this deadline, or an earlier one, must not be there any more. */
extern void gt_batch_delete(GtBatch *b, GtTarget *target, TimestampTz bound);
/* Has somebody a trigger there that could bring a row back? */
extern bool gt_batch_has_triggers(const GtTarget *target);

#endif
