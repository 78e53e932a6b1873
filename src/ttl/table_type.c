/*-------------------------------------------------------------------------
 *
 * table_type.c
 *	  The type of gt__ttl.relation: a table's OID, which in text is its name.
 *
 * As regclass, so that a dump names tables by what they are called when it is made;
 * but a name that means no table where it is restored is 0, and no error: one table
 * that was left out would else take all declarations with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(gt__table_in);
PG_FUNCTION_INFO_V1(gt__table_out);

Datum
gt__table_in(PG_FUNCTION_ARGS)
{
	List	   *names = NIL;
	Oid			schema;

	if (!SplitIdentifierString(pstrdup(PG_GETARG_CSTRING(0)), '.', &names) || list_length(names) != 2)
		PG_RETURN_OID(InvalidOid);
	schema = get_namespace_oid(linitial(names), true);
	PG_RETURN_OID(OidIsValid(schema) ? get_relname_relid(lsecond(names), schema) : InvalidOid);
}

/* Always with its schema. */
Datum
gt__table_out(PG_FUNCTION_ARGS)
{
	Oid			relation = PG_GETARG_OID(0);
	char	   *name = get_rel_name(relation);

	if (name == NULL)
		PG_RETURN_CSTRING(pstrdup("-"));
	PG_RETURN_CSTRING(quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), name));
}
