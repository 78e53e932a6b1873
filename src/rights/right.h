/*-------------------------------------------------------------------------
 *
 * right.h
 *	  What a right is made of, for allow.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RIGHT_H
#define GT_RIGHT_H

#include "fmgr.h"

#define GT_NRIGHTS			4

typedef struct GtRight
{
	const char *name;
	int			bit;
	const char *mark;
} GtRight;

extern const GtRight gt_rights[GT_NRIGHTS];
extern const GtRight *gt_right_argument(FunctionCallInfo fcinfo, int arg);
extern Oid	gt_right_mark(const GtRight *right);	/* the function that makes it up */
extern int	gt_rights_of(Oid role, int wanted); /* which of these it has, by whatever way */
/* The public functions that belong to the right, but to none of `keep`, for a GRANT. */
extern char *gt_right_routines(const GtRight *wanted, int keep);

#endif
