/*-------------------------------------------------------------------------
 *
 * role.c
 *	  Being the role that a handler runs as, under its search_path.
 *
 * Workers, and sessions in gt_reclaim() or gt_handler_create(), run this.  Another
 * current_user, session_user and settings last until gt_role_leave(), or the end of
 * the (sub)transaction, which gives back all but session_user: on the way out by an
 * error that is given back by gt_role_undo().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "handler/handler.h"
#include "handler/path.h"
#include "handler/role.h"

void
gt_set_for_runs(const char *name, const char *value)
{
	const char *now = GetConfigOption(name, true, false);

	if (now == NULL || strcmp(now, value) != 0)
		(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Becomes the role under its search_path, until gt_role_leave() or the end of
 * the (sub)transaction.  With as_session it is session_user as well: SECURITY
 * DEFINER functions know their caller by that, and it must not be the superuser
 * that a worker is.  A session can do so only where a superuser has logged in.
 */
void
gt_role_enter(GtAsRole *as, const GtHandler *h, bool as_session)
{
	char	   *path = gt_path_of_run(h);	/* reads catalogs: what fails there must not leave another session_user */

	GetUserIdAndSecContext(&as->user, &as->sec_context);
	as->session_user = GetSessionUserId();
	as->as_session = as_session && as->sec_context == 0 && h->run_as != as->session_user &&
		superuser_arg(GetAuthenticatedUserId());
	if (as->as_session)
	{
		as->session_is_superuser = superuser_arg(as->session_user);
		as->role = GetCurrentRoleId();
		as->role_is_superuser = OidIsValid(as->role) && superuser_arg(as->role);
		SetSessionAuthorization(h->run_as, superuser_arg(h->run_as));
	}
	as->guc_level = NewGUCNestLevel();
	if (as->as_session)
		gt_set_for_runs("role", "none");	/* a SET ROLE outlives a new session_user, and its is_superuser with it */
	gt_set_for_runs("search_path", path);
	gt_set_for_runs("session_replication_role", "origin");
	gt_set_for_runs("row_security", "on");
	gt_set_for_runs("lock_timeout", "0");	/* the handler's timeout covers its waits */
	gt_set_for_runs("garbagetruck.caller", "");	/* it acts for its role */
	SetUserIdAndSecContext(h->run_as, as->sec_context | SECURITY_RESTRICTED_OPERATION);
}

/* The user's part of that; also on the way out by an error. */
void
gt_role_undo(GtAsRole *as)
{
	SetUserIdAndSecContext(as->user, as->sec_context);
	if (as->as_session)
	{
		SetSessionAuthorization(as->session_user, as->session_is_superuser);
		if (OidIsValid(as->role))
			SetCurrentRoleId(as->role, as->role_is_superuser);
		SetUserIdAndSecContext(as->user, as->sec_context);
	}
	as->as_session = false;
}

void
gt_role_leave(GtAsRole *as)
{
	SetUserIdAndSecContext(as->user, as->sec_context);	/* "role" can not be set back in a restricted operation */
	AtEOXact_GUC(false, as->guc_level);
	gt_role_undo(as);
}
