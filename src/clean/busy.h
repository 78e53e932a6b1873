/*-------------------------------------------------------------------------
 *
 * busy.h
 *	  Objects that others have locked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_BUSY_H
#define GT_BUSY_H

#include "clean/clean.h"

extern TimestampTz gt_busy_until(const GtCleaner *c, int handler, int64 id);	/* of one that others had locked; else 0 */
extern void gt_busy_recall(GtCleaner *c);	/* begins with what workers before have met, and anew where a prepared transaction has ended */
extern void gt_busy_note(GtCleaner *c, const int64 *tried, int ntried, const int64 *ids, int n);	/* these are, of those tried */

#endif
