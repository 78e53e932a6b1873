/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings garbagetruck.* of leases, objects and the history.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_SETTINGS_H
#define GT_SETTINGS_H

extern int	gt_default_duration;	/* ms */
extern int	gt_min_duration;		/* ms */
extern int	gt_max_duration;		/* s: 30 d do not fit an int of ms */
extern int	gt_regrant_delay;		/* ms */
extern int	gt_restart_grace;		/* ms */
extern int	gt_max_leases_per_service;
extern int	gt_max_payload;			/* bytes */
extern int	gt_history;				/* GtHistoryMode */
extern int	gt_history_retention;	/* s */
extern int	gt_renewals;			/* GtRenewalMode */
extern int	gt_renewal_buffer_size; /* kB */
extern char *gt_identity;
extern bool gt_in_cleanup;			/* garbagetruck.in_cleanup: only run.c sets it */
extern void gt_settings_init(bool preloaded);	/* from _PG_init */

typedef enum
{
	GT_HISTORY_OFF, GT_HISTORY_ERRORS, GT_HISTORY_ALL
} GtHistoryMode;

typedef enum
{
	GT_RENEWALS_BUFFERED, GT_RENEWALS_DURABLE
} GtRenewalMode;

#endif
