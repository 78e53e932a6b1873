/*-------------------------------------------------------------------------
 *
 * rights.h
 *	  What rights.c and allow.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RIGHTS_H
#define GT_RIGHTS_H

#include "fmgr.h"
#include "nodes/pg_list.h"

typedef enum
{
	GT_RIGHT_LEASE = 0x1,
	GT_RIGHT_HANDLER = 0x2,
	GT_RIGHT_MONITOR = 0x4,
	GT_RIGHT_ADMIN = 0x8,		/* includes the others: its functions are all */
	GT_RIGHT_ANY = 0xf
} GtRightBits;

/* may.c, for allow.c */
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

extern bool gt_has_right(int bits); /* allow.c: current_user has one of these, or 'admin' */
extern void gt_execute_as_owner(const char *sql);	/* rights.c */
extern List *gt_translate_rows(void);	/* translate.c, for gt_roles_translate(): OIDs of all who own something here */

#endif
