/*-------------------------------------------------------------------------
 *
 * rearm.c
 *	  Once in a server run: rows whose times a clock wrote that was ahead.
 *
 * What is due is found at the low ends of two indexes, by the times that were
 * written there.  Where the clock of an earlier run was ahead of what it was when
 * this one began (a wrong clock that was put right, a failover to a node with an
 * earlier one), such a row would be looked at when that wrong time comes, years
 * later perhaps, though whoever reads it knows better: gt_effective_deadline() of
 * a lease, and of an object put_times_right() in table.c.  So one worker (without
 * preload gt_reclaim()) goes once over all that is not due yet, and writes the
 * rows anew that are found to be due sooner than the index says.
 *
 * In transactions of bounded size; rows that others have locked are passed over.
 * A round that has found any is followed by another: what was passed over, or
 * rolled back, is found again.  A crash begins it anew.  That one has found none
 * is kept in gt__start, and for this run in shared memory.
 *
 * The first run of a fresh database needs no look, and neither does a start after
 * the server went down in order: what the run before had seen to the end is right
 * still, as the clock has only gone on.  It is made after a crash, a promotion or a
 * recovery, where a clock was ahead by more than a day, and without preload, where
 * nobody keeps a clock; see nothing_is_ahead() in start.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "lease/deadline.h"
#include "lease/ending.h"
#include "lease/rearm.h"
#include "lease/start.h"
#include "lease/start_record.h"
#include "shared/after_commit.h"
#include "table/scan.h"

/* the round of this process */
static int64 round_of = 0;		/* the server run that it is for; 0: none is under way */
static enum
{
	LEASES, OBJECTS, FORGOTTEN
}			part;
static uint32 key;				/* of the leases in turn the owner, of the objects the handler; 0: before the first. Forgotten ones have none */
static TimestampTz from;		/* what comes before has been seen */
static int	mended;				/* rows that were ahead */
static int	passed_over;		/* and such that others have locked */

/* When a lease is to be looked at by what we know; that may be before its check_at. */
static bool
is_ahead_lease(const GtRow *row)
{
	return GT_INT64(row, L_RUN) != gt_run() && gt_effective_deadline(row) < GT_TIME(row, L_CHECK_AT);
}

static bool
is_ahead_object(const GtRow *row)
{
	return row->ahead > 0;
}

static void
mend_lease(GtTable *leases, GtRow *row)
{
	(void) gt_re_arm(leases, row, gt_effective_deadline(row));
}

/* The times were put right when the row was read: to write it is all. */
static void
mend_object(GtTable *objects, GtRow *row)
{
	gt_update(objects, row);
	gt_due_after_commit(row->isnull[O_DUE_AT] ? GT_NEVER : GT_TIME(row, O_DUE_AT));
}

/* Goes on from `from` in one part; true: to its end. */
static bool
go_through(GtTable *t, GtScan *scan, int *limit, bool (*is_ahead) (const GtRow *), void (*mend) (GtTable *, GtRow *))
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "garbagetruck row", ALLOCSET_DEFAULT_SIZES);
	bool		ended = true;
	GtRow		row;

	for (;;)
	{
		TimestampTz at;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		ended = !gt_scan_next(scan, &row);
		MemoryContextSwitchTo(old);
		if (ended)
			break;
		at = t->id == GT_LEASE ? GT_TIME(&row, L_CHECK_AT) : GT_TIME(&row, O_DUE_AT) + row.ahead;
		if (at < from)
			continue;
		/* equal times are not parted */
		if (--*limit < 0 && at > from)
			break;
		from = at;
		if (!is_ahead(&row))
			continue;
		if (gt_lock(t, &row, LockTupleNoKeyExclusive, true) != GT_LOCKED)
			passed_over++;
		else if (is_ahead(&row))
		{
			mend(t, &row);
			mended++;
		}
	}
	gt_scan_end(scan);
	MemoryContextDelete(context);
	return ended;
}

/* Of the role in turn. */
static bool
leases_done(int *limit)
{
	Datum		owner = ObjectIdGetDatum(key);
	GtTable		leases;
	bool		done;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	done = go_through(&leases, gt_scan_begin_bound(&leases, GT_LEASE_CHECK, 1, &owner, BTGreaterEqualStrategyNumber,
												   TimestampTzGetDatum(from)),
					  limit, is_ahead_lease, mend_lease);
	gt_close(&leases);
	return done;
}

/* Of the handler in turn; of forgotten objects only the time until an exclusive grant is kept. */
static bool
objects_done(int *limit)
{
	Datum		handler = Int32GetDatum((int32) key);
	GtTable		objects;
	GtScan	   *scan;
	bool		done;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	if (part == FORGOTTEN)
		scan = gt_scan_begin_null(&objects, GT_OBJECT_DUE, PG_INT64_MIN);
	else
		scan = gt_scan_begin_bound(&objects, GT_OBJECT_DUE, 1, &handler, BTGreaterEqualStrategyNumber,
								   TimestampTzGetDatum(from));
	done = go_through(&objects, scan, limit, is_ahead_object, mend_object);
	gt_close(&objects);
	return done;
}

/* The next key of this part, by the index: of handlers without garbage there may be any number. False: there is none. */
static bool
next_key(GtTableId id, GtIndexId index, int column)
{
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;
	bool		found;

	gt_open(&t, id, RowExclusiveLock);
	scan = gt_scan_begin_bound(&t, index, 0, NULL, BTGreaterStrategyNumber, UInt32GetDatum(key));
	found = gt_scan_next(scan, &row);
	if (found)
		key = DatumGetUInt32(row.v[column]);
	gt_scan_end(scan);
	gt_close(&t);
	return found;
}

/* After the leases, role by role, the handlers that have garbage, and what has no handler. */
static void
next_part(void)
{
	from = gt_now();
	if (part == LEASES && next_key(GT_LEASE, GT_LEASE_CHECK, L_OWNER))
		return;
	if (part == LEASES)
		key = 0;
	part = next_key(GT_OBJECT, GT_OBJECT_DUE, O_HANDLER) ? OBJECTS : FORGOTTEN;
}

bool
gt_rearm(int limit)
{
	if (gt_start_is_rearmed())
		return false;
	gt_start_ensure();
	if (round_of != gt_run())
	{
		round_of = gt_run();
		part = LEASES;
		key = 0;
		mended = passed_over = 0;
		from = gt_now();
	}
	while (limit > 0 && (part == LEASES ? leases_done(&limit) : objects_done(&limit)))
	{
		if (part == FORGOTTEN)
		{
			round_of = 0;
			if (mended == 0 && passed_over == 0)
				gt_start_rearmed();
			return mended > 0;
		}
		next_part();
		limit--;
	}
	return true;
}
