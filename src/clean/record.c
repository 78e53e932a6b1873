/*-------------------------------------------------------------------------
 *
 * record.c
 *	  The record of the run that a process is at, and the lock that says that it lives.
 *
 * See crash.c.  The record is a row of gt__run, written in the transaction that
 * chooses the run and written over by the next choice; its name is a random serial, on
 * which the process holds a lock as long as it may have a record.  Such a name is for one
 * row only: with that it goes, and another one is drawn for the next.  So whoever looks at
 * all records (gt_scan_begin_once()) need not look at what is left of a deleted one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "clean/cleaner.h"
#include "clean/marks.h"
#include "clean/record.h"
#include "lease/created.h"
#include "shared/due.h"
#include "shared/ids.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/scan.h"
#include "table/table.h"
#include "table/versions.h"

#define CAREFUL (10 * USECS_PER_MINUTE)

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
		gt_mark_arm(c->serial);
		name_in_slot(c->serial);
	}
	(void) LockAcquire(&c->tag, ExclusiveLock, true, false);
	c->locked = true;
}

void
gt_clean_forget(GtCleaner *c)
{
	gt_mark_disarm();
	if (c->locked)
		(void) LockRelease(&c->tag, ExclusiveLock, true);
	c->locked = false;
	if (c->serial != 0)
		name_in_slot(0);
	c->serial = 0;
}

/* Of a record; takes and gives back its lock. */
bool
gt_record_has_writer(int64 serial)
{
	bool		lives = false;
	LOCKTAG		tag;
	int			i;

	if (gt_shared != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_SHARED);
		for (i = 0; i < GT_MAX_WORKERS; i++)
			if (gt_shared->slots[i].state != GT_SLOT_FREE && gt_shared->slots[i].database == MyDatabaseId &&
				gt_shared->slots[i].record == serial)
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
gt_clean_pending(GtCleaner *c)
{
	return c->nitems > 0 || c->optimistic;
}

bool
gt_clean_is_optimistic(GtCleaner *c)
{
	return c->optimistic;
}

bool
gt_clean_is_attended(GtCleaner *c)
{
	return c->attended;
}

bool
gt_clean_has_begun(GtCleaner *c)
{
	return c->begun;
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

	/* rows have no ids: the record tells how many they are, by numbers that are none of garbage */
	if (c->rows > 0 && c->nitems > 0)
	{
		ends[n++] = Int64GetDatum(-c->rows);
		ends[n++] = Int64GetDatum(-1);
	}
	for (i = 0; i < c->nitems && c->rows == 0; i++)
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
int
gt_record_items(const GtRow *record, int64 *items)
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

	if (c->unrecorded || (!gt_clean_pending(c) && c->serial == 0))
		return;
	take_serial(c);

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	key = Int64GetDatum(c->serial);
	found = gt_fetch_lock(&runs, GT__RUN_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, false) == GT_LOCKED;
	if (found || gt_clean_pending(c))
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
		GT_SET(&row, RUN_OPTIMISTIC, BoolGetDatum(c->optimistic));
		if (found)
			gt_update(&runs, &row);
		else
			gt_insert(&runs, &row);
		gt_commit_flushed();	/* a run that takes the server down is to be found there */
	}
	gt_close(&runs);
}

void
gt_clean_end(GtCleaner *c)
{
	GtTable		runs;
	GtRow		row;
	Datum		key;

	Assert(!gt_clean_pending(c));
	if (c->serial == 0)
		return;
	gt_open(&runs, GT__RUN, RowExclusiveLock);
	key = Int64GetDatum(c->serial);
	if (gt_fetch_lock(&runs, GT__RUN_PKEY, 1, &key, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&runs, &row);
	gt_close(&runs);
	gt_clean_forget(c);
}

void
gt_record_be_careful(GtTable *runs, int handler)
{
	GtRow		row;

	gt_row_init(&row);
	GT_SET(&row, RUN_WORKER, gt_random_id());
	GT_SET(&row, RUN_HANDLER, Int32GetDatum(handler));
	GT_SET(&row, RUN_ALONE, BoolGetDatum(false));
	GT_SET(&row, RUN_TOGETHER, BoolGetDatum(false));
	GT_SET(&row, RUN_AT, TimestampTzGetDatum(gt_now()));
	GT_SET(&row, RUN_ITEMS, PointerGetDatum(construct_empty_array(INT8OID)));
	GT_SET(&row, RUN_TIMELINE, Int32GetDatum((int32) GetWALInsertionTimeLine()));
	GT_SET(&row, RUN_OPTIMISTIC, BoolGetDatum(false));
	GT_SET(&row, RUN_CAREFUL_UNTIL, TimestampTzGetDatum(gt_now() + CAREFUL));
	gt_insert(runs, &row);
}

/* Such a time that is further ahead was written by a clock that was. */
bool
gt_record_is_careful(const GtRow *record)
{
	TimestampTz now = gt_now();

	return !record->isnull[RUN_CAREFUL_UNTIL] && GT_TIME(record, RUN_CAREFUL_UNTIL) > now &&
		GT_TIME(record, RUN_CAREFUL_UNTIL) <= now + CAREFUL;
}

bool
gt_clean_is_careful(GtCleaner *c, int handler)
{
	GtTable		runs;
	GtScan	   *scan;
	GtRow		row;
	bool		careful = false;

	gt_open(&runs, GT__RUN, AccessShareLock);
	scan = gt_scan_begin_once(&runs, GT__RUN_PKEY);
	while (!careful && gt_scan_next(scan, &row))
		careful = GT_INT32(&row, RUN_HANDLER) == handler && GT_INT64(&row, RUN_WORKER) != c->serial &&
			(gt_record_is_careful(&row) ||
			 (GT_BOOL(&row, RUN_OPTIMISTIC) && !gt_record_has_writer(GT_INT64(&row, RUN_WORKER))));
	gt_scan_end(scan);
	gt_close(&runs);
	return careful;
}

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
	scan = gt_scan_begin_once(&runs, GT__RUN_PKEY);
	while (gt_scan_next(scan, &row))
	{
		if (GT_INT64(&row, RUN_WORKER) == c->serial)
			continue;
		*items = repalloc(*items, (*nitems + GT_MAX_ITEMS + 1) * sizeof(int64));
		*nitems += gt_record_items(&row, *items + *nitems);
	}
	gt_scan_end(scan);
	gt_close(&runs);
	qsort(*items, *nitems, sizeof(int64), gt_by_id);
}
