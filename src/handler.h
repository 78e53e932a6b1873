/*-------------------------------------------------------------------------
 *
 * handler.h
 *	  What handler.c, register.c, path.c, run.c and plan.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HANDLER_H
#define GT_HANDLER_H

#include "executor/spi.h"
#include "nodes/params.h"

#include "garbagetruck.h"

#define GT_KIND_IS_SQL(kind) ((kind) == GT_KIND_SQL || (kind) == GT_KIND_SQL_BATCH)

/* handler.c */
extern Oid	gt_role_argument(FunctionCallInfo fcinfo, int arg, const char *what);
extern GtKind gt_kind_of(const char *name);
typedef void (*GtHandlerJudge) (const GtHandler *h, const char *verb);	/* one of the two gt_must_... below: 42501 */
extern bool gt_lock_handler(GtTable *t, const char *name, LockTupleMode mode, GtHandlerJudge must, const char *verb,
							GtRow *row, GtHandler *h);
extern Oid	gt_handler_owner(const GtHandler *h);	/* the role that owns it here and now, or InvalidOid */
extern void gt_must_own_handler(const GtHandler *h, const char *verb);	/* 42501 */

/* path.c */
extern char *gt_path_to_store(const char *handler, Oid run_as);
extern char *gt_path_of_run(const GtHandler *h);
extern const char *gt_path_open(const GtHandler *h);	/* why its search_path is not safe any more; NULL: it is */

/* plan.c: all of these as the handler's role, under its search_path */
typedef struct GtPlan GtPlan;
extern void gt_plan_check(const GtHandler *h);	/* raises what is wrong with its command */
extern GtPlan *gt_plan_find(const GtHandler *h);	/* of the session; perhaps not prepared; good until the next call */
extern void gt_plan_prepare(GtPlan *plan, const GtHandler *h); /* unless it is */
extern void gt_plan_forget(GtPlan *plan);
extern void gt_plans_keep(void);	/* now and then: plans of handlers that are gone, and of what they were before, go */
extern SPIPlanPtr gt_plan_spi(GtPlan *plan);
extern ParamListInfo gt_plan_params(GtPlan *plan, const GtHandler *h, const GtItem *items, int n);

#endif
