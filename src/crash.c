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
 *	  had done no harm; see allows() in slots.c;
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
 * A switchover carries records to where the marks are not.  A record names the
 * timeline on which it was written: where that has ended, it is undone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/file_perm.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"
#include "lease.h"
#include "worker.h"

#define MAX_CRASHES 2			/* in a row, of runs alone: the handler is paused */
#define SWEEP_AGAIN (20 * 1000)	/* us at least until a record is looked at again whose rows were locked */

#define MARK_PREFIX	"garbagetruck."

/* what the signals' handler makes, and whether there may be a record that it is for */
static char mark_at_signal[MAXPGPATH];
static volatile sig_atomic_t may_have_record = false;

static struct sigaction quit_before;
static struct sigaction abort_before;

static void
mark_path(char *path, const char *kind, int64 serial)
{
	snprintf(path, MAXPGPATH, MARK_PREFIX "%s.%u." INT64_FORMAT, kind, MyDatabaseId, serial);
}

static void
set_tag(LOCKTAG *tag, int64 serial)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, gt_relid(GT__RUN),
					   (uint32) (serial & 0xFFFFFFFF), (uint16) ((serial >> 32) & 0xFFFF));
}

/* Says whose record a worker's slot stands for. */
static void
name_in_slot(int64 serial)
{
	if (gt_my_slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_my_slot->record = serial;
	LWLockRelease(gt_shared->lock);
}

/* A name for our record and the lock that says that its writer lives. In a transaction. */
static void
take_serial(GtCleaner *c)
{
	if (c->locked)
		return;
	if (c->serial == 0)
	{
		if (!pg_strong_random(&c->serial, sizeof(c->serial)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not draw a random number for a run record")));
		c->serial = (c->serial & INT64CONST(0xFFFFFFFFFFFF)) | 1;
		set_tag(&c->tag, c->serial);
		mark_path(mark_at_signal, "undone", c->serial);
		may_have_record = true;
		name_in_slot(c->serial);
	}
	(void) LockAcquire(&c->tag, ExclusiveLock, true, false);
	c->locked = true;
}

void
gt_clean_forget(GtCleaner *c)
{
	may_have_record = false;
	if (c->locked)
		(void) LockRelease(&c->tag, ExclusiveLock, true);
	c->locked = false;
	if (c->serial != 0)
		name_in_slot(0);
	c->serial = 0;
}

/* Of a record; takes and gives back its lock. */
static bool
writer_lives(int64 serial)
{
	bool		lives = false;
	LOCKTAG		tag;
	int			i;

	if (gt_shared != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_SHARED);
		for (i = 0; i < GT_MAX_WORKERS; i++)
			if (gt_shared->slots[i].state != GT_SLOT_FREE && gt_shared->slots[i].record == serial)
				lives = true;
		LWLockRelease(gt_shared->lock);
	}
	if (lives)
		return true;
	set_tag(&tag, serial);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, ExclusiveLock, true);
	return false;
}

bool
gt_clean_has_begun(GtCleaner *c)
{
	return c->begun;
}

bool
gt_clean_has_failed(GtCleaner *c)
{
	return c->failure[0] != '\0';
}

bool
gt_clean_is_durable(GtCleaner *c)
{
	return c->durable;
}

/*
 * The chosen items (sorted) as first and last of each row of consecutive ids:
 * those of one batch mostly became garbage together, and a thousand numbers would
 * be compressed and moved out of the row each time.
 */
static Datum
ranges_of(GtCleaner *c)
{
	Datum	   *ends = palloc((2 * c->nitems + 1) * sizeof(Datum));
	int			n = 0;
	int			i;

	for (i = 0; i < c->nitems; i++)
	{
		if (i > 0 && c->items[i] == c->items[i - 1] + 1)
			ends[n - 1] = Int64GetDatum(c->items[i]);
		else
		{
			ends[n++] = Int64GetDatum(c->items[i]);
			ends[n++] = Int64GetDatum(c->items[i]);
		}
	}
	return PointerGetDatum(construct_array(ends, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* The opposite. */
static int
items_of(const GtRow *record, int64 *items)
{
	Datum	   *ends;
	int			n;
	int			nitems = 0;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(record->v[RUN_ITEMS]), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &ends, NULL, &n);
	for (i = 0; i + 1 < n; i += 2)
	{
		int64		id;

		for (id = DatumGetInt64(ends[i]); id <= DatumGetInt64(ends[i + 1]) && nitems < GT_MAX_ITEMS; id++)
			items[nitems++] = id;
	}
	return nitems;
}

/* Writes the chosen run over the record of the one before; no items: nothing is going to run. */
void
gt_clean_write_record(GtCleaner *c)
{
	GtTable		runs;
	GtRow		row;
	Datum		key;
	bool		found;

	if (c->unrecorded || (c->nitems == 0 && c->serial == 0))
		return;
	take_serial(c);

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	key = Int64GetDatum(c->serial);
	found = gt_fetch_lock(&runs, GT__RUN_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, false) == GT_LOCKED;
	if (found || c->nitems > 0)
	{
		if (!found)
			gt_row_init(&row);
		GT_SET(&row, RUN_WORKER, key);
		GT_SET(&row, RUN_HANDLER, Int32GetDatum(c->handler));
		GT_SET(&row, RUN_ALONE, BoolGetDatum(c->alone));
		GT_SET(&row, RUN_TOGETHER, BoolGetDatum(false));
		GT_SET(&row, RUN_AT, TimestampTzGetDatum(gt_now()));
		GT_SET(&row, RUN_ITEMS, ranges_of(c));
		GT_SET(&row, RUN_TIMELINE, Int32GetDatum((int32) GetWALInsertionTimeLine()));
		if (found)
			gt_update(&runs, &row);
		else
			gt_insert(&runs, &row);
	}
	gt_close(&runs);
}

/* See garbagetruck.h. */
void
gt_clean_end(GtCleaner *c)
{
	GtTable		runs;
	GtRow		row;
	Datum		key;

	Assert(c->nitems == 0);
	if (c->serial == 0)
		return;
	gt_open(&runs, GT__RUN, RowExclusiveLock);
	key = Int64GetDatum(c->serial);
	if (gt_fetch_lock(&runs, GT__RUN_PKEY, 1, &key, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&runs, &row);
	gt_close(&runs);
	gt_clean_forget(c);
}

/* ---------------------------------------------------------------- marks */

/* Leaves one for the record that there may be. */
static void
leave_mark(GtCleaner *c, const char *kind, const char *text)
{
	char		path[MAXPGPATH];
	int			fd;

	if (c->serial == 0)
		return;
	mark_path(path, kind, c->serial);
	fd = open(path, O_CREAT | O_WRONLY | PG_BINARY, pg_file_create_mode);
	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
		return;
	}
	/* what does not fit on a full disk is left out: the file is the mark */
	if (text != NULL && write(fd, text, strlen(text)) < 0)
		errno = 0;
	close(fd);
}

/* See garbagetruck.h. What had not begun did not happen, and that is all. */
void
gt_clean_evicted(GtCleaner *c)
{
	if (c->begun)
		leave_mark(c, "evicted", NULL);
	else
		gt_clean_undone(c, NULL);
}

/* See garbagetruck.h. */
void
gt_clean_undone(GtCleaner *c, const char *error)
{
	if (gt_clean_has_failed(c))
		error = c->failure;
	else if (!c->begun)
		error = NULL;
	leave_mark(c, "undone", error);
}

/* See garbagetruck.h. Other transactions than the run's own leave the run on record as it is: it comes next. */
void
gt_clean_failed(GtCleaner *c, const char *error)
{
	if (c->durable && c->begun)
		strlcpy(c->failure, error, pg_mbcliplen(error, strlen(error), GT_MAX_FAILURE - 1) + 1);
}

/* See garbagetruck.h. The abort has released the lock; while a run is on record our slot stands for it. */
void
gt_clean_restart(GtCleaner *c)
{
	c->locked = false;
	if (c->durable && !c->begun)
		return;
	c->begun = false;
	c->nitems = 0;
	c->nparts = 0;
	c->nbusy = 0;
}

/*
 * Another process went first (SIGQUIT), or this one panics: not the handler's
 * doing.  What the signal meant before happens next.
 */
static void
mark_and_go(int signo)
{
	int			save_errno = errno;

	if (may_have_record && (signo == SIGQUIT || CritSectionCount > 0))
	{
		int			fd = open(mark_at_signal, O_CREAT | O_WRONLY, pg_file_create_mode);

		if (fd >= 0)
			close(fd);
	}
	sigaction(signo, signo == SIGQUIT ? &quit_before : &abort_before, NULL);
	errno = save_errno;
	raise(signo);				/* blocked until we return */
}

/* See garbagetruck.h. */
void
gt_clean_watch(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = mark_and_go;
	sigemptyset(&action.sa_mask);
	sigaction(SIGQUIT, &action, &quit_before);
	sigaction(SIGABRT, &action, &abort_before);
}

/* See garbagetruck.h. */
void
gt_clean_unwatch(void)
{
	may_have_record = false;
	sigaction(SIGQUIT, &quit_before, NULL);
	sigaction(SIGABRT, &abort_before, NULL);
}

/* Removes marks of a database (InvalidOid: of all) whose record is not among `runs` (NULL: all of them). */
static void
remove_marks(Oid database, GtTable *runs)
{
	DIR		   *dir = AllocateDir(".");
	struct dirent *entry;

	while ((entry = ReadDirExtended(dir, ".", LOG)) != NULL)
	{
		unsigned int of;
		long long	serial;
		Datum		key;
		GtRow		row;

		if (sscanf(entry->d_name, MARK_PREFIX "evicted.%u.%lld", &of, &serial) != 2 &&
			sscanf(entry->d_name, MARK_PREFIX "undone.%u.%lld", &of, &serial) != 2)
			continue;
		key = Int64GetDatum(serial);
		if ((OidIsValid(database) && of != database) ||
			(runs != NULL && gt_fetch(runs, GT__RUN_PKEY, 1, &key, &row)))
			continue;
		(void) unlink(entry->d_name);
	}
	FreeDir(dir);
}

/* See garbagetruck.h. */
void
gt_clean_forget_marks(Oid database)
{
	remove_marks(database, NULL);
}

/* Postmaster: what a standby has of marks means nothing; its promotion begins another timeline, and undoes what is marked here. */
static void
start(bool first)
{
	if (first && access("standby.signal", F_OK) == 0)
		remove_marks(InvalidOid, NULL);
}

/* See garbagetruck.h. */
void
gt_clean_init(void)
{
	gt_shmem_part(0, start);
}

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
	int			nitems;
	int64		items[GT_MAX_ITEMS];
} Crash;

/* The handler is charged with a crash, and paused if it is a habit. handlers: its row, locked. */
static void
count_crash(GtTable *handlers, GtRow *row, const GtRow *object, const GtHandler *h)
{
	int			crashes = GT_INT32(row, H_CRASHES) + 1;

	GT_SET(row, H_CRASHES, Int32GetDatum(crashes));
	if (crashes >= MAX_CRASHES && !GT_BOOL(row, H_PAUSED))
	{
		char	   *reason = psprintf("its runs took the worker or the server down %d times in a row, "
									  "last that of object \"%s\" of type \"%s\"", crashes,
									  TextDatumGetCString(object->v[O_OBJECT_ID]),
									  TextDatumGetCString(object->v[O_OBJECT_TYPE]));

		GT_SET(row, H_PAUSED, BoolGetDatum(true));
		GT_SET(row, H_PAUSED_REASON, CStringGetTextDatum(reason));
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

	gt_open(&handlers, GT__HANDLER, RowExclusiveLock);
	result = gt_fetch_lock(&handlers, GT__HANDLER_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, true);
	if (result == GT_LOCKED)
		count_crash(&handlers, &row, object, &crash->h);
	gt_close(&handlers);
	if (result == GT_BUSY)
		return false;

	gt_garbage_failed(objects, object, &crash->h, GT_INT32(object, O_ATTEMPTS) + 1, error, GT_BACK_OFF, -1);
	if (GT_CHAR(object, O_STATE) == 'w')
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
			(errmsg("garbagetruck: a run of handler \"%s\" for %d objects was interrupted",
					crash->h.name, crash->nitems),
			 crash->error != NULL ? errdetail("Its transaction failed: %s", crash->error) :
			 crash->end == RUN_UNDONE ? errdetail("By nobody's fault: they will be run again.") :
			 crash->end == RUN_EVICTED ? errdetail("The worker was terminated: they will be run again.") :
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
		if (result == GT_LOCKED && GT_CHAR(&row, O_STATE) == 'w')
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

/* The text in a mark, NULL where there is none. */
static char *
read_mark(const char *path)
{
	char		text[GT_MAX_FAILURE];
	int			fd = open(path, O_RDONLY | PG_BINARY, 0);
	ssize_t		n;

	if (fd < 0)
		return NULL;
	n = read(fd, text, sizeof(text));
	close(fd);
	return n > 0 ? pnstrdup(text, n) : NULL;
}

/* What has become of the run. */
static void
find_end(DeadRecord *dead)
{
	char		path[MAXPGPATH];

	dead->end = RUN_CRASHED;
	mark_path(path, "evicted", GT_INT64(&dead->row, RUN_WORKER));
	if (access(path, F_OK) == 0)
		dead->end = RUN_EVICTED;
	mark_path(path, "undone", GT_INT64(&dead->row, RUN_WORKER));
	if (access(path, F_OK) == 0)
	{
		dead->end = RUN_UNDONE;
		dead->error = read_mark(path);
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
	GtScan	   *scan = gt_scan_begin(runs, GT__RUN_PKEY, 0, NULL);
	GtRow		row;

	while (gt_scan_next(scan, &row))
	{
		DeadRecord *dead;

		/* nobody takes up the name of another, so who is dead stays dead */
		if (GT_INT64(&row, RUN_WORKER) == c->serial || writer_lives(GT_INT64(&row, RUN_WORKER)) ||
			gt_lock(runs, &row, LockTupleExclusive, true) != GT_LOCKED)
			continue;
		if (ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(row.v[RUN_ITEMS])),
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

/* See clean.h. */
void
gt_clean_add_unjudged(GtCleaner *c, int64 **items, int *nitems)
{
	GtDatabase *db = gt_my_database();
	GtTable		runs;
	GtScan	   *scan;
	GtRow		row;

	/* without shared memory nobody tells: then what has been swept and is still there */
	if (db != NULL ? !db->unjudged : c->unrecorded)
		return;
	gt_open(&runs, GT__RUN, AccessShareLock);
	scan = gt_scan_begin(&runs, GT__RUN_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		if (GT_INT64(&row, RUN_WORKER) == c->serial)
			continue;
		*items = repalloc(*items, (*nitems + GT_MAX_ITEMS + 1) * sizeof(int64));
		*nitems += items_of(&row, *items + *nitems);
	}
	gt_scan_end(scan);
	gt_close(&runs);
	qsort(*items, *nitems, sizeof(int64), gt_by_id);
}

/* Judges what a record tells of, and deletes it; false: not yet. */
static bool
judge_record(GtTable *runs, GtRow *record, RunEnd end, const char *error, bool only_one)
{
	Crash	   *crash = palloc0(sizeof(Crash));
	bool		done = true;

	crash->end = end;
	crash->error = error;
	crash->nitems = items_of(record, crash->items);
	crash->charge = end == RUN_CRASHED && crash->nitems == 1 &&
		(GT_BOOL(record, RUN_ALONE) || server_went_on(record) || (only_one && !GT_BOOL(record, RUN_TOGETHER)));
	if (gt_handler_by_id(GT_INT32(record, RUN_HANDLER), &crash->h))
		done = judge(crash);
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
	c->failure[0] = '\0';
	c->durable = false;
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
 * See worker.h.  It is on record, like that of another who has gone, and said to
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

/* See garbagetruck.h. */
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
			remove_marks(MyDatabaseId, &runs);
	}
	gt_close(&runs);
	return found;
}
