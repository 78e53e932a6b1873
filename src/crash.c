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
 * the server, and without shared memory.
 *
 * Who finds such a record, a worker that starts or gt_reclaim(), judges it in a
 * transaction of its own:
 *
 *	- the run was of an object by itself: the attempt is charged, for ever.  The
 *	  second such crash in a row of a handler pauses it.  Of several such runs that
 *	  went down together it is the one that began last, for until then the others
 *	  had done no harm; see allows() in slots.c;
 *	- else its objects will be run by themselves, and nobody is charged;
 *	- the process was evicted (terminated from outside): the run did not happen.
 *
 * A single object that was not marked is only charged where it is clear that it
 * was the cause: the worker alone went down, or nothing else ran in this database.
 * Which runs went down together is written into their records before the first of
 * them is judged (tell_apart).
 *
 * Evictions are told of by an empty file in the data directory: a process that
 * is terminated can run no transaction.  Losing the file charges an attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "clean.h"
#include "compat.h"
#include "worker.h"

#define MAX_CRASHES 2			/* in a row, of runs alone: the handler is paused */

static void
set_tag(LOCKTAG *tag, int64 serial)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, gt_relid(GT__RUN),
					   (uint32) (serial & 0xFFFFFFFF), (uint16) ((serial >> 32) & 0xFFFF));
}

/* A name for our record and the lock that says that its writer lives. In a transaction. */
static void
take_serial(GtCleaner *c)
{
	if (c->locked)
		return;
	if (!pg_strong_random(&c->serial, sizeof(c->serial)))
		ereport(ERROR, (errmsg("could not draw a random number for a run record")));
	c->serial = (c->serial & INT64CONST(0xFFFFFFFFFFFF)) | 1;
	set_tag(&c->tag, c->serial);
	(void) LockAcquire(&c->tag, ExclusiveLock, true, false);
	c->locked = true;
}

void
gt_clean_forget(GtCleaner *c)
{
	if (c->locked)
		(void) LockRelease(&c->tag, ExclusiveLock, true);
	c->locked = false;
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

	if (c->unrecorded || (c->nitems == 0 && !c->locked))
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
	if (!c->locked)
		return;
	gt_open(&runs, GT__RUN, RowExclusiveLock);
	key = Int64GetDatum(c->serial);
	if (gt_fetch_lock(&runs, GT__RUN_PKEY, 1, &key, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&runs, &row);
	gt_close(&runs);
	gt_clean_forget(c);
}

/* ---------------------------------------------------------------- evictions */

static void
eviction_file(char *path, int64 serial)
{
	snprintf(path, MAXPGPATH, "garbagetruck.evicted.%u." INT64_FORMAT, MyDatabaseId, serial);
}

/* See garbagetruck.h. */
void
gt_clean_evicted(GtCleaner *c)
{
	char		path[MAXPGPATH];
	int			fd;

	if (!c->durable)
		return;
	eviction_file(path, c->serial);
	fd = open(path, O_CREAT | O_WRONLY, pg_file_create_mode);
	if (fd >= 0)
		close(fd);
	else
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
}

/* See garbagetruck.h. The abort has released the lock. */
void
gt_clean_restart(GtCleaner *c)
{
	c->locked = false;
	c->durable = false;
	c->nitems = 0;
	c->nparts = 0;
	c->nbusy = 0;
}

/* ---------------------------------------------------------------- the sweep */

/* One interrupted run. */
typedef struct Crash
{
	GtHandler	h;
	int64		serial;
	bool		evicted;
	bool		charge;
	int			nitems;
	int64		items[GT_MAX_ITEMS];
} Crash;

/* An attempt of a run alone went down with its process: counted, and the handler paused if it is a habit. */
static void
charge_attempt(GtTable *objects, GtRow *object, Crash *crash)
{
	const char *error = "the worker or the server went down during the run";
	int			attempt = GT_INT32(object, O_ATTEMPTS) + 1;
	GtTable		handlers;
	GtRow		row;
	Datum		key = Int32GetDatum(crash->h.id);

	gt_garbage_failed(objects, object, &crash->h, attempt, error, GT_BACK_OFF, -1);
	if (GT_CHAR(object, O_STATE) == 'w')
	{
		GT_SET(object, O_ALONE, BoolGetDatum(true));
		gt_update(objects, object);
	}
	gt_tally(&crash->h, 1, 1, error);
	gt_observe_cleanup(&crash->h, false, 0, -1);

	gt_open(&handlers, GT__HANDLER, RowExclusiveLock);
	if (gt_fetch_lock(&handlers, GT__HANDLER_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, false) == GT_LOCKED)
	{
		int			crashes = GT_INT32(&row, H_CRASHES) + 1;

		GT_SET(&row, H_CRASHES, Int32GetDatum(crashes));
		if (crashes >= MAX_CRASHES && !GT_BOOL(&row, H_PAUSED))
		{
			char	   *reason = psprintf("its runs took the worker or the server down %d times in a row, "
										  "last that of object \"%s\" of type \"%s\"", crashes,
										  TextDatumGetCString(object->v[O_OBJECT_ID]),
										  TextDatumGetCString(object->v[O_OBJECT_TYPE]));

			GT_SET(&row, H_PAUSED, BoolGetDatum(true));
			GT_SET(&row, H_PAUSED_REASON, CStringGetTextDatum(reason));
			ereport(WARNING,
					(errmsg("garbagetruck: handler \"%s\" is paused", crash->h.name),
					 errdetail("Cause: %s.", reason),
					 errhint("Once it is mended: SELECT gt_resume(%s);", quote_literal_cstr(crash->h.name))));
		}
		gt_update(&handlers, &row);
	}
	gt_close(&handlers);
}

/* What an interrupted run means for one of its objects. */
static void
judge_item(GtTable *objects, GtRow *row, Crash *crash)
{
	if (crash->evicted && (crash->nitems == 1 || GT_INT32(row, O_EVICTED) < 2))
	{
		gt_garbage_excused(objects, row, &crash->h, "the worker was terminated during the run", true, -1);
		return;
	}
	/* announcing is no attempt */
	if (crash->charge && crash->h.kind != GT_KIND_NOTIFY)
	{
		charge_attempt(objects, row, crash);
		return;
	}
	GT_SET(row, O_ALONE, BoolGetDatum(true));
	gt_update(objects, row);
}

static void
judge(Crash *crash)
{
	GtTable		objects;
	GtRow		row;
	int			i;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (i = 0; i < crash->nitems; i++)
	{
		Datum		key = Int64GetDatum(crash->items[i]);

		/* several are not waited for: they are in no order; who has one is bringing it back to life */
		if (gt_fetch_lock(&objects, GT_OBJECT_CLEANUP, 1, &key, &row, LockTupleExclusive,
						  crash->nitems > 1) == GT_LOCKED && GT_CHAR(&row, O_STATE) == 'w')
			judge_item(&objects, &row, crash);
	}
	gt_close(&objects);
	if (!crash->evicted)
		gt_handler_ran(&crash->h, true);
	ereport(LOG,
			(errmsg("garbagetruck: a run of handler \"%s\" for %d objects was interrupted",
					crash->h.name, crash->nitems),
			 crash->evicted ? errdetail("The worker was terminated: they will be run again.") :
			 crash->charge ? errdetail("The object was by itself: the attempt counts.") :
			 errdetail("Each will be run by itself.")));
	gt_due_after_commit(gt_now());
}

static void
read_crash(const GtRow *record, Crash *crash)
{
	char		path[MAXPGPATH];

	crash->serial = GT_INT64(record, RUN_WORKER);
	crash->nitems = items_of(record, crash->items);
	eviction_file(path, crash->serial);
	crash->evicted = access(path, F_OK) == 0;
}

/* Did the server go on while this process went down? Then there is no doubt whose run did it. */
static bool
server_went_on(const GtRow *record)
{
	GtDatabase *db = gt_my_database();

	return db != NULL && db->started && GT_TIME(record, RUN_AT) > db->started_at;
}

/* Of the records of runs that went down with the server, and not by themselves: all are spared but the cause. */
static void
tell_apart(GtTable *runs, List *records)
{
	GtRow	   *cause = NULL;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, records)
	{
		GtRow	   *record = lfirst(lc);

		if (server_went_on(record))
			continue;
		n++;
		if (GT_BOOL(record, RUN_ALONE) && (cause == NULL || GT_TIME(record, RUN_AT) > GT_TIME(cause, RUN_AT)))
			cause = record;
	}
	foreach(lc, records)
	{
		GtRow	   *record = lfirst(lc);

		if (n < 2 || record == cause || GT_BOOL(record, RUN_TOGETHER) || server_went_on(record))
			continue;
		GT_SET(record, RUN_ALONE, BoolGetDatum(false));
		GT_SET(record, RUN_TOGETHER, BoolGetDatum(true));
		gt_update(runs, record);
	}
}

/* See garbagetruck.h. */
bool
gt_clean_sweep(GtCleaner *c)
{
	GtTable		runs;
	GtScan	   *scan;
	GtRow		row;
	List	   *dead = NIL;
	Crash		crash;
	LOCKTAG		tag;

	if (c->swept_file[0] != '\0')
		unlink(c->swept_file);	/* what it told of has been committed */
	c->swept_file[0] = '\0';

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	scan = gt_scan_begin(&runs, GT__RUN_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		if (c->locked && GT_INT64(&row, RUN_WORKER) == c->serial)
			continue;
		set_tag(&tag, GT_INT64(&row, RUN_WORKER));
		if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
			continue;			/* its writer lives */
		if (gt_lock(&runs, &row, LockTupleExclusive, true) != GT_LOCKED)
			continue;
		if (ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(row.v[RUN_ITEMS])),
						   ARR_DIMS(DatumGetArrayTypeP(row.v[RUN_ITEMS]))) == 0)
			gt_delete(&runs, &row);
		else
			dead = lappend(dead, memcpy(palloc(sizeof(GtRow)), &row, sizeof(GtRow)));
	}
	gt_scan_end(scan);

	if (dead != NIL)
	{
		GtRow	   *record = linitial(dead);

		tell_apart(&runs, dead);
		read_crash(record, &crash);
		crash.charge = crash.nitems == 1 &&
			(GT_BOOL(record, RUN_ALONE) || server_went_on(record) ||
			 (list_length(dead) == 1 && !GT_BOOL(record, RUN_TOGETHER)));
		if (gt_handler_by_id(GT_INT32(record, RUN_HANDLER), &crash.h))
			judge(&crash);
		gt_delete(&runs, record);
		if (crash.evicted)
			eviction_file(c->swept_file, crash.serial);
	}
	gt_close(&runs);
	return dead != NIL;
}
