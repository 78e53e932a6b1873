/*-------------------------------------------------------------------------
 *
 * relations.c
 *	  The extension and what it owns: schemas, tables, sequences, indexes.
 *
 * Tables and indexes are found by name in the schema _garbagetruck that the
 * extension owns (one of that name that is not its own is none), and kept by OID
 * until the relation cache says that they have changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "shared/due.h"
#include "table/records.h"
#include "table/relations.h"
#include "table/table.h"

static const struct
{
	const char *name;
	int			natts;			/* columns that this library knows; those of an older script are fewer */
}			tables[GT_NTABLES] = {
	{"gt_object", O_NATTS},
	{"gt_lease", L_NATTS},
	{"gt__orphan", ORPHAN_NATTS},
	{"gt__handler", HANDLER_NATTS},
	{"gt__handler_right", HANDLER_RIGHT_NATTS},
	{"gt__share", SHARE_NATTS},
	{"gt__role", ROLE_NATTS},
	{"gt__tally", TALLY_NATTS},
	{"gt__run", RUN_NATTS},
	{"gt__start", START_NATTS},
	{"gt__place", PLACE_NATTS},
	{"gt__paused", PAUSED_NATTS},
	{"gt__history", HISTORY_NATTS},
	{"gt__ttl", TTL_NATTS},
};

StaticAssertDecl(O_NATTS <= GT_MAX_ATTS && L_NATTS <= GT_MAX_ATTS && HANDLER_NATTS <= GT_MAX_ATTS && HISTORY_NATTS <= GT_MAX_ATTS,
				 "a GtRow has room for the columns of every table");

static const char *const sequence_names[GT_NSEQUENCES] = {"gt__cleanup_id", "gt__handler_id"};

static const char *const index_names[GT_NINDEXES] = {
	"gt_object_pkey", "gt_object_due", "gt_object_cleanup", "gt_object_dead", "gt_object_claimed",
	"gt_lease_pkey", "gt_lease_check", "gt_lease_object", "gt_lease_service", "gt_lease_parent", "gt_lease_request",
	"gt__orphan_pkey", "gt__orphan_due", "gt__handler_pkey", "gt__handler_name", "gt__handler_right_pkey", "gt__share_pkey",
	"gt__role_pkey", "gt__tally_pkey", "gt__run_pkey", "gt__history_pkey", "gt__history_object", "gt__history_expired",
	"gt__ttl_pkey"
};

uint64		gt_table_changes = 0;

/* OIDs of the extension and of what it owns, while known */
static bool known = false;
static Oid	extension_oid;
static Oid	schema_oid;			/* of the public functions and views */
static Oid	own_schema_oid;		/* of all else */
static Oid	owner_oid;
static Oid	table_oids[GT_NTABLES];
static Oid	sequence_oids[GT_NSEQUENCES];
static Oid	index_oids[GT_NINDEXES];
static const char *missing = NULL;	/* one of them, where not all are there */

static bool
is_among(Oid oid, const Oid *oids, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (oids[i] == oid)
			return true;
	return false;
}

/* A relation has changed: forget what we know if it is one of ours. */
static void
forget(Datum arg, Oid relid)
{
	if (!known)
		return;
	if (!OidIsValid(relid) || is_among(relid, table_oids, GT_NTABLES) || is_among(relid, sequence_oids, GT_NSEQUENCES))
		known = false;
	if (!known)
		gt_table_changes++;
}

/* Where caches are discarded all the time, for tests, none can be told. */
bool
gt_relations_changed(void)
{
	return !known && debug_discard_caches == 0;
}

static bool
find_relation(const char *name, Oid *oid)
{
	*oid = get_relname_relid(name, own_schema_oid);
	missing = OidIsValid(*oid) ? NULL : name;
	return missing == NULL;
}

/* Finds all of them by their names; false: one is missing. */
static bool
find_relations(void)
{
	bool		found = true;
	int			i;

	for (i = 0; i < GT_NTABLES && found; i++)
		found = find_relation(tables[i].name, &table_oids[i]);
	for (i = 0; i < GT_NSEQUENCES && found; i++)
		found = find_relation(sequence_names[i], &sequence_oids[i]);
	for (i = 0; i < GT_NINDEXES && found; i++)
		found = find_relation(index_names[i], &index_oids[i]);
	return found;
}

/* Finds the extension in the catalog; false: it is not installed. */
static bool
look_up(void)
{
	static bool registered = false;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	if (known)
		return true;
	missing = NULL;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		registered = true;
	}

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("garbagetruck"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);

		extension_oid = form->oid;
		schema_oid = form->extnamespace;
		owner_oid = form->extowner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!HeapTupleIsValid(tuple))
		return false;
	own_schema_oid = get_namespace_oid("_garbagetruck", true);
	if (!OidIsValid(own_schema_oid) ||
		getExtensionOfObject(NamespaceRelationId, own_schema_oid) != extension_oid)
		return false;			/* being created or dropped */

	do
	{
		known = true;			/* before we look: an invalidation that comes meanwhile is not to be lost */
		if (!find_relations())
		{
			known = false;
			return false;		/* being created or dropped */
		}
	} while (gt_relations_changed());
	(void) gt_my_database();	/* the first call here tells the launcher of this database */
	return true;
}

/* The same, for those who can not do without. */
static void
must_know(void)
{
	if (look_up())
		return;
	if (missing != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("_garbagetruck.%s of extension \"garbagetruck\" is not there", missing),
				 errdetail("Somebody has dropped or renamed it: without it nothing is written, and nothing is cleaned."),
				 errhint("The script of the extension has the statement that makes it.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"garbagetruck\" is not installed in this database"),
			 errhint("CREATE EXTENSION garbagetruck;")));
}

/* OID of the extension, or InvalidOid where it is not installed. Reads catalogs: in a transaction only. */
Oid
gt_extension(void)
{
	return look_up() ? extension_oid : InvalidOid;
}

Oid
gt_schema(void)
{
	must_know();
	return schema_oid;
}

/* Where the tables and everything internal is. */
Oid
gt_own_schema(void)
{
	must_know();
	return own_schema_oid;
}

/* The role that owns the extension. */
Oid
gt_owner(void)
{
	must_know();
	return owner_oid;
}

Oid
gt_relid(GtTableId id)
{
	must_know();
	return table_oids[id];
}

int
gt_table_natts(GtTableId id)
{
	return tables[id].natts;
}

Oid
gt_sequence(GtSequenceId id)
{
	must_know();
	return sequence_oids[id];
}

Oid
gt_index(GtIndexId id)
{
	must_know();
	return index_oids[id];
}
