/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  Plans of handlers' commands; all as the handler's role, under its search_path.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PLAN_H
#define GT_PLAN_H

#include "executor/spi.h"
#include "nodes/params.h"

#include "handler/run.h"

typedef struct GtPlan GtPlan;
extern GtPlan *gt_plan_find(const GtHandler *h);	/* of the session; perhaps not prepared; good until the next call */
extern void gt_plan_prepare(GtPlan *plan, const GtHandler *h); /* unless it is */
extern void gt_plan_forget(GtPlan *plan);
extern void gt_plans_keep(void);	/* now and then: plans of handlers that are gone, and of what they were before, go */
extern SPIPlanPtr gt_plan_spi(GtPlan *plan);
extern ParamListInfo gt_plan_params(GtPlan *plan, const GtHandler *h, const GtItem *items, int n);

#endif
