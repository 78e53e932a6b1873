/*-------------------------------------------------------------------------
 *
 * may.c
 *	  What makes up a right, who has it, and who is an administrator.
 *
 * Every process that serves SQL runs this; it owns no table.  A right is EXECUTE
 * on its mark, a function of the schema _garbagetruck; pg_dump keeps it as any
 * grant.  gt_allow() gives the mark and EXECUTE on the public functions that the
 * right is for, so that has_function_privilege() tells the truth.  To have
 * EXECUTE on the public function alone is not enough: "all functions in schema
 * public" and default privileges give that to roles of which nobody thought.
 * gt_must_be_allowed() asks for the mark, and every public function asks it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/arguments.h"
#include "base/compat.h"
#include "base/text.h"
#include "rights/may.h"
#include "rights/right.h"
#include "table/relations.h"

PG_FUNCTION_INFO_V1(gt__mark);
PG_FUNCTION_INFO_V1(gt__may);
PG_FUNCTION_INFO_V1(gt__may_look);

const GtRight gt_rights[GT_NRIGHTS] = {
	{"lease", GT_RIGHT_LEASE, "gt__mark_lease"},
	{"handler", GT_RIGHT_HANDLER, "gt__mark_handler"},
	{"monitor", GT_RIGHT_MONITOR, "gt__mark_monitor"},
	{"admin", GT_RIGHT_ADMIN, "gt__mark_admin"},
};

/*
 * Who may call what; 'admin' may call all.  Whoever has a right has the views,
 * and the functions that they call as their reader.  The owner of a handler
 * serves its queue too, so that is part of both rights.
 */
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
	{"gt_ttl_create", GT_RIGHT_HANDLER},
	{"gt_ttl_drop", GT_RIGHT_HANDLER},
	{"gt__ttl_wake", GT_RIGHT_HANDLER},	/* whoever restores a table makes its trigger */
	{"gt_reclaim", GT_RIGHT_HANDLER},	/* in a block: see reclaim.c */
	{"gt_forecast", GT_RIGHT_ANY},
	{"gt_metrics", GT_RIGHT_MONITOR},
	{"gt_check", 0},
	{"gt_allow", 0},
	{"gt_disallow", 0},
	{"gt__may", GT_RIGHT_ANY},
	{"gt__may_look", GT_RIGHT_ANY},
	{"gt__acts_for", GT_RIGHT_ANY},
	{"gt__role_name", GT_RIGHT_ANY},
	{"gt__deadline", GT_RIGHT_ANY},
	{"gt__renewed_at", GT_RIGHT_ANY},
	{"gt__renewals", GT_RIGHT_ANY},
	{"gt__running", GT_RIGHT_ANY},
	{"gt__running_items", GT_RIGHT_ANY},
	{"gt__handler_may", GT_RIGHT_ANY},
	{"gt__handler_suspended", GT_RIGHT_ANY},
	{"gt__workers", GT_RIGHT_ANY},
	{"gt__ttl_sees", GT_RIGHT_ANY},
};

/*
 * OID of a function of ours; there are no overloads, but others may add some
 * beside us.  InvalidOid: the extension's script is older than the library.
 */
static Oid
function_oid(const char *name)
{
	Oid			result = InvalidOid;
	Oid			extension = gt_extension();
	Oid			schema = strncmp(name, "gt__", 4) == 0 ? gt_own_schema() : gt_schema();
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
	return result;
}

/* The mark of a right. It is asked for with each call and for each row of a view, so the OIDs are kept. */
Oid
gt_right_mark(const GtRight *right)
{
	static Oid	extension = InvalidOid;
	static Oid	marks[lengthof(gt_rights)];
	Oid		   *mark = &marks[right - gt_rights];

	if (extension != gt_extension())
		memset(marks, 0, sizeof(marks));
	extension = gt_extension();
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(*mark)))
		*mark = function_oid(right->mark);
	if (!OidIsValid(*mark))
		elog(ERROR, "extension \"garbagetruck\" has no function \"%s\"", right->mark);
	return *mark;
}

/* Which of these rights this role has, by whatever way. */
int
gt_rights_of(Oid role, int wanted)
{
	int			result = 0;
	int			i;

	for (i = 0; i < (int) lengthof(gt_rights); i++)
		if ((gt_rights[i].bit & wanted) != 0 &&
			object_aclcheck(ProcedureRelationId, gt_right_mark(&gt_rights[i]), role, ACL_EXECUTE) == ACLCHECK_OK)
			result |= gt_rights[i].bit;
	return result;
}

uint64		gt_rights_asked = 0;

bool
gt_has_right(int bits)
{
	gt_rights_asked++;
	return OidIsValid(gt_extension()) &&
		(gt_rights_of(GetUserId(), bits) != 0 || gt_rights_of(GetUserId(), GT_RIGHT_ADMIN) != 0);
}

bool
gt_is_admin(void)
{
	return superuser() || has_privs_of_role(GetUserId(), gt_owner()) || gt_has_right(GT_RIGHT_ADMIN);
}

bool
gt_is_monitor(void)
{
	return gt_has_right(GT_RIGHT_MONITOR) || gt_is_admin();	/* pg_monitor was given it by the script */
}

/* For an error: the first right in a set that 'admin' always belongs to. */
static const char *
name_of_right(int bits)
{
	int			i;

	for (i = 0; (gt_rights[i].bit & (bits | GT_RIGHT_ADMIN)) == 0; i++)
		;
	return gt_rights[i].name;
}

void
gt_must_be_allowed(const char *function)
{
	size_t		length = strcspn(function, "(");
	int			i;

	for (i = 0; i < (int) lengthof(functions); i++)
		if (strncmp(functions[i].function, function, length) == 0 && functions[i].function[length] == '\0')
			break;
	if (i == (int) lengthof(functions))
		elog(ERROR, "no right is known for function \"%s\"", function);
	if (gt_has_right(functions[i].rights))
		return;
	(void) gt_own_schema();		/* where the extension is not whole, that is what is wrong */
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for function %s", functions[i].function),
			 errdetail("EXECUTE on it is not enough: role \"%s\" was not given the right '%s'.",
					   GetUserNameFromId(GetUserId(), false), name_of_right(functions[i].rights)),
			 errhint("An administrator of garbagetruck can: SELECT gt_allow(%s, '%s');",
					 quote_literal_cstr(GetUserNameFromId(GetUserId(), false)),
					 name_of_right(functions[i].rights))));
}

/* The right in this argument. */
const GtRight *
gt_right_argument(FunctionCallInfo fcinfo, int arg)
{
	char	   *name;
	int			i;

	gt_must_not_be_null(fcinfo, arg, "what");
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	for (i = 0; i < (int) lengthof(gt_rights); i++)
		if (strcmp(gt_rights[i].name, name) == 0)
			return &gt_rights[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown right \"%s\"", gt_shown(name)),
			 errhint("The rights are lease, handler, monitor and admin.")));
	return NULL;				/* keep compiler quiet */
}

/* The mark is the first of them. */
char *
gt_right_routines(const GtRight *wanted, int keep)
{
	StringInfoData routines;
	int			i;

	initStringInfo(&routines);
	appendStringInfoString(&routines, format_procedure_qualified(gt_right_mark(wanted)));
	for (i = 0; i < (int) lengthof(functions); i++)
	{
		int			of = functions[i].rights | GT_RIGHT_ADMIN;
		Oid			oid = function_oid(functions[i].function);

		if ((of & wanted->bit) != 0 && (of & keep) == 0 && OidIsValid(oid))
			appendStringInfo(&routines, ", %s", format_procedure_qualified(oid));
	}
	return routines.data;
}

/* gt__mark_lease() and its like: whoever may execute it has the right. */
Datum
gt__mark(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}

/* gt__may(what): for the views: does current_user have this right? */
Datum
gt__may(PG_FUNCTION_ARGS)
{
	const GtRight *right;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	right = gt_right_argument(fcinfo, 0);
	if (right->bit == GT_RIGHT_ADMIN)
		PG_RETURN_BOOL(gt_is_admin());
	if (right->bit == GT_RIGHT_MONITOR)
		PG_RETURN_BOOL(gt_is_monitor());
	PG_RETURN_BOOL(gt_is_admin() || gt_has_right(right->bit));
}

/*
 * gt__may_look(): what each view asks before it reads a row: SELECT on it is not
 * enough, as EXECUTE is not.  Without it a role that may see nothing could tell
 * from EXPLAIN (ANALYZE) what there is.
 */
Datum
gt__may_look(PG_FUNCTION_ARGS)
{
	if (!gt_has_right(GT_RIGHT_ANY))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the views of garbagetruck"),
				 errdetail("SELECT on them is not enough: role \"%s\" was given none of the rights.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("An administrator of garbagetruck can: SELECT gt_allow(%s);",
						 quote_literal_cstr(GetUserNameFromId(GetUserId(), false)))));
	PG_RETURN_BOOL(true);
}
