/*-------------------------------------------------------------------------
 *
 * table.h
 *	  Rows of our tables: read, locked, written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TABLE_H
#define GT_TABLE_H

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/lockoptions.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "table/schema.h"

#define GT_MAX_ATTS 32

/*
 * A row in memory: values detoasted never, copied always; tid tells where the
 * version lies that it was read from.  Allocated in the context current at the
 * read.  v and isnull may be changed and the row written back by gt_update().
 */
typedef struct GtRow
{
	ItemPointerData tid;
	TransactionId xmin;
	bool		brief;			/* columns of variable length were left out: for reading only */
	int64		ahead;			/* of gt_object: its times were written by a clock so far ahead, and have been put right; 0 */
	Datum		v[GT_MAX_ATTS];
	bool		isnull[GT_MAX_ATTS];
} GtRow;

/* One of our tables, open for reading or writing; lives in the caller's memory context. */
typedef struct GtTable
{
	GtTableId	id;
	MemoryContext context;		/* in which it was opened: what it needs later is made there, too */
	int			natts;			/* of our columns, what the table has */
	Relation	rel;
	LOCKMODE	lockmode;		/* of it and of its indexes */
	TupleTableSlot *slot;		/* of the relation, for reads */
	TupleTableSlot *write_slot; /* made by the first write */
	MemoryContext many;			/* NULL until many rows are inserted together: it has these */
	TupleDesc	many_desc;
	TupleTableSlot **many_slots;	/* GT_MANY of them, made as needed */
	EState	   *estate;			/* where the executor makes the index entries; NULL until it has to, see entries.c */
	ResultRelInfo *rri;
	Relation	index[GT_NINDEXES]; /* opened as needed */
	bool		met;			/* the last gt_fetch() has come upon an index entry, if only of a row that does not count */
} GtTable;

typedef enum
{
	GT_LOCKED,					/* row holds the newest version, which we have locked */
	GT_GONE,					/* deleted, or never there */
	GT_BUSY,					/* another transaction has it (skip only) */
	GT_REFUSED					/* by the judge (gt_fetch_lock_if only): nothing was locked */
} GtLockResult;

/* For writing (ROW EXCLUSIVE or more): 55000 while a trigger, rule or column of somebody else is there. */
extern void gt_open(GtTable *t, GtTableId id, LOCKMODE lockmode);
extern void gt_open_index(GtTable *t, GtIndexId index);	/* now, and not in a subtransaction that needs it first */
extern void gt_close(GtTable *t);	/* keeps the lock to the end of the transaction */

/*
 * The row with these index keys, as the latest committed state or this very
 * transaction has it, at every isolation level; false: there is none.
 */
extern bool gt_fetch(GtTable *t, GtIndexId index, int nkeys, const Datum *keys, GtRow *row);
/* Locks the row that `row` was read from and re-reads it. May wait, but under skip. */
extern GtLockResult gt_lock(GtTable *t, GtRow *row, LockTupleMode mode, bool skip);
/* fetch and lock, again when the row was deleted and inserted meanwhile */
extern GtLockResult gt_fetch_lock(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
								  GtRow *row, LockTupleMode mode, bool skip);

/*
 * The same for who may have to refuse: locks the version that `may` has found
 * good, and no other.  Waits for whoever has it, judges again what he leaves,
 * and holds nothing while it waits, nor when `may` says no.
 */
typedef bool (*GtJudge) (const GtRow *row, void *arg);

extern GtLockResult gt_fetch_lock_if(GtTable *t, GtIndexId index, int nkeys, const Datum *keys,
									 GtRow *row, LockTupleMode mode, bool skip, GtJudge may, void *arg);
/* Is all that keeps others from an update of this version that transactions have locked it FOR SHARE? */
extern bool gt_is_share_locked(GtTable *t, GtRow *row);
extern void gt_insert(GtTable *t, GtRow *row);
/* false: `index` (unique) has these keys already, by a transaction that has committed meanwhile; nothing was written */
extern bool gt_insert_unique(GtTable *t, GtRow *row, GtIndexId index);
/* The same for workers: false also where that is not known yet, for the other transaction is open. */
extern bool gt_insert_if_free(GtTable *t, GtRow *row, GtIndexId index);
/*
 * The same for who has just looked and met no entry of these keys.  Where somebody
 * has come in between, such an entry of ours stays, of no row: who inserts the same
 * keys waits for the end of this subtransaction.
 */
extern bool gt_insert_unmet(GtTable *t, GtRow *row, GtIndexId index);
#define GT_MANY 1024			/* rows that are inserted together: a pass of workers */
extern void gt_insert_many(GtTable *t, GtRow *rows, int n); /* as gt_insert() each */
extern int	gt_insert_many_unmet(GtTable *t, GtRow **rows, int n, GtIndexId index); /* in order; how many, before one is not */
extern void gt_row_init(GtRow *row);	/* all NULL */
extern void gt_update(GtTable *t, GtRow *row);	/* the row must have been locked by gt_lock */
extern void gt_delete(GtTable *t, GtRow *row);	/* likewise */
/*
 * Deletes the version that `row` was read from, without waiting; false: nothing
 * was done, it is not the newest or somebody has it locked.  So what was judged
 * by `row` is true at the deletion, as if it had been locked before: one record
 * in the log, where lock and deletion are two.
 */
extern bool gt_try_delete(GtTable *t, GtRow *row);
/* An index scan in index order over the latest committed state (one snapshot for the whole scan). */
typedef struct GtScan GtScan;
extern GtScan *gt_scan_begin(GtTable *t, GtIndexId index, int nkeys, const Datum *keys);	/* equality on leading columns */
extern GtScan *gt_scan_begin_bound(GtTable *t, GtIndexId index, int nkeys, const Datum *keys, int strategy, Datum bound);
extern bool gt_scan_next(GtScan *scan, GtRow *row);
extern void gt_scan_end(GtScan *scan);

#define GT_INT64(row, a)	DatumGetInt64((row)->v[a])
#define GT_INT32(row, a)	DatumGetInt32((row)->v[a])
#define GT_BOOL(row, a)		DatumGetBool((row)->v[a])
#define GT_OID(row, a)		DatumGetObjectId((row)->v[a])
#define GT_CHAR(row, a)		DatumGetChar((row)->v[a])
#define GT_TIME(row, a)		DatumGetTimestampTz((row)->v[a])
#define GT_SET(row, a, d)	((row)->v[a] = (d), (row)->isnull[a] = false)
#define GT_SET_NULL(row, a) ((row)->v[a] = (Datum) 0, (row)->isnull[a] = true)

#endif
