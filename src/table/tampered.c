/*-------------------------------------------------------------------------
 *
 * tampered.c
 *	  What others have put on our tables, and what rights they were given on them.
 *
 * Every process that serves SQL runs this; it writes and locks nothing.
 *
 * Our writes go below SQL: they fire no trigger, apply no rule, check no
 * constraint and know no column but our own.  While somebody relies on a trigger
 * (pg_repack, a replication by triggers, a foreign key), on a rule, a check or a column
 * there, nothing is written: he would miss it, and nobody would notice.  That is
 * judged by each gt_open() for writing, under its lock, which CREATE TRIGGER and
 * the like conflict with; workers ask before they begin.
 *
 * Who can write our tables can have SQL run as anybody, for the workers trust
 * what stands there.  So no SQL handler runs while a role has that right; what
 * is found is kept until a relation of ours or a role changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "table/relations.h"
#include "table/schema.h"
#include "table/tampered.h"

#define OWN_TRIGGER "gt__handler_restored"	/* of gt__handler: for pg_restore, see register.c */

#define OWN_CHECK "gt_object_held"	/* of gt_object */

/* with these the workers could be made to run SQL as somebody else */
#define WRITING (ACL_INSERT | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE | ACL_TRIGGER)

static uint64 changes = 1;		/* of roles; of relations: gt_table_changes */

static void
forget(Datum arg, int cacheid, uint32 hashvalue)
{
	changes++;
}

/* What a cache of this file is good for: it changes with all that the cache may depend on. */
static uint64
state_of_catalog(void)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterSyscacheCallback(AUTHOID, forget, (Datum) 0);
	registered = true;
	(void) gt_schema();			/* finds the tables, so that we hear of their changes */
	return changes + gt_table_changes;
}

typedef struct Known
{
	uint64		at;				/* state_of_catalog() then; 0: never */
	char	   *what;			/* in TopMemoryContext; NULL: nothing */
} Known;

/* What `look` finds: it looks again only when the catalog has changed since. */
static const char *
look_once(Known *known, const char *(*look) (void))
{
	uint64		now = state_of_catalog();
	const char *found;

	if (known->at == now)
		return known->what;
	found = look();
	if (known->what != NULL)
		pfree(known->what);
	known->what = NULL;
	if (found != NULL)
		known->what = MemoryContextStrdup(TopMemoryContext, found);
	known->at = now;
	return known->what;
}

/* For SQL: the name with its schema. */
static char *
qualified(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/* ---------------------------------------------------------------- triggers, rules, columns */

/* Would SQL fire it here and now? What TRUNCATE fires does not matter: we do not truncate. */
static bool
would_fire(char enabled)
{
	switch (enabled)
	{
		case TRIGGER_DISABLED:
			return false;
		case TRIGGER_FIRES_ON_ORIGIN:
			return SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
		case TRIGGER_FIRES_ON_REPLICA:
			return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
	}
	return true;
}

static bool
is_in_the_way(const Trigger *trigger)
{
	return (trigger->tgtype & (TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)) != 0 &&
		would_fire(trigger->tgenabled) &&
		(trigger->tgisinternal || strcmp(trigger->tgname, OWN_TRIGGER) != 0);
}

/* A foreign key is the constraint of the table that refers. */
static void
describe_trigger(Oid relid, const Trigger *trigger, GtObstacle *o)
{
	char	   *constraint = OidIsValid(trigger->tgconstraint) ? get_constraint_name(trigger->tgconstraint) : NULL;
	Oid			on = RI_FKey_trigger_type(trigger->tgfoid) == RI_TRIGGER_PK ? trigger->tgconstrrelid : relid;

	if (!trigger->tgisinternal || constraint == NULL)
	{
		o->what = psprintf("table %s has the trigger \"%s\"", qualified(relid), trigger->tgname);
		o->remedy = psprintf("DROP TRIGGER %s ON %s;", quote_identifier(trigger->tgname), qualified(relid));
		return;
	}
	o->what = psprintf("table %s has the triggers of constraint \"%s\" of table %s", qualified(relid), constraint,
					   qualified(on));
	o->remedy = psprintf("ALTER TABLE %s DROP CONSTRAINT %s;", qualified(on), quote_identifier(constraint));
}

static bool
find_trigger(Relation rel, GtObstacle *o)
{
	int			i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (is_in_the_way(&rel->trigdesc->triggers[i]))
		{
			describe_trigger(RelationGetRelid(rel), &rel->trigdesc->triggers[i], o);
			return true;
		}
	return false;
}

static bool
find_rule(Relation rel, GtObstacle *o)
{
	int			i;

	for (i = 0; rel->rd_rules != NULL && i < rel->rd_rules->numLocks; i++)
		if (would_fire(rel->rd_rules->rules[i]->enabled))
		{
			ObjectAddress rule;
			char	   *name;	/* with that of its table, quoted */

			ObjectAddressSet(rule, RewriteRelationId, rel->rd_rules->rules[i]->ruleId);
			name = getObjectIdentity(&rule, false);
			o->what = psprintf("table %s has a rule (%s)", qualified(RelationGetRelid(rel)), name);
			o->remedy = psprintf("DROP RULE %s;", name);
			return true;
		}
	return false;
}

static bool
find_column(Relation rel, int natts, GtObstacle *o)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	for (i = natts; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
		{
			const char *name = NameStr(TupleDescAttr(desc, i)->attname);

			o->what = psprintf("table %s has the column \"%s\"", qualified(RelationGetRelid(rel)), name);
			o->remedy = psprintf("ALTER TABLE %s DROP COLUMN %s;", qualified(RelationGetRelid(rel)), quote_identifier(name));
			return true;
		}
	return false;
}

static bool
find_check(Relation rel, GtObstacle *o)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	int			i;

	for (i = 0; constraints != NULL && i < constraints->num_check; i++)
		if (strcmp(constraints->check[i].ccname, OWN_CHECK) != 0)
		{
			const char *name = constraints->check[i].ccname;

			o->what = psprintf("table %s has the constraint \"%s\"", qualified(RelationGetRelid(rel)), name);
			o->remedy = psprintf("ALTER TABLE %s DROP CONSTRAINT %s;", qualified(RelationGetRelid(rel)), quote_identifier(name));
			return true;
		}
	return false;
}

/* Is there something on this table that our writes would pass over? Cheap where there is nothing. */
static bool
find_obstacle(Relation rel, int natts, GtObstacle *o)
{
	return find_check(rel, o) ||
		(rel->trigdesc != NULL && find_trigger(rel, o)) ||
		(rel->rd_rules != NULL && find_rule(rel, o)) ||
		(RelationGetDescr(rel)->natts > natts && find_column(rel, natts, o));
}

void
gt_must_be_ours_alone(Relation rel, int natts)
{
	GtObstacle	o;

	if (find_obstacle(rel, natts, &o))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s, which garbagetruck's writes would pass over", o.what),
				 errdetail("While it is there nothing is written, so that nothing is lost to whoever relies on it."),
				 errhint("To shrink the table use VACUUM FULL, REINDEX CONCURRENTLY or pg_squeeze, not pg_repack;"
						 " to follow its changes, logical replication. To take it away: %s", o.remedy)));
}

List *
gt_table_obstacles(void)
{
	List	   *list = NIL;
	int			i;

	for (i = 0; i < GT_NTABLES; i++)
	{
		GtObstacle	o;
		Relation	rel = try_table_open(gt_relid(i), AccessShareLock);

		if (rel == NULL)
			continue;
		if (find_obstacle(rel, gt_table_natts(i), &o))
			list = lappend(list, memcpy(palloc(sizeof(o)), &o, sizeof(o)));
		table_close(rel, AccessShareLock);
	}
	return list;
}

static const char *
first_obstacle(void)
{
	List	   *list = gt_table_obstacles();

	return list != NIL ? ((GtObstacle *) linitial(list))->what : NULL;
}

const char *
gt_tables_obstructed(void)
{
	static Known known;

	return look_once(&known, first_obstacle);
}

/* ---------------------------------------------------------------- rights */

/* "INSERT, UPDATE", of what one may do with a table or a column. */
static char *
privileges(AclMode mode, const char *column)
{
	static const struct
	{
		AclMode		bit;
		const char *name;
	}			names[] = {
		{ACL_SELECT, "SELECT"}, {ACL_INSERT, "INSERT"}, {ACL_UPDATE, "UPDATE"},
		{ACL_DELETE, "DELETE"}, {ACL_TRUNCATE, "TRUNCATE"}, {ACL_TRIGGER, "TRIGGER"}
	};
	StringInfoData result;
	int			i;

	initStringInfo(&result);
	for (i = 0; i < (int) lengthof(names); i++)
		if (mode & names[i].bit)
		{
			appendStringInfo(&result, "%s%s", result.len > 0 ? ", " : "", names[i].name);
			if (column != NULL)
				appendStringInfo(&result, " (%s)", quote_identifier(column));
		}
	return result.data;
}

/* "role x" and, for SQL, x */
static char *
grantee(Oid role, bool sql)
{
	if (role == ACL_ID_PUBLIC)
		return "PUBLIC";
	return sql ? pstrdup(quote_identifier(GetUserNameFromId(role, false))) :
		psprintf("role \"%s\"", GetUserNameFromId(role, false));
}

static void
add_tampering(List **list, bool suspends, char *what, char *remedy)
{
	GtTampering *t = palloc(sizeof(GtTampering));

	t->suspends = suspends;
	t->what = what;
	t->remedy = remedy;
	*list = lappend(*list, t);
}

/* What this list gives to others. What was not given by the owner goes with what its giver has. */
static void
judge_acl(List **list, Acl *acl, Oid owner, const char *kind, const char *relation, const char *column)
{
	AclItem    *items = (AclItem *) ((char *) acl + ARR_OVERHEAD_NONULLS(1));	/* ACL_DAT() warns */
	int			i;

	for (i = 0; i < ACL_NUM(acl); i++)
	{
		AclItem    *item = &items[i];
		AclMode		mode = ACLITEM_GET_PRIVS(*item) & (WRITING | ACL_SELECT);
		char	   *names = privileges(mode, column);

		if (mode == 0 || item->ai_grantee == owner || item->ai_grantee == ROLE_PG_WRITE_ALL_DATA ||
			(item->ai_grantee != ACL_ID_PUBLIC && superuser_arg(item->ai_grantee)))
			continue;
		add_tampering(list, (mode & WRITING) != 0,
					  psprintf("%s has %s on %s %s", grantee(item->ai_grantee, false), names, kind, relation),
					  psprintf("REVOKE %s ON %s %s FROM %s CASCADE;", names, kind, relation,
							   grantee(item->ai_grantor == owner ? item->ai_grantee : item->ai_grantor, true)));
	}
}

static void
judge_columns(List **list, Oid relid, Oid owner, int natts, const char *relation)
{
	int			i;

	for (i = 1; i <= natts; i++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(i));
		bool		isnull;
		Datum		acl;

		if (!HeapTupleIsValid(tuple))
			continue;
		acl = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
		if (!isnull)
			judge_acl(list, DatumGetAclPCopy(acl), owner, "TABLE", relation,
					  NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname));
		ReleaseSysCache(tuple);
	}
}

static void
judge_relation(List **list, Oid relid, const char *kind)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	char	   *relation;
	bool		isnull;
	Datum		acl;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_class) GETSTRUCT(tuple);
	relation = qualified(relid);
	if (form->relowner != gt_owner() && !superuser_arg(form->relowner))
		add_tampering(list, true, psprintf("%s %s belongs to %s", kind, relation, grantee(form->relowner, false)),
					  psprintf("ALTER %s %s OWNER TO %s;", kind, relation, grantee(gt_owner(), true)));
	acl = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	if (!isnull)
		judge_acl(list, DatumGetAclPCopy(acl), form->relowner, kind, relation, NULL);
	judge_columns(list, relid, form->relowner, form->relnatts, relation);
	ReleaseSysCache(tuple);
}

List *
gt_table_tamperings(void)
{
	List	   *list = NIL;
	int			i;

	for (i = 0; i < GT_NTABLES; i++)
		judge_relation(&list, gt_relid(i), "TABLE");
	for (i = 0; i < GT_NSEQUENCES; i++)
		judge_relation(&list, gt_sequence(i), "SEQUENCE");
	return list;
}

static const char *
first_suspension(void)
{
	ListCell   *cell;

	foreach(cell, gt_table_tamperings())
	{
		GtTampering *t = lfirst(cell);

		if (t->suspends)
			return t->what;
	}
	return NULL;
}

const char *
gt_tables_tampered(void)
{
	static Known known;

	return look_once(&known, first_suspension);
}
