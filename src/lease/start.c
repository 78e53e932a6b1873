/*-------------------------------------------------------------------------
 *
 * start.c
 *	  The record of this server run (promise I1).
 *
 * A server run is a random number (without shared memory: made of the
 * postmaster's start time and that of its last crash), different in each
 * database, so that the rows of a copy made by CREATE DATABASE ... TEMPLATE are
 * foreign to it.  Each lease row carries the run of its last write.  gt__start
 * tells the run that is recorded, S = when it was, and the restart_grace of that
 * run and of the one before: what they make of a deadline is told in deadline.c.
 * Recording a run is one row, however many leases there are.
 *
 * Who records: the first writing call or worker in this database, in its own
 * transaction; shared memory learns of it when that commits.  If it aborts, the
 * next one records a later S: leases live longer, never shorter.  Several at
 * once do not wait for each other, and each writes a row of its own: of those
 * that commit the latest S counts, so that nothing that was promised by one of
 * them is taken back.  Rows of earlier runs are deleted on the way, where nobody
 * else is at it.  A crash before the commit leaves nothing; after it, the next run
 * supersedes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/point.h"
#include "base/settings.h"
#include "base/transaction.h"
#include "garbage/history.h"
#include "lease/created.h"
#include "lease/start.h"
#include "lease/start_record.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/versions.h"

/* what is recorded of this run, as far as this process knows; shared memory has it for all */
typedef struct Start
{
	bool		known;
	Oid			table;			/* the gt__start that has it: another one after a DROP EXTENSION */
	int64		run;
	TimestampTz at;
	int64		grace;			/* the larger of the two */
	bool		rearmed;		/* no time of an earlier run is ahead, see rearm.c */
	bool		adopts;			/* a copy has become an original */
} Start;

static Start recorded;			/* committed; only without preload */
static uint64 recorded_at;		/* good for as long as gt_epoch() is what it was: another session may adopt a copy */
static Start recording;			/* by this very transaction */
static SubTransactionId recording_subid;
static bool published;			/* it has, before its commit */

/* A run of the server, as rows of this database know it. */
static int64
run_here(uint64 run)
{
	int64		here = (int64) hash_combine64(run, (uint64) MyDatabaseId);

	return here == 0 ? 1 : here;
}

/* This server run, as rows of this database know it. */
int64
gt_run(void)
{
	static uint64 run = 0;

	if (gt_shared != NULL)
		run = (uint64) gt_shared->clock.run;
	else if (run == 0)
	{
		/* the statistics are reset by a crash, which leaves no process that has seen it before */
		PgStat_BgWriterStats *stats = pgstat_fetch_stat_bgwriter();

		run = hash_combine64((uint64) PgStartTime, (uint64) stats->stat_reset_timestamp) | 1;
	}
	return run_here(run);
}

/* Two records of the same run: what either promised holds. */
static void
merge(Start *known, const Start *more)
{
	if (known->known && known->run == more->run && known->table == more->table)
	{
		known->at = Max(known->at, more->at);
		known->grace = Max(known->grace, more->grace);
		known->rearmed = known->rearmed || more->rearmed;
	}
	else
		*known = *more;
}

/* Tells all processes of it. */
static void
publish(const Start *start)
{
	GtDatabase *db = gt_my_database();
	bool		same;

	if (db == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	same = db->started == start->table;
	db->started = InvalidOid;
	pg_write_barrier();
	db->started_at = Max(db->started_at, start->at);
	db->grace = same ? Max(db->grace, start->grace) : start->grace;
	db->rearmed = (same && !start->adopts && db->rearmed) || start->rearmed;
	pg_write_barrier();
	db->started = start->table;
	LWLockRelease(gt_shared->lock);
}

/* What was told of has not committed: it is to be looked at again. */
static void
take_back(void)
{
	GtDatabase *db = gt_my_database();

	if (db == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	db->started = InvalidOid;
	LWLockRelease(gt_shared->lock);
}

/*
 * The record is prepared: by the time that it commits others have written theirs.
 * S is the latest of all.
 */
static void
announce(const Start *start)
{
	GtDatabase *db = gt_my_database();
	Oid			table;

	if (db == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	table = db->started;
	db->started = InvalidOid;
	pg_write_barrier();
	db->started_at = Max(db->started_at, start->at);
	pg_write_barrier();
	db->started = table;
	LWLockRelease(gt_shared->lock);
}

/*
 * A record is told of once it has committed.  One by which a copy is adopted is
 * told of before: else somebody who sees that it has been could still judge by the
 * old one.  Who judges by it too early lets leases live too long, if anything.
 */
static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (!recording.known)
		return;
	if (event == XACT_EVENT_COMMIT && recording.adopts)
		GT_POINT("adopted");
	if (event == XACT_EVENT_COMMIT || (event == XACT_EVENT_PRE_COMMIT && recording.adopts))
	{
		publish(&recording);
		published = event == XACT_EVENT_PRE_COMMIT;
	}
	if (event == XACT_EVENT_PREPARE)
		announce(&recording);
	if (event == XACT_EVENT_ABORT && published)
	{
		published = false;
		take_back();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
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

/* This very (sub)transaction has written it. */
static void
remember(const Start *start)
{
	gt_at_end(GT_AT_END_START, at_end_of_transaction, at_end_of_subtransaction);
	recording = *start;
	recording_subid = GetCurrentSubTransactionId();
}

/* All rows of gt__start, as they are now. */
static int
read_starts(GtTable *table, GtRow **rows)
{
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	int			n = gt_fetch_some(table, snapshot, PG_INT32_MAX, rows);

	UnregisterSnapshot(snapshot);
	return n;
}

/* What the committed ones among them say of this run; false: nothing. */
static bool
find_start(const GtTable *table, const GtRow *rows, int n, Start *result)
{
	int			i;

	memset(result, 0, sizeof(Start));
	for (i = 0; i < n; i++)
	{
		Start		start = {true, RelationGetRelid(table->rel), GT_INT64(&rows[i], START_RUN),
			GT_TIME(&rows[i], START_STARTED_AT),
		Max(GT_INT64(&rows[i], START_GRACE), GT_INT64(&rows[i], START_GRACE_BEFORE)), GT_BOOL(&rows[i], START_REARMED), false};

		if (start.run == gt_run() && !TransactionIdIsCurrentTransactionId(rows[i].xmin))
			merge(result, &start);
	}
	return result->known;
}

/* It was read in the table. */
static void
learn(const Start *start)
{
	publish(start);
	recorded = *start;
	recorded_at = gt_epoch();
}

/* Another session may have recorded this run. */
static bool
read_record(void)
{
	GtTable		table;
	GtRow	   *rows;
	Start		start;
	bool		found;
	int			n;

	gt_open(&table, GT__START, AccessShareLock);
	n = read_starts(&table, &rows);
	found = find_start(&table, rows, n, &start);
	gt_close(&table);
	if (found)
		learn(&start);
	return found;
}

/* What this process may know of the record of this run; false: nothing yet. */
static bool
current_start(Start *start)
{
	GtDatabase *db;

	if (recording.known && recording.table == gt_relid(GT__START))
	{
		*start = recording;
		return true;
	}
	db = gt_my_database();
	if (db != NULL)
	{
		/* started is cleared before what it guards changes, and set last */
		start->table = db->started;
		if (start->table != gt_relid(GT__START))
			return false;
		pg_read_barrier();
		start->known = true;
		start->at = db->started_at;
		start->grace = db->grace;
		return true;
	}
	if ((!recorded.known || recorded_at != gt_epoch() || recorded.table != gt_relid(GT__START)) && !read_record())
		return false;
	*start = recorded;
	return true;
}

/* The newest time that is known of the server before `now`, but not before `least`. */
static TimestampTz
last_seen(TimestampTz least, TimestampTz now)
{
	TimestampTz seen = Max(gt_history_newest(now), least);

	if (gt_shared != NULL && gt_shared->clock.before > seen && gt_shared->clock.before <= now)
		seen = gt_shared->clock.before;
	return seen;
}

/* What history_now of this row had come to, when the clock was at `until`. */
static TimestampTz
history_now_at(const GtRow *row, TimestampTz until)
{
	return Min(until, GT_TIME(row, START_HISTORY_NOW) + 2 * (until - GT_TIME(row, START_STARTED_AT)));
}

/*
 * The time that counts for the retention of the history when a run is recorded:
 * it stands still while the server is away, so that a clock that jumps ahead
 * takes nothing with it, and then goes twice as fast until it has caught up.
 */
static TimestampTz
history_now_of(const GtRow *rows, int n, TimestampTz now)
{
	TimestampTz result = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		TimestampTz at = GT_TIME(&rows[i], START_STARTED_AT);
		TimestampTz until = GT_INT64(&rows[i], START_RUN) == gt_run() ? now : last_seen(at, Max(now, at));

		result = Max(result, history_now_at(&rows[i], until));
	}
	return n == 0 ? now : Min(result, now);
}

TimestampTz
gt_history_now(void)
{
	TimestampTz now = gt_now();
	TimestampTz result = 0;		/* before this run is recorded nothing is too old */
	GtTable		table;
	GtRow	   *rows;
	int			n;
	int			i;

	gt_open(&table, GT__START, AccessShareLock);
	n = read_starts(&table, &rows);
	for (i = 0; i < n; i++)
		if (GT_INT64(&rows[i], START_RUN) == gt_run())
			result = Max(result, history_now_at(&rows[i], now));
	gt_close(&table);
	return result;
}

static bool
has_pages(GtTableId id)
{
	GtTable		table;
	bool		result;

	gt_open(&table, id, AccessShareLock);
	result = RelationGetNumberOfBlocks(table.rel) > 0;
	gt_close(&table);
	return result;
}

/*
 * Is no time here ahead of the clock, without a look?  So it is where there has never
 * been one, which a restore has (and is a copy, whose adoption is another record); and
 * where the run before went down in order and had found none, and the clock has gone on
 * from what it was then.  Not where commits were replayed: after a crash the file is
 * older than the last of them, and a standby has no such file.
 */
static bool
nothing_is_ahead(const GtRow *rows, int n)
{
	int			i;

	if (n == 0 && !has_pages(GT_LEASE) && !has_pages(GT_OBJECT))
		return true;
	if (gt_shared == NULL || gt_shared->clock.ended == 0 || GetLatestXTime() != 0)
		return false;
	for (i = 0; i < n; i++)
		if (GT_INT64(&rows[i], START_RUN) == run_here((uint64) gt_shared->clock.ended) && GT_BOOL(&rows[i], START_REARMED))
			return true;
	return false;
}

/* Writes a record of this run in the place of the rows, which nobody is waited for to delete. */
static void
write_start(GtTable *table, GtRow *rows, int n, int64 grace_before, bool rearmed)
{
	TimestampTz now = gt_now();
	int64		grace = (int64) gt_restart_grace * 1000;
	Start		start = {true, RelationGetRelid(table->rel), gt_run(), now, Max(grace, grace_before), rearmed, false};
	GtRow		row;
	int			i;

	gt_row_init(&row);
	GT_SET(&row, START_ID, gt_random_id());
	GT_SET(&row, START_RUN, Int64GetDatum(start.run));
	GT_SET(&row, START_STARTED_AT, TimestampTzGetDatum(now));
	GT_SET(&row, START_GRACE, Int64GetDatum(grace));
	GT_SET(&row, START_GRACE_BEFORE, Int64GetDatum(grace_before));
	GT_SET(&row, START_REARMED, BoolGetDatum(rearmed));
	GT_SET(&row, START_HISTORY_NOW, TimestampTzGetDatum(history_now_of(rows, n, now)));
	gt_insert(table, &row);
	gt_commit_flushed();		/* what is promised in this run is kept in the next one by what this says */
	for (i = 0; i < n; i++)
		(void) gt_try_delete(table, &rows[i]);
	remember(&start);
}

/*
 * The grace by which rows may live on that were written before this run: that of the
 * run which this row records, and as long as anything can still run that was promised
 * in the runs before it, theirs; but for the adoption of a copy, which is for once.
 */
static int64
grace_promised(const GtRow *start)
{
	int64		grace = GT_INT64(start, START_GRACE);
	int64		before = GT_INT64(start, START_GRACE_BEFORE);

	/* the setting may be less than what leases were created with: not all of it is */
	if (before == PG_INT64_MAX ||
		gt_now() - GT_TIME(start, START_STARTED_AT) > Max((int64) gt_max_duration * USECS_PER_SEC, 30 * USECS_PER_DAY))
		return grace;
	return Max(grace, before);
}

void
gt_start_ensure(void)
{
	GtTable		table;
	GtRow	   *rows;
	Start		start;
	int64		grace_before = 0;
	int			n;
	int			i;

	if (current_start(&start) || RecoveryInProgress() || XactReadOnly)
		return;

	gt_clock_settle();
	gt_open(&table, GT__START, RowExclusiveLock);
	n = read_starts(&table, &rows);
	if (find_start(&table, rows, n, &start))
		learn(&start);
	else
	{
		for (i = 0; i < n; i++)
			grace_before = Max(grace_before, grace_promised(&rows[i]));
		write_start(&table, rows, n, grace_before, nothing_is_ahead(rows, n));
	}
	gt_close(&table);
}

bool
gt_start_is_rearmed(void)
{
	GtDatabase *db = gt_my_database();
	GtTable		table;
	GtRow	   *rows;
	bool		found = false;
	int			n;
	int			i;

	if (db != NULL)
		return db->rearmed;
	gt_open(&table, GT__START, AccessShareLock);
	n = read_starts(&table, &rows);
	for (i = 0; i < n; i++)
		found = found || (GT_INT64(&rows[i], START_RUN) == gt_run() && GT_BOOL(&rows[i], START_REARMED));
	gt_close(&table);
	return found;
}

/*
 * It is kept in one row of this run that nobody else has
 * locked.  Rows of earlier runs that could not be deleted when this one was
 * recorded go now.
 */
void
gt_start_rearmed(void)
{
	GtDatabase *db = gt_my_database();
	bool		kept = false;
	GtTable		table;
	GtRow	   *rows;
	int			n;
	int			i;

	gt_open(&table, GT__START, RowExclusiveLock);
	n = read_starts(&table, &rows);
	for (i = 0; i < n; i++)
	{
		if (GT_INT64(&rows[i], START_RUN) != gt_run())
			(void) gt_try_delete(&table, &rows[i]);
		else if (!kept && gt_lock(&table, &rows[i], LockTupleNoKeyExclusive, true) == GT_LOCKED)
		{
			GT_SET(&rows[i], START_REARMED, BoolGetDatum(true));
			gt_update(&table, &rows[i]);
			kept = true;
		}
	}
	gt_close(&table);
	if (db != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		db->rearmed = true;
		LWLockRelease(gt_shared->lock);
	}
}

/*
 * A copy was adopted by this transaction: every lease in it lives on for its full
 * duration from now.  The run after this one goes back to the usual grace.
 */
void
gt_start_adopt(void)
{
	GtTable		table;
	GtRow	   *rows;
	int			n;

	gt_clock_settle();
	gt_open(&table, GT__START, RowExclusiveLock);
	n = read_starts(&table, &rows);
	write_start(&table, rows, n, PG_INT64_MAX, false);
	recording.adopts = true;
	gt_close(&table);
}

bool
gt_start_of_run(TimestampTz *at, int64 *grace)
{
	Start		start;

	if (!current_start(&start))
		return false;
	*at = start.at;
	*grace = start.grace;
	return true;
}

bool
gt_start_is_recorded(void)
{
	Start		start;

	return !recording.known && current_start(&start);
}

TimestampTz
gt_start_after_outage(void)
{
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	TimestampTz result = 0;
	GtTable		table;
	GtRow	   *rows;
	int			n;
	int			i;

	gt_open(&table, GT__START, AccessShareLock);
	n = gt_fetch_some(&table, snapshot, PG_INT32_MAX, &rows);
	for (i = 0; i < n; i++)
		if (GT_INT64(&rows[i], START_RUN) == gt_run() && GT_INT64(&rows[i], START_GRACE_BEFORE) > 0)
			result = Max(result, GT_TIME(&rows[i], START_STARTED_AT));
	gt_close(&table);
	UnregisterSnapshot(snapshot);
	return result;
}
