/*-------------------------------------------------------------------------
 *
 * trim.h
 *	  What is too old in gt_history.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TRIM_H
#define GT_TRIM_H

#include "datatype/timestamp.h"

extern TimestampTz gt_history_trim_at(void);	/* when the oldest entry is too old; GT_NEVER: there is none */
extern bool gt_history_trim(void);	/* in a transaction: deletes some of what is too old; true: there is more */

#endif
