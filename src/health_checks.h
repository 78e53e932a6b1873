/*-------------------------------------------------------------------------
 *
 * health_checks.h
 *	  What the checks of gt_health() share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HEALTH_CHECKS_H
#define GT_HEALTH_CHECKS_H

#include "garbagetruck.h"
#include "health.h"

#define GT_HEALTH_ROWS		5		/* of one check that tell of the same kind of thing */

typedef struct GtHealth
{
	List	   *rows;			/* of GtHealthRow * */
	MemoryContext context;		/* theirs */
	const char *check;			/* in progress */
	void		(*run) (struct GtHealth *health); /* likewise */
	bool		all;			/* the caller is a monitor */
	bool		standby;
} GtHealth;

/* health_put.c and what more of the checks use */
/* One row; the remedy is for what is not ok. */
extern void gt_health_put(GtHealth *health, bool ok, const char *detail, const char *remedy);
/* The same, by an ALTER SYSTEM and what makes it count. */
extern void gt_health_put_setting(GtHealth *health, const char *detail, const char *alter, bool restart);
/* A public function or view of ours as a statement of this session names it. */
extern const char *gt_health_our(const char *name);
/* Is this row of garbage among what the caller may know of? */
extern bool gt_health_sees(const GtHealth *health, const GtRow *row, bool may_claim);
extern const char *gt_health_seconds(int64 us);
/* The handlers that the caller may know of. */
extern List *gt_health_handlers(const GtHealth *health);
/* After MAX_ROWS of a kind: how many more there are. */
extern void gt_health_put_more(GtHealth *health, int n, const char *what);
extern void gt_health_put_one_worker(GtHealth *health);

/* health_processes.c */
extern void gt_health_preloaded(GtHealth *health);
extern void gt_health_launcher(GtHealth *health);
extern void gt_health_workers(GtHealth *health);
extern void gt_health_slots(GtHealth *health);
extern void gt_health_errors(GtHealth *health);

/* health_work.c */
extern void gt_health_overdue(GtHealth *health);
extern void gt_health_dead(GtHealth *health);
extern void gt_health_paused(GtHealth *health);
extern void gt_health_suspended(GtHealth *health);
extern void gt_health_place(GtHealth *health);
extern void gt_health_unclaimed(GtHealth *health);
extern void gt_health_history(GtHealth *health);
extern void gt_health_rights(GtHealth *health);
extern void gt_health_consistency(GtHealth *health);

/* health_limits.c */
extern void gt_health_capacity(GtHealth *health);
extern void gt_health_renewal_buffer(GtHealth *health);
extern void gt_health_settings(GtHealth *health);
extern void gt_health_clock(GtHealth *health);
extern void gt_health_snapshots(GtHealth *health);

#endif
