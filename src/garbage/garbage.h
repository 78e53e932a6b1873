/*-------------------------------------------------------------------------
 *
 * garbage.h
 *	  What becomes of garbage, and the rules of its tokens.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_GARBAGE_H
#define GT_GARBAGE_H

#include "handler/run.h"

extern void gt_garbage_number(GtItem *items, int n);	/* of gt_garbage_take(), in memory: draws their cleanup ids */
extern void gt_garbage_done(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 took);

#define GT_BACK_OFF		(-1)	/* for retry_after, us: the delay is the back-off's, or the handler's own; */
#define GT_FINAL		(-2)	/* there is no next attempt */

extern void gt_garbage_cleaned(GtTable *objects, GtRow *row, const GtHandler *h, const GtItem *item);
extern void gt_garbage_failed(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, const char *error, int64 retry_after, int64 took);
extern void gt_garbage_not_now(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 retry_after);	/* that was none */
extern void gt_garbage_excused(GtTable *objects, GtRow *row, const GtHandler *h, const char *error, GtExcuse excuse, int64 retry_after);
extern bool gt_garbage_may_conflict(const GtRow *row);	/* one more conflict is excused */
/*
 * A claim whose claimed_until has passed: writes it as dead and returns false if
 * that was its last attempt; else true, nothing written: the next attempt may
 * start.  Whoever chooses a row of state c (due_at <= now) calls it.
 */
extern bool gt_garbage_lapsed(GtTable *objects, GtRow *row, const GtHandler *h);
extern bool gt_garbage_has_lapsed(const GtRow *row, TimestampTz now);	/* state c, and its time has passed */
/* What this handler has in its queue is due then, once it is committed; a worker is woken where workers run it: others are claimed. */
extern void gt_garbage_due(const GtHandler *h, TimestampTz when);
/* And that was its last attempt: it is as good as dead, though nobody has looked since. */
extern bool gt_garbage_lapsed_last(const GtRow *row, const GtHandler *h, TimestampTz now);
extern void gt_garbage_wait(GtRow *row, const GtHandler *h, TimestampTz due_at);	/* in memory: waiting until then */
extern void gt_garbage_pass_over_announced(GtRow *row);	/* in memory: the token that was announced is nobody's */
extern void gt_garbage_redriven(GtTable *objects, GtRow *row, const GtHandler *h);	/* of dead garbage */
extern void gt_garbage_hurried(GtTable *objects, GtRow *row, const GtHandler *h);	/* of waiting garbage */
extern void gt_garbage_discarded(GtTable *objects, GtRow *row, const GtHandler *h);
extern void gt_garbage_claimed(GtRow *row, TimestampTz until, int64 visibility);	/* in memory */
extern int64 gt_retry_delay_of(const GtRow *row, const GtHandler *h);
extern int64 gt_garbage_lag(const GtRow *row, const GtHandler *h, TimestampTz then);	/* since it could first be cleaned, us */

#endif
