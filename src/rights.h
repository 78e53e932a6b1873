/*-------------------------------------------------------------------------
 *
 * rights.h
 *	  What rights.c and allow.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RIGHTS_H
#define GT_RIGHTS_H

#define GT_RIGHT_LEASE		0x1
#define GT_RIGHT_HANDLER	0x2
#define GT_RIGHT_MONITOR	0x4
#define GT_RIGHT_ADMIN		0x8		/* includes the others: its functions are all */

extern bool gt_has_right(int bit);	/* allow.c: by its marker function alone */
extern void gt_execute_as_owner(const char *sql);	/* rights.c */

#endif
