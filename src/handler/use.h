/*-------------------------------------------------------------------------
 *
 * use.h
 *	  Who may use, serve and change a handler, and why one is suspended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_USE_H
#define GT_USE_H

#include "handler/handler.h"

extern bool gt_handler_may_use(const GtHandler *h);
extern bool gt_handler_is_own(const GtHandler *h);	/* of current_user, or of a role that it is a member of */
extern bool gt_handler_may_claim(const GtHandler *h);
extern void gt_must_claim_handler(const GtHandler *h, const char *verb);	/* 42501; verb: what is denied, or NULL */
extern void gt_no_such_handler(const char *name);	/* GT007 */
extern char *gt_handler_grant_hint(const GtHandler *h, const char *privilege);
/* NULL: its roles are who they were when it was registered, may do what they did, and its search_path is safe; else why it is suspended */
extern const char *gt_handler_suspended(const GtHandler *h);
typedef void (*GtHandlerJudge) (const GtHandler *h, const char *verb);	/* one of the two gt_must_... below: 42501 */
extern bool gt_lock_handler(GtTable *t, const char *name, LockTupleMode mode, GtHandlerJudge must, const char *verb,
							GtRow *row, GtHandler *h);
extern Oid	gt_handler_owner(const GtHandler *h);	/* the role that owns it here and now, or InvalidOid */
extern void gt_must_own_handler(const GtHandler *h, const char *verb);	/* 42501 */

#endif
