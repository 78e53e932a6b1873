/*-------------------------------------------------------------------------
 *
 * workers.h
 *	  The settings of the workers, and what bounds them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WORKERS_H
#define GT_WORKERS_H

extern char *gt_databases;
extern int	gt_max_workers;
extern int	gt_naptime;				/* s */
extern int	gt_batch_size;

#define GT_MAX_WORKERS		64	/* bound of garbagetruck.max_workers */
#define GT_MAX_ITEMS		1000	/* of one run */

extern bool gt_is_listed(const char *name); /* is this database among those of the setting? */

#endif
