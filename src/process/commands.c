/*-------------------------------------------------------------------------
 *
 * commands.c
 *	  Commands that want nobody in a database.
 *
 * DROP DATABASE and its like fail when anybody is connected.  The utility hook,
 * in the session that gives such a command, holds our launcher off that database
 * (GtDatabase.hold), ends our workers there, waits for them, and lets go when the
 * command is over, however it ends.  The same for what drops the extension: a
 * handler that runs is cancelled and not charged, and who dropped it is told what
 * nobody cleans any more.  Where it is plain that the command is going to fail the
 * workers are left alone.  COMMIT PREPARED and ROLLBACK
 * PREPARED come by here, too: see prepared.c; and LOCK of our views.  Fault point:
 * prepared_ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/compat.h"
#include "base/point.h"
#include "base/transaction.h"
#include "clean/marks.h"
#include "process/commands.h"
#include "process/prepared.h"
#include "rights/place.h"
#include "shared/after_commit.h"
#include "shared/counters.h"
#include "shared/counts.h"
#include "shared/due.h"
#include "shared/parts.h"
#include "shared/prepared.h"
#include "shared/renewals.h"
#include "shared/rows_due.h"
#include "shared/shmem.h"
#include "shared/wake.h"
#include "table/relations.h"
#include "table/versions.h"
#include "ttl/ttl.h"

#define WAIT_FOR_EXIT	(5 * USECS_PER_SEC)
#define TOLD_BY_THEN	USECS_PER_SEC	/* a commit wakes whom it has to before it tells everybody's caches */
#define COUNTED			1000	/* objects at most, before the extension is dropped */

static ProcessUtility_hook_type previous_utility = NULL;

/* Ends our workers in a database, and waits until they are gone. */
static void
evict_workers(GtDatabase *db)
{
	TimestampTz began = gt_now();
	pid_t		pids[GT_MAX_WORKERS];
	int			n = 0;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot->state != GT_SLOT_FREE && slot->database == db->oid && slot->pid != 0)
		{
			pids[n++] = slot->pid;
			kill(slot->pid, SIGTERM);
		}
	}
	LWLockRelease(gt_shared->lock);

	while (n > 0 && gt_now() < began + WAIT_FOR_EXIT)
	{
		if (BackendPidGetProc(pids[n - 1]) == NULL)
		{
			n--;
			continue;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* A database that is held; its entry may be another's by the time that the command is over. */
typedef struct Held
{
	GtDatabase *db;
	Oid			oid;
} Held;

/* The command is over. What workers were at is to be done, if the database is still there. */
static void
let_go(int code, Datum arg)
{
	Held	   *held = (Held *) DatumGetPointer(arg);
	bool		there;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	there = held->db->oid == held->oid;
	if (there)
		held->db->hold--;
	LWLockRelease(gt_shared->lock);
	if (there)
		gt_due_at(held->db, gt_now());
	gt_wake_launcher();
}

/* A database has been dropped. */
static void
forget_database(GtDatabase *db)
{
	GtCounters *counters = &gt_shared->counters[db - gt_shared->databases];
	int			i;

	gt_clean_forget_marks(db->oid);
	gt_observe_forget(db->oid);
	gt_prepared_forget(db->oid);
	gt_renewals_forget(db->oid);
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	db->oid = InvalidOid;
	db->hold = 0;
	db->waits = InvalidOid;
	pg_atomic_write_u64(&db->next_due, (uint64) GT_NEVER);
	for (i = 0; i < GT_NCOUNTERS; i++)
		pg_atomic_write_u64(&counters->n[i], 0);
	LWLockRelease(gt_shared->lock);
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		result = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		result = result || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The database of this name, if the caller owns it. */
static Oid
own_database(const char *name)
{
	Oid			oid = name != NULL ? get_database_oid(name, true) : InvalidOid;

	return OidIsValid(oid) && gt_database_ownercheck(oid, GetUserId()) ? oid : InvalidOid;
}

/* The same, where the command fails in that very database. */
static Oid
own_other_database(const char *name)
{
	Oid			oid = own_database(name);

	return oid == MyDatabaseId ? InvalidOid : oid;
}

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
		if (strcmp(((DefElem *) lfirst(cell))->defname, name) == 0)
			return lfirst(cell);
	return NULL;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/*
 * What CREATE DATABASE copies, which may be the database that one is in: anybody
 * may copy a template, which had workers if it is one only since a while ago.
 */
static Oid
template_of(CreatedbStmt *stmt)
{
	DefElem    *option = find_option(stmt->options, "template");
	const char *name = option != NULL && option->arg != NULL ? defGetString(option) : "template1";
	Oid			oid = get_database_oid(name, true);

	if (!may_create_databases())
		return InvalidOid;
	return OidIsValid(oid) && is_template(oid) ? oid : own_database(name);
}

/* Does this drop the extension here, and may the caller do it? */
static bool
drops_extension(Node *stmt)
{
	ListCell   *cell;

	if (!OidIsValid(gt_extension()))
		return false;
	if (IsA(stmt, DropOwnedStmt))
	{
		foreach(cell, ((DropOwnedStmt *) stmt)->roles)
		{
			Oid			role = get_rolespec_oid(lfirst(cell), true);

			if (role == gt_owner() && has_privs_of_role(GetUserId(), role))
				return true;
		}
		return false;
	}
	if (!has_privs_of_role(GetUserId(), gt_owner()))
		return false;
	foreach(cell, ((DropStmt *) stmt)->objects)
	{
		const char *name = strVal(lfirst(cell));

		if (((DropStmt *) stmt)->removeType == OBJECT_EXTENSION ? strcmp(name, "garbagetruck") == 0 :
			get_namespace_oid(name, true) == gt_schema())
			return true;
	}
	return false;
}

/* The database in which this command wants none of our workers; InvalidOid: none, or it is going to fail. */
static Oid
target_of(Node *stmt, ProcessUtilityContext context)
{
	bool		top = context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock();

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			return top ? own_other_database(((DropdbStmt *) stmt)->dbname) : InvalidOid;
		case T_RenameStmt:
			return ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE && may_create_databases() ?
				own_other_database(((RenameStmt *) stmt)->subname) : InvalidOid;
		case T_AlterDatabaseStmt:
			return top && find_option(((AlterDatabaseStmt *) stmt)->options, "tablespace") != NULL ?
				own_other_database(((AlterDatabaseStmt *) stmt)->dbname) : InvalidOid;
		case T_CreatedbStmt:
			return top ? template_of((CreatedbStmt *) stmt) : InvalidOid;
		case T_DropStmt:
			if (((DropStmt *) stmt)->removeType != OBJECT_EXTENSION &&
				(((DropStmt *) stmt)->removeType != OBJECT_SCHEMA || ((DropStmt *) stmt)->behavior != DROP_CASCADE))
				return InvalidOid;
			/* FALLTHROUGH */
		case T_DropOwnedStmt:
			return drops_extension(stmt) ? MyDatabaseId : InvalidOid;
		default:
			return InvalidOid;
	}
}

/* Does it make indexes anew, in which there may be now what was missing? Then the workers look at all of it. */
static bool
rebuilds(Node *stmt)
{
	return IsA(stmt, ReindexStmt) || IsA(stmt, ClusterStmt) || IsA(stmt, VacuumStmt);
}

/* Does it change who may what, and so perhaps what a handler is suspended for? Then the workers judge it again. */
static bool
changes_rights(Node *stmt)
{
	ListCell   *lc;

	if (IsA(stmt, RenameStmt))
		return ((RenameStmt *) stmt)->renameType == OBJECT_ROLE;
	if (IsA(stmt, AlterTableStmt))
		foreach(lc, ((AlterTableStmt *) stmt)->cmds)
			if (((AlterTableCmd *) lfirst(lc))->subtype == AT_ChangeOwner)
				return true;
	return IsA(stmt, GrantStmt) || IsA(stmt, GrantRoleStmt) || IsA(stmt, AlterOwnerStmt) || IsA(stmt, AlterRoleStmt) ||
		IsA(stmt, DropOwnedStmt) || IsA(stmt, ReassignOwnedStmt) || IsA(stmt, DropRoleStmt);
}

/* Does it end a prepared transaction? */
static bool
ends_prepared(Node *stmt)
{
	return IsA(stmt, TransactionStmt) && (((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED ||
										  ((TransactionStmt *) stmt)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/* Can it change what a table whose rows have a deadline needs: its columns, indexes, name, owner? */
static bool
changes_tables(Node *stmt)
{
	return IsA(stmt, IndexStmt) || IsA(stmt, AlterTableStmt) || IsA(stmt, RenameStmt) || IsA(stmt, ReindexStmt) ||
		IsA(stmt, DropStmt) || IsA(stmt, AlterObjectSchemaStmt) || IsA(stmt, CreateFunctionStmt);
}

/* Are there any in this database? */
static bool
have_ttls(void)
{
	return IsTransactionState() && !RecoveryInProgress() && gt_database(MyDatabaseId, false) != NULL &&
		OidIsValid(gt_extension()) && gt_ttl_list() != NIL;
}

static bool reaches_ours(Oid relid);

/* Of the query of a view, which may name itself (for OLD and NEW). */
static bool
reads_ours(Node *node, void *view)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, reads_ours, view);
	foreach(lc, ((Query *) node)->rtable)
	{
		Oid			relid = lfirst_node(RangeTblEntry, lc)->relid;

		if (OidIsValid(relid) && relid != *(Oid *) view && reaches_ours(relid))
			return true;
	}
	return query_tree_walker((Query *) node, reads_ours, view, 0);
}

/* Is it of the extension, or a view through which one comes to that? */
static bool
reaches_ours(Oid relid)
{
	Relation	view;
	bool		result;

	check_stack_depth();
	if (getExtensionOfObject(RelationRelationId, relid) == gt_extension())
		return true;
	if (get_rel_relkind(relid) != RELKIND_VIEW)
		return false;
	view = table_open(relid, AccessShareLock);
	result = reads_ours((Node *) get_view_query(view), &relid);
	table_close(view, AccessShareLock);
	return result;
}

/*
 * LOCK of a view locks its tables, by the rights of its owner: who was given all on all
 * tables of a schema, our views among them, would stop everybody.
 */
static void
must_not_lock_ours(LockStmt *stmt)
{
	ListCell   *lc;

	if (stmt->mode == AccessShareLock || !OidIsValid(gt_extension()) || has_privs_of_role(GetUserId(), gt_owner()))
		return;
	foreach(lc, stmt->relations)
	{
		Oid			relid = RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true);

		if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_VIEW && reaches_ours(relid))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to lock view \"%s\"", get_rel_name(relid)),
					 errdetail("That would lock the tables of garbagetruck.")));
	}
}

/* What goes with the extension, and stays behind. */
typedef struct Left
{
	int			objects;		/* up to one more than are counted */
	int			tables;			/* whose rows have a deadline */
} Left;

static void
count_left(void *arg)
{
	Left	   *left = arg;
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	GtTable		objects;
	GtRow	   *rows;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	left->objects = gt_fetch_some(&objects, snapshot, COUNTED + 1, &rows);
	gt_close(&objects);
	UnregisterSnapshot(snapshot);
	left->tables = list_length(gt_ttl_list());
}

static void
tell_left(const Left *left)
{
	if (left->objects > 0 || left->tables > 0)
		ereport(NOTICE,
				(errmsg("forgotten: %s%d objects that had leases or were to be cleaned, the deadlines of rows of %d tables",
						left->objects > COUNTED ? "more than " : "", Min(left->objects, COUNTED), left->tables),
				 errdetail("The objects and the rows stay as they are: nothing removes them any more.")));
}

static void
call_through(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
			 ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_utility)
		previous_utility(pstmt, query, read_only_tree, context, params, env, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, completion);
}

/* The same while workers keep out of that database. By itself: what is kept in registers does not outlive an error. */
static void
call_held(Held *held, PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		  ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	held->db->hold++;
	LWLockRelease(gt_shared->lock);
	PG_ENSURE_ERROR_CLEANUP(let_go, PointerGetDatum(held));
	{
		evict_workers(held->db);
		call_through(pstmt, query, read_only_tree, context, params, env, dest, completion);
	}
	PG_END_ENSURE_ERROR_CLEANUP(let_go, PointerGetDatum(held));
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *stmt = pstmt->utilityStmt;
	bool		creates = IsA(stmt, CreateExtensionStmt) &&
		strcmp(((CreateExtensionStmt *) stmt)->extname, "garbagetruck") == 0;
	bool		drops = IsA(stmt, DropdbStmt);
	bool		drops_ours = IsA(stmt, DropStmt) || IsA(stmt, DropOwnedStmt);
	bool		look_again = rebuilds(stmt) || changes_rights(stmt);	/* a ROLLBACK frees the statement */
	bool		prepared = ends_prepared(stmt) && IsTransactionState() && !RecoveryInProgress();
	bool		stirs = changes_tables(stmt) || changes_rights(stmt);
	Held		held = {NULL, InvalidOid};
	Left		left = {0, 0};
	GtPreparedEnd end = {0};

	if (IsA(stmt, LockStmt) && IsTransactionState())
		must_not_lock_ours((LockStmt *) stmt);
	if (prepared)
		gt_prepared_ends(&end);
	else if (IsTransactionState() && !RecoveryInProgress())
	{
		held.oid = target_of(stmt, context);
		held.db = gt_database(held.oid, false);
	}
	if (held.db == NULL)
		call_through(pstmt, query, read_only_tree, context, params, env, dest, completion);
	else
	{
		if (drops_ours)
			(void) gt_try(count_left, &left);	/* what cannot be read can be dropped */
		call_held(&held, pstmt, query, read_only_tree, context, params, env, dest, completion);
		if (drops)
			forget_database(held.db);
		else
			let_go(0, PointerGetDatum(&held));
		if (drops_ours)
		{
			gt_observe_dropped(0);
			tell_left(&left);
		}
	}
	if (prepared)
	{
		/* there is nobody but us to tell of it: who ends this session has to wait for that */
		HOLD_INTERRUPTS();
		GT_POINT("prepared_ended");
		gt_prepared_has_ended(&end);
		RESUME_INTERRUPTS();
	}
	if (creates)
		gt_due_after_commit(gt_now());	/* the launcher learns of this database */
	if (look_again && IsTransactionState() && !RecoveryInProgress() && gt_database(MyDatabaseId, false) != NULL)
		gt_due_after_commit(gt_now() + TOLD_BY_THEN);
	if (stirs && have_ttls())
		gt_rows_stir(gt_now() + TOLD_BY_THEN);
}

static void
start(bool first)
{
	if (first)
		gt_shared->restored = gt_note_restore();
}

/* From _PG_init, when preloaded. */
void
gt_database_init(void)
{
	gt_shmem_part(0, start);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
