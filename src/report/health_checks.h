/*-------------------------------------------------------------------------
 *
 * health_checks.h
 *	  The checks of gt_health().
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HEALTH_CHECKS_H
#define GT_HEALTH_CHECKS_H

#include "report/health_put.h"

extern void gt_health_put_one_worker(GtHealth *health);

extern void gt_health_preloaded(GtHealth *health);
extern void gt_health_launcher(GtHealth *health);
extern void gt_health_workers(GtHealth *health);
extern void gt_health_slots(GtHealth *health);
extern void gt_health_errors(GtHealth *health);

extern void gt_health_overdue(GtHealth *health);
extern void gt_health_dead(GtHealth *health);
extern void gt_health_paused(GtHealth *health);
extern void gt_health_suspended(GtHealth *health);
extern void gt_health_place(GtHealth *health);
extern void gt_health_unclaimed(GtHealth *health);
extern void gt_health_history(GtHealth *health);
extern void gt_health_rights(GtHealth *health);
extern void gt_health_consistency(GtHealth *health);

extern void gt_health_prepared(GtHealth *health);
extern void gt_health_ttl(GtHealth *health);	/* ttls.c */

extern void gt_health_capacity(GtHealth *health);
extern void gt_health_renewal_buffer(GtHealth *health);
extern void gt_health_settings(GtHealth *health);
extern void gt_health_clock(GtHealth *health);
extern void gt_health_snapshots(GtHealth *health);

#endif
