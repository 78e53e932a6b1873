/*-------------------------------------------------------------------------
 *
 * rates.h
 *	  How often a handler may start, and how it did lately.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RATES_H
#define GT_RATES_H

#include "handler/handler.h"
#include "shared/observe.h"

/*
 * How many starts of this handler its rate_limit (and the ramp after gt_resume())
 * allows now, at most `want`; *when: the time of the next one, where that is 0.
 * gt_rate_take() takes them, and what is not started after all is given back.
 */
extern int	gt_rate_allows(const GtHandler *h, GtStarter starter, int want, TimestampTz *when);
extern int	gt_rate_take(const GtHandler *h, GtStarter starter, int want, TimestampTz *when);
extern void gt_rate_give_back(const GtHandler *h, GtStarter starter, int n);
extern void gt_handler_served(const GtHandler *h);	/* a run of it has been chosen */
extern void gt_handler_ran(const GtHandler *h, bool slow);	/* its last run was, or was not */
/* Is it to be expected of a run that it goes well, and soon? See optimistic.c. */
extern bool gt_handler_is_reliable(const GtHandler *h);
extern void gt_handler_proved(const GtHandler *h, bool reliable);
extern void gt_handler_rests(const GtHandler *h, int64 rest);	/* us: for so long it is not */
extern int	gt_batch_limit(int handler);	/* objects that one run of kind sql_batch may have */
extern void gt_batch_set_limit(int handler, int limit);	/* GT_MAX_ITEMS and more: no limit */

/* What all processes remember of a handler: good for an order, its row alone decides. */
typedef struct GtHandlerHint
{
	int			handler;
	Oid			role;			/* whose SQL it ran then; InvalidOid: not known, or none */
	TimestampTz served_at;		/* when a run of it was chosen last; 0: not known */
} GtHandlerHint;

extern void gt_handler_hint(GtHandlerHint *hints, int n);	/* fills them in */
extern int	gt_handler_speed(const GtHandler *h);	/* GtSpeed: how its last run was */

#endif
