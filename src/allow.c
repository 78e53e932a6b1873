/*-------------------------------------------------------------------------
 *
 * allow.c
 *	  gt_allow and gt_disallow: which functions make up a right.
 *
 * Every process that serves SQL runs this; it owns no table.  A right is EXECUTE
 * on its functions, as GRANT gives it, and is held by whoever can execute its
 * marker function: so a plain GRANT counts as much, and pg_dump keeps it all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "garbagetruck.h"
#include "handler.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(gt_allow);
PG_FUNCTION_INFO_V1(gt_disallow);
PG_FUNCTION_INFO_V1(gt__may);

typedef struct Right
{
	const char *name;
	int			bit;
	const char *marker;			/* who can execute it has the right */
} Right;

static const Right rights[] = {
	{"lease", GT_RIGHT_LEASE, "gt_lease_create"},
	{"handler", GT_RIGHT_HANDLER, "gt_handler_create"},
	{"monitor", GT_RIGHT_MONITOR, "gt_metrics"},
	{"admin", GT_RIGHT_ADMIN, "gt_allow"},
};

/* The owner of a handler serves its queue too, so that is part of both rights. */
static const struct
{
	const char *function;
	int			rights;
}			functions[] = {
	{"gt_lease_create", GT_RIGHT_LEASE},
	{"gt_lease_grant", GT_RIGHT_LEASE},
	{"gt_lease_create_many", GT_RIGHT_LEASE},
	{"gt_lease_grant_each", GT_RIGHT_LEASE},
	{"gt_renew", GT_RIGHT_LEASE},
	{"gt_renew_many", GT_RIGHT_LEASE},
	{"gt_release", GT_RIGHT_LEASE},
	{"gt_release_many", GT_RIGHT_LEASE},
	{"gt_lease_update", GT_RIGHT_LEASE},
	{"gt_lease_get", GT_RIGHT_LEASE},
	{"gt_lease_list", GT_RIGHT_LEASE},
	{"gt_fence", GT_RIGHT_LEASE},
	{"gt_fence_check", GT_RIGHT_LEASE},
	{"gt_share", GT_RIGHT_LEASE},
	{"gt_unshare", GT_RIGHT_LEASE},
	{"gt_claim", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_ack", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_nack", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_extend", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_ack_many", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_redrive", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_pause", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_resume", GT_RIGHT_LEASE | GT_RIGHT_HANDLER},
	{"gt_handler_create", GT_RIGHT_HANDLER},
	{"gt_handler_drop", GT_RIGHT_HANDLER},
	{"gt_handler_grant", GT_RIGHT_HANDLER},
	{"gt_handler_revoke", GT_RIGHT_HANDLER},
	{"gt_forecast", GT_RIGHT_LEASE | GT_RIGHT_MONITOR},
	{"gt_metrics", GT_RIGHT_MONITOR},
	{"gt_reclaim", GT_RIGHT_HANDLER},	/* in a block: see reclaim.c */
	{"gt_check", 0},
	{"gt_allow", 0},
	{"gt_disallow", 0},
};

/* ---------------------------------------------------------------- the extension's functions */

/* OID of a function of ours; there are no overloads, but others may add some beside us. */
static Oid
function_oid(const char *name)
{
	Oid			result = InvalidOid;
	Oid			extension = gt_extension();
	Oid			schema = gt_schema();
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	int			i;

	for (i = 0; i < list->n_members && !OidIsValid(result); i++)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (proc->pronamespace == schema &&
			getExtensionOfObject(ProcedureRelationId, proc->oid) == extension)
			result = proc->oid;
	}
	ReleaseSysCacheList(list);
	if (!OidIsValid(result))
		elog(ERROR, "extension \"garbagetruck\" has no function \"%s\"", name);
	return result;
}

/* Can current_user execute the marker of this right? The views ask for each row, so the OIDs are kept. */
bool
gt_has_right(int bit)
{
	static Oid	extension = InvalidOid;
	static Oid	marker[lengthof(rights)];
	Oid			now = gt_extension();
	int			i;

	if (!OidIsValid(now))
		return false;
	for (i = 0; rights[i].bit != bit; i++)
		;
	if (extension != now)
		memset(marker, 0, sizeof(marker));
	extension = now;
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(marker[i])))
		marker[i] = function_oid(rights[i].marker);
	return object_aclcheck(ProcedureRelationId, marker[i], GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
}

/* Was EXECUTE on the marker granted to this very role (membership and PUBLIC aside)? */
static bool
was_allowed(Oid role, const Right *right)
{
	bool		found = false;
	bool		isnull;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function_oid(right->marker)));
	Datum		datum;

	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	if (!isnull)
	{
		AclItem		item;

		item.ai_grantee = role;
		item.ai_grantor = gt_owner();
		ACLITEM_SET_PRIVS_GOPTIONS(item, ACL_EXECUTE, ACL_NO_RIGHTS);
		found = DatumGetBool(DirectFunctionCall2(aclcontains, datum, PointerGetDatum(&item)));
	}
	ReleaseSysCache(tuple);
	return found;
}

/* ---------------------------------------------------------------- SQL functions */

/* The right in this argument. */
static const Right *
right_argument(FunctionCallInfo fcinfo, int arg)
{
	char	   *name;
	int			i;

	gt_must_not_be_null(fcinfo, arg, "what");
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	for (i = 0; i < (int) lengthof(rights); i++)
		if (strcmp(rights[i].name, name) == 0)
			return &rights[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown right \"%s\"", name),
			 errhint("The rights are lease, handler, monitor and admin.")));
	return NULL;				/* keep compiler quiet */
}

static void
must_be_admin(const char *function)
{
	if (!gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s: \"%s\" is no administrator of garbagetruck", function,
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Ask an administrator for gt_allow(role, 'admin').")));
}

/* GRANT or REVOKE EXECUTE on the functions that belong to `wanted`, but to none of `keep`. */
static void
change_rights(const char *verb, const char *preposition, int wanted, int keep, Oid role)
{
	StringInfoData sql;
	bool		any = false;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s EXECUTE ON ROUTINE ", verb);
	for (i = 0; i < (int) lengthof(functions); i++)
	{
		int			of = functions[i].rights | GT_RIGHT_ADMIN;

		if ((of & wanted) == 0 || (of & keep) != 0)
			continue;
		appendStringInfo(&sql, "%s%s", any ? ", " : "",
						 format_procedure_qualified(function_oid(functions[i].function)));
		any = true;
	}
	if (!any)
		return;
	appendStringInfo(&sql, " %s %s", preposition, quote_identifier(GetUserNameFromId(role, false)));
	gt_execute_as_owner(sql.data);
	CommandCounterIncrement();
}

/*
 * gt_allow(role, what DEFAULT 'lease')
 *
 * The grants are made by the extension's owner, whose functions they are.
 */
Datum
gt_allow(PG_FUNCTION_ARGS)
{
	Oid			role = gt_role_argument(fcinfo, 0, "role");
	const Right *right = right_argument(fcinfo, 1);

	gt_mark_write("gt_allow");
	must_be_admin("gt_allow");
	change_rights("GRANT", "TO", right->bit, 0, role);
	PG_RETURN_VOID();
}

/*
 * gt_disallow(role, what DEFAULT 'lease')
 *
 * What another right that the role holds needs as well, it keeps; taking
 * 'admin' back takes everything, as giving it gave everything.
 */
Datum
gt_disallow(PG_FUNCTION_ARGS)
{
	Oid			role = gt_role_argument(fcinfo, 0, "role");
	const Right *right = right_argument(fcinfo, 1);
	int			keep = 0;
	int			i;

	gt_mark_write("gt_disallow");
	must_be_admin("gt_disallow");
	if (right->bit != GT_RIGHT_ADMIN)
	{
		for (i = 0; i < (int) lengthof(rights); i++)
			if (rights[i].bit != right->bit && was_allowed(role, &rights[i]))
				keep |= rights[i].bit;
		if (keep & GT_RIGHT_ADMIN)
			ereport(NOTICE,
					(errmsg("role \"%s\" keeps '%s': its right 'admin' includes it",
							GetUserNameFromId(role, false), right->name)));
	}
	change_rights("REVOKE", "FROM", right->bit, keep, role);
	PG_RETURN_VOID();
}

/* gt__may(what): for the views: does current_user have this right? */
Datum
gt__may(PG_FUNCTION_ARGS)
{
	const Right *right;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	right = right_argument(fcinfo, 0);
	if (right->bit == GT_RIGHT_ADMIN)
		PG_RETURN_BOOL(gt_is_admin());
	if (right->bit == GT_RIGHT_MONITOR)
		PG_RETURN_BOOL(gt_is_monitor());
	PG_RETURN_BOOL(gt_is_admin() || gt_has_right(right->bit));
}
