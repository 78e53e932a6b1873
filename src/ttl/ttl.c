/*-------------------------------------------------------------------------
 *
 * ttl.c
 *	  Row TTLs as declared: gt__ttl is read, kept, and written.
 *
 * A row TTL has no lease: the rows of the user's table are the queue, and the index
 * on their deadline is what a worker goes by.  The protocol:
 *
 *		T(n)	the chain of runs (clean.c) chooses this table: a run of so many
 *				rows is put on record; no row is chosen yet
 *		T(n+1)	in a subtransaction, as the table's owner (run.c):
 *					takes the table's locks, without waiting for any (target.c)
 *					goes through the index from the oldest deadline on, and locks
 *					what is over, SKIP LOCKED (scan.c); a version that was changed
 *					since it was read is left, so each is judged under its lock
 *					deletes them by one DELETE, and makes garbage of them (rows.c)
 *				where that fails, its parts, each in a subtransaction; a row that
 *				fails by itself is put aside as garbage (aside.c)
 *		commit	which carries the outcome of this run and the choice of the next
 *
 * Locks: the declaration (gt_ttl_lock), shared by who deletes rows, and alone by
 * who changes it; the handler that cleans, as a lease has it; the table and its
 * partitions ROW EXCLUSIVE; its rows; objects; our own rows.  A worker waits for none
 * of these.  Sessions wait for each other where they declare the same table.
 *
 * A crash leaves the rows as they were, and the record of the run.  It names no row:
 * as many as the run had, the oldest, go by themselves from then on (careful): they
 * are put aside first, and tried as garbage that was in a crash is (crash.c).
 *
 * What is declared is read by every lease that is created, and so is kept by each
 * process until gt__ttl, or one of the tables, changes; each write of it tells all.
 * In text, and so in a dump, a table is its name: see table_type.c.  A declaration
 * whose table is gone is none; a worker deletes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/workers.h"
#include "garbage/objects.h"
#include "handler/use.h"
#include "rights/roles.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "shared/rows_due.h"
#include "table/records.h"
#include "table/relations.h"
#include "ttl/ttl.h"

#define MAX_ATTEMPTS	25		/* to delete a row that was put aside, */
#define RETRY_DELAY		USECS_PER_SEC	/* with this step */
#define TIMEOUT			(30 * USECS_PER_SEC)
#define MAX_CRASHES		2		/* in a row, of rows by themselves */

static List *kept = NIL;		/* of GtTtl *, in kept_context */
static MemoryContext kept_context = NULL;
static int	gone = 0;			/* a declaration whose table is gone; 0: none */
static bool is_kept = false;
static uint64 kept_at;			/* gt_table_changes then */
static uint64 reading = 0;		/* number of the last one */

/* ---------------------------------------------------------------- what is kept */

static void
forget_relation(Datum arg, Oid relid)
{
	ListCell   *lc;

	foreach(lc, kept)
		if (!OidIsValid(relid) || ((GtTtl *) lfirst(lc))->relation == relid)
			is_kept = false;
}

static void
forget_names(Datum arg, int cacheid, uint32 hashvalue)
{
	if (kept != NIL)
		is_kept = false;
}

/* The owner of a table; InvalidOid: there is none. */
static Oid
owner_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

char *
gt_ttl_type(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), get_rel_name(relation));
}

static void
handler_from_row(const GtRow *row, GtTtl *t, Oid owner)
{
	GtHandler  *h = &t->h;

	h->id = t->id;
	h->name = t->type;
	h->kind = GT_KIND_SQL;
	h->owner = h->run_as = owner;
	h->owner_name = h->run_as_name = pstrdup(gt_role_name(owner));
	h->search_path = TextDatumGetCString(row->v[TTL_SEARCH_PATH]);
	h->max_attempts = MAX_ATTEMPTS;
	h->retry_delay = RETRY_DELAY;
	h->timeout = TIMEOUT;
	h->grace = GT_INT64(row, TTL_GRACE);
	h->rate_limit = row->isnull[TTL_RATE_LIMIT] ? 0 : GT_INT32(row, TTL_RATE_LIMIT);
	h->paused = GT_BOOL(row, TTL_PAUSED);
	if (!row->isnull[TTL_PAUSED_REASON])
		h->paused_reason = TextDatumGetCString(row->v[TTL_PAUSED_REASON]);
	h->version = GT_INT32(row, TTL_VERSION);
	h->crashes = GT_INT32(row, TTL_CRASHES);
	h->rows = true;
	h->xmin = row->xmin;
}

/* NULL: its table is gone. */
static GtTtl *
ttl_from_row(const GtRow *row)
{
	Oid			relation = DatumGetObjectId(row->v[TTL_RELATION]);
	Oid			owner = owner_of(relation);
	GtTtl	   *t;

	if (!OidIsValid(owner))
		return NULL;
	t = palloc0(sizeof(GtTtl));
	t->id = GT_INT32(row, TTL_ID);
	t->relation = relation;
	t->expires_at = TextDatumGetCString(row->v[TTL_EXPIRES_AT]);
	t->expression = TextDatumGetCString(row->v[TTL_EXPRESSION]);
	t->cleanup = row->isnull[TTL_CLEANUP] ? 0 : GT_INT32(row, TTL_CLEANUP);
	t->batch_size = row->isnull[TTL_BATCH_SIZE] ? 0 : GT_INT32(row, TTL_BATCH_SIZE);
	t->wake = GT_BOOL(row, TTL_WAKE);
	t->careful = GT_INT32(row, TTL_CAREFUL);
	t->declared_by = pstrdup(NameStr(*DatumGetName(row->v[TTL_OWNER_NAME])));
	t->type = gt_ttl_type(relation);
	handler_from_row(row, t, owner);
	return t;
}

static void
read_all(void)
{
	MemoryContext old;
	GtTable		table;
	GtScan	   *scan;
	GtRow		row;

	MemoryContextReset(kept_context);
	kept = NIL;
	gone = 0;
	is_kept = true;				/* before we look: what changes meanwhile is not to be lost */
	reading++;
	gt_open(&table, GT__TTL, AccessShareLock);
	kept_at = gt_table_changes;
	scan = gt_scan_begin(&table, GT__TTL_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		GtTtl	   *t;

		old = MemoryContextSwitchTo(kept_context);
		t = ttl_from_row(&row);
		if (t != NULL)
			kept = lappend(kept, t);
		else
			gone = GT_INT32(&row, TTL_ID);
		MemoryContextSwitchTo(old);
	}
	gt_scan_end(scan);
	gt_close(&table);
}

/* What is declared, as of now; valid until the next look at a catalog. */
static List *
all_ttls(void)
{
	(void) gt_relid(GT__TTL);	/* finds the table, where something of it has changed */
	if (is_kept && kept_at == gt_table_changes)
		return kept;
	if (kept_context == NULL)
	{
		kept_context = AllocSetContextCreate(TopMemoryContext, "garbagetruck row TTLs", ALLOCSET_DEFAULT_SIZES);
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_names, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_names, (Datum) 0);
	}
	do
		read_all();
	while (!is_kept && debug_discard_caches == 0);
	return kept;
}

/* ---------------------------------------------------------------- the questions of others */

static GtTtl *
copy_of(const GtTtl *t)
{
	GtTtl	   *copy = palloc(sizeof(GtTtl));
	GtHandler  *h = &copy->h;

	*copy = *t;
	copy->expires_at = pstrdup(t->expires_at);
	copy->expression = pstrdup(t->expression);
	copy->declared_by = pstrdup(t->declared_by);
	copy->type = h->name = pstrdup(t->type);
	h->owner_name = h->run_as_name = pstrdup(t->h.owner_name);
	h->search_path = pstrdup(t->h.search_path);
	if (h->paused_reason != NULL)
		h->paused_reason = pstrdup(h->paused_reason);
	return copy;
}

List *
gt_ttl_list(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, all_ttls())
		result = lappend(result, copy_of(lfirst(lc)));
	return result;
}

uint64
gt_ttl_reading(void)
{
	(void) all_ttls();
	return reading;
}

GtTtl *
gt_ttl_by_id(int id)
{
	ListCell   *lc;

	foreach(lc, all_ttls())
		if (((GtTtl *) lfirst(lc))->id == id)
			return copy_of(lfirst(lc));
	return NULL;
}

GtTtl *
gt_ttl_of_table(Oid relation)
{
	ListCell   *lc;

	foreach(lc, all_ttls())
		if (((GtTtl *) lfirst(lc))->relation == relation)
			return copy_of(lfirst(lc));
	return NULL;
}

Oid
gt_ttl_owner_of_type(const char *type)
{
	ListCell   *lc;

	foreach(lc, all_ttls())
		if (strcmp(((GtTtl *) lfirst(lc))->type, type) == 0)
			return ((GtTtl *) lfirst(lc))->h.owner;
	return InvalidOid;
}

bool
gt_ttl_handler(int id, GtHandler *h)
{
	GtTtl	   *t = gt_ttl_by_id(id);

	if (t == NULL)
		return false;
	*h = t->h;
	/* however many of them hang, the other rows go on */
	h->apart = true;
	h->concurrency = Max(gt_max_workers - 2, 1);
	return true;
}

const char *
gt_ttl_suspended(const GtTtl *t)
{
	if (t == NULL)
		return "it is gone";
	if (strcmp(t->declared_by, t->h.owner_name) != 0)
		return psprintf("the table belongs to role \"%s\" now, and was declared when it was role \"%s\"'s",
						t->h.owner_name, t->declared_by);
	return gt_handler_suspended(&t->h);
}

/* A row may have stayed because of this object, or be looked for anew where it has been put aside. */
static void
object_gone(const GtRow *object)
{
	char	   *type = all_ttls() != NIL ? TextDatumGetCString(object->v[O_OBJECT_TYPE]) : NULL;
	int			handler = object->isnull[O_HANDLER] ? 0 : GT_INT32(object, O_HANDLER);
	ListCell   *lc;

	foreach(lc, type != NULL ? kept : NIL)
	{
		GtTtl	   *t = lfirst(lc);

		if (t->id == handler || (strcmp(t->type, type) == 0 && gt_rows_wait(t->id)))
			gt_rows_due_after_commit(t->id, 0, gt_now());
	}
}

void
gt_ttl_let_go(GtRow *object)
{
	GtTtl	   *t = object->isnull[O_HANDLER] ? NULL : gt_ttl_by_id(GT_INT32(object, O_HANDLER));

	if (t == NULL)
		return;
	GT_SET_NULL(object, O_HANDLER);
	GT_SET_NULL(object, O_MAX_ATTEMPTS);
	GT_SET_NULL(object, O_PAYLOAD);
	GT_SET_NULL(object, O_METADATA);
	gt_rows_due_after_commit(t->id, 0, gt_now());	/* it is to be seen that the row waits for it */
}

void
gt_ttl_init(void)
{
	gt_object_gone = object_gone;
}

/* ---------------------------------------------------------------- what is written */

bool
gt_ttl_lock(Oid relation, bool exclusive, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, gt_relid(GT__TTL), relation, 0);
	return LockAcquire(&tag, exclusive ? AccessExclusiveLock : AccessShareLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Its row, locked, unless somebody has it; false: it has, or, *missing, there is none. */
static bool
lock_row(GtTable *table, int id, GtRow *row, bool *missing)
{
	Datum		key = Int32GetDatum(id);
	GtLockResult result = gt_fetch_lock(table, GT__TTL_PKEY, 1, &key, row, LockTupleNoKeyExclusive, true);

	*missing = result == GT_GONE;
	return result == GT_LOCKED;
}

bool
gt_ttl_set_careful(int id, int more)
{
	GtTable		table;
	GtRow		row;
	bool		missing;
	bool		locked;

	gt_open(&table, GT__TTL, RowExclusiveLock);
	locked = lock_row(&table, id, &row, &missing);
	if (locked)
	{
		GT_SET(&row, TTL_CAREFUL, Int32GetDatum(Max(GT_INT32(&row, TTL_CAREFUL) + more, 0)));
		gt_update(&table, &row);
	}
	gt_close(&table);
	return locked || missing;
}

bool
gt_ttl_crashed(int id, bool crashed, const char *object)
{
	GtTable		table;
	GtRow		row;
	bool		missing;
	bool		locked;

	gt_open(&table, GT__TTL, RowExclusiveLock);
	locked = lock_row(&table, id, &row, &missing);
	if (locked)
	{
		int			crashes = crashed ? GT_INT32(&row, TTL_CRASHES) + 1 : 0;

		GT_SET(&row, TTL_CRASHES, Int32GetDatum(crashes));
		if (crashes >= MAX_CRASHES && !GT_BOOL(&row, TTL_PAUSED))
		{
			char	   *reason = psprintf("its deletes took the worker or the server down %d times in a row, "
										  "last that of row \"%s\"", crashes, object);

			GT_SET(&row, TTL_PAUSED, BoolGetDatum(true));
			GT_SET(&row, TTL_PAUSED_REASON, CStringGetTextDatum(reason));
			ereport(WARNING,
					(errmsg("garbagetruck: the row TTL of table %s is paused",
							gt_ttl_type(DatumGetObjectId(row.v[TTL_RELATION]))),
					 errdetail("Cause: %s.", reason),
					 errhint("Once it is mended, declare it anew: gt_ttl_create().")));
		}
		gt_update(&table, &row);
	}
	gt_close(&table);
	return locked || missing;
}

/* The garbage that stands for rows which could not be deleted, waiting or dead. */
static void
forget_garbage(int id, GtIndexId index, bool skip)
{
	Datum		key = Int32GetDatum(id);
	GtTable		objects;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	scan = gt_scan_begin(&objects, index, 1, &key);
	while (gt_scan_next(scan, &row))
		if (gt_lock(&objects, &row, LockTupleExclusive, skip) == GT_LOCKED &&
			!row.isnull[O_HANDLER] && GT_INT32(&row, O_HANDLER) == id)
			gt_garbage_forget(&objects, &row);
	gt_scan_end(scan);
	gt_close(&objects);
}

static void
delete_tally(int id, bool skip)
{
	Datum		key = Int32GetDatum(id);
	GtTable		tallies;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&tallies, GT__TALLY, RowExclusiveLock);
	scan = gt_scan_begin(&tallies, GT__TALLY_PKEY, 1, &key);
	while (gt_scan_next(scan, &row))
		if (gt_lock(&tallies, &row, LockTupleExclusive, skip) == GT_LOCKED)
			gt_delete(&tallies, &row);
	gt_scan_end(scan);
	gt_close(&tallies);
}

void
gt_ttl_forget(int id, bool skip)
{
	Datum		key = Int32GetDatum(id);
	GtTable		table;
	GtRow		row;

	gt_open(&table, GT__TTL, RowExclusiveLock);
	if (gt_fetch_lock(&table, GT__TTL_PKEY, 1, &key, &row, LockTupleExclusive, skip) == GT_LOCKED)
	{
		forget_garbage(id, GT_OBJECT_DUE, skip);
		forget_garbage(id, GT_OBJECT_DEAD, skip);
		delete_tally(id, skip);
		gt_delete(&table, &row);
		gt_observe_dropped(id);
	}
	gt_close(&table);
}

void
gt_ttl_forget_gone(void)
{
	int			before = 0;

	for (;;)
	{
		(void) all_ttls();
		if (gone == 0 || gone == before)
			return;
		before = gone;
		gt_ttl_forget(gone, true);
	}
}
