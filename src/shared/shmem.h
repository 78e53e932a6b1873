/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  What all processes share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_SHMEM_H
#define GT_SHMEM_H

#include "port/atomics.h"

#include "base/workers.h"
#include "shared/anchor.h"
#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/in_hand.h"
#include "shared/long_busy.h"
#include "shared/low_end.h"
#include "shared/turn.h"

#define GT_MAX_DATABASES	1024
#define GT_FOREGROUND		16	/* slots for sessions in gt_reclaim() */
#define GT_SLOTS			(GT_MAX_WORKERS + GT_FOREGROUND)

/* One database that is known to the launcher.  Entries are never moved. */
typedef struct GtDatabase
{
	Oid			oid;			/* InvalidOid: free.  Written under GtShared.lock */
	pg_atomic_uint64 next_due;	/* gt_clock() time of the earliest work, GT_NEVER: none; see gt_due_at() */
	pg_atomic_uint64 late;		/* commits so long after what they wrote that it may lie below all low ends */
	pg_atomic_uint64 prepared_ends; /* prepared transactions that have ended: of them, and of what they had locked */
	/* from here on all is 0 of a database that is new */
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
	int			error_code;		/* its SQLSTATE */
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
	pg_atomic_uint64 lease_horizon; /* some worker knows what is due in the queues of all roles until then; GT_NOWHERE: none. See due.c */
	pg_atomic_uint64 lease_beyond;	/* when the next is due after that */
	pg_atomic_uint64 lease_news;	/* counts leases that came since and are due before, and such workers */
	Oid			expire_after;	/* the next pass begins with the role after that. Written by who has the token, expirer */
	TimestampTz busy_since;		/* leases that are over have all been locked; 0: the last pass saw none of those. Without lock */
	TimestampTz blocked_since;	/* somebody has our tables; 0: nobody. Under lock */
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
	bool		in_pass;		/* has chosen leases to end, and has not committed that: */
	GtInHand	in_hand;		/* those, as far as another pass may begin meanwhile */
	TimestampTz passed_at;		/* when it began to choose them last */
	bool		alone;			/* runs an object that was in a crashed run */
	int			handler;		/* whose objects it runs now; 0: none */
	bool		apart;			/* as in GtHandler */
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

extern void gt_slot_free(GtSlot *slot); /* it is nobody's from here on. Lock held */

typedef struct GtCounters		/* of one database; added to by counts.c */
{
	pg_atomic_uint64 n[GT_NCOUNTERS];
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
	int			nlong_busy;		/* that are in use. Under lock, as: */
	GtLongBusy	long_busy[GT_LONG_BUSY];
	GtTurn		turns[GT_TURNS];
	GtLow		lows[GT_LOWS];	/* see low.c. Under lock */
	GtSlot		slots[GT_SLOTS];	/* of workers; from GT_MAX_WORKERS on of sessions in gt_reclaim() */
} GtShared;

extern GtShared *gt_shared;		/* NULL: not preloaded */
extern GtSlot *gt_my_slot;		/* of a worker; NULL elsewhere */
/* The entry of a database; made when `create` and there is room, else NULL. Takes the lock. */
extern GtDatabase *gt_database(Oid database, bool create);

#endif
