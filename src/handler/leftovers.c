/*-------------------------------------------------------------------------
 *
 * leftovers.c
 *	  What a run must not leave behind in the session that makes it: deferred
 *	  constraints, advisory locks, cursors, a seed.
 *
 * A worker has nothing of its own there.  A session has: what was there before the
 * run, in the block of whoever called gt_reclaim(), stays.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "handler/leftovers.h"
#include "handler/role.h"

void
gt_constraints_immediate(void)
{
	static ConstraintsSetStmt statement = {T_ConstraintsSetStmt, NIL, false};

	AfterTriggerSetState(&statement);
}

static bool
is_my_advisory_lock(const LockInstanceData *lock)
{
	return lock->pid == MyProcPid && lock->locktag.locktag_type == LOCKTAG_ADVISORY && lock->holdMask != 0;
}

/* The locks of everybody, if this session holds advisory locks of its own; else NULL. */
LockData *
gt_advisory_locks(void)
{
	LockData   *locks = GetLockStatusData();
	int			i;

	for (i = 0; i < locks->nelements; i++)
		if (is_my_advisory_lock(&locks->locks[i]))
			return locks;
	return NULL;
}

static LOCKMASK
held_in(const LockData *locks, const LOCKTAG *tag)
{
	LOCKMASK	mask = 0;
	int			i;

	for (i = 0; i < locks->nelements; i++)
		if (is_my_advisory_lock(&locks->locks[i]) &&
			memcmp(&locks->locks[i].locktag, tag, sizeof(LOCKTAG)) == 0)
			mask |= locks->locks[i].holdMask;
	return mask;
}

/*
 * Session advisory locks that the run took: as a rule those are all there are;
 * a session that holds some of its own loses only those that are new.
 * LockRelease() warns of a lock that is the transaction's: not a session's, so
 * none of our business, and nobody's news.
 */
void
gt_release_advisory_locks(const LockData *before)
{
	LockData   *now;
	int			level;
	int			i;
	LOCKMODE	mode;

	if (before == NULL)
	{
		LockReleaseSession(USER_LOCKMETHOD);
		return;
	}
	now = GetLockStatusData();
	level = NewGUCNestLevel();
	gt_set_for_runs("client_min_messages", "error");
	gt_set_for_runs("log_min_messages", "fatal");
	for (i = 0; i < now->nelements; i++)
	{
		LockInstanceData *lock = &now->locks[i];
		LOCKMASK	taken;

		if (!is_my_advisory_lock(lock))
			continue;
		taken = lock->holdMask & ~held_in(before, &lock->locktag);
		for (mode = 1; mode < MAX_LOCKMODES; mode++)
			while ((taken & LOCKBIT_ON(mode)) != 0 && LockRelease(&lock->locktag, mode, true))
				;
	}
	AtEOXact_GUC(false, level);
}

/* Names of the cursors that are open, in the current memory context. Connected to the SPI. */
List *
gt_open_cursors(void)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	List	   *names = NIL;
	uint64		i;

	if (plan == NULL)
	{
		plan = SPI_prepare("SELECT name FROM pg_catalog.pg_cursors", 0, NULL);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	}
	if (SPI_execute_plan(plan, NULL, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the open cursors");
	for (i = 0; i < SPI_processed; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext old = MemoryContextSwitchTo(context);

		names = lappend(names, makeString(pstrdup(name)));
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(context);
	return names;
}

/* Cursors that the run has left open: nobody reads on in them. */
void
gt_close_cursors(bool in_block, List *before)
{
	ListCell   *lc;

	if (!in_block)
	{
		PortalHashTableDeleteAll(); /* but the one that we run in */
		return;
	}
	foreach(lc, gt_open_cursors())
	{
		Portal		portal = GetPortalByName(strVal(lfirst(lc)));

		if (!list_member(before, lfirst(lc)) && PortalIsValid(portal) && portal->status != PORTAL_ACTIVE)
			PortalDrop(portal, false);
	}
}

/*
 * In a block, constraints that are deferred by their definition are so again
 * afterwards.  What the caller had set otherwise can not be read, and so is
 * IMMEDIATE.  A name that stands for constraints of both sorts is left out.
 */
void
gt_constraints_as_defined(void)
{
	static const char *const sql =
		"SELECT DISTINCT n.nspname, c.conname FROM pg_catalog.pg_constraint c"
		" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace"
		" WHERE c.condeferred AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND NOT EXISTS"
		" (SELECT FROM pg_catalog.pg_constraint o WHERE o.connamespace OPERATOR(pg_catalog.=) c.connamespace"
		" AND o.conname OPERATOR(pg_catalog.=) c.conname AND NOT o.condeferred)";
	ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);
	uint64		i;

	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the deferred constraints");
	for (i = 0; i < SPI_processed; i++)
		statement->constraints = lappend(statement->constraints,
										 makeRangeVar(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1),
													  SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2), -1));
	statement->deferred = true;
	if (statement->constraints != NIL)
		AfterTriggerSetState(statement);
}

/* random() of the session goes on from where no handler has put it. */
void
gt_reseed(void)
{
	uint32		seed;

	if (!pg_strong_random(&seed, sizeof(seed)))
		return;
	(void) DirectFunctionCall1(setseed, Float8GetDatum(seed / (double) PG_UINT32_MAX));
}
