/*-------------------------------------------------------------------------
 *
 * busy.c
 *	  Objects that others have locked: passed over for a while.
 *
 * A worker keeps them in its cleaner; a crash forgets them, and they are looked at once
 * more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/workers.h"
#include "clean/busy.h"
#include "clean/cleaner.h"
#include "shared/clock.h"
#include "shared/ids.h"

#define BUSY_LAST	(2 * USECS_PER_SEC) /* where there are more than can be remembered */

TimestampTz
gt_busy_until(const GtCleaner *c, int handler, int64 id)
{
	const GtBusy *busy = c->nbusy == 0 ? NULL : bsearch(&id, c->busy, c->nbusy, sizeof(GtBusy), gt_by_id);

	return Max(busy == NULL ? 0 : busy->until, c->busy_handler == handler ? c->busy_handler_until : 0);
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

	if (n == 0 && c->nbusy == 0)
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
		if (kept > 0 && bsearch(&ids[i], c->busy, kept, sizeof(GtBusy), gt_by_id) != NULL)
			continue;
		if (c->nbusy == GT_MAX_ITEMS)
		{
			c->busy_handler = c->handler;
			c->busy_handler_until = now + BUSY_LAST;
			break;
		}
		c->busy[c->nbusy++] = (GtBusy) {ids[i], now, now + GT_BUSY_FIRST};
	}
	qsort(c->busy, c->nbusy, sizeof(GtBusy), gt_by_id);
}
