/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The clock by which leases are judged, and what an absence of the server
 *	  does to their deadlines (invariant I1).
 *
 * The clock.  gt_clock() is an anchor plus CLOCK_MONOTONIC, which all processes
 * of a machine share.  The anchor is drawn once in the life of the postmaster
 * process, so that a crash of a backend does not move it: the system clock, or
 * what the file garbagetruck.clock in the data directory says where that is
 * later (by at most a day).  The launcher writes that file when it wakes up and
 * when it ends.  Without preload there is nobody to keep an anchor:
 * gt_clock() is the system clock.
 *
 * The start record.  A server run is a random number (without shared memory:
 * made of the postmaster's start time and that of its last crash), different in each database, so that the
 * rows of a copy made by CREATE DATABASE ... TEMPLATE are foreign to it.  Each
 * lease row carries the run of its last write.  gt__start has one row: the run
 * that is recorded, S = when it was, and the restart_grace of that run and of
 * the one before.  A row of an earlier run is over at
 *
 *		greatest(deadline, S) + least(duration, the larger restart_grace)
 *
 * because a renewal that was acknowledged but not written through may have been
 * lost with shared memory.  Until this run is recorded such a row counts as
 * running, whatever its deadline.  Recording it is one row, however many leases
 * there are.
 *
 * Who records: the first writing call or worker in this database, in its own
 * transaction; shared memory learns of it when that commits.  If it aborts, the
 * next one records a later S: leases live longer, never shorter.  Two at once:
 * the second does not wait, it goes on as if nothing were recorded.  A crash
 * before the commit leaves nothing; after it, the next run supersedes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "garbagetruck.h"

#define CLOCK_FILE "garbagetruck.clock"

PG_FUNCTION_INFO_V1(gt_clock);
PG_FUNCTION_INFO_V1(gt__deadline);

/* what is recorded of this run, as far as this process knows; shared memory has it for all */
typedef struct Start
{
	bool		known;
	int64		run;
	TimestampTz at;
	int64		grace;			/* the larger of the two */
} Start;

static Start recorded;			/* committed; only without preload */
static Start recording;			/* by this very transaction */
static SubTransactionId recording_subid;

static int64
monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* What to add to CLOCK_MONOTONIC. Postmaster only; alike for its whole life. */
TimestampTz
gt_clock_anchor(void)
{
	static int64 anchor = 0;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = 0;
	FILE	   *file;

	if (anchor != 0)
		return anchor;
	file = AllocateFile(CLOCK_FILE, "r");
	if (file != NULL)
	{
		long long	value;

		if (fscanf(file, "%lld", &value) == 1)
			last = value;
		FreeFile(file);
	}
	if (last > now && last <= now + USECS_PER_DAY)
	{
		ereport(LOG,
				(errmsg("garbagetruck: the system clock is behind the clock of the last run"),
				 errdetail("gt_clock() starts at %s.", timestamptz_to_str(last))));
		now = last;
	}
	anchor = now - monotonic_us();
	return anchor;
}

/* Keeps the clock for the next start. Failure is logged: it costs safety only when the system clock is set back. */
void
gt_clock_record(void)
{
	static TimestampTz written = 0;
	TimestampTz now = gt_now();
	FILE	   *file;

	if (!proc_exit_inprogress && written != 0 && now < written + 10 * USECS_PER_SEC)
		return;
	written = now;
	file = AllocateFile(CLOCK_FILE ".tmp", "w");
	if (file == NULL ||
		fprintf(file, "%lld\n", (long long) now) < 0 ||
		FreeFile(file) != 0 ||
		rename(CLOCK_FILE ".tmp", CLOCK_FILE) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", CLOCK_FILE)));
}

/* gt_clock(): see the top of the file. */
TimestampTz
gt_now(void)
{
	if (gt_shared != NULL)
		return gt_shared->clock_base + monotonic_us();
	return GetCurrentTimestamp();
}

Datum
gt_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(gt_now());
}

/* This server run, as rows of this database know it. */
int64
gt_run(void)
{
	static uint64 run = 0;

	if (gt_shared != NULL)
		run = (uint64) gt_shared->run;
	else if (run == 0)
	{
		/* the statistics are reset by a crash, which leaves no process that has seen it before */
		PgStat_BgWriterStats *stats = pgstat_fetch_stat_bgwriter();

		run = hash_combine64((uint64) PgStartTime, (uint64) stats->stat_reset_timestamp) | 1;
	}
	return (int64) hash_combine64(run, (uint64) MyDatabaseId);
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (!recording.known)
		return;
	if (event == XACT_EVENT_COMMIT)
	{
		GtDatabase *db = gt_my_database();

		if (db != NULL)
		{
			LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
			db->started_at = recording.at;
			db->grace = recording.grace;
			db->started = true;
			LWLockRelease(gt_shared->lock);
		}
		else
			recorded = recording;
		recording.known = false;
	}
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		recording.known = false;
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (!recording.known || recording_subid != mine)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		recording_subid = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		recording.known = false;
}

static void
remember(const GtRow *row, bool committed)
{
	Start		start;

	start.known = true;
	start.run = GT_INT64(row, ST_RUN);
	start.at = GT_TIME(row, ST_STARTED_AT);
	start.grace = Max(GT_INT64(row, ST_GRACE), GT_INT64(row, ST_GRACE_BEFORE));
	if (committed)
	{
		GtDatabase *db = gt_my_database();

		if (db != NULL)
		{
			LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
			db->started_at = start.at;
			db->grace = start.grace;
			db->started = true;
			LWLockRelease(gt_shared->lock);
		}
		else
			recorded = start;
	}
	else
	{
		static bool registered = false;

		if (!registered)
		{
			RegisterXactCallback(at_end_of_transaction, NULL);
			RegisterSubXactCallback(at_end_of_subtransaction, NULL);
			registered = true;
		}
		recording = start;
		recording_subid = GetCurrentSubTransactionId();
	}
}

/* Without shared memory: another session may have recorded this run. */
static void
read_record(void)
{
	GtTable		table;
	GtRow		row;

	gt_open(&table, GT__START, AccessShareLock);
	if (gt_fetch_any(&table, &row) && GT_INT64(&row, ST_RUN) == gt_run())
		remember(&row, true);
	gt_close(&table);
}

/* What this process may know of the record of this run; false: nothing yet. */
static bool
current_start(Start *start)
{
	GtDatabase *db;

	if (recording.known)
	{
		*start = recording;
		return true;
	}
	db = gt_my_database();
	if (db != NULL)
	{
		/* started is set last, and what it guards changes only by gt_start_adopt(), which clears it first */
		if (!db->started)
			return false;
		pg_read_barrier();
		start->known = true;
		start->at = db->started_at;
		start->grace = db->grace;
		return true;
	}
	if (!recorded.known || recorded.run != gt_run())
		read_record();
	if (!recorded.known || recorded.run != gt_run())
		return false;
	*start = recorded;
	return true;
}

/* See garbagetruck.h. */
void
gt_start_ensure(void)
{
	GtTable		table;
	GtRow		row;
	Start		start;

	if (current_start(&start) || RecoveryInProgress() || XactReadOnly)
		return;

	gt_open(&table, GT__START, RowExclusiveLock);
	if (gt_fetch_any(&table, &row))
	{
		if (GT_INT64(&row, ST_RUN) == gt_run())
			remember(&row, !TransactionIdIsCurrentTransactionId(row.xmin));
		else if (gt_lock(&table, &row, LockTupleNoKeyExclusive, true) == GT_LOCKED &&
				 GT_INT64(&row, ST_RUN) != gt_run())
		{
			GT_SET(&row, ST_GRACE_BEFORE, row.v[ST_GRACE]);
			GT_SET(&row, ST_GRACE, Int64GetDatum((int64) gt_restart_grace * 1000));
			GT_SET(&row, ST_RUN, Int64GetDatum(gt_run()));
			GT_SET(&row, ST_STARTED_AT, TimestampTzGetDatum(gt_now()));
			gt_update(&table, &row);
			remember(&row, false);
		}
	}
	else if (ConditionalLockRelation(table.rel, ShareRowExclusiveLock) && !gt_fetch_any(&table, &row))
	{
		gt_row_init(&row);
		GT_SET(&row, ST_RUN, Int64GetDatum(gt_run()));
		GT_SET(&row, ST_STARTED_AT, TimestampTzGetDatum(gt_now()));
		GT_SET(&row, ST_GRACE, Int64GetDatum((int64) gt_restart_grace * 1000));
		GT_SET(&row, ST_GRACE_BEFORE, row.v[ST_GRACE]);
		GT_SET(&row, ST_ID, gt_random_id());
		gt_insert(&table, &row);
		remember(&row, false);
	}
	gt_close(&table);
}

/*
 * A copy was adopted by this transaction: every lease in it lives on for its full
 * duration from now.  The run after this one goes back to the usual grace.
 */
void
gt_start_adopt(void)
{
	GtTable		table;
	GtRow		row;
	GtDatabase *db;

	gt_start_ensure();
	gt_open(&table, GT__START, RowExclusiveLock);
	if (gt_fetch_any(&table, &row) && gt_lock(&table, &row, LockTupleNoKeyExclusive, false) == GT_LOCKED)
	{
		GT_SET(&row, ST_RUN, Int64GetDatum(gt_run()));
		GT_SET(&row, ST_STARTED_AT, TimestampTzGetDatum(gt_now()));
		GT_SET(&row, ST_GRACE, Int64GetDatum((int64) gt_restart_grace * 1000));
		GT_SET(&row, ST_GRACE_BEFORE, Int64GetDatum(PG_INT64_MAX));
		gt_update(&table, &row);
		remember(&row, false);
	}
	gt_close(&table);

	/* nobody else judges by the old record from here on; the commit publishes the new one */
	db = gt_my_database();
	if (db != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		db->started = false;
		LWLockRelease(gt_shared->lock);
	}
	recorded.known = false;
}

/* G of a lease: how much of its life an absence gives back at most. */
int64
gt_grace_of(int64 duration)
{
	Start		start;
	int64		grace = (int64) gt_restart_grace * 1000;

	if (current_start(&start))
		grace = Max(grace, start.grace);
	return Min(duration, grace);
}

static TimestampTz
effective(TimestampTz deadline, int64 duration, int64 run)
{
	Start		start;

	/* a standby judges nothing, and shows a lower bound */
	if (run == gt_run() || RecoveryInProgress())
		return deadline;
	if (!current_start(&start))
		return GT_NEVER;
	return Max(deadline, start.at) + Min(duration, start.grace);
}

/* See garbagetruck.h. */
TimestampTz
gt_effective_deadline(const GtRow *lease)
{
	return effective(GT_TIME(lease, L_DEADLINE), GT_INT64(lease, L_DURATION), GT_INT64(lease, L_RUN));
}

static TimestampTz
least(TimestampTz deadline, int64 duration, int64 run)
{
	TimestampTz until = effective(deadline, duration, run);

	return until == GT_NEVER ? Max(deadline, gt_now()) + gt_grace_of(duration) : until;
}

/* See garbagetruck.h. */
TimestampTz
gt_least_deadline(const GtRow *lease)
{
	return least(GT_TIME(lease, L_DEADLINE), GT_INT64(lease, L_DURATION), GT_INT64(lease, L_RUN));
}

/*
 * gt__deadline(id, deadline, duration, run): the same for views; NULL for a
 * lease that is not there.  Before this run is recorded, a lower bound.
 */
Datum
gt__deadline(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(least(PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_INT64(2), PG_GETARG_INT64(3)));
}
