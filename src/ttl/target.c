/*-------------------------------------------------------------------------
 *
 * target.c
 *	  What a row TTL goes by of its table: the deadline, its index, the key.
 *
 * Sessions that declare it, workers and views run this, always as the table's owner
 * (or as somebody who could become him).  Whoever asks how row TTLs do, gt_health() in an
 * administrator's session among them, must not have anything of his called there: so
 * constants are folded only where all functions are the server's own, and what the
 * relation cache would fold is read from the catalog.
 *
 * The deadline is kept as text with all names qualified, since a dump must carry it;
 * it is analyzed anew by whoever needs it, and compared with what the index says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/text.h"
#include "base/transaction.h"
#include "ttl/target.h"

/* ---------------------------------------------------------------- the deadline */

/* One expression, as text; anything else is a syntax error. */
static Node *
parse_expression(const char *text)
{
	RawStmt    *raw = linitial_node(RawStmt, raw_parser(text, RAW_PARSE_PLPGSQL_EXPR));
	SelectStmt *select = (SelectStmt *) raw->stmt;
	ResTarget  *target;

	if (!IsA(select, SelectStmt) || list_length(select->targetList) != 1 || select->distinctClause != NIL ||
		select->fromClause != NIL || select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL || select->lockingClause != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("it is more than one expression")));
	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL || target->indirection != NIL || IsA(target->val, SetToDefault))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("it is more than one expression")));
	return target->val;
}

static bool
is_users_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

/* Is there a function in it that somebody has made? */
static bool
calls_users(Node *node, void *context)
{
	return node != NULL &&
		(check_functions_in_node(node, is_users_function, NULL) || expression_tree_walker(node, calls_users, NULL));
}

/* With its constants folded, as far as nothing of anybody's is called for it; so what is equal stays so. */
static Node *
folded(Node *node)
{
	fix_opfuncids(node);
	if (!calls_users(node, NULL))
	{
		node = eval_const_expressions(NULL, node);
		fix_opfuncids(node);
	}
	return node;
}

typedef struct Analysis
{
	Relation	rel;
	const char *text;
	Node	   *node;
} Analysis;

static void
analyze(void *arg)
{
	Analysis   *a = arg;
	ParseState *pstate = make_parsestate(NULL);
	Node	   *node;

	pstate->p_sourcetext = a->text;
	addNSItemToQuery(pstate, addRangeTableEntryForRelation(pstate, a->rel, AccessShareLock, NULL, false, true),
					 true, true, true);
	node = transformExpr(pstate, parse_expression(a->text), EXPR_KIND_INDEX_EXPRESSION);
	assign_expr_collations(pstate, node);
	free_parsestate(pstate);
	a->node = folded(node);
}

ErrorData *
gt_target_deadline(Relation rel, const char *text, Node **node)
{
	Analysis	a = {rel, text, NULL};
	ErrorData  *error = gt_try(analyze, &a);

	*node = a.node;
	return error;
}

List *
gt_target_columns(Node *deadline)
{
	Bitmapset  *attributes = NULL;
	List	   *result = NIL;
	int			i = -1;

	pull_varattnos(deadline, 1, &attributes);
	while ((i = bms_next_member(attributes, i)) >= 0)
		result = lappend_int(result, i + FirstLowInvalidHeapAttributeNumber);
	return result;
}

static void
must_be_timestamptz(const char *text, Oid type)
{
	Oid			base = getBaseType(type);

	if (type == TIMESTAMPTZOID)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("expires_at \"%s\" is of type %s, it must be timestamp with time zone", gt_shown(text), format_type_be(type)),
			 base == TIMESTAMPOID ? errhint("Say in which time zone it is: (%s) AT TIME ZONE 'UTC'.", text) :
			 base == TIMESTAMPTZOID ? errhint("Cast it, and index that: (%s)::timestamptz.", text) :
			 base == DATEOID ? errhint("Say in which time zone it begins: (%s)::timestamp AT TIME ZONE 'UTC'.", text) :
			 errhint("A column of type timestamptz would do, or an immutable expression of that type.")));
}

static void
must_be_immutable(const char *text, Node *node)
{
	if (!contain_mutable_functions(node))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("expires_at \"%s\" is not immutable", gt_shown(text)),
			 errdetail("No index can be made of it: what it comes to depends on settings, or on when it is asked. timestamptz + interval depends on TimeZone."),
			 errhint("This would do: ((created_at AT TIME ZONE 'UTC') + keep_for) AT TIME ZONE 'UTC'.")));
}

static void
must_be_of_the_row(const char *text, Node *node)
{
	ListCell   *lc;
	List	   *columns = gt_target_columns(node);

	foreach(lc, columns)
		if (lfirst_int(lc) <= 0)
			columns = NIL;
	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at \"%s\" is made of no column of the table", gt_shown(text)),
				 errhint("A column of type timestamptz would do, or an immutable expression of that type.")));
}

/* With all names qualified, whatever the search_path is. */
static char *
deparse(Relation rel, Node *node)
{
	int			level = NewGUCNestLevel();
	char	   *result;

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	result = deparse_expression(node, deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)), false, false);
	AtEOXact_GUC(false, level);
	return result;
}

Node *
gt_target_parse(Relation rel, const char *text, char **expression)
{
	AttrNumber	column = get_attnum(RelationGetRelid(rel), text);
	const char *read_as = column > 0 ? quote_identifier(text) : text;	/* a column by its very name */
	Node	   *node;
	ErrorData  *error = gt_target_deadline(rel, read_as, &node);

	if (error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at \"%s\" is no column or expression of table \"%s\": %s", gt_shown(text),
						RelationGetRelationName(rel), error->message),
				 errhint("A column of type timestamptz would do, or an immutable expression of that type.")));
	must_be_timestamptz(read_as, exprType(node));
	must_be_immutable(text, (Node *) expression_planner((Expr *) copyObject(node)));	/* as for an index */
	must_be_of_the_row(text, node);
	*expression = deparse(rel, node);
	return node;
}

/* ---------------------------------------------------------------- indexes */

/* What pg_index has of it in this column: a list, or one node; NULL: nothing. */
static Node *
in_catalog(Relation index, AttrNumber column)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(RelationGetRelid(index)));
	Node	   *result = NULL;
	bool		isnull;
	Datum		datum;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	datum = SysCacheGetAttr(INDEXRELID, tuple, column, &isnull);
	if (!isnull)
		result = stringToNode(TextDatumGetCString(datum));
	ReleaseSysCache(tuple);
	return result;
}

/* Is it of every row that has a deadline? */
static bool
is_complete(Relation index, Node *deadline)
{
	Node	   *predicate = in_catalog(index, Anum_pg_index_indpred);
	NullTest   *test;

	if (predicate == NULL)
		return true;
	predicate = folded(predicate);
	if (!IsA(predicate, NullTest))
		return false;
	test = (NullTest *) predicate;
	return test->nulltesttype == IS_NOT_NULL && equal(test->arg, deadline);
}

static bool
begins_with(Relation index, Node *deadline)
{
	AttrNumber	first = index->rd_index->indkey.values[0];

	if (first == 0)
	{
		List	   *expressions = (List *) in_catalog(index, Anum_pg_index_indexprs);

		return expressions != NIL && equal(folded(linitial(expressions)), deadline);
	}
	return IsA(deadline, Var) && ((Var *) deadline)->varattno == first;
}

Oid
gt_target_index(Relation rel, Node *deadline, bool *descending)
{
	Oid			family = get_opclass_family(GetDefaultOpClass(TIMESTAMPTZOID, BTREE_AM_OID));
	List	   *indexes = RelationGetIndexList(rel);
	Oid			result = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (!OidIsValid(result) && form->indisvalid && form->indisready && index->rd_rel->relam == BTREE_AM_OID &&
			index->rd_opfamily[0] == family && begins_with(index, deadline) && is_complete(index, deadline))
		{
			result = RelationGetRelid(index);
			*descending = (index->rd_indoption[0] & INDOPTION_DESC) != 0;
		}
		index_close(index, NoLock);
	}
	return result;
}

Oid
gt_target_key(Relation rel)
{
	ListCell   *lc;
	Oid			result = InvalidOid;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisprimary && index->rd_index->indisvalid)
			result = RelationGetRelid(index);
		index_close(index, NoLock);
	}
	return result;
}

/* What the index begins with, as that is of the first of a query's relations. */
static Node *
beginning_of(Relation rel, Relation index)
{
	AttrNumber	first = index->rd_index->indkey.values[0];
	Form_pg_attribute att;

	if (first == 0)
		return linitial((List *) in_catalog(index, Anum_pg_index_indexprs));
	att = TupleDescAttr(RelationGetDescr(rel), first - 1);
	return (Node *) makeVar(1, first, att->atttypid, att->atttypmod, att->attcollation, 0);
}

const char *
gt_target_called_now(Relation rel, List *columns)
{
	const char *result = NULL;
	ListCell   *lc;

	foreach(lc, columns != NIL ? RelationGetIndexList(rel) : NIL)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (result == NULL && index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indkey.values[0] >= 0)
		{
			Node	   *node = beginning_of(rel, index);

			if (exprType(node) == TIMESTAMPTZOID && equal(gt_target_columns(node), columns))
				result = deparse(rel, node);
		}
		index_close(index, NoLock);
	}
	return result;
}

const char *
gt_target_index_sql(Relation rel, Node *deadline, const char *expression, bool concurrently)
{
	bool		partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;

	return psprintf(IsA(deadline, Var) ? "CREATE INDEX %sON %s (%s);" : "CREATE INDEX %sON %s ((%s));",
					concurrently && !partitioned ? "CONCURRENTLY " : "",
					quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel)),
					expression);
}

/* ---------------------------------------------------------------- the table */

static void
set_keys(GtLeaf *leaf)
{
	Relation	index = index_open(leaf->key, AccessShareLock);
	int			i;

	leaf->nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	for (i = 0; i < leaf->nkeys; i++)
		leaf->keys[i] = index->rd_index->indkey.values[i];
	index_close(index, NoLock);
}

/* What is to be known of a table with rows; false: something is missing. */
static bool
set_leaf(GtTarget *target, GtLeaf *leaf, Relation rel, Node *deadline)
{
	memset(leaf, 0, sizeof(GtLeaf));
	leaf->rel = rel;
	leaf->deadline = rel == target->rel ? deadline :
		linitial(map_partition_varattnos(list_make1(deadline), 1, rel, target->rel));
	if (IsA(leaf->deadline, Var))
		leaf->column = ((Var *) leaf->deadline)->varattno;
	leaf->index = gt_target_index(rel, leaf->deadline, &leaf->descending);
	leaf->key = gt_target_key(rel);
	if (!OidIsValid(leaf->index) || !OidIsValid(leaf->key))
		return false;
	set_keys(leaf);
	return true;
}

/* Opens the partitions that have rows. false: as gt_target_open(). */
static bool
open_leaves(GtTarget *target, Node *deadline, LOCKMODE lockmode, const char *expression, const char **why, const char **remedy)
{
	List	   *relations = target->partitioned ? find_all_inheritors(RelationGetRelid(target->rel), NoLock, NULL) :
		list_make1_oid(RelationGetRelid(target->rel));
	ListCell   *lc;

	target->leaves = palloc(list_length(relations) * sizeof(GtLeaf));
	foreach(lc, relations)
	{
		Relation	rel = target->rel;

		if (lfirst_oid(lc) != RelationGetRelid(target->rel))
		{
			if (!ConditionalLockRelationOid(lfirst_oid(lc), lockmode))
				return false;
			rel = try_relation_open(lfirst_oid(lc), NoLock);
			if (rel == NULL)
				return false;	/* dropped a moment ago: the next look sees it so */
		}
		if (rel->rd_rel->relkind != RELKIND_RELATION)
		{
			if (rel != target->rel)
				relation_close(rel, NoLock);
			continue;
		}
		if (!set_leaf(target, &target->leaves[target->nleaves], rel, deadline))
		{
			*why = psprintf("partition \"%s\" has no valid index on it", RelationGetRelationName(rel));
			*remedy = gt_target_index_sql(rel, target->leaves[target->nleaves].deadline, expression, true);
			if (rel != target->rel)
				relation_close(rel, NoLock);
			return false;
		}
		target->nleaves++;
	}
	return true;
}

/* Its owner may not even name it. */
static const char *
is_out_of_reach(Relation rel, const char **remedy)
{
	Oid			schema = RelationGetNamespace(rel);

	if (object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK)
		return NULL;
	*remedy = psprintf("GRANT USAGE ON SCHEMA %s TO %s;", quote_identifier(get_namespace_name(schema)),
					   quote_identifier(GetUserNameFromId(GetUserId(), false)));
	return psprintf("its owner has no USAGE on the schema of table \"%s\"", RelationGetRelationName(rel));
}

/* Why the expression is no deadline any more; NULL: it is *deadline. */
static const char *
what_is_wrong(Relation rel, const char *expression, Node **deadline, const char **remedy)
{
	ErrorData  *error = gt_target_deadline(rel, expression, deadline);
	Node	   *node = *deadline;

	if (error == NULL && IsA(node, Var) && exprType(node) != TIMESTAMPTZOID)
		*remedy = psprintf("ALTER TABLE %s ALTER COLUMN %s TYPE timestamp with time zone USING %s::timestamp with time zone;",
						   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel)),
						   expression, expression);
	if (error != NULL)
		return psprintf("expires_at is no expression of table \"%s\" any more: %s", RelationGetRelationName(rel), error->message);
	if (exprType(node) != TIMESTAMPTZOID ||
		(calls_users(node, NULL) ? contain_volatile_functions(node) : contain_mutable_functions(node)))
		return psprintf("expires_at of table \"%s\" is no immutable timestamptz any more", RelationGetRelationName(rel));
	return NULL;
}

/* What is missing of the table as a whole, and what brings it back; NULL: nothing. */
static const char *
what_is_missing(GtTarget *target, Node *deadline, const char *expression, const char **remedy)
{
	const char *name = RelationGetRelationName(target->rel);
	bool		descending;

	if (!OidIsValid(gt_target_key(target->rel)))
	{
		*remedy = "-- give the table a PRIMARY KEY";
		return psprintf("table \"%s\" has no primary key", name);
	}
	if (!OidIsValid(gt_target_index(target->rel, deadline, &descending)))
	{
		*remedy = gt_target_index_sql(target->rel, deadline, expression, true);
		return psprintf("table \"%s\" has no valid B-tree index that begins with %s", name, expression);
	}
	if (pg_class_aclcheck(RelationGetRelid(target->rel), GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		pg_class_aclcheck(RelationGetRelid(target->rel), GetUserId(), ACL_DELETE) != ACLCHECK_OK)
	{
		*remedy = psprintf("GRANT SELECT, DELETE ON %s TO %s;",
						   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target->rel)), name),
						   quote_identifier(GetUserNameFromId(GetUserId(), false)));
		return psprintf("its owner may not SELECT and DELETE from table \"%s\"", name);
	}
	return NULL;
}

bool
gt_target_open(GtTarget *target, Oid relation, const char *expression, LOCKMODE lockmode,
			   const char **why, const char **remedy)
{
	Node	   *deadline = NULL;

	*why = *remedy = NULL;
	memset(target, 0, sizeof(GtTarget));
	if (!ConditionalLockRelationOid(relation, lockmode))
		return false;
	target->rel = try_relation_open(relation, NoLock);
	if (target->rel == NULL)
		return false;
	target->partitioned = target->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	*why = is_out_of_reach(target->rel, remedy);
	if (*why == NULL)
		*why = what_is_wrong(target->rel, expression, &deadline, remedy);
	if (*why == NULL)
		*why = what_is_missing(target, deadline, expression, remedy);
	if (*why == NULL && open_leaves(target, deadline, lockmode, expression, why, remedy))
		return true;
	gt_target_close(target);
	return false;
}

void
gt_target_close(GtTarget *target)
{
	int			i;

	for (i = 0; i < target->nleaves; i++)
		if (target->leaves[i].rel != target->rel)
			relation_close(target->leaves[i].rel, NoLock);
	if (target->rel != NULL)
		relation_close(target->rel, NoLock);
	memset(target, 0, sizeof(GtTarget));
}
