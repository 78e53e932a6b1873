/*-------------------------------------------------------------------------
 *
 * allow.c
 *	  gt_allow() and gt_disallow(): rights are given and taken back.
 *
 * Every process that serves SQL runs this; it owns no table.  The grants are made by
 * the extension's owner, one administrator after the other.  Others write the same
 * rows of the catalogs, by DROP OWNED or a GRANT by hand: GRANT waits for them and then
 * fails, so it is given again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/arguments.h"
#include "base/transaction.h"
#include "rights/may.h"
#include "rights/owner.h"
#include "rights/right.h"
#include "rights/writing.h"
#include "table/relations.h"

PG_FUNCTION_INFO_V1(gt_allow);
PG_FUNCTION_INFO_V1(gt_disallow);
PG_FUNCTION_INFO_V1(gt__revoke_all);

static const char *const views[] = {"gt_leases", "gt_garbage", "gt_dead", "gt_handlers", "gt_history", "gt_workers",
"gt_ttls"};

/* ---------------------------------------------------------------- the extension's functions */

/* Was EXECUTE on the mark granted to this very role (membership and PUBLIC aside)? */
static bool
was_allowed(Oid role, const GtRight *right)
{
	bool		found = false;
	bool		isnull;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(gt_right_mark(right)));
	Datum		datum;

	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	if (!isnull)
	{
		AclItem		item;

		item.ai_grantee = role;
		item.ai_grantor = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ACLITEM_SET_PRIVS_GOPTIONS(item, ACL_EXECUTE, ACL_NO_RIGHTS);
		found = DatumGetBool(DirectFunctionCall2(aclcontains, datum, PointerGetDatum(&item)));
	}
	ReleaseSysCache(tuple);
	return found;
}

/* ---------------------------------------------------------------- SQL functions */

static void
try_as_owner(void *sql)
{
	gt_execute_as_owner(sql);
}

/* Had GRANT read a row of a catalog that somebody else was changing? He has committed since. */
static bool
was_overtaken(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_INTERNAL_ERROR && strncmp(error->message, "tuple concurrently ", 19) == 0;
}

/* GRANT or REVOKE, by the extension's owner, what is there of a list. */
static void
change_grants(const char *verb, const char *what, const char *list, Oid role)
{
	char	   *sql;
	ErrorData  *error;

	if (list[0] == '\0')
		return;
	sql = psprintf("%s %s %s %s %s", verb, what, list, verb[0] == 'G' ? "TO" : "FROM",
				   quote_identifier(GetUserNameFromId(role, false)));
	while ((error = gt_try(try_as_owner, sql)) != NULL)
	{
		if (!was_overtaken(error))
			ReThrowError(error);
		FreeErrorData(error);
		CHECK_FOR_INTERRUPTS();
	}
	CommandCounterIncrement();
}

/* What belongs to the rights `wanted`, but to none of `keep`: functions, the mark, and the views where keep is none. */
static void
change_rights(const char *verb, const GtRight *wanted, int keep, Oid role)
{
	StringInfoData tables;
	int			i;

	initStringInfo(&tables);
	for (i = 0; i < (int) lengthof(views) && keep == 0; i++)
		appendStringInfo(&tables, "%s%s", i > 0 ? ", " : "",
						 quote_qualified_identifier(get_namespace_name(gt_schema()), views[i]));
	change_grants(verb, "EXECUTE ON ROUTINE", gt_right_routines(wanted, keep), role);
	change_grants(verb, "SELECT ON TABLE", tables.data, role);
}

/* To the end of the transaction nobody else gives or takes a right: GRANT fails where two change the same function. */
static void
lock_rights(void)
{
	LockDatabaseObject(ProcedureRelationId, gt_right_mark(&gt_rights[0]), 0, ExclusiveLock);
}

/*
 * gt_allow(role, what DEFAULT 'lease')
 *
 * The grants are made by the extension's owner, whose functions they are.
 */
Datum
gt_allow(PG_FUNCTION_ARGS)
{
	Oid			role;
	const GtRight *right;

	gt_mark_write("gt_allow");
	role = gt_role_argument(fcinfo, 0, "role");
	right = gt_right_argument(fcinfo, 1);
	lock_rights();
	change_rights("GRANT", right, 0, role);
	PG_RETURN_VOID();
}

/*
 * gt_disallow(role, what DEFAULT 'lease')
 *
 * What another right that the role was given needs as well, it keeps: also
 * those that were given beside 'admin', when that is taken back.
 */
Datum
gt_disallow(PG_FUNCTION_ARGS)
{
	Oid			role;
	const GtRight *right;
	const char *name;
	int			keep = 0;
	int			i;

	gt_mark_write("gt_disallow");
	role = gt_role_argument(fcinfo, 0, "role");
	right = gt_right_argument(fcinfo, 1);
	lock_rights();
	for (i = 0; i < (int) lengthof(gt_rights); i++)
		if (gt_rights[i].bit != right->bit && was_allowed(role, &gt_rights[i]))
			keep |= gt_rights[i].bit;
	change_rights("REVOKE", right, keep, role);

	name = GetUserNameFromId(role, false);
	if (keep & GT_RIGHT_ADMIN)
		ereport(NOTICE,
				(errmsg("role \"%s\" keeps '%s': its right 'admin' includes it", name, right->name)));
	else if (gt_rights_of(role, right->bit) != 0)
		ereport(NOTICE,
				(errmsg("role \"%s\" still has '%s': as a superuser, by a role that it is a member of, or by another's grant", name,
						right->name)));
	PG_RETURN_VOID();
}

/*
 * gt__revoke_all(): the last but one that CREATE EXTENSION does: nobody has
 * anything.  Default privileges may have given all sorts of roles a right on
 * what the script has made, and PUBLIC has EXECUTE on every new function.
 */
Datum
gt__revoke_all(PG_FUNCTION_ARGS)
{
	static const char *const sql =
		"SELECT DISTINCT format('REVOKE ALL ON %%s %%s FROM %%s', CASE i.type WHEN 'view' THEN 'table' ELSE i.type END,"
		" i.identity, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)"
		" FROM (SELECT d.classid, d.objid, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl, p.proowner AS owner"
		"   FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = %1$u AND d.deptype = 'e'"
		"  UNION ALL SELECT d.classid, d.objid, c.relacl, c.relowner"
		"   FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = %1$u AND d.deptype = 'e'"
		"  UNION ALL SELECT d.classid, d.objid, n.nspacl, n.nspowner"
		"   FROM pg_depend d JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND n.oid = d.objid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = %1$u AND d.deptype = 'e'"
		"  UNION ALL SELECT d.classid, d.objid, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner"
		"   FROM pg_depend d JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = %1$u AND d.deptype = 'e' AND t.typtype = 'b' AND t.typelem = 0) o,"
		" pg_identify_object(o.classid, o.objid, 0) i, aclexplode(o.acl) a WHERE a.grantee <> o.owner";
	GtSwitch	save;
	SPITupleTable *rows;
	uint64		n;
	uint64		i;

	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute(psprintf(sql, gt_extension()), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the grants of the extension");
	rows = SPI_tuptable;
	n = SPI_processed;
	for (i = 0; i < n; i++)
		if (SPI_execute(SPI_getvalue(rows->vals[i], rows->tupdesc, 1), false, 0) < 0)
			elog(ERROR, "could not take back the grants of the extension");
	SPI_finish();
	gt_become_user(&save);
	PG_RETURN_VOID();
}
