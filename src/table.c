/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Our tables, read and written through the table access method.
 *
 * Every process that serves SQL runs this.  Three things speak against SQL here:
 * a renewal must judge the lease as it is now at every isolation level, which
 * no statement can under REPEATABLE READ; a statement resolves names by a
 * search_path and runs as somebody; and a plan costs more than the two rows
 * that a lease is.  What the executor does for INSERT ... ON CONFLICT, SELECT
 * FOR UPDATE, UPDATE and DELETE on a table without triggers is done here with
 * the same calls: speculative insertion, tuple locks that follow the update
 * chain, index entries by ExecInsertIndexTuples().
 *
 * Reads use a snapshot that is new at each call: what has committed until now,
 * and what this transaction has done.  Each write is followed by
 * CommandCounterIncrement(), so that the next read sees it.
 *
 * What must not change any more is locked, and the lock of a row lasts to the
 * end of the transaction.  Who would refuse something must not keep others from
 * a row meanwhile: gt_fetch_lock_if() locks exactly the version that was judged,
 * and waits for others, where it has to, without a lock of its own.
 *
 * In a SERIALIZABLE transaction reads take no predicate locks: who writes holds
 * the row that he judges by, so that there is nothing left for them to find, and
 * reads by a snapshot that is newer than the transaction's are in no serial order
 * anyway.  The access methods take them for an MVCC snapshot, so there they are
 * asked for all versions of a row, and which one counts is decided here.
 *
 * Tables and indexes are found by name in the schema _garbagetruck that the
 * extension owns (one of that name that is not its own is none), and kept by OID
 * until the relation cache says that they have changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "garbagetruck.h"
#include "tampered.h"

#define KEY_STEPS	16			/* entries of one key that are passed over before the index is descended for the next */

static const struct
{
	const char *name;
	int			natts;			/* columns that this library knows; those of an older script are fewer */
}			tables[GT_NTABLES] = {
	{"gt_object", O_NATTS},
	{"gt_lease", L_NATTS},
	{"gt__orphan", P_NATTS},
	{"gt__handler", H_NATTS},
	{"gt__handler_right", HR_NATTS},
	{"gt__share", S_NATTS},
	{"gt__role", R_NATTS},
	{"gt__tally", T_NATTS},
	{"gt__run", RUN_NATTS},
	{"gt__start", ST_NATTS},
	{"gt__place", PL_NATTS},
	{"gt__paused", PA_NATTS},
	{"gt__history", HI_NATTS},
};

StaticAssertDecl(O_NATTS <= GT_MAX_ATTS && L_NATTS <= GT_MAX_ATTS && H_NATTS <= GT_MAX_ATTS && HI_NATTS <= GT_MAX_ATTS,
				 "a GtRow has room for the columns of every table");

static const char *const sequence_names[GT_NSEQUENCES] = {"gt__cleanup_id", "gt__handler_id"};

static const char *const index_names[GT_NINDEXES] = {
	"gt_object_pkey", "gt_object_due", "gt_object_cleanup", "gt_object_dead",
	"gt_lease_pkey", "gt_lease_check", "gt_lease_object", "gt_lease_service", "gt_lease_parent", "gt_lease_request",
	"gt__orphan_pkey", "gt__handler_pkey", "gt__handler_name", "gt__handler_right_pkey", "gt__share_pkey",
	"gt__role_pkey", "gt__tally_pkey", "gt__run_pkey", "gt__history_pkey"
};

uint64		gt_handler_writes = 0;
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

uint64		gt_object_writes = 0;

struct GtScan
{
	GtTable    *table;
	Snapshot	snapshot;
	IndexScanDesc scan;
	ScanDirection direction;
	MemoryContext context;		/* index scans allocate as they go on; callers may reset theirs between rows */
};

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

/* Has there been a change since we looked? Where caches are discarded all the time, for tests, none can be told. */
static bool
is_forgotten(void)
{
	return !known && debug_discard_caches == 0;
}

static bool
find_relation(const char *name, Oid *oid)
{
	*oid = get_relname_relid(name, own_schema_oid);
	return OidIsValid(*oid);
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
	} while (is_forgotten());
	(void) gt_my_database();	/* the first call here tells the launcher of this database */
	return true;
}

/* The same, for those who can not do without. */
static void
must_know(void)
{
	if (!look_up())
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

/* Opens a table; to be closed with gt_close() unless an error is raised. */
void
gt_open(GtTable *t, GtTableId id, LOCKMODE lockmode)
{
	memset(t, 0, sizeof(GtTable));
	t->context = CurrentMemoryContext;
	t->id = id;
	for (;;)
	{
		must_know();
		t->rel = try_table_open(table_oids[id], lockmode);
		if (t->rel != NULL && !is_forgotten())
			break;
		/* to take the lock has told us of another table, or of other indexes */
		if (t->rel != NULL)
			table_close(t->rel, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
	t->natts = Min(RelationGetDescr(t->rel)->natts, tables[id].natts);
	t->slot = table_slot_create(t->rel, NULL);
	if (lockmode >= RowExclusiveLock)
		gt_must_be_ours_alone(t->rel, tables[id].natts);
}

void
gt_close(GtTable *t)
{
	int			i;

	if (t->rri != NULL)
	{
		ExecCloseIndices(t->rri);
		ExecDropSingleTupleTableSlot(t->write_slot);
	}
	if (t->estate != NULL)
		FreeExecutorState(t->estate);
	for (i = 0; i < GT_NINDEXES; i++)
		if (t->index[i] != NULL)
			index_close(t->index[i], NoLock);
	ExecDropSingleTupleTableSlot(t->slot);
	table_close(t->rel, NoLock);
	t->rel = NULL;
}

/* What a write needs: an executor state and the open indexes. */
static void
prepare_write(GtTable *t)
{
	MemoryContext old;

	if (t->rri != NULL)
		return;
	old = MemoryContextSwitchTo(t->context);
	t->estate = CreateExecutorState();
	t->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(t->rri, t->rel, 0, NULL, 0);
	ExecOpenIndices(t->rri, true);
	t->write_slot = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
}

static Relation
index_of(GtTable *t, GtIndexId id)
{
	if (t->index[id] == NULL)
		t->index[id] = index_open(index_oids[id], AccessShareLock);
	return t->index[id];
}

/* See garbagetruck.h. */
Datum
gt_random_id(void)
{
	return Int64GetDatum((int64) (pg_prng_uint64(&pg_global_prng_state) >> 1));
}

void
gt_row_init(GtRow *row)
{
	memset(row, 0, sizeof(GtRow));
	memset(row->isnull, true, sizeof(row->isnull));
	ItemPointerSetInvalid(&row->tid);
}

/*
 * The times of an object are trusted only as far as they are from the time at
 * which they were written.  Where that is yet to come by our clock, it was
 * written in an earlier run by a clock that was ahead: all of them move back by
 * as much.  Each write says when it was (slot_of), by times that are right.
 */
static void
put_times_right(GtRow *row)
{
	static const int times[] = {O_REGRANT_AT, O_DUE_AT, O_SINCE, O_CLAIMED_UNTIL, O_FLIGHT_UNTIL,
	O_FLIGHT_BEFORE};
	int			i;

	row->ahead = row->isnull[O_TIMED_AT] ? 0 : Max(GT_TIME(row, O_TIMED_AT) - gt_now(), 0);
	for (i = 0; i < (int) lengthof(times) && row->ahead > 0; i++)
		if (!row->isnull[times[i]])
			GT_SET(row, times[i], TimestampTzGetDatum(GT_TIME(row, times[i]) - row->ahead));
}

/* Copies the row in the slot of the table; toasted values stay toasted. brief: see gt_scan_next_brief(). */
static void
copy_columns(GtTable *t, GtRow *row, bool brief)
{
	TupleDesc	desc = RelationGetDescr(t->rel);
	int			natts = brief ? GT_BRIEF_ATTS : t->natts;
	bool		isnull;
	int			i;

	slot_getsomeattrs(t->slot, natts);
	row->tid = t->slot->tts_tid;
	row->xmin = DatumGetTransactionId(slot_getsysattr(t->slot, MinTransactionIdAttributeNumber, &isnull));
	for (i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		row->isnull[i] = t->slot->tts_isnull[i] || (brief && !att->attbyval);
		row->v[i] = row->isnull[i] ? (Datum) 0 :
			datumCopy(t->slot->tts_values[i], att->attbyval, att->attlen);
	}
	row->brief = brief;
	row->ahead = 0;
	if (t->id == GT_OBJECT && !brief)
		put_times_right(row);
	ExecClearTuple(t->slot);
}

static void
copy_row(GtTable *t, GtRow *row)
{
	copy_columns(t, row, false);
}

/* The function behind the equality of a column of ours. */
static RegProcedure
equality_of(Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return F_TEXTEQ;
		case UUIDOID:
			return F_UUID_EQ;
		case INT4OID:
			return F_INT4EQ;
		case INT8OID:
			return F_INT8EQ;
		case OIDOID:
			return F_OIDEQ;
	}
	elog(ERROR, "no equality for type %u", type);
	return InvalidOid;
}

static void
equality_keys(Relation index, int nkeys, const Datum *keys, ScanKeyData *scankeys)
{
	int			i;

	for (i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i],
							   equality_of(TupleDescAttr(RelationGetDescr(index), i)->atttypid),
							   keys[i]);
}

/* See garbagetruck.h. The leader of a parallel query runs our reading functions and views, but can not have a new one. */
Snapshot
gt_newest_snapshot(void)
{
	return IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot();
}

/* The snapshot that the access methods are given for reads by `snapshot`: see the top of the file. */
static Snapshot
read_snapshot(Snapshot snapshot)
{
	return IsolationIsSerializable() ? SnapshotAny : snapshot;
}

/* Does the version in the slot of the table count by `snapshot`? */
static bool
is_visible(GtTable *t, Snapshot snapshot)
{
	return !IsolationIsSerializable() || table_tuple_satisfies_snapshot(t->rel, t->slot, snapshot);
}

/* The next row of an index scan, in the slot of the table. */
static bool
next_of_index(GtTable *t, IndexScanDesc scan, Snapshot snapshot, ScanDirection direction)
{
	while (index_getnext_slot(scan, direction, t->slot))
	{
		if (is_visible(t, snapshot))
			return true;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* See garbagetruck.h. */
bool
gt_fetch(GtTable *t, GtIndexId id, int nkeys, const Datum *keys, GtRow *row)
{
	Relation	index = index_of(t, id);
	ScanKeyData scankeys[4];
	IndexScanDesc scan;
	bool		found;

	Assert(nkeys <= 4);
	equality_keys(index, nkeys, keys, scankeys);
	PushActiveSnapshot(gt_newest_snapshot());
	scan = gt_index_beginscan(t->rel, index, read_snapshot(GetActiveSnapshot()), nkeys);
	index_rescan(scan, scankeys, nkeys, NULL, 0);
	found = next_of_index(t, scan, GetActiveSnapshot(), ForwardScanDirection);
	if (found)
		copy_row(t, row);
	index_endscan(scan);
	PopActiveSnapshot();
	return found;
}

/* See garbagetruck.h. */
bool
gt_fetch_version(GtTable *t, ItemPointer tid, GtRow *row)
{
	bool		found;

	PushActiveSnapshot(gt_newest_snapshot());
	found = table_tuple_fetch_row_version(t->rel, tid, read_snapshot(GetActiveSnapshot()), t->slot) &&
		is_visible(t, GetActiveSnapshot());
	if (found)
		copy_row(t, row);
	PopActiveSnapshot();
	return found;
}

bool
gt_fetch_any(GtTable *t, GtRow *row)
{
	TableScanDesc scan;
	bool		found;

	PushActiveSnapshot(gt_newest_snapshot());
	scan = table_beginscan(t->rel, read_snapshot(GetActiveSnapshot()), 0, NULL);
	do
		found = table_scan_getnextslot(scan, ForwardScanDirection, t->slot);
	while (found && !is_visible(t, GetActiveSnapshot()));
	if (found)
		copy_row(t, row);
	table_endscan(scan);
	PopActiveSnapshot();
	return found;
}

/* See garbagetruck.h. */
int
gt_fetch_some(GtTable *t, Snapshot snapshot, int limit, GtRow **rows)
{
	TableScanDesc scan = table_beginscan(t->rel, read_snapshot(snapshot), 0, NULL);
	int			room = Min(limit, 4);
	int			n = 0;

	*rows = palloc(room * sizeof(GtRow));
	while (n < limit && table_scan_getnextslot(scan, ForwardScanDirection, t->slot))
	{
		if (!is_visible(t, snapshot))
			continue;
		if (n == room)
			*rows = repalloc(*rows, (room *= 2) * sizeof(GtRow));
		copy_row(t, &(*rows)[n++]);
	}
	table_endscan(scan);
	return n;
}

/* Is the version in the slot of the table the one that row was copied from, as a whole? */
static bool
is_same_version(GtTable *t, const GtRow *row, ItemPointer read)
{
	bool		isnull;

	return !row->brief && ItemPointerEquals(&t->slot->tts_tid, read) &&
		TransactionIdEquals(row->xmin, DatumGetTransactionId(slot_getsysattr(t->slot, MinTransactionIdAttributeNumber,
																			 &isnull)));
}

/*
 * newest: follows the row to its newest version, else GT_GONE where the one that
 * was read is no longer that.  A row that another transaction is updating can be
 * locked FOR KEY SHARE at once: its new version is locked with it.
 */
static GtLockResult
lock_row(GtTable *t, GtRow *row, LockTupleMode mode, bool skip, bool newest)
{
	ItemPointerData read = row->tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(t->rel, &row->tid, SnapshotAny, t->slot,
							  GetCurrentCommandId(false), mode,
							  skip ? LockWaitSkip : LockWaitBlock,
							  TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS |
							  (newest ? TUPLE_LOCK_FLAG_FIND_LAST_VERSION : 0), &failure);
	switch (result)
	{
		case TM_Ok:
			if (is_same_version(t, row, &read))
				ExecClearTuple(t->slot);
			else
				copy_row(t, row);
			return GT_LOCKED;
		case TM_WouldBlock:
			ExecClearTuple(t->slot);
			return GT_BUSY;
		case TM_Updated:
			if (newest)
				break;
			/* FALLTHROUGH */
		case TM_Deleted:
		case TM_SelfModified:
		case TM_Invisible:		/* this very transaction has written a newer version since row was read */
			ExecClearTuple(t->slot);
			return GT_GONE;
		default:
			break;
	}
	elog(ERROR, "could not lock a row of \"%s\": %d", RelationGetRelationName(t->rel), result);
	return GT_GONE;				/* keep compiler quiet */
}

GtLockResult
gt_lock(GtTable *t, GtRow *row, LockTupleMode mode, bool skip)
{
	return lock_row(t, row, mode, skip, true);
}

/* A transaction that has locked or written a version of a row. */
typedef struct Holder
{
	TransactionId xid;
	bool		shares;			/* it has locked it FOR SHARE */
} Holder;

/* Those others whose lock or update of this version conflicts with the mode. Returns how many; they may have ended. */
static int
find_holders(GtTable *t, GtRow *row, LockTupleMode mode, Holder **holders)
{
	HeapTuple	tuple;
	Buffer		buffer;
	TransactionId xmax;
	uint16		infomask;
	MultiXactMember *members = NULL;
	int			nmembers;
	int			n = 0;
	int			i;

	if (!table_tuple_fetch_row_version(t->rel, &row->tid, SnapshotAny, t->slot))
		return 0;
	tuple = ExecFetchSlotHeapTuple(t->slot, false, NULL);
	buffer = ((BufferHeapTupleTableSlot *) t->slot)->buffer;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);	/* the two belong together, and others are changing them */
	xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
	infomask = tuple->t_data->t_infomask;
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	ExecClearTuple(t->slot);

	if (infomask & HEAP_XMAX_INVALID)
		return 0;
	if (!(infomask & HEAP_XMAX_IS_MULTI))
	{
		*holders = palloc(sizeof(Holder));
		(*holders)->xid = xmax;
		(*holders)->shares = HEAP_XMAX_IS_LOCKED_ONLY(infomask) && HEAP_XMAX_IS_SHR_LOCKED(infomask);
		return TransactionIdIsCurrentTransactionId(xmax) ? 0 : 1;
	}
	nmembers = GetMultiXactIdMembers(xmax, &members, false, HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	*holders = palloc(Max(nmembers, 1) * sizeof(Holder));
	for (i = 0; i < nmembers; i++)
	{
		/* an update is as strong as the lock that it takes: modes conflict from KEY SHARE + EXCLUSIVE on */
		int			strength = members[i].status <= MultiXactStatusForUpdate ? (int) members[i].status :
			(int) members[i].status - (MultiXactStatusNoKeyUpdate - MultiXactStatusForNoKeyUpdate);

		if (strength + (int) mode >= (int) LockTupleExclusive &&
			!TransactionIdIsCurrentTransactionId(members[i].xid))
			(*holders)[n++] = (Holder) {members[i].xid, members[i].status == MultiXactStatusForShare};
	}
	if (nmembers > 0)
		pfree(members);
	return n;
}

/* Waits for them; locks no row. */
static void
wait_for_holders(GtTable *t, GtRow *row, LockTupleMode mode)
{
	Holder	   *holders = NULL;
	int			n = find_holders(t, row, mode, &holders);
	int			i;

	for (i = 0; i < n; i++)
		XactLockTableWait(holders[i].xid, t->rel, &row->tid, XLTW_Lock);
	if (holders != NULL)
		pfree(holders);
}

/* See garbagetruck.h. */
bool
gt_is_share_locked(GtTable *t, GtRow *row)
{
	Holder	   *holders = NULL;
	int			n = find_holders(t, row, LockTupleNoKeyExclusive, &holders);
	bool		found = false;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (!TransactionIdIsInProgress(holders[i].xid))
			continue;
		found = holders[i].shares;
		if (!found)
			break;
	}
	return found;
}

/*
 * A place in the queue for a version of a row, as row locks keep it: so that of
 * many who wait for its holder one is woken at a time.
 */
typedef struct Queued
{
	bool		waiting;
	ItemPointerData tid;
} Queued;

static LOCKMODE
queue_mode(LockTupleMode mode)
{
	static const LOCKMODE modes[] = {AccessShareLock, RowShareLock, ExclusiveLock, AccessExclusiveLock};

	return modes[mode];
}

static void
leave_queue(GtTable *t, Queued *queued, LockTupleMode mode)
{
	if (queued->waiting)
		UnlockTuple(t->rel, &queued->tid, queue_mode(mode));
	queued->waiting = false;
}

static void
enter_queue(GtTable *t, const GtRow *row, Queued *queued, LockTupleMode mode)
{
	if (queued->waiting && ItemPointerEquals(&queued->tid, (ItemPointer) &row->tid))
		return;
	leave_queue(t, queued, mode);
	queued->tid = row->tid;
	LockTuple(t->rel, &queued->tid, queue_mode(mode));
	queued->waiting = true;
}

/* See garbagetruck.h. */
GtLockResult
gt_fetch_lock_if(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
				 GtRow *row, LockTupleMode mode, bool skip, GtJudge may, void *arg)
{
	GtLockResult result;
	Queued		queued = {false};

	for (;;)
	{
		if (!gt_fetch(t, index, nkeys, keys, row))
			result = GT_GONE;
		else if (!may(row, arg))
			result = GT_REFUSED;
		else
		{
			result = lock_row(t, row, mode, true, false);
			if (result == GT_GONE)
			{
				CHECK_FOR_INTERRUPTS();
				continue;		/* another version has come: to be judged, too */
			}
		}
		if (result != GT_BUSY || skip)
			break;
		enter_queue(t, row, &queued, mode);
		wait_for_holders(t, row, mode);
		CHECK_FOR_INTERRUPTS();
	}
	leave_queue(t, &queued, mode);
	return result;
}

GtLockResult
gt_fetch_lock(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
			  GtRow *row, LockTupleMode mode, bool skip)
{
	for (;;)
	{
		GtLockResult result;

		if (!gt_fetch(t, index, nkeys, keys, row))
			return GT_GONE;
		result = gt_lock(t, row, mode, skip);
		if (result != GT_GONE)
			return result;
		/* deleted while we waited: another with the same key may have come */
		CHECK_FOR_INTERRUPTS();
	}
}

/* The slot of the table for writes, showing the row. */
static TupleTableSlot *
slot_of(GtTable *t, const GtRow *row)
{
	TupleTableSlot *slot = t->write_slot;
	int			i;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->v, t->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, row->isnull, t->natts * sizeof(bool));
	for (i = t->natts; i < RelationGetDescr(t->rel)->natts; i++)
		slot->tts_isnull[i] = true; /* somebody's column that has been dropped again */
	if (t->id == GT_OBJECT)
	{
		slot->tts_values[O_TIMED_AT] = TimestampTzGetDatum(gt_now());
		slot->tts_isnull[O_TIMED_AT] = false;
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(t->rel);
	return slot;
}

/* After every write, of whatever sort: who holds rows or keeps something of them is told, and we can see it. */
static void
note_write(const GtTable *t)
{
	if (t->id == GT__HANDLER)
		gt_handler_writes++;
	if (t->id == GT_OBJECT)
		gt_object_writes++;
	CommandCounterIncrement();
}

/* After an insertion or an update: its index entries are made, its memory can go. */
static void
finish_write(GtTable *t)
{
	ResetPerTupleExprContext(t->estate);
	note_write(t);
}

void
gt_insert(GtTable *t, GtRow *row)
{
	TupleTableSlot *slot;

	prepare_write(t);
	slot = slot_of(t, row);
	table_tuple_insert(t->rel, slot, GetCurrentCommandId(true), 0, NULL);
	if (t->rri->ri_NumIndices > 0)
		gt_ExecInsertIndexTuples(t->rri, slot, t->estate, false, false, NULL, NIL, false);
	row->tid = slot->tts_tid;
	finish_write(t);
}

/*
 * The index, and what REINDEX CONCURRENTLY is building or has left of it: two
 * who insert the same keys could else meet in the new one first, as an error.
 */
static List *
arbiters_like(GtTable *t, Oid index)
{
	List	   *result = list_make1_oid(index);
	Form_pg_index of = NULL;
	int			i;

	for (i = 0; i < t->rri->ri_NumIndices && of == NULL; i++)
		if (RelationGetRelid(t->rri->ri_IndexRelationDescs[i]) == index)
			of = t->rri->ri_IndexRelationDescs[i]->rd_index;
	for (i = 0; i < t->rri->ri_NumIndices && of != NULL; i++)
	{
		Form_pg_index other = t->rri->ri_IndexRelationDescs[i]->rd_index;

		if (other->indexrelid != index && other->indisunique && other->indimmediate &&
			other->indnkeyatts == of->indnkeyatts &&
			memcmp(other->indkey.values, of->indkey.values, of->indnkeyatts * sizeof(int16)) == 0)
			result = lappend_oid(result, other->indexrelid);
	}
	return result;
}

/*
 * As INSERT ... ON CONFLICT DO NOTHING: waits for others that are inserting the
 * same keys.  The loop is the protocol of speculative insertion: nobody sees the
 * row before its entry in the arbiter index proves unique, and no unique
 * violation is raised that would abort the caller's transaction.
 */
bool
gt_insert_unique(GtTable *t, GtRow *row, GtIndexId index)
{
	List	   *arbiters;
	TupleTableSlot *slot;
	bool		conflict;

	prepare_write(t);
	arbiters = arbiters_like(t, index_oids[index]);
	slot = slot_of(t, row);
	do
	{
		ItemPointerData tid;
		uint32		token;

		CHECK_FOR_INTERRUPTS();
		if (!gt_ExecCheckIndexConstraints(t->rri, slot, t->estate, &tid, arbiters))
		{
			ResetPerTupleExprContext(t->estate);
			return false;
		}
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(t->rel, slot, GetCurrentCommandId(true), 0, NULL, token);
		conflict = false;
		list_free(gt_ExecInsertIndexTuples(t->rri, slot, t->estate, false, true, &conflict, arbiters, false));
		table_tuple_complete_speculative(t->rel, slot, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	} while (conflict);
	row->tid = slot->tts_tid;
	finish_write(t);
	return true;
}

void
gt_update(GtTable *t, GtRow *row)
{
	TupleTableSlot *slot;
	TM_FailureData failure;
	TM_Result	result;
	LockTupleMode lockmode;
	TU_UpdateIndexes update_indexes;

	prepare_write(t);
	slot = slot_of(t, row);
	result = table_tuple_update(t->rel, &row->tid, slot, GetCurrentCommandId(true),
								SnapshotAny, InvalidSnapshot, true, &failure, &lockmode, &update_indexes);
	if (result != TM_Ok)
		elog(ERROR, "could not update a locked row of \"%s\": %d", RelationGetRelationName(t->rel), result);
	if (t->rri->ri_NumIndices > 0 && gt_update_needs_indexes(update_indexes))
		gt_ExecInsertIndexTuples(t->rri, slot, t->estate, true, false, NULL, NIL,
								 gt_only_summarizing(update_indexes));
	row->tid = slot->tts_tid;
	finish_write(t);
}

static TM_Result
delete_version(GtTable *t, GtRow *row, bool wait)
{
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_delete(t->rel, &row->tid, GetCurrentCommandId(true),
								SnapshotAny, InvalidSnapshot, wait, &failure, false);
	if (result == TM_Ok)
		note_write(t);
	return result;
}

void
gt_delete(GtTable *t, GtRow *row)
{
	TM_Result	result = delete_version(t, row, true);

	if (result != TM_Ok)
		elog(ERROR, "could not delete a locked row of \"%s\": %d", RelationGetRelationName(t->rel), result);
}

/* See garbagetruck.h. */
bool
gt_try_delete(GtTable *t, GtRow *row)
{
	return delete_version(t, row, false) == TM_Ok;
}

static GtScan *
begin(GtTable *t, GtIndexId id, int nkeys, ScanKeyData *scankeys)
{
	GtScan	   *scan = palloc(sizeof(GtScan));

	scan->table = t;
	scan->direction = ForwardScanDirection;
	scan->context = CurrentMemoryContext;
	scan->snapshot = RegisterSnapshot(gt_newest_snapshot());
	scan->scan = gt_index_beginscan(t->rel, index_of(t, id), read_snapshot(scan->snapshot), nkeys);
	index_rescan(scan->scan, scankeys, nkeys, NULL, 0);
	return scan;
}

GtScan *
gt_scan_begin(GtTable *t, GtIndexId id, int nkeys, const Datum *keys)
{
	ScanKeyData scankeys[4];

	Assert(nkeys <= 4);
	equality_keys(index_of(t, id), nkeys, keys, scankeys);
	return begin(t, id, nkeys, scankeys);
}

/* Rows whose leading column is NULL. */
GtScan *
gt_scan_begin_null(GtTable *t, GtIndexId id)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, SK_ISNULL | SK_SEARCHNULL, 1, InvalidStrategy, InvalidOid,
						   InvalidOid, InvalidOid, (Datum) 0);
	return begin(t, id, 1, &key);
}

GtScan *
gt_scan_begin_bound(GtTable *t, GtIndexId id, int nkeys, const Datum *keys, int strategy, Datum bound)
{
	Relation	index = index_of(t, id);
	Oid			type = TupleDescAttr(RelationGetDescr(index), nkeys)->atttypid;
	ScanKeyData scankeys[4];
	Oid			operator;

	Assert(nkeys < 4);
	equality_keys(index, nkeys, keys, scankeys);
	operator = get_opfamily_member(index->rd_opfamily[nkeys], index->rd_opcintype[nkeys],
								   index->rd_opcintype[nkeys], strategy);
	if (!OidIsValid(operator))
		elog(ERROR, "no operator %d for type %u", strategy, type);
	ScanKeyEntryInitialize(&scankeys[nkeys], 0, nkeys + 1, strategy, InvalidOid,
						   index->rd_indcollation[nkeys], get_opcode(operator), bound);
	return begin(t, id, nkeys + 1, scankeys);
}

/* See garbagetruck.h. */
void
gt_scan_backward(GtScan *scan)
{
	scan->direction = BackwardScanDirection;
}

/* See garbagetruck.h. */
GtScan *
gt_scan_begin_keys(GtTable *t, GtIndexId id)
{
	ScanKeyData scankey;
	GtScan	   *scan;

	ScanKeyEntryInitialize(&scankey, 0, 1, BTGreaterStrategyNumber, InvalidOid, InvalidOid, F_INT4GT,
						   Int32GetDatum(0));
	scan = begin(t, id, 1, &scankey);
	scan->scan->xs_want_itup = true;
	return scan;
}

/* See garbagetruck.h. */
bool
gt_scan_next_key(GtScan *scan, int after, int *key, TimestampTz *first)
{
	MemoryContext old = MemoryContextSwitchTo(scan->context);
	IndexScanDesc desc = scan->scan;
	int			steps = after > 0 ? 0 : KEY_STEPS;
	bool		found;
	bool		isnull;

	do
	{
		if (steps++ == KEY_STEPS)
		{
			ScanKeyData scankey;

			ScanKeyEntryInitialize(&scankey, 0, 1, BTGreaterStrategyNumber, InvalidOid, InvalidOid, F_INT4GT,
								   Int32GetDatum(after));
			index_rescan(desc, &scankey, 1, NULL, 0);
		}
		found = index_getnext_tid(desc, ForwardScanDirection) != NULL;
		if (found)
			*key = DatumGetInt32(index_getattr(desc->xs_itup, 1, desc->xs_itupdesc, &isnull));
	} while (found && *key == after);
	if (found)
		*first = DatumGetTimestampTz(index_getattr(desc->xs_itup, 2, desc->xs_itupdesc, &isnull));
	MemoryContextSwitchTo(old);
	return found;
}

static bool
next_row(GtScan *scan, GtRow *row, bool brief)
{
	MemoryContext old = MemoryContextSwitchTo(scan->context);
	bool		found = next_of_index(scan->table, scan->scan, scan->snapshot, scan->direction);

	MemoryContextSwitchTo(old);
	if (found)
		copy_columns(scan->table, row, brief);
	return found;
}

bool
gt_scan_next(GtScan *scan, GtRow *row)
{
	return next_row(scan, row, false);
}

/* See garbagetruck.h. */
bool
gt_scan_next_brief(GtScan *scan, GtRow *row)
{
	return next_row(scan, row, true);
}

/* See garbagetruck.h. Nothing is copied. */
int
gt_scan_count(GtScan *scan, int column, Datum value, int limit)
{
	TupleTableSlot *slot = scan->table->slot;
	int			n = 0;
	bool		isnull;

	while (n < limit && next_of_index(scan->table, scan->scan, scan->snapshot, scan->direction))
	{
		if (slot_getattr(slot, column + 1, &isnull) == value && !isnull)
			n++;
		ExecClearTuple(slot);
		CHECK_FOR_INTERRUPTS();
	}
	return n;
}

/* See garbagetruck.h. */
bool
gt_scan_last(GtScan *scan, GtRow *row)
{
	bool		found = next_of_index(scan->table, scan->scan, scan->snapshot, BackwardScanDirection);

	if (found)
		copy_row(scan->table, row);
	return found;
}

void
gt_scan_end(GtScan *scan)
{
	index_endscan(scan->scan);
	UnregisterSnapshot(scan->snapshot);
	pfree(scan);
}
