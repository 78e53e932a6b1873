/*-------------------------------------------------------------------------
 *
 * history.h
 *	  gt_history.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HISTORY_H
#define GT_HISTORY_H

#include "handler/run.h"

extern TimestampTz gt_history_newest(TimestampTz upto);	/* when the last entry until then was made; 0: there is none */
extern void gt_history_add(const char *event, const GtRow *object, const char *handler, int attempt, int64 lag, int64 took, const char *error);
/* The same; h: whose version is kept (NULL: none), with the rows that its statement affected (< 0: not known). */
extern void gt_history_add_attempt(const char *event, const GtRow *object, const char *handler, int attempt,
								   int64 lag, int64 took, const char *error, const GtHandler *h, int64 rows);

/*
 * Events that are kept where the setting is `all`: up to `room` of them, in memory, and
 * written in one go; runs are of one handler.  NULL: they are not kept.
 */
typedef struct GtEvents GtEvents;
extern GtEvents *gt_events_begin(int room);
extern void gt_events_add(GtEvents *events, TimestampTz at, const char *event, const GtRow *object);
extern void gt_events_add_run(GtEvents *events, TimestampTz at, const char *event, const GtHandler *h, const GtItem *item, int64 lag);
extern void gt_events_write(GtEvents *events);

#endif
