/*-------------------------------------------------------------------------
 *
 * execute.h
 *	  The command of a handler is executed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_EXECUTE_H
#define GT_EXECUTE_H

#include "handler/plan.h"

/* Returns how many rows it has affected; < 0: it is a SELECT or CALL, and does not tell */
extern int64 gt_plan_execute(GtPlan *plan, ParamListInfo params, bool must_affect, bool *affected);

#endif
