/*-------------------------------------------------------------------------
 *
 * path.h
 *	  The search_path of a handler.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PATH_H
#define GT_PATH_H

#include "handler/handler.h"

extern char *gt_path_to_store(const char *handler, Oid run_as);
extern char *gt_path_of_run(const GtHandler *h);
extern const char *gt_path_open(const GtHandler *h);	/* why its search_path is not safe any more; NULL: it is */

#endif
