/*-------------------------------------------------------------------------
 *
 * garbagetruck.h
 *	  Types and prototypes of the extension, grouped by the file that owns them.
 *
 * Dependencies point one way: SQL entry points (create.c, queue.c, handler.c)
 * -> ending.c, garbage.c -> clock.c, table.c -> shmem.c; the processes
 * (launcher.c, worker.c) -> clean.c -> run.c.  run.c knows nothing of processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GARBAGETRUCK_H
#define GARBAGETRUCK_H

#include <signal.h>

#include "access/htup.h"
#include "access/xact.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "nodes/lockoptions.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "storage/lwlock.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define GT_VERSION "1.0"

/* SQLSTATEs of our own, see the README */
enum
{
	ERRCODE_GT_NOT_FOUND = MAKE_SQLSTATE('G','T','0','0','1'),
	ERRCODE_GT_EXPIRED = MAKE_SQLSTATE('G','T','0','0','2'),
	ERRCODE_GT_OTHER_SERVICE = MAKE_SQLSTATE('G','T','0','0','3'),
	ERRCODE_GT_RECLAIMING = MAKE_SQLSTATE('G','T','0','0','4'),
	ERRCODE_GT_LEASED = MAKE_SQLSTATE('G','T','0','0','5'),
	ERRCODE_GT_QUOTA = MAKE_SQLSTATE('G','T','0','0','6'),
	ERRCODE_GT_NO_HANDLER = MAKE_SQLSTATE('G','T','0','0','7')
};

/* ---------------------------------------------------------------- garbagetruck.c: settings */

extern char *gt_databases;
extern int	gt_max_workers;
extern int	gt_naptime;				/* s */
extern int	gt_batch_size;
extern int	gt_default_duration;	/* ms */
extern int	gt_min_duration;		/* ms */
extern int	gt_max_duration;		/* s: 30 d do not fit an int of ms */
extern int	gt_regrant_delay;		/* ms */
extern int	gt_restart_grace;		/* ms */
extern int	gt_max_leases_per_service;
extern int	gt_max_payload;			/* bytes */
extern int	gt_history;				/* GtHistoryMode */
extern int	gt_history_retention;	/* s */
extern int	gt_renewals;			/* GtRenewalMode */
extern int	gt_renewal_buffer_size; /* kB */
extern char *gt_identity;
extern bool gt_in_cleanup;			/* garbagetruck.in_cleanup: only run.c sets it */
extern void gt_settings_init(bool preloaded);	/* from _PG_init */

extern void gt_library_init(void);	/* from _PG_init: it is now as it is loaded */
extern bool gt_version_is_newer(const char *a, const char *b);	/* than b; as far as they are MAJOR.MINOR */
extern char *gt_library_changed(void);	/* what became of the library on disk since it was loaded; NULL: nothing */

typedef enum
{
	GT_HISTORY_OFF, GT_HISTORY_ERRORS, GT_HISTORY_ALL
} GtHistoryMode;

typedef enum
{
	GT_RENEWALS_BUFFERED, GT_RENEWALS_DURABLE
} GtRenewalMode;

/*
 * Fault points, in builds with -DGT_FAULT_POINTS only.  A file gt_point.NAME in
 * the data directory whose text is wait, error, fatal or crash makes the next
 * process that comes by do so.  error, fatal and crash remove the file first;
 * wait lasts as long as the file is there, and makes gt_point.NAME.waiting.
 */
#ifdef GT_FAULT_POINTS
extern void gt_point_at(const char *name);
#define GT_POINT(name) gt_point_at(name)
#else
#define GT_POINT(name) ((void) 0)
#endif

/* ---------------------------------------------------------------- table.c: our tables, read and written without SQL */

typedef enum
{
	GT_OBJECT, GT_LEASE, GT__ORPHAN, GT__HANDLER, GT__HANDLER_RIGHT, GT__SHARE, GT__ROLE,
	GT__TALLY, GT__RUN, GT__START, GT__PLACE, GT__PAUSED, GT__HISTORY, GT_NTABLES
} GtTableId;

typedef enum
{
	GT__CLEANUP_ID, GT__HANDLER_ID, GT_NSEQUENCES
} GtSequenceId;

typedef enum
{
	GT_OBJECT_PKEY, GT_OBJECT_DUE, GT_OBJECT_CLEANUP, GT_OBJECT_DEAD,
	GT_LEASE_PKEY, GT_LEASE_CHECK, GT_LEASE_OBJECT, GT_LEASE_SERVICE, GT_LEASE_PARENT, GT_LEASE_REQUEST,
	GT__ORPHAN_PKEY, GT__HANDLER_PKEY, GT__HANDLER_NAME, GT__HANDLER_RIGHT_PKEY, GT__SHARE_PKEY,
	GT__ROLE_PKEY, GT__TALLY_PKEY, GT__RUN_PKEY, GT__HISTORY_PKEY, GT_NINDEXES
} GtIndexId;

/* attribute numbers, 0-based, in the order of garbagetruck--1.0.sql */
enum
{
	O_OBJECT_TYPE, O_OBJECT_ID, O_OWNER, O_LEASES, O_FENCE, O_STATE, O_KEEP, O_ALONE, O_EVICTED, O_HANDLER,
	O_SPEC_LEASE, O_REGRANT_AT, O_CLEANUP_ID, O_DUE_AT, O_SINCE, O_ATTEMPTS, O_MAX_ATTEMPTS, O_RETRY_DELAY,
	O_EXTRA_ATTEMPTS, O_LEASE_ID, O_SERVICE_ID, O_PAYLOAD, O_METADATA, O_CLAIMED_UNTIL, O_FLIGHT_UNTIL,
	O_SENDS, O_ERROR, O_FLIGHT_BEFORE, O_STEPS, O_TIMED_AT, O_CONFLICTS, O_CALLER, O_NATTS
};
enum
{
	L_ID, L_OBJECT_TYPE, L_OBJECT_ID, L_OWNER, L_SERVICE_ID, L_CREATED_AT, L_RENEWED_AT, L_DEADLINE, L_CHECK_AT,
	L_DURATION, L_RUN, L_RENEWALS, L_FENCE, L_EXCLUSIVE, L_ATTEMPTS, L_PARENT, L_HANDLER, L_MAX_ATTEMPTS,
	L_RETRY_DELAY, L_REQUEST_KEY, L_PAYLOAD, L_METADATA, L_REQUEST_SERVICE, L_REGRANT_DELAY, L_NATTS
};
enum
{
	P_PARENT, P_EXPIRED, P_ENDED_AT, P_NATTS
};
enum
{
	H_ID, H_NAME, H_KIND, H_COMMAND, H_OWNER, H_OWNER_NAME, H_RUN_AS, H_RUN_AS_NAME, H_SEARCH_PATH, H_MAX_ATTEMPTS,
	H_RETRY_DELAY, H_TIMEOUT, H_GRACE, H_CONCURRENCY, H_RATE_LIMIT, H_PAUSED, H_PAUSED_REASON, H_BUILTIN, H_VERSION,
	H_CRASHES, H_RESUMED_AT, H_MUST_AFFECT, H_NATTS
};
enum
{
	HR_HANDLER, HR_ROLE, HR_ROLE_NAME, HR_PRIVILEGE, HR_NATTS
};
enum
{
	S_OWNER, S_ROLE, S_OBJECT_TYPE, S_OWNER_NAME, S_ROLE_NAME, S_NATTS
};
enum
{
	R_ROLE, R_NAME, R_ID, R_NATTS
};
enum
{
	T_HANDLER, T_SLOT, T_RUNS, T_FAILURES, T_LAST_RUN_AT, T_LAST_ERROR, T_LAST_ERROR_AT, T_NATTS
};
enum
{
	RUN_WORKER, RUN_HANDLER, RUN_ALONE, RUN_TOGETHER, RUN_AT, RUN_ITEMS, RUN_TIMELINE, RUN_NATTS
};
enum
{
	ST_RUN, ST_STARTED_AT, ST_GRACE, ST_GRACE_BEFORE, ST_ID, ST_REARMED, ST_HISTORY_NOW, ST_NATTS
};
enum
{
	PL_IDENTITY, PL_DATABASE, PL_ADOPTED_AT, PL_SUBSCRIBED, PL_RESTORED, PL_ID, PL_REPLACES, PL_NATTS
};
enum
{
	PA_AT, PA_ROLE, PA_ID, PA_NATTS
};
enum
{
	HI_AT, HI_EVENT, HI_OBJECT_TYPE, HI_OBJECT_ID, HI_OWNER, HI_CLEANUP_ID, HI_ATTEMPT, HI_HANDLER, HI_LEASE_ID,
	HI_SERVICE_ID, HI_LAG, HI_TOOK, HI_ERROR, HI_HANDLER_ID, HI_ID,
	HI_HANDLER_VERSION, HI_AFFECTED, HI_NATTS
};
#define GT_MAX_ATTS 32
#define GT_BRIEF_ATTS (O_DUE_AT + 1)	/* see gt_scan_next_brief() */

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
	EState	   *estate;			/* for index entries; NULL until the first write */
	ResultRelInfo *rri;
	TupleTableSlot *slot;		/* of the relation, for reads */
	TupleTableSlot *write_slot; /* made with estate */
	Relation	index[GT_NINDEXES]; /* opened as needed */
} GtTable;

typedef enum
{
	GT_LOCKED,					/* row holds the newest version, which we have locked */
	GT_GONE,					/* deleted, or never there */
	GT_BUSY,					/* another transaction has it (skip only) */
	GT_REFUSED					/* by the judge (gt_fetch_lock_if only): nothing was locked */
} GtLockResult;

extern uint64 gt_handler_writes;	/* how often this process has written gt__handler: for caches of handlers */
extern Oid	gt_extension(void); /* its OID, or InvalidOid where it is not installed */
extern Oid	gt_schema(void);	/* of the public functions and views */
extern Oid	gt_own_schema(void);	/* _garbagetruck: the tables, sequences and all gt__ names */
extern Oid	gt_owner(void);		/* role that owns the extension */
extern Oid	gt_relid(GtTableId id);
extern Oid	gt_sequence(GtSequenceId id);
extern Oid	gt_index(GtIndexId id);
extern bool gt_relations_changed(void);	/* since one of these was asked: what it said may be another's now */
extern int	gt_table_natts(GtTableId id);	/* columns that are ours */
/* grows when the definition of a table or sequence may have changed, or it was rebuilt or vacuumed */
extern uint64 gt_table_changes;
/* For writing (ROW EXCLUSIVE or more): 55000 while a trigger, rule or column of somebody else is there. */
extern void gt_open(GtTable *t, GtTableId id, LOCKMODE lockmode);
extern void gt_close(GtTable *t);	/* keeps the lock to the end of the transaction */

/* What has committed until now, and what this transaction has done; within a parallel query, what that sees. */
extern Snapshot gt_newest_snapshot(void);
/*
 * The row with these index keys, as the latest committed state or this very
 * transaction has it, at every isolation level; false: there is none.
 */
extern bool gt_fetch(GtTable *t, GtIndexId index, int nkeys, const Datum *keys, GtRow *row);
/* The row that was read there before, if that version is still the newest; false: look for it by an index. */
extern bool gt_fetch_version(GtTable *t, ItemPointer tid, GtRow *row);
/* Any row of the table. */
extern bool gt_fetch_any(GtTable *t, GtRow *row);
/* Rows of a small table, at most `limit`, as this snapshot (which is registered or active) shows them; palloc'd. */
extern int	gt_fetch_some(GtTable *t, Snapshot snapshot, int limit, GtRow **rows);
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
extern void gt_row_init(GtRow *row);	/* all NULL */
extern Datum gt_random_id(void);	/* bigint: the key of a row that nothing else tells apart */
extern void gt_update(GtTable *t, GtRow *row);	/* the row must have been locked by gt_lock */
extern void gt_delete(GtTable *t, GtRow *row);	/* likewise */
/*
 * Deletes the version that `row` was read from, without waiting; false: nothing
 * was done, it is not the newest or somebody has it locked.  So what was judged
 * by `row` is true at the deletion, as if it had been locked before: one record
 * in the log, where lock and deletion are two.
 */
extern bool gt_try_delete(GtTable *t, GtRow *row);
extern uint64 gt_object_writes; /* by this process, to gt_object: tells whether rows that we hold are still as read */

/* An index scan in index order over the latest committed state (one snapshot for the whole scan). */
typedef struct GtScan GtScan;
extern GtScan *gt_scan_begin(GtTable *t, GtIndexId index, int nkeys, const Datum *keys);	/* equality on leading columns */
/* also a bound on column nkeys+1: strategy BTLess... of its btree opclass */
extern GtScan *gt_scan_begin_null(GtTable *t, GtIndexId index);	/* the leading column IS NULL */
extern GtScan *gt_scan_begin_bound(GtTable *t, GtIndexId index, int nkeys, const Datum *keys, int strategy, Datum bound);
extern void gt_scan_backward(GtScan *scan);	/* before the first row: from the end on */
extern bool gt_scan_next(GtScan *scan, GtRow *row);
extern int	gt_scan_count(GtScan *scan, int column, Datum value, int limit);	/* rows with this oid there; stops at limit */
extern bool gt_scan_next_brief(GtScan *scan, GtRow *row);	/* of gt_object: numbers and times up to O_DUE_AT alone are set */
extern bool gt_scan_last(GtScan *scan, GtRow *row);	/* the last row of it, in place of gt_scan_next() */
extern void gt_scan_end(GtScan *scan);
/*
 * The keys in an index whose first column is an int and whose second a time, each
 * once and by the index alone, whatever became of the rows: the next one after
 * `after`, which is the one before (0 at first), and a time before which it has
 * nothing.
 */
extern GtScan *gt_scan_begin_keys(GtTable *t, GtIndexId index);
extern bool gt_scan_next_key(GtScan *scan, int after, int *key, TimestampTz *first);

#define GT_INT64(row, a)	DatumGetInt64((row)->v[a])
#define GT_INT32(row, a)	DatumGetInt32((row)->v[a])
#define GT_BOOL(row, a)		DatumGetBool((row)->v[a])
#define GT_OID(row, a)		DatumGetObjectId((row)->v[a])
#define GT_CHAR(row, a)		DatumGetChar((row)->v[a])
#define GT_TIME(row, a)		DatumGetTimestampTz((row)->v[a])
#define GT_SET(row, a, d)	((row)->v[a] = (d), (row)->isnull[a] = false)
#define GT_SET_NULL(row, a) ((row)->v[a] = (Datum) 0, (row)->isnull[a] = true)

/* ---------------------------------------------------------------- clock.c: the clock by which leases are judged */

/* In shared memory, part of GtShared; without preload there is none. */
typedef struct GtClock
{
	int64		run;			/* this server run: random, drawn when shared memory is initialised */
	int64		base;			/* gt_clock() = base + CLOCK_MONOTONIC. Under the lock of GtShared */
	TimestampTz before;			/* of the run before, as far as it is known; 0 */
	int64		ended;			/* that run, if it went down in order and the clock goes on from there; 0 */
	bool		settled;		/* base will not be changed any more. Under that lock */
} GtClock;

extern TimestampTz gt_now(void);	/* gt_clock() */
extern void gt_clock_share(GtClock *shared, LWLock *lock, bool first);	/* when shared memory is there; first: the postmaster, who makes it */
extern void gt_clock_settle(void);	/* after a recovery, before anything is judged or granted */
extern void gt_clock_record(void);	/* keeps gt_clock() in a file for the next start; at most each 10 s, but for the launcher's exit */

/* ---------------------------------------------------------------- shmem.c: what all processes share */

#define GT_MAX_WORKERS		64	/* bound of garbagetruck.max_workers */
#define GT_MAX_DATABASES	1024
#define GT_FOREGROUND		16	/* slots for sessions in gt_reclaim() */
#define GT_SLOTS			(GT_MAX_WORKERS + GT_FOREGROUND)
#define GT_TURNS			256		/* roles whose last turn is remembered at a time */
#define GT_MAX_ITEMS		1000	/* of one run */
#define GT_NEVER			PG_INT64_MAX

/* A place among the leases in the order of check_at, which of equal ones is that of the index. */
typedef struct GtPlaceInQueue
{
	TimestampTz check_at;
	ItemPointerData tid;
} GtPlaceInQueue;

/* What passes of expiry in progress have chosen: what comes before the first place, and what lies from bottom to top. */
typedef struct GtInHand
{
	GtPlaceInQueue upto;
	GtPlaceInQueue bottom;
	GtPlaceInQueue top;
} GtInHand;

/* One database that is known to the launcher.  Entries are never moved. */
typedef struct GtDatabase
{
	Oid			oid;			/* InvalidOid: free.  Written under GtShared.lock */
	pg_atomic_uint64 next_due;	/* gt_clock() time of the earliest work, GT_NEVER: none; see gt_due_at() */
	Oid			started;		/* the gt__start that has this server run: the two below are valid, and only grow; else InvalidOid. Under lock */
	TimestampTz started_at;		/* S */
	int64		grace;			/* the larger of the two restart_graces, us */
	bool		rearmed;		/* see rearm.c. Under lock, set once a run */
	int64		rearmer;		/* serial of the worker that sees to it; 0: none. Under lock */
	bool		absent;			/* a worker found no extension there. Under lock */
	int			hold;			/* commands on the database in progress: no worker may start. Under lock */
	int			failures;		/* worker starts that failed in a row. Under lock */
	TimestampTz retry_at;		/* not before: after such a failure. Under lock */
	int			place;			/* GtPlace as the last worker saw it, for gt_health and metrics. Under lock */
	bool		warned;			/* the log says that it is a copy. Under lock */
	int			errors;			/* of workers outside of handlers, in a row. Under lock, as those below */
	TimestampTz error_at;		/* the last one */
	char		error_in[64];	/* what the worker was at; when that goes well once, the row ends */
	char		error[256];
	bool		sweep;			/* a worker ended with a run on record. Under lock */
	bool		unjudged;		/* a run on record can not be judged yet: somebody has its rows. Under lock */
	TimestampTz unjudged_since;
	bool		denied;			/* due work waits for a run elsewhere to end. Under lock */
	Oid			waits;			/* a role with work that nobody here may do, or does; InvalidOid: none. Under lock */
	TimestampTz waits_since;
	int64		expirer;		/* serial of the worker that chooses leases to end; 0: none. Under lock */
	bool		expire_again;	/* who ends the last pass in progress shall look once more. Under lock */
	GtInHand	expire_in_hand; /* of passes in progress. Under lock */
	TimestampTz lease_low;		/* what a pass begins with who has looked at nothing yet: see ending.c. Under lock, as those below */
	TimestampTz lease_looked_at;
	int64		lease_cost;
} GtDatabase;

typedef enum
{
	GT_SLOT_FREE, GT_SLOT_STARTING, GT_SLOT_IDLE, GT_SLOT_EXPIRING, GT_SLOT_CLEANING
} GtSlotState;

/* One worker.  Written by it (by the launcher while free or starting) under GtShared.lock. */
typedef struct GtSlot
{
	GtSlotState state;
	pid_t		pid;
	int			procno;			/* of its PGPROC, for SetLatch; -1 until it runs */
	Oid			database;
	int64		serial;			/* tells its users apart; not gt__run.worker */
	bool		leave;			/* another database needs the slot */
	bool		in_pass;		/* has chosen leases to end, and has not committed that */
	bool		alone;			/* runs an object that was in a crashed run */
	int			handler;		/* whose objects it runs now; 0: none */
	char		handler_name[NAMEDATALEN];
	Oid			runs_as;		/* whose SQL that is; InvalidOid: none */
	int			speed;			/* GtSpeed of the handler when it was chosen */
	TimestampTz run_since;		/* of the run in progress; 0: none. Written without the lock */
	Oid			role;			/* whose SQL alone this process may run; InvalidOid: it has run none */
	TimestampTz turn;			/* since when */
	bool		look;			/* there is work of its role */
	TimestampTz since;			/* of the state */
	int			crashes;		/* of workers in this slot, since the server started */
	int			nitems;			/* cleanup ids of its run, then of the one before until that commits: */
	int64		items[2 * GT_MAX_ITEMS];	/* others pass over them */
	TimestampTz upto;			/* due time of the last one of its run */
	int64		record;			/* gt__run.worker of its user, which lives as long as it has the slot; 0: none yet */
} GtSlot;

/* When a role of a database was served last. Under GtShared.lock. See slots.c */
typedef struct GtTurn
{
	Oid			database;		/* InvalidOid: free */
	Oid			role;			/* InvalidOid: what is of no role */
	TimestampTz at;
	TimestampTz tried_at;		/* when a run of it was last let try whether it is slow, while others waited */
	int			workers;		/* out of gt_slot_turns(): of others that serve it */
	int			lines;			/* that its failures may still write into the log, as of: */
	TimestampTz logged_at;
} GtTurn;

typedef struct GtCounters		/* of one database; added to by observe.c */
{
	pg_atomic_uint64 created, renewed, released, expired;
} GtCounters;

typedef struct GtShared
{
	LWLock	   *lock;			/* all fields below that say so */
	GtClock		clock;
	pg_atomic_uint64 serial;	/* next worker serial */
	int			launcher_procno;	/* -1: none.  Under lock */
	pid_t		launcher_pid;
	pg_atomic_uint64 slots_missing; /* times that no background worker slot was free */
	pg_atomic_uint64 slots_missing_at;	/* gt_clock() time of the last one; 0: never */
	GtCounters	counters[GT_MAX_DATABASES];
	GtDatabase	databases[GT_MAX_DATABASES];
	Oid			starving;		/* a database that needs a worker, and no slot is free; InvalidOid: none. Under lock */
	TimestampTz starved_at;		/* when that was so last. Under lock */
	bool		denied;			/* some database is. Under lock */
	int64		restored;		/* names the archive recovery that this cluster came from; 0: none */
	GtTurn		turns[GT_TURNS];
	GtSlot		slots[GT_SLOTS];	/* of workers; from GT_MAX_WORKERS on of sessions in gt_reclaim() */
} GtShared;

extern GtShared *gt_shared;		/* NULL: not preloaded */
extern GtSlot *gt_my_slot;		/* of a worker; NULL elsewhere */
extern void gt_shmem_init(void);	/* from _PG_init, before the files that have parts of it */
/* From _PG_init: so much more, and what is called when it is there; first: by the postmaster, at its start or after a crash. */
typedef void (*GtShmemStart) (bool first);
extern void gt_shmem_part(Size size, GtShmemStart start);
/* The entry of a database; made when `create` and there is room, else NULL. Takes the lock. */
extern GtDatabase *gt_database(Oid database, bool create);
extern GtDatabase *gt_my_database(void);	/* cached; NULL: not preloaded */
/*
 * There is work at this time (gt_clock) once the current transaction has
 * committed: wakes the worker of this database, or the launcher, if it is the
 * earliest known.  Forgotten when the (sub)transaction aborts.
 */
extern void gt_due_after_commit(TimestampTz when);
extern void gt_due_at(GtDatabase *db, TimestampTz when);	/* at once */
extern void gt_wake_launcher(void);
extern void gt_wake_procno(int procno);
/*
 * Wakes the first worker that is idle in a database: it is the one that sleeps
 * until next_due.  So who was that and is idle no longer calls this.  false: there
 * is none.
 */
extern bool gt_wake_idle(Oid database);
/* What this worker's commits have asked for, for it to publish: the earliest, and the earliest that was not due at once. */
extern TimestampTz gt_worker_due;
extern TimestampTz gt_worker_later;

/* ---------------------------------------------------------------- start.c: this server run, and what an absence does to deadlines */

extern int64 gt_run(void);		/* this server run */
/*
 * Sees to it that this server run is recorded in gt__start before any lease is
 * judged over here. Every writing call and every worker pass calls it.
 */
extern void gt_start_ensure(void);
/* The one reader of a lease's deadline: the instant at which it is over (GT_NEVER: cannot be judged yet). Not for children. */
extern TimestampTz gt_effective_deadline(const GtRow *lease);
extern TimestampTz gt_least_deadline(const GtRow *lease);	/* the same; where it can not be judged, what it will be at least */
extern int64 gt_grace_of(int64 duration);	/* G of invariant I1, us */
/* Have the times of earlier runs that are ahead been put right (rearm.c)? And that they have. */
extern bool gt_start_is_rearmed(void);
extern void gt_start_rearmed(void);
extern TimestampTz gt_history_now(void);	/* by which the history is trimmed: it does not follow a jump of the clock */
extern void gt_start_adopt(void);	/* a copy was adopted: the grace begins now, with the full duration */

/* ---------------------------------------------------------------- tampered.c: what others have put on our tables */

/* Both are cheap. NULL: all is well; else what is in the way, for people. */
extern const char *gt_tables_obstructed(void);	/* why nothing can be written */
extern const char *gt_tables_tampered(void);	/* why no SQL of anybody is run: another role can write our tables */

/* ---------------------------------------------------------------- rights.c: who may what */

/*
 * allow.c: 42501 unless current_user was given a right that this public function belongs to.  gt_mark_write() asks;
 * functions that only read begin with it.
 */
extern void gt_must_be_allowed(const char *function);
/*
 * Callers of a server that works as one role are kept apart as roles are: such a
 * server says for whom it calls by garbagetruck.caller, SET LOCAL before the call.
 * A caller S acts for the services S and S/..., and for objects whose first lease
 * was given to it.  Who does not say so is the role itself, and not judged.
 */
extern char *gt_caller;			/* garbagetruck.c: garbagetruck.caller; "" */
extern bool gt_newest_first;	/* garbagetruck.newest_first: such a server's wish for gt_lease_list() */
extern bool gt_caller_covers(const char *service);
extern bool gt_acts_for_object(const GtRow *object);	/* both for the role and for the caller */
extern bool gt_acts_for(Oid role);	/* current_user has the rights of role, which is whom the row means also in a copy */
extern bool gt_is_admin(void);	/* superuser, the extension's owner or gt_allow(.., 'admin') */
extern bool gt_is_monitor(void);	/* or pg_monitor or gt_allow(.., 'monitor') */
extern bool gt_shared_with(Oid owner, const char *object_type, Oid user);	/* gt_share; members counted */
extern void gt_note_role(Oid role);	/* keep its name in gt__role, once */
extern void gt_roles_translate(void);	/* a copy: give the rows of each role the OID that its name has here */
extern bool gt_role_is_named(Oid role, const char *name);	/* is it there, and called so? */
extern const char *gt_role_name(Oid role);	/* or "unknown (OID n)" */
/* run the block as the extension's owner: for SPI on our tables, search_path pinned */
typedef struct GtSwitch
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} GtSwitch;
extern void gt_become_owner(GtSwitch *save);
extern void gt_become_user(GtSwitch *save);

/* ---------------------------------------------------------------- handler.c: handlers as registered */

typedef enum
{
	GT_KIND_SQL, GT_KIND_SQL_BATCH, GT_KIND_NOTIFY, GT_KIND_NOTIFY_ONLY, GT_KIND_QUEUE,
	GT_KIND_HTTP, GT_KIND_GRPC, GT_KIND_S3, GT_KIND_AZURE_BLOB, GT_KIND_FILE, GT_KIND_REDIS, GT_NKINDS
} GtKind;

#define GT_KIND_IS_EXTERNAL(k) ((k) >= GT_KIND_QUEUE)	/* only gt_claim starts its attempts */
#define GT_KIND_IS_CLAIMABLE(k) ((k) == GT_KIND_NOTIFY || (k) >= GT_KIND_QUEUE)

typedef struct GtHandler
{
	int			id;
	char	   *name;
	GtKind		kind;
	char	   *command;		/* may be NULL */
	Oid			owner;
	char	   *owner_name;
	Oid			run_as;			/* the owner where none was given */
	char	   *run_as_name;
	char	   *search_path;
	int			max_attempts;
	int64		retry_delay;	/* us, as those below */
	int64		timeout;
	int64		grace;
	int			concurrency;	/* 0: no limit */
	int			rate_limit;		/* 0: no limit */
	bool		paused;
	char	   *paused_reason;
	bool		builtin;
	int			version;
	int			crashes;
	TimestampTz resumed_at;		/* 0: never */
	bool		must_affect;	/* a run that affects nothing has failed */
	TransactionId xmin;			/* of the row version: with id and version, a cache key */
	bool		missing;		/* only the id is known, by what refers to it: see gt_handler_missing() */
} GtHandler;

extern const char *const gt_kind_names[GT_NKINDS];
extern void gt_handler_from_row(const GtRow *row, GtHandler *h);
extern bool gt_handler_by_name(const char *name, GtHandler *h);	/* the latest committed */
extern bool gt_handler_by_id(int id, GtHandler *h);
extern void gt_handler_missing(int id, GtHandler *h);	/* what stands for one that is gone, though there is garbage of it */
/*
 * The handler that a new lease names: to the end of the transaction it is
 * neither dropped nor given another kind.  false: there is none.
 */
extern bool gt_handler_hold(const char *name, GtHandler *h);
extern void gt_handler_let_go(const GtHandler *h);	/* in the same call: it was not for the caller */
extern List *gt_handler_list(void);	/* of GtHandler *, by id */
extern bool gt_handler_may_use(const GtHandler *h);
extern bool gt_handler_is_own(const GtHandler *h);	/* of current_user, or of a role that it is a member of */
extern bool gt_handler_may_claim(const GtHandler *h);
extern void gt_must_claim_handler(const GtHandler *h, const char *verb);	/* 42501; verb: what is denied, or NULL */
extern void gt_no_such_handler(const char *name);	/* GT007 */
extern char *gt_handler_grant_hint(const GtHandler *h, const char *privilege);
/* NULL: its roles are who they were when it was registered, may do what they did, and its search_path is safe; else why it is suspended */
extern const char *gt_handler_suspended(const GtHandler *h);
extern bool gt_database_paused(void);	/* gt_pause() without a handler */

/* ---------------------------------------------------------------- transaction.c: the end of a transaction */

/*
 * Who has to do something at the end of a transaction, in the order in which
 * they are called.  Before the commit only GT_AT_END_CREATED does anything.
 * Whoever wakes others comes last: they find all else done.
 */
typedef enum
{
	GT_AT_END_EPOCH,			/* what was remembered of it is worth nothing any more */
	GT_AT_END_CREATED,			/* created.c: leases start their life at the commit */
	GT_AT_END_WRITING,			/* writing.c: what has been written can not be prepared */
	GT_AT_END_START,			/* start.c: this server run is recorded */
	GT_AT_END_CLAIMS,			/* claim.c: starts that were reserved are made, or given back */
	GT_AT_END_COUNTS,			/* counts.c: what is counted */
	GT_AT_END_ADOPTED,			/* adopt.c: a copy has become an original */
	GT_AT_END_DUE,				/* due.c: who sleeps is told what is due */
	GT_AT_END_KINDS
} GtAtEnd;

/* From now on these are called for it; to call this again changes nothing. of_subtransaction: or NULL. */
extern void gt_at_end(GtAtEnd who, XactCallback of_transaction, SubXactCallback of_subtransaction);

/*
 * Changes whenever something that this transaction has read or written may be
 * undone: with its end, and with the abort of any subtransaction.  What a
 * process remembers of its transaction is good as long as this is the same.
 */
extern uint64 gt_epoch(void);
/* Runs the body in a subtransaction. What it raises is returned, but for a cancellation, which goes on; NULL: nothing. */
extern ErrorData *gt_try(void (*body) (void *arg), void *arg);
/*
 * First thing in every writing SQL function: 42501 without the right to it, 25006 in a read-only transaction or
 * on a standby, and remembers that PREPARE TRANSACTION must fail (0A000).
 */
extern void gt_mark_write(const char *function);
/* Was this lease created by the current transaction? Then it is not over before the commit. */
extern bool gt_created_here(const pg_uuid_t *id);
/* The commit of this transaction is flushed here, whatever synchronous_commit says then. */
extern void gt_commit_flushed(void);

/* ---------------------------------------------------------------- lease.c: when a lease is over; check.c: values */

/* When the lease (or its parent) is over, by rows as they are read; 0, which is no time: a child whose parent has ended. */
extern TimestampTz gt_lease_over_at(GtTable *leases, const GtRow *lease);
extern bool gt_lease_running(GtTable *leases, const GtRow *lease, TimestampTz now);
extern bool gt_lease_is_over(const GtRow *lease);	/* one that is no child, now */
/*
 * Is the parent of a child over, so that it stays so?  Then its row is gone, or
 * locked FOR SHARE.  Waits for a renewal of it that is on its way, or else does
 * not know yet: false; one that runs is not locked.  Out: when it was over, and
 * whether it expired.
 */
extern bool gt_parent_is_over(GtTable *leases, const pg_uuid_t *parent, bool wait, TimestampTz *over_at, bool *expired);
extern Interval *gt_us_interval(int64 us);
extern void *gt_alloc_array(int n, Size size);	/* zeroed; of what a caller has named, however much that is */
extern void gt_must_not_be_null(FunctionCallInfo fcinfo, int arg, const char *what);	/* 22004 */
/* us, 22004 or 22023: `range` tells in words what is between min and max */
extern int64 gt_interval_argument(FunctionCallInfo fcinfo, int arg, const char *what, int64 min, int64 max, const char *range);

/* ---------------------------------------------------------------- ending.c: the one way in which a lease ends */

typedef enum
{
	GT_END_EXPIRED, GT_END_RELEASED, GT_END_KEPT
} GtEndReason;

typedef struct GtLeaseKey		/* enough to lock in order */
{
	pg_uuid_t	id;
	char	   *object_type;
	char	   *object_id;
	bool		child;
	pg_uuid_t	parent;			/* of a child */
	bool		over;			/* known to be over, not judged again: child of an ended parent */
	TimestampTz ended_at;		/* of such a child; out: when the lease was over */
	bool		ended;			/* out: this call ended it */
	bool		orphans;		/* out: and it leaves children, which the worker has to end */
	bool		busy;			/* out: it could not, for somebody else has a row of it locked */
	GtEndReason reason;			/* of gt_end(): how this one ends */
	GtRow	   *row;			/* as read in this transaction under a snapshot that it holds; NULL: gt_end() reads it */
} GtLeaseKey;

/*
 * Ends the leases: locks objects, then leases; deletes, adjusts counts, makes
 * garbage.  GT_END_EXPIRED passes over (and re-arms) what is not over yet;
 * skip: passes over what others have locked and returns how many those were.
 */
extern int	gt_end(GtLeaseKey *keys, int nkeys, GtEndReason reason, bool skip);
/* One pass over leases whose check_at has passed, and over children of ended leases, in the current transaction. */
typedef struct GtExpiry
{
	int			ended;
	int			looked_at;
	int			busy;			/* locked by others: look again soon */
	TimestampTz busy_from;		/* when the last of those was to be looked at; 0: there are none */
	bool		more;			/* there is more that is due now */
	TimestampTz next;			/* else when the next is due; GT_NEVER */
	GtInHand	in_hand;		/* by those before, and chosen */
} GtExpiry;

/*
 * own: in a block of the caller's: only leases on objects of current_user, and
 * those too that this very transaction has made.
 * in_hand: passed over (NULL: nothing).  on_more: called as soon as the leases are
 * chosen, with result->in_hand, where there is more that is due.
 */
extern void gt_expire_pass(int limit, bool own, const GtInHand *in_hand, void (*on_more) (GtExpiry *),
						   GtExpiry *result);

/* ---------------------------------------------------------------- rearm.c: times that a clock wrote that was ahead */

/* One step of the round that is made once in a server run, over about so many rows; true: to be called again at once. */
extern bool gt_rearm(int limit);

/* ---------------------------------------------------------------- garbage.c: states of garbage and the token rules */

/* Why a run did not happen. */
typedef enum
{
	GT_EXCUSE_PLAIN,			/* nobody's fault */
	GT_EXCUSE_EVICTED,			/* its worker was terminated, or it was canceled */
	GT_EXCUSE_CONFLICT			/* SQLSTATE 40001 or 40P01 */
} GtExcuse;

typedef struct GtItem			/* one piece of garbage, chosen to be run */
{
	int64		cleanup_id;
	int			attempt;		/* the one to run: attempts + 1 */
	GtRow		row;			/* of gt_object */
	bool		gone;			/* out of a run: it was none when its turn came, and was not run */
	bool		done;			/* it went well */
	bool		excused;		/* the run did not happen: no attempt */
	GtExcuse	excuse;
	bool		cut_short;		/* its run was given back: how long it would have taken is not known */
	bool		conflict;		/* it failed for a conflict with another transaction, excused or not */
	char	   *error;			/* else why not */
	int64		retry_after;	/* us: when excused; < 0: as usual */
	int64		took;			/* us */
	int64		rows;			/* that its statement has affected; < 0: not known */
} GtItem;

/* The last lease (NULL: not known) has ended (in row, not yet written): makes it garbage, forgets or keeps; writes it. See gt_end(). */
extern void gt_garbage_make(GtTable *objects, GtRow *row, const pg_uuid_t *last_lease, GtEndReason reason, TimestampTz ended_at);
/* All of these want the row locked, and write it. */
extern void gt_garbage_put_aside(GtTable *objects, GtRow *row); /* dead: its handler is missing */
extern void gt_object_init(GtRow *row, Datum object_type, Datum object_id);	/* held by one lease; owner and fence are to be set */
extern void gt_garbage_revive(GtRow *row);	/* in memory only: create takes it back; the caller writes */
extern void gt_garbage_done(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 took);
#define GT_BACK_OFF		(-1)	/* for retry_after, us: the delay is the back-off's, or the handler's own; */
#define GT_FINAL		(-2)	/* there is no next attempt */
extern void gt_garbage_cleaned(GtTable *objects, GtRow *row, const GtHandler *h, const GtItem *item);
extern void gt_garbage_failed(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, const char *error, int64 retry_after, int64 took);
extern void gt_garbage_not_now(GtTable *objects, GtRow *row, const GtHandler *h, int attempt, int64 retry_after);	/* that was none */
extern void gt_garbage_excused(GtTable *objects, GtRow *row, const GtHandler *h, const char *error, GtExcuse excuse, int64 retry_after);
extern bool gt_garbage_may_conflict(const GtRow *row);	/* one more conflict is excused */
/*
 * A claim whose claimed_until has passed: writes it as dead and returns false if that was its last attempt; else
 * true, nothing written: the next attempt may start. Whoever chooses a row of state c (due_at <= now) calls it.
 */
extern bool gt_garbage_lapsed(GtTable *objects, GtRow *row, const GtHandler *h);
extern bool gt_garbage_has_lapsed(const GtRow *row, TimestampTz now);	/* state c, and its time has passed */
extern void gt_garbage_wait(GtRow *row, const GtHandler *h, TimestampTz due_at);	/* in memory: waiting until then */
extern void gt_garbage_pass_over_announced(GtRow *row);	/* in memory: the token that was announced is nobody's */
extern void gt_garbage_redriven(GtTable *objects, GtRow *row, const GtHandler *h);	/* of dead garbage */
extern void gt_garbage_hurried(GtTable *objects, GtRow *row, const GtHandler *h);	/* of waiting garbage */
extern void gt_garbage_discarded(GtTable *objects, GtRow *row, const GtHandler *h);
extern void gt_garbage_claimed(GtRow *row, TimestampTz until, int64 visibility);	/* in memory */
extern int64 gt_retry_delay_of(const GtRow *row, const GtHandler *h);
extern int64 gt_garbage_lag(const GtRow *row, const GtHandler *h);	/* since it could first be cleaned, us */
extern int	gt_max_attempts_of(const GtRow *row, const GtHandler *h);
extern TimestampTz gt_history_newest(TimestampTz upto);	/* when the last entry until then was made; 0: there is none */
extern TimestampTz gt_history_trim_at(void);	/* when the oldest entry is too old (see reclaim.c); GT_NEVER: there is none */
extern void gt_history_add(const char *event, const GtRow *object, const char *handler, int attempt, int64 lag, int64 took, const char *error);
/* The same; h: whose version is kept (NULL: none), with the rows that its statement affected (< 0: not known). */
extern void gt_history_add_attempt(const char *event, const GtRow *object, const char *handler, int attempt,
								   int64 lag, int64 took, const char *error, const GtHandler *h, int64 rows);

extern Datum gt_error_text(const char *error);	/* as it is kept: bounded, on the border of a character */

/* ---------------------------------------------------------------- tally.c: how the runs of handlers went, for gt_handlers */

extern void gt_tally(const GtHandler *h, int runs, int failures, const char *error);	/* error: of the last one, or NULL */

/* ---------------------------------------------------------------- run.c: runs handler SQL as its owner */

/*
 * Runs the SQL of h for items[0..n-1] (kind sql: one after the other, each in
 * its own subtransaction, stopping after 1 s; sql_batch: as one set in one
 * subtransaction) and fills in what became of them. The objects are locked
 * already; `judge` is asked before each run but the first whether that item is
 * still garbage, for a run may have done something to it (else: gone).
 * in_block: within somebody's transaction, whose own affairs are to be left alone.
 * Returns how many items had their turn: the rest has not been tried.
 */
extern int	gt_run_sql(const GtHandler *h, GtItem *items, int n, bool in_block,
					   bool (*judge) (GtItem *item, void *arg), void *arg);
/* This process was terminated by run.c because a handler did not heed its timeout: not an eviction. */
extern volatile sig_atomic_t gt_run_overran;
/* Registration: parses and analyses the command as its owner would run it; raises what is wrong with it. */
extern void gt_run_check(const GtHandler *h);

/* ---------------------------------------------------------------- slots.c: who may start which runs, and when */

#define GT_IDLE_LIMIT (10 * USECS_PER_SEC)	/* a worker with nothing due gives its slot up */
#define GT_SLOW (1 * USECS_PER_SEC) /* a run that took longer makes its handler slow */
#define GT_TURN (200 * INT64CONST(1000))	/* us: of a role, while another waits; some ten times what a new process costs */

/*
 * How many starts of this handler rate_limit (and the ramp after gt_resume)
 * allow now, at most `want`; *when: the time of the next one, where that is 0.
 * Takes nothing.
 */
extern int	gt_rate_allows(const GtHandler *h, int want, TimestampTz *when);
extern void gt_rate_serve(const GtHandler *h, int n);	/* n runs of it begin */
extern void gt_handler_ran(const GtHandler *h, bool slow);	/* its last run was, or was not */
extern int	gt_batch_limit(int handler);	/* objects that one run of kind sql_batch may have */
extern void gt_batch_set_limit(int handler, int limit);	/* GT_MAX_ITEMS and more: no limit */
/* What all processes remember of a handler: good for an order, its row alone decides. */
typedef struct GtHandlerHint
{
	int			handler;
	Oid			role;			/* whose SQL it ran then; InvalidOid: not known, or none */
	TimestampTz served_at;		/* when a run of it was chosen last; 0: not known */
} GtHandlerHint;
extern void gt_handler_hint(GtHandlerHint *hints, int n);	/* fills them in */
extern void gt_handler_remember(int handler, Oid owner, Oid role);	/* for that, where there is room */
extern int	gt_handler_speed(const GtHandler *h);	/* GtSpeed: how its last run was */
extern Oid	gt_handler_role(const GtHandler *h);	/* whose SQL it runs; InvalidOid: none */
extern Oid	gt_handler_whose(const GtHandler *h);	/* whose turn a run of it takes */
extern bool gt_slot_is_for(Oid role);	/* may this process run SQL of this role? */
extern GtTurn *gt_turn_of(Oid role);	/* when it was served last here; made where there is none. Lock held */
extern void gt_slot_turns(int n, const Oid *roles, GtTurn *turns);	/* of each of these roles */
extern bool gt_role_may_log(Oid role);	/* a failure of its SQL: all processes share so many lines */
/* A worker: SQL of this role is due, which another one has to run; InvalidOid: by a look begun then there was no such role. */
extern void gt_role_waits(Oid role, TimestampTz looked_at);
extern bool gt_slot_is_wanted(void);	/* does another role or database wait for a slot? Without the lock a hint */
extern bool gt_slot_take_look(void);	/* has another worker told us so? */
extern bool gt_slot_turn_over(void);	/* has our role had its turn, while somebody needs the slot? */
/* May another process start a run of h now? Says nothing of rates. */
extern bool gt_slot_allows(const GtHandler *h, bool alone, TimestampTz *when);
/* From when on a run of an object that was in a crash may start; other objects need not wait for it. */
extern TimestampTz gt_slot_alone_from(void);
/* May we? As gt_slot_allows(), and takes it, with the rate: the items are ours until gt_slot_release(). Some are others': they are taken out. */
extern bool gt_slot_reserve(const GtHandler *h, bool alone, int64 *items, int *nitems, TimestampTz upto,
							TimestampTz *when);
extern void gt_slot_committed(void);	/* the items of the run before are nobody's any more */
extern void gt_slot_release(void);	/* this process runs nothing */
extern void gt_slot_run_begins(void);
/*
 * A run of this worker that has lasted a turn (early), or has become slow, must
 * end: it would take the last slot.
 */
extern bool gt_slot_gives_back(bool early);
extern int64 *gt_slot_others(int *n);	/* items of other processes in this database, sorted; palloc'd */
extern TimestampTz gt_slot_others_upto(int handler);	/* up to this due time they have most of its queue in hand */
extern void gt_slot_set_state(GtSlotState state);
extern bool gt_foreground_enter(void);	/* false: no slot, and nothing is held to */
extern void gt_foreground_leave(void);

/* ---------------------------------------------------------------- clean.c: chooses garbage, runs it, writes the outcome */

typedef struct GtCleaner GtCleaner; /* the state of one worker's (or gt_reclaim's) chain of runs in one database */
typedef struct GtPass
{
	int64		done;			/* leases ended and objects attempted */
	bool		more;			/* due now, and this process may do it */
	TimestampTz next;			/* when the next is due (also what another process must do: rates, slots); GT_NEVER */
	Oid			waits;			/* a role whose SQL is due, for another process to run; InvalidOid: none */
	TimestampTz looked_at;		/* when that was looked at; 0: it was not */
} GtPass;
extern GtCleaner *gt_cleaner_create(bool worker);
/* One step: outcome of the runs recorded before, and the choice of the next; to be committed by the caller. */
extern void gt_clean_step(GtCleaner *c, int max_items, GtPass *pass);
extern bool gt_clean_pending(GtCleaner *c); /* a run is recorded and has not been run */
extern void gt_clean_committed(GtCleaner *c);	/* the step has been committed */
/* This process leaves the run on record; crash.c says what each means.  Safe at exit, and in PG_CATCH(). */
extern void gt_clean_evicted(GtCleaner *c);
extern void gt_clean_undone(GtCleaner *c, const char *error);	/* NULL: it did not happen, and that is all */
extern void gt_clean_failed(GtCleaner *c, const char *error);	/* before an abort that this process survives */
extern void gt_clean_restart(GtCleaner *c); /* after that */
extern void gt_clean_end(GtCleaner *c); /* in a transaction: nothing is pending, and no trace shall stay */
/* Judges one crashed run, if there is one: in a transaction of its own. Returns whether there was. */
extern bool gt_clean_sweep(GtCleaner *c);
extern void gt_clean_watch(void);	/* signals that tell us of another process's death leave a mark, from here on */
extern void gt_clean_unwatch(void);
extern void gt_clean_forget_marks(Oid database);
extern void gt_clean_init(void);	/* from _PG_init */

/* ---------------------------------------------------------------- queue.c: gt_claim and its kin, notify kinds */

/* Sends the NOTIFYs of n items of a notify or notify_only handler in the current transaction; writes outcomes. */
extern void gt_notify_items(const GtHandler *h, GtItem *items, int n);

/* ---------------------------------------------------------------- place.c: where we live; database.c: commands on databases */

typedef enum
{
	GT_PLACE_NONE,				/* no objects: adopted silently by the first create */
	GT_PLACE_OURS,
	GT_PLACE_COPY				/* nothing may be ended or cleaned */
} GtPlace;

extern GtPlace gt_place(char **why);	/* why: of a copy; may be NULL */
extern void gt_place_ensure(void);	/* from create: stamps an empty database */
extern void gt_place_stamp(bool adopted);	/* writes that we live here */
extern void gt_place_adopt(void);
extern void gt_place_advance_sequences(void);	/* beyond all ids that are known */
extern int64 gt_note_restore(void); /* at the postmaster's start: GtShared.restored */
extern void gt_database_init(void); /* hooks */

/* ---------------------------------------------------------------- launcher.c, worker.c */

extern void gt_launcher_init(void);
extern PGDLLEXPORT void gt_launcher_main(Datum arg);
extern PGDLLEXPORT void gt_worker_main(Datum arg);

/* ---------------------------------------------------------------- observe.c: what was seen, for metrics */

extern void gt_observe_init(void);	/* from _PG_init: its shared memory */
extern void gt_observe_forget(Oid database);	/* it was dropped */
extern void gt_observe_dropped(int handler);	/* if this (sub)transaction commits; 0: the extension and all of them */
extern void gt_observe_cleanup(int handler, Oid owner, bool ok, int64 took, int64 lag); /* lag < 0: not a first attempt */
extern void gt_observe_lag(int64 lag);	/* of an attempt that gt_claim starts; gt_observe_cleanup() has its own */
extern void gt_observe_gauges(int leases, int garbage, int dead);	/* so many more, if this (sub)transaction commits */
extern void gt_count_created(int n);	/* counters, and the gauge of leases with them, if this (sub)transaction commits */
extern void gt_count_renewed(int n);
extern void gt_count_released(int n);
extern void gt_count_expired(int n);
extern void gt_observe_renewal(const char *service_id, int64 left, int64 duration);

#endif
