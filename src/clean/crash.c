/*-------------------------------------------------------------------------
 *
 * crash.c
 *	  Run records: what was running when a process or the server went down.
 *
 * A worker (and a session in gt_reclaim() that commits on its way) writes into
 * gt__run what it is going to run, in the transaction that writes the outcome of
 * the run before: one flush carries both.  The record is named by a random number
 * on which its writer holds a lock for as long as it lives; so a record on which
 * nobody has the lock tells of a run that was interrupted, also after a crash of
 * the server, and without shared memory.  An abort takes the lock away; a worker
 * survives it, and its slot says then that the writer lives.
 *
 * Who finds a record without a writer, a worker that starts or gt_reclaim(), judges
 * it in a transaction of its own:
 *
 *	- the run was of an object by itself: the attempt is charged, for ever.  The
 *	  second such crash in a row of a handler pauses it.  Of several such runs that
 *	  went down together it is the one that began last, for until then the others
 *	  had done no harm; see gt_admits() in admit.c;
 *	- else its objects will be run by themselves, and nobody is charged;
 *	- the process was evicted (terminated from outside): the run did not happen,
 *	  and the third time in a row that is an attempt;
 *	- it is undone: it did not happen, by nobody's fault.  Where its transaction had
 *	  failed, the error is shown.
 *
 * A single object that was not marked is only charged where it is clear that it
 * was the cause: the worker alone went down, or nothing else ran in this database.
 * Which runs went down together is written into their records before the first of
 * them is judged (tell_apart).  No row that somebody has locked is waited for: a
 * record that cannot be judged yet stays for the next sweep.
 *
 * Marks.  A process that goes can run no transaction.  That a run was evicted or is
 * undone is told of by a file in the data directory, named by the record:
 * terminated from outside (evicted); a shutdown, a dead postmaster, an exit while
 * the run had not begun, an error in gt_reclaim() (undone, with its text).  When
 * another process crashes, or at an immediate shutdown, the postmaster sends
 * SIGQUIT to all that are left: the handler of that signal makes the mark.  So a
 * run without a mark went down with its own process, which nobody had told to go:
 * a crash.  A PANIC in a critical section is no handler's doing: SIGABRT makes a
 * mark then.  Losing a mark (no room for a file; a process that does not heed
 * SIGQUIT for 5 s) charges an attempt.  A mark is removed when no record has its
 * name any more: at the end of a sweep of its database, when that is dropped, and
 * at the start of a standby.
 *
 * A run may also be a pass that ends leases and cleans their objects in one, and
 * has no items (optimistic.c): then nothing is charged, whatever it was.
 *
 * A switchover carries records to where the marks are not.  A record names the
 * timeline on which it was written: where that has ended, it is undone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/transaction.h"
#include "clean/cleaner.h"
#include "clean/crash.h"
#include "clean/marks.h"
#include "clean/record.h"
#include "garbage/garbage.h"
#include "handler/rates.h"
#include "handler/run.h"
#include "handler/slots.h"
#include "handler/tally.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "shared/due.h"
#include "shared/rows_due.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/scan.h"
#include "ttl/ttl.h"

#define MAX_CRASHES 2			/* in a row, of runs alone: the handler is paused */
#define SWEEP_AGAIN (20 * 1000)	/* us at least until a record is looked at again whose rows were locked */

/* ---------------------------------------------------------------- the sweep */

typedef enum
{
	RUN_CRASHED, RUN_EVICTED, RUN_UNDONE
} RunEnd;

/* A record without a writer. */
typedef struct DeadRecord
{
	GtRow		row;
	RunEnd		end;
	char	   *error;			/* of one that is undone; NULL: there is nothing to say */
} DeadRecord;

/* One interrupted run. */
typedef struct Crash
{
	GtHandler	h;
	RunEnd		end;
	const char *error;
	bool		charge;
	bool		optimistic;
	int			nitems;
	int64		items[GT_MAX_ITEMS];
} Crash;

/* The handler is charged with a crash, and paused if it is a habit. handlers: its row, locked. */
static void
count_crash(GtTable *handlers, GtRow *row, const GtRow *object, const GtHandler *h)
{
	int			crashes = GT_INT32(row, HANDLER_CRASHES) + 1;

	GT_SET(row, HANDLER_CRASHES, Int32GetDatum(crashes));
	if (crashes >= MAX_CRASHES && !GT_BOOL(row, HANDLER_PAUSED))
	{
		char	   *reason = psprintf("its runs took the worker or the server down %d times in a row, "
									  "last that of object \"%s\" of type \"%s\"", crashes,
									  TextDatumGetCString(object->v[O_OBJECT_ID]),
									  TextDatumGetCString(object->v[O_OBJECT_TYPE]));

		GT_SET(row, HANDLER_PAUSED, BoolGetDatum(true));
		GT_SET(row, HANDLER_PAUSED_REASON, CStringGetTextDatum(reason));
		ereport(WARNING,
				(errmsg("garbagetruck: handler \"%s\" is paused", h->name),
				 errdetail("Cause: %s.", reason),
				 errhint("Once it is mended: SELECT gt_resume(%s);", quote_literal_cstr(h->name))));
	}
	gt_update(handlers, row);
}

/* An attempt of a run alone went down with its process: counted. false: the handler's row is somebody's. */
static bool
charge_attempt(GtTable *objects, GtRow *object, Crash *crash)
{
	const char *error = "the worker or the server went down during the run";
	GtTable		handlers;
	GtRow		row;
	Datum		key = Int32GetDatum(crash->h.id);
	GtLockResult result;

	if (crash->h.rows && !gt_ttl_crashed(crash->h.id, true, TextDatumGetCString(object->v[O_OBJECT_ID])))
		return false;
	gt_open(&handlers, GT__HANDLER, RowExclusiveLock);
	result = gt_fetch_lock(&handlers, GT__HANDLER_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, true);
	if (result == GT_LOCKED)
		count_crash(&handlers, &row, object, &crash->h);
	gt_close(&handlers);
	if (result == GT_BUSY)
		return false;

	gt_garbage_failed(objects, object, &crash->h, GT_INT32(object, O_ATTEMPTS) + 1, error, GT_BACK_OFF, -1);
	if (GT_CHAR(object, O_STATE) == GT_STATE_WAITING)
	{
		GT_SET(object, O_ALONE, BoolGetDatum(true));
		gt_update(objects, object);
	}
	gt_tally(&crash->h, 1, 1, error);
	gt_observe_cleanup(crash->h.id, crash->h.owner, false, 0, -1);
	return true;
}

/* What an interrupted run means for one of its objects. false: it can not be said yet. */
static bool
judge_item(GtTable *objects, GtRow *row, Crash *crash)
{
	bool		together = crash->nitems > 1;

	if (crash->end == RUN_UNDONE)
	{
		/* each will show whether it is the cause */
		if (together)
			GT_SET(row, O_ALONE, BoolGetDatum(true));
		gt_garbage_excused(objects, row, &crash->h, crash->error, GT_EXCUSE_PLAIN, -1);
		return true;
	}
	if (crash->end == RUN_EVICTED && (!together || GT_INT32(row, O_EVICTED) < 2))
	{
		gt_garbage_excused(objects, row, &crash->h, "the worker was terminated during the run", GT_EXCUSE_EVICTED, -1);
		return true;
	}
	/* announcing is no attempt */
	if (crash->charge && crash->h.kind != GT_KIND_NOTIFY)
		return charge_attempt(objects, row, crash);
	GT_SET(row, O_ALONE, BoolGetDatum(true));
	gt_update(objects, row);
	return true;
}

static void
log_crash(const Crash *crash)
{
	ereport(LOG,
			(crash->optimistic ?
			 errmsg("garbagetruck: a run of handler \"%s\" for objects of leases that are over was interrupted", crash->h.name) :
			 errmsg("garbagetruck: a run of handler \"%s\" for %d objects was interrupted",
					crash->h.name, crash->nitems),
			 crash->error != NULL ? errdetail("Its transaction failed: %s", crash->error) :
			 crash->end == RUN_UNDONE ? errdetail("By nobody's fault: they will be run again.") :
			 crash->end == RUN_EVICTED ? errdetail("The worker was terminated: they will be run again.") :
			 crash->optimistic ? errdetail("For a while all of the handler goes the ordinary way.") :
			 crash->charge ? errdetail("The object was by itself: the attempt counts.") :
			 errdetail("Each will be run by itself.")));
}

/* false: a row that it needs is somebody's. */
static bool
judge(Crash *crash)
{
	bool		ok = true;
	GtTable		objects;
	GtRow		row;
	int			i;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (i = 0; i < crash->nitems && (crash->end != RUN_UNDONE || crash->error != NULL); i++)
	{
		Datum		key = Int64GetDatum(crash->items[i]);
		GtLockResult result = gt_fetch_lock(&objects, GT_OBJECT_CLEANUP, 1, &key, &row, LockTupleExclusive, true);

		/* who has one of several is most likely bringing it back to life */
		if (result == GT_BUSY && crash->charge)
			ok = false;
		if (result == GT_LOCKED && GT_CHAR(&row, O_STATE) == GT_STATE_WAITING)
			ok = judge_item(&objects, &row, crash);
	}
	gt_close(&objects);
	if (!ok)
		return false;
	if (crash->end == RUN_CRASHED)
		gt_handler_ran(&crash->h, true);
	log_crash(crash);
	gt_due_after_commit(gt_now());
	return true;
}

/* Did the server go on while this process went down? Then there is no doubt whose run did it. */
static bool
server_went_on(const GtRow *record)
{
	GtDatabase *db = gt_my_database();

	return db != NULL && db->started == gt_relid(GT__START) && GT_TIME(record, RUN_AT) > db->started_at;
}

/* What has become of the run. */
static void
find_end(DeadRecord *dead)
{
	char		path[MAXPGPATH];

	dead->end = RUN_CRASHED;
	gt_mark_path(path, "evicted", GT_INT64(&dead->row, RUN_WORKER));
	if (access(path, F_OK) == 0)
		dead->end = RUN_EVICTED;
	gt_mark_path(path, "undone", GT_INT64(&dead->row, RUN_WORKER));
	if (access(path, F_OK) == 0)
	{
		dead->end = RUN_UNDONE;
		dead->error = gt_mark_read(path);
	}
	if (GT_INT32(&dead->row, RUN_TIMELINE) != (int32) GetWALInsertionTimeLine())
	{
		dead->end = RUN_UNDONE;
		dead->error = NULL;
	}
}

/* Of the records of runs that crashed with the server, and not by themselves: all are spared but the cause. */
static void
tell_apart(GtTable *runs, List *records)
{
	DeadRecord *cause = NULL;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, records)
	{
		DeadRecord *dead = lfirst(lc);

		if (dead->end != RUN_CRASHED || server_went_on(&dead->row))
			continue;
		n++;
		if (GT_BOOL(&dead->row, RUN_ALONE) &&
			(cause == NULL || GT_TIME(&dead->row, RUN_AT) > GT_TIME(&cause->row, RUN_AT)))
			cause = dead;
	}
	foreach(lc, records)
	{
		DeadRecord *dead = lfirst(lc);
		GtRow	   *row = &dead->row;

		if (n < 2 || dead == cause || dead->end != RUN_CRASHED || GT_BOOL(row, RUN_TOGETHER) || server_went_on(row))
			continue;
		GT_SET(row, RUN_ALONE, BoolGetDatum(false));
		GT_SET(row, RUN_TOGETHER, BoolGetDatum(true));
		gt_update(runs, row);
	}
}

/* Records without a writer, locked; those of no run go at once. */
static List *
dead_records(GtCleaner *c, GtTable *runs)
{
	List	   *result = NIL;
	GtScan	   *scan = gt_scan_begin_once(runs, GT__RUN_PKEY);
	GtRow		row;

	while (gt_scan_next(scan, &row))
	{
		DeadRecord *dead;

		/* nobody takes up the name of another, so who is dead stays dead */
		if (GT_INT64(&row, RUN_WORKER) == c->serial || gt_record_is_careful(&row) ||
			gt_record_has_writer(GT_INT64(&row, RUN_WORKER)) || gt_lock(runs, &row, LockTupleExclusive, true) != GT_LOCKED)
			continue;
		if (!GT_BOOL(&row, RUN_OPTIMISTIC) && ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(row.v[RUN_ITEMS])),
						   ARR_DIMS(DatumGetArrayTypeP(row.v[RUN_ITEMS]))) == 0)
		{
			gt_delete(runs, &row);
			continue;
		}
		dead = palloc0(sizeof(DeadRecord));
		dead->row = row;
		find_end(dead);
		result = lappend(result, dead);
	}
	gt_scan_end(scan);
	return result;
}

/*
 * Of a run that ended leases and cleaned their objects in one: neither was done.  Was
 * it interrupted by nobody's fault that is all; else nothing is charged, but for
 * a while its handler goes the ordinary way, where it can be.
 */
static void
judge_optimistic(GtTable *runs, Crash *crash)
{
	if (crash->end == RUN_CRASHED)
		gt_handler_ran(&crash->h, true);
	if (crash->end != RUN_UNDONE || crash->error != NULL)
		gt_record_be_careful(runs, crash->h.id);
	log_crash(crash);
	gt_due_after_commit(gt_now());
}

/* Judges what a record tells of, and deletes it; false: not yet. */
static bool
judge_record(GtTable *runs, GtRow *record, RunEnd end, const char *error, bool only_one)
{
	Crash	   *crash = palloc0(sizeof(Crash));
	bool		done = true;

	crash->end = end;
	crash->error = error;
	crash->optimistic = GT_BOOL(record, RUN_OPTIMISTIC);
	crash->nitems = gt_record_items(record, crash->items);
	crash->charge = end == RUN_CRASHED && crash->nitems == 1 &&
		(GT_BOOL(record, RUN_ALONE) || server_went_on(record) || (only_one && !GT_BOOL(record, RUN_TOGETHER)));
	if (crash->nitems > 0 && crash->items[0] < 0)
	{
		/* rows, of which none is named */
		done = end != RUN_CRASHED || gt_ttl_set_careful(GT_INT32(record, RUN_HANDLER), crash->nitems);
		gt_rows_stir(gt_now());
	}
	else if (gt_handler_by_id(GT_INT32(record, RUN_HANDLER), &crash->h) ||
			 gt_ttl_handler(GT_INT32(record, RUN_HANDLER), &crash->h))
	{
		if (crash->optimistic)
			judge_optimistic(runs, crash);
		else
			done = judge(crash);
	}
	if (done)
		gt_delete(runs, record);
	pfree(crash);
	return done;
}

/* Our own run, whose transaction has failed. false: that has been dealt with. */
static bool
sweep_own(GtCleaner *c, GtTable *runs)
{
	Datum		key = Int64GetDatum(c->serial);
	GtRow		record;

	if (!gt_clean_has_failed(c))
		return false;
	if (gt_fetch_lock(runs, GT__RUN_PKEY, 1, &key, &record, LockTupleExclusive, false) == GT_LOCKED)
		return judge_record(runs, &record, RUN_UNDONE, c->failure, false);
	/* the record has been deleted, and its name with it */
	c->failure[0] = '\0';
	c->durable = false;
	gt_clean_forget(c);
	return false;
}

/* What one of the records of others is judged by, in a subtransaction. */
typedef struct Judging
{
	DeadRecord *dead;
	bool		only_one;
	bool		done;
} Judging;

static void
judge_other(void *arg)
{
	Judging    *judging = arg;
	DeadRecord *dead = judging->dead;
	GtTable		runs;			/* of its own: what an abort closes is not to be used again */

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	judging->done = judge_record(&runs, &dead->row, dead->end, dead->error, judging->only_one);
	gt_close(&runs);
}

/* Has it been judged? One that can not be, whatever the cause, keeps no other waiting. */
static bool
try_to_judge(DeadRecord *dead, bool only_one)
{
	Judging		judging = {dead, only_one, false};
	ErrorData  *error = gt_try(judge_other, &judging);

	if (error == NULL)
		return judging.done;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("garbagetruck: an interrupted run can not be judged, and its objects wait: %s", error->message)));
	return false;
}

/* What is on record of others can not be judged yet, or no longer is there any. Returns since when that has been so. */
static TimestampTz
note_unjudged(bool unjudged)
{
	GtDatabase *db = gt_my_database();
	TimestampTz since = gt_now();

	if (db == NULL)
		return since;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (unjudged && !db->unjudged)
		db->unjudged_since = since;
	since = db->unjudged_since;
	db->unjudged = unjudged;
	db->sweep = db->sweep || unjudged;
	LWLockRelease(gt_shared->lock);
	return since;
}

/* The first record that can be judged; else they are looked at again in a while. */
static bool
sweep_others(GtTable *runs, List *records)
{
	TimestampTz now = gt_now();
	int64		waited = (int64) gt_naptime * USECS_PER_SEC;
	TimestampTz since;
	int			crashed = 0;
	ListCell   *lc;

	tell_apart(runs, records);
	foreach(lc, records)
		if (((DeadRecord *) lfirst(lc))->end == RUN_CRASHED)
			crashed++;
	foreach(lc, records)
		if (try_to_judge(lfirst(lc), crashed == 1))
			return true;
	since = note_unjudged(records != NIL);
	/* the longer they have waited, the less often; until then their objects are passed over */
	foreach(lc, records)
		waited = Min(waited, now - Max(since, GT_TIME(&((DeadRecord *) lfirst(lc))->row, RUN_AT)));
	if (records != NIL)
		gt_due_after_commit(now + Max(waited, SWEEP_AGAIN));
	return false;
}

/*
 * It is on record, like that of another who has gone, and said to
 * be undone; until it is judged its objects are passed over.
 */
void
gt_clean_disown(GtCleaner *c)
{
	if (!gt_clean_has_failed(c))
		return;
	gt_clean_undone(c, NULL);
	(void) note_unjudged(true);
	c->failure[0] = '\0';
	c->durable = false;
	gt_clean_forget(c);
	gt_slot_release();
}

bool
gt_clean_sweep(GtCleaner *c)
{
	GtTable		runs;
	List	   *records;
	bool		found;

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	found = sweep_own(c, &runs);
	if (!found)
	{
		records = dead_records(c, &runs);
		found = sweep_others(&runs, records);
		if (records == NIL)
			gt_marks_remove(MyDatabaseId, &runs);
	}
	gt_close(&runs);
	return found;
}
