/*-------------------------------------------------------------------------
 *
 * margins.h
 *	  How much of a lease was left when it was renewed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_MARGINS_H
#define GT_MARGINS_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

extern void gt_observe_renewal(const char *service_id, int64 left, int64 duration);
extern uint64 gt_service_hash(const char *service_id);
/* Would that tell nothing new of the service with this hash? Locks nothing. */
extern bool gt_margin_is_known(uint64 service, int64 left, int64 duration, TimestampTz now);

/* Copies of what there is, for gt_metrics(). */
typedef struct GtMargin
{
	char	   *service_id;
	double		ratio;
} GtMargin;

extern void gt_margins_init(void);	/* from _PG_init */
extern void gt_margins_forget(Oid database);	/* see gt_observe_forget() */
extern List *gt_observe_margins(void);	/* of GtMargin * */

#endif
