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
#include "storage/lock.h"

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

/* role.c */
typedef struct GtAsRole
{
	Oid			user;
	int			sec_context;
	int			guc_level;
	bool		as_session;		/* session_user, too, is the role */
	Oid			session_user;	/* then: who it was, */
	bool		session_is_superuser;
	Oid			role;			/* and whom SET ROLE had made of it; InvalidOid: nobody */
	bool		role_is_superuser;
} GtAsRole;

extern void gt_role_enter(GtAsRole *as, const GtHandler *h, bool as_session);
extern void gt_role_leave(GtAsRole *as);
extern void gt_role_undo(GtAsRole *as); /* the user's part of that, on the way out by an error */
extern void gt_set_for_runs(const char *name, const char *value);	/* a setting, to the end of the nest level */

/* execute.c: returns how many rows it has affected; < 0: it is a SELECT or CALL, and does not tell */
extern int64 gt_plan_execute(GtPlan *plan, ParamListInfo params, bool must_affect, bool *affected);

/* failures.c */
extern void gt_run_log_failure(const GtHandler *h, const GtItem *items, int n);	/* of one run, unless there are too many lines */

/* leftovers.c */
extern void gt_constraints_immediate(void); /* fires what was deferred, and from here on nothing is */
extern void gt_constraints_as_defined(void);	/* in a block: those are deferred again that are so by their definition */
extern LockData *gt_advisory_locks(void);	/* everybody's locks, if this session holds advisory ones; else NULL */
extern void gt_release_advisory_locks(const LockData *before);	/* this session's that were not there */
extern List *gt_open_cursors(void); /* their names. Connected to the SPI */
extern void gt_close_cursors(bool in_block, List *before);	/* in_block: but those with these names */
extern void gt_reseed(void);	/* random() goes on from where no handler has put it */

#endif
