/*-------------------------------------------------------------------------
 *
 * busy.c
 *	  Objects that others have locked: passed over for a while.
 *
 * A worker keeps them in its cleaner, and those that have been locked for long in
 * shared memory, for workers that come after it: a prepared transaction may stay for
 * days.  A crash forgets them, and they are looked at once more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/workers.h"
#include "clean/busy.h"
#include "clean/cleaner.h"
#include "shared/due.h"
#include "shared/ids.h"

#define LONG		USECS_PER_SEC	/* other workers are told of what is passed over for as long */
#define BUSY_LAST	(2 * USECS_PER_SEC) /* where there are more than can be remembered */

TimestampTz
gt_busy_until(const GtCleaner *c, int handler, int64 id)
{
	const GtBusy *busy = c->nbusy == 0 ? NULL : bsearch(&id, c->busy, c->nbusy, sizeof(GtBusy), gt_by_id);

	return Max(busy == NULL ? 0 : busy->until, c->busy_handler == handler ? c->busy_handler_until : 0);
}

static uint64
ends_here(void)
{
	GtDatabase *db = gt_my_database();

	return db == NULL ? 0 : pg_atomic_read_u64(&db->prepared_ends);
}

/* That of shared memory; NULL: there is none. Lock held. */
static GtLongBusy *
find_long(int64 id, uint64 ends)
{
	int			i;

	for (i = 0; i < GT_LONG_BUSY && gt_shared->nlong_busy > 0; i++)
	{
		GtLongBusy *busy = &gt_shared->long_busy[i];

		if (busy->database == MyDatabaseId && busy->id == id && busy->ends == ends)
			return busy;
	}
	return NULL;
}

/* A place for one more: one that is free, or the one that was to be looked at first. Lock held. */
static GtLongBusy *
room_for_long(void)
{
	GtLongBusy *oldest = &gt_shared->long_busy[0];
	int			i;

	for (i = 0; i < GT_LONG_BUSY; i++)
	{
		if (!OidIsValid(gt_shared->long_busy[i].database))
		{
			gt_shared->nlong_busy++;
			return &gt_shared->long_busy[i];
		}
		if (gt_shared->long_busy[i].until < oldest->until)
			oldest = &gt_shared->long_busy[i];
	}
	return oldest;
}

/* Tells workers to come of what we have met, and that those that were tried are locked no longer. */
static void
share(const GtCleaner *c, const int64 *tried, int ntried)
{
	uint64		ends = ends_here();
	TimestampTz now = gt_now();
	int			i;

	if (gt_my_slot == NULL)
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_LONG_BUSY && gt_shared->nlong_busy > 0; i++)
	{
		GtLongBusy *busy = &gt_shared->long_busy[i];

		if (busy->database == MyDatabaseId && bsearch(&busy->id, tried, ntried, sizeof(int64), gt_by_id) != NULL)
		{
			busy->database = InvalidOid;
			gt_shared->nlong_busy--;
		}
	}
	for (i = 0; i < c->nbusy; i++)
		if (c->busy[i].until >= now + LONG)
		{
			GtLongBusy *busy = find_long(c->busy[i].id, ends);

			if (busy == NULL)
				busy = room_for_long();
			*busy = (GtLongBusy) {MyDatabaseId, c->busy[i].id, ends, c->busy[i].since, c->busy[i].until};
		}
	LWLockRelease(gt_shared->lock);
}

/* Since when has it been locked, as somebody before us has seen it? */
static TimestampTz
locked_since(int64 id, TimestampTz now)
{
	TimestampTz since = now;
	GtLongBusy *busy;

	if (gt_my_slot == NULL || gt_shared->nlong_busy == 0)
		return now;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	busy = find_long(id, ends_here());
	/* what was not looked at for long may have been free meanwhile */
	if (busy != NULL && now - busy->until <= busy->until - busy->since)
		since = busy->since;
	LWLockRelease(gt_shared->lock);
	return since;
}

/* See busy.h. */
void
gt_busy_recall(GtCleaner *c)
{
	uint64		ends = ends_here();
	TimestampTz now = gt_now();
	int			i;

	if (c->busy_ends == ends + 1)
		return;
	c->busy_ends = ends + 1;
	c->nbusy = 0;
	c->busy_handler_until = 0;
	if (gt_my_slot == NULL || gt_shared->nlong_busy == 0)
		return;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_LONG_BUSY; i++)
	{
		const GtLongBusy *busy = &gt_shared->long_busy[i];

		if (busy->database == MyDatabaseId && busy->ends == ends && busy->until > now)
			c->busy[c->nbusy++] = (GtBusy) {busy->id, busy->since, busy->until};
	}
	LWLockRelease(gt_shared->lock);
	qsort(c->busy, c->nbusy, sizeof(GtBusy), gt_by_id);
}

/* What was not looked at again, in as long a time as it was to be passed over, is forgotten: another has done it. */
static int
forget_idle(GtBusy *busy, int n, TimestampTz now)
{
	int			kept = 0;
	int			i;

	for (i = 0; i < n; i++)
		if (now - busy[i].until <= busy[i].until - busy[i].since)
			busy[kept++] = busy[i];
	return kept;
}

/*
 * Others have these of the objects that were tried (sorted) locked: each is passed
 * over for as long again as it has been locked, so that its wait does not grow
 * with what else is locked, nor with the number of looks; with all of their
 * handler, where there are too many.
 */
void
gt_busy_note(GtCleaner *c, const int64 *tried, int ntried, const int64 *ids, int n)
{
	TimestampTz now = gt_now();
	int			kept = 0;
	int			i;

	if (n == 0 && c->nbusy == 0 && (gt_my_slot == NULL || gt_shared->nlong_busy == 0))
		return;
	c->nbusy = forget_idle(c->busy, c->nbusy, now);
	for (i = 0; i < c->nbusy; i++)
	{
		GtBusy	   *busy = &c->busy[i];
		bool		locked = n > 0 && bsearch(&busy->id, ids, n, sizeof(int64), gt_by_id) != NULL;

		if (!locked && bsearch(&busy->id, tried, ntried, sizeof(int64), gt_by_id) != NULL)
			continue;
		if (locked)
			busy->until = now + Max(Min(now - busy->since, (int64) gt_naptime * USECS_PER_SEC), GT_BUSY_FIRST);
		c->busy[kept++] = *busy;
	}
	c->nbusy = kept;
	for (i = 0; i < n; i++)
	{
		TimestampTz since;

		if (kept > 0 && bsearch(&ids[i], c->busy, kept, sizeof(GtBusy), gt_by_id) != NULL)
			continue;
		if (c->nbusy == GT_MAX_ITEMS)
		{
			c->busy_handler = c->handler;
			c->busy_handler_until = now + BUSY_LAST;
			break;
		}
		since = locked_since(ids[i], now);
		c->busy[c->nbusy++] = (GtBusy) {ids[i], since, now + Max(Min(now - since, (int64) gt_naptime * USECS_PER_SEC), GT_BUSY_FIRST)};
	}
	qsort(c->busy, c->nbusy, sizeof(GtBusy), gt_by_id);
	share(c, tried, ntried);
}
