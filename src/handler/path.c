/*-------------------------------------------------------------------------
 *
 * path.c
 *	  The search_path of SQL handlers: stored at registration, judged before each batch.
 *
 * Whoever may create objects in a schema of the path can change what a command
 * means, and have it run as the role of its runs.  So a schema in which anybody may
 * create but that role, members of it and superusers is left out when the handler
 * is registered; one that has become so since suspends it.
 *
 * Names are stored, since a schema that is made anew is to be found again; so it is
 * judged as it is now: by its owner, who may always create, and by its grants.  A
 * name that stands for no schema is left out of the path of a run: it may come to
 * stand for anybody's while that goes on.
 *
 * Reads catalogs, in every process that serves SQL; holds nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "handler/handler.h"
#include "handler/path.h"
#include "rights/roles.h"

static Oid
database_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_DATABASE),
				 errmsg("database with OID %u does not exist", MyDatabaseId)));
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return owner;
}

/* Can this role do already whatever a run as run_as could do for it? */
static bool
is_trusted(Oid role, Oid run_as)
{
	if (role == ROLE_PG_DATABASE_OWNER)
		role = database_owner();
	return superuser_arg(role) || has_privs_of_role(role, run_as) || member_can_set_role(role, run_as);
}

/* Who else may create objects in this schema, as people name him; NULL: nobody. */
static const char *
intruder(Oid schema, Oid run_as)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	const char *who = NULL;
	Oid			owner;
	Datum		datum;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return NULL;			/* dropped a moment ago */
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	datum = SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspacl, &isnull);
	if (!is_trusted(owner, run_as))
		who = psprintf("its owner \"%s\"", gt_role_name(owner));
	else if (!isnull)
	{
		Acl		   *acl = DatumGetAclPCopy(datum);
		AclItem    *items = (AclItem *) ((char *) acl + ARR_OVERHEAD_NONULLS(ARR_NDIM(acl)));
		int			i;

		for (i = 0; i < ACL_NUM(acl) && who == NULL; i++)
		{
			if ((ACLITEM_GET_PRIVS(items[i]) & ACL_CREATE) == 0)
				continue;
			if (items[i].ai_grantee == ACL_ID_PUBLIC)
				who = "everybody (PUBLIC)";
			else if (!is_trusted(items[i].ai_grantee, run_as))
				who = psprintf("role \"%s\"", gt_role_name(items[i].ai_grantee));
		}
	}
	ReleaseSysCache(tuple);
	return who;
}

/*
 * The search_path of this call, as it is to be stored for a handler that runs as
 * this role: schemas that exist and that current_user may use ($user among them),
 * but those that are open, and pg_temp last, where it hides nothing.
 */
char *
gt_path_to_store(const char *handler, Oid run_as)
{
	StringInfoData path;
	StringInfoData left_out;
	StringInfoData because;
	ListCell   *cell;

	initStringInfo(&path);
	initStringInfo(&left_out);
	initStringInfo(&because);
	foreach(cell, fetch_search_path(false))
	{
		Oid			schema = lfirst_oid(cell);
		const char *name = get_namespace_name(schema);
		const char *who;

		if (name == NULL || isAnyTempNamespace(schema))
			continue;
		name = quote_identifier(name);
		who = intruder(schema, run_as);
		if (who == NULL)
		{
			appendStringInfo(&path, "%s, ", name);
			continue;
		}
		appendStringInfo(&left_out, "%s%s", left_out.len > 0 ? ", " : "", name);
		appendStringInfo(&because, "%s%s may create objects in %s", because.len > 0 ? ", " : "", who, name);
	}
	if (left_out.len > 0)
		ereport(NOTICE,
				(errmsg("handler \"%s\" runs without these schemas of the search_path: %s", handler, left_out.data),
				 errdetail("It runs as role \"%s\", and could be made to run anything: %s.",
						   gt_role_name(run_as), because.data),
				 errhint("Name such objects with their schema; or REVOKE CREATE ON SCHEMA, and register the handler again.")));
	if (path.len == 0)
		appendStringInfoString(&path, "pg_catalog, ");
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/* The OIDs of the schemas that a stored path means now. */
static List *
schemas_of(const GtHandler *h)
{
	List	   *schemas = NIL;
	List	   *names;
	ListCell   *cell;

	if (!SplitIdentifierString(pstrdup(h->search_path), ',', &names))
		return NIL;
	foreach(cell, names)
	{
		Oid			schema = strcmp(lfirst(cell), "pg_temp") == 0 ? InvalidOid : get_namespace_oid(lfirst(cell), true);

		if (OidIsValid(schema))
			schemas = lappend_oid(schemas, schema);
	}
	return schemas;
}

/* The search_path of a run. */
char *
gt_path_of_run(const GtHandler *h)
{
	StringInfoData path;
	ListCell   *cell;

	initStringInfo(&path);
	foreach(cell, schemas_of(h))
	{
		char	   *name = get_namespace_name(lfirst_oid(cell));

		if (name != NULL)		/* else it was dropped a moment ago */
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	if (path.len == 0)
		appendStringInfoString(&path, "pg_catalog, ");
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/* Which schema of its path is open now, and to whom; NULL: none. pg_catalog is in every path. */
const char *
gt_path_open(const GtHandler *h)
{
	List	   *schemas = lappend_oid(schemas_of(h), PG_CATALOG_NAMESPACE);
	ListCell   *cell;

	foreach(cell, schemas)
	{
		const char *who = intruder(lfirst_oid(cell), h->run_as);

		if (who != NULL)
			return psprintf("%s may create objects in schema \"%s\" of its search_path: "
							"its owner can register it anew, without that schema",
							who, get_namespace_name(lfirst_oid(cell)));
	}
	return NULL;
}
