/*-------------------------------------------------------------------------
 *
 * tally.c
 *	  What the runs of each handler came to, as gt_handlers shows it.
 *
 * Sessions and workers run this, in the transaction whose outcome they count.
 * A handler has several rows of gt__tally, which are added up by whoever reads
 * them, so that no writer waits for another: each takes one that nobody has
 * locked, or makes one.  Numbers below GT_MAX_WORKERS are those of the workers'
 * slots; a session's new row has a number drawn at random, since the key of a
 * row that is not committed is what an insertion would wait for.  Where all are
 * busy and there are enough of them, nothing is counted: it is for people's eyes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/text.h"
#include "handler/handler.h"
#include "handler/tally.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/scan.h"

#define ENOUGH_ROWS		16		/* of sessions, for one handler */

/* Locks one of the handler's rows of sessions up to that number; *n: how many were seen. Newest versions come first. */
static bool
lock_row_upto(GtTable *tallies, int handler, int number, GtRow *row, int *n)
{
	Datum		key = Int32GetDatum(handler);
	GtScan	   *scan = gt_scan_begin_range(tallies, GT__TALLY_PKEY, 1, &key, Int32GetDatum(GT_MAX_WORKERS - 1),
										   Int32GetDatum(number));
	bool		locked = false;

	*n = 0;
	gt_scan_backward(scan);
	while (!locked && gt_scan_next(scan, row))
	{
		(*n)++;
		locked = gt_lock(tallies, row, LockTupleNoKeyExclusive, true) == GT_LOCKED;
	}
	gt_scan_end(scan);
	return locked;
}

/* A row for this writer, locked, or a new one to be inserted; false: all are busy. */
static bool
find_row(GtTable *tallies, int handler, GtRow *row, bool *is_new)
{
	int			slot;
	int			n;

	*is_new = false;
	if (gt_my_slot != NULL)
	{
		Datum		key[2];

		slot = (int) (gt_my_slot - gt_shared->slots);
		key[0] = Int32GetDatum(handler);
		key[1] = Int32GetDatum(slot);
		if (gt_fetch(tallies, GT__TALLY_PKEY, 2, key, row))
			return gt_lock(tallies, row, LockTupleNoKeyExclusive, true) == GT_LOCKED;
	}
	else
	{
		slot = (int) pg_prng_uint64_range(&pg_global_prng_state, GT_MAX_WORKERS, PG_INT32_MAX);
		/* from a place of our own on: so that not all of us begin with the same row */
		if (lock_row_upto(tallies, handler, slot, row, &n) ||
			lock_row_upto(tallies, handler, PG_INT32_MAX, row, &n))
			return true;
		if (n >= ENOUGH_ROWS)
			return false;
	}
	*is_new = true;
	gt_row_init(row);
	GT_SET(row, TALLY_HANDLER, Int32GetDatum(handler));
	GT_SET(row, TALLY_SLOT, Int32GetDatum(slot));
	GT_SET(row, TALLY_RUNS, Int64GetDatum(0));
	GT_SET(row, TALLY_FAILURES, Int64GetDatum(0));
	return true;
}

void
gt_tally(const GtHandler *h, int runs, int failures, const char *error)
{
	GtTable		tallies;
	GtRow		row;
	bool		is_new;
	Datum		now = TimestampTzGetDatum(gt_now());

	gt_open(&tallies, GT__TALLY, RowExclusiveLock);
	if (find_row(&tallies, h->id, &row, &is_new))
	{
		GT_SET(&row, TALLY_RUNS, Int64GetDatum(GT_INT64(&row, TALLY_RUNS) + runs));
		GT_SET(&row, TALLY_FAILURES, Int64GetDatum(GT_INT64(&row, TALLY_FAILURES) + failures));
		GT_SET(&row, TALLY_LAST_RUN_AT, now);
		if (error != NULL)
		{
			GT_SET(&row, TALLY_LAST_ERROR, gt_error_text(error));
			GT_SET(&row, TALLY_LAST_ERROR_AT, now);
		}
		if (is_new)
			(void) gt_insert_unique(&tallies, &row, GT__TALLY_PKEY);
		else
			gt_update(&tallies, &row);
	}
	gt_close(&tallies);
}
