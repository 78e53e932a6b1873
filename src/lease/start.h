/*-------------------------------------------------------------------------
 *
 * start.h
 *	  This server run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_START_H
#define GT_START_H

extern int64 gt_run(void);		/* this server run; never 0 */
/*
 * Sees to it that this server run is recorded in gt__start before any lease is
 * judged over here. Every writing call and every worker pass calls it.
 */
extern void gt_start_ensure(void);
extern bool gt_start_is_recorded(void); /* by a transaction that has committed */
/* S, if the server was away before this run, as far as it is known here; else 0. */
extern TimestampTz gt_start_after_outage(void);

#endif
