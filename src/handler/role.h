/*-------------------------------------------------------------------------
 *
 * role.h
 *	  Being the handler's role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ROLE_H
#define GT_ROLE_H

#include "handler/handler.h"

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

#endif
