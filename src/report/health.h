/*-------------------------------------------------------------------------
 *
 * health.h
 *	  What gt_health() tells.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HEALTH_H
#define GT_HEALTH_H

#include "nodes/pg_list.h"

typedef struct GtHealthRow
{
	const char *check;
	bool		ok;
	char	   *detail;
	char	   *remedy;			/* NULL: it is ok */
} GtHealthRow;

extern List *gt_health_rows(void);	/* of GtHealthRow *, for current_user: at least one of each check */

#endif
