/*-------------------------------------------------------------------------
 *
 * tally.h
 *	  How the runs of handlers went, for gt_handlers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TALLY_H
#define GT_TALLY_H

#include "handler/handler.h"

extern void gt_tally(const GtHandler *h, int runs, int failures, const char *error);	/* error: of the last one, or NULL */

#endif
