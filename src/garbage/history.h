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
 * Leases of the runs of one handler have expired, and their objects were cleaned, in one
 * transaction: where that can be it is one row, of which the view gt_history makes the
 * two events.  begin: NULL where the setting does not keep them.
 */
typedef struct GtEvents GtEvents;
extern GtEvents *gt_events_begin(const GtHandler *h);
/* service: of the lease */
extern void gt_events_add(GtEvents *events, TimestampTz expired_at, Datum service, TimestampTz cleaned_at, const GtItem *item, int64 lag);
extern void gt_events_end(GtEvents *events);

#endif
