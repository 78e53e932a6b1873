/*-------------------------------------------------------------------------
 *
 * aside.c
 *	  Rows that were put aside are tried again, each by itself.
 *
 * What stands for such a row is garbage whose handler is the row TTL; the chain of runs
 * chooses and locks it as any other, and writes what came of it.  The row is found by
 * its key, and judged as if it had been chosen: one that is gone, or whose deadline was
 * moved, is not the business of anybody any more.  Where the rows are cleaned up
 * after, the object that stood for the row becomes what is to be cleaned.
 *
 * A row that lasts is given back uncharged, and comes again behind the others with
 * eight times as long, until that is as long as a run may last: so a hundred that hang
 * keep those that do not only for a moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/workers.h"
#include "garbage/garbage.h"
#include "garbage/objects.h"
#include "handler/failures.h"
#include "handler/run.h"
#include "handler/tally.h"
#include "handler/turns.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "shared/rows_due.h"
#include "shared/shmem.h"
#include "ttl/batch.h"
#include "ttl/rows.h"

#define MAX_US		USECS_PER_SEC
#define BUSY		USECS_PER_SEC	/* us until a row that others have locked is tried again */
#define FIRST_TRY	(10 * INT64CONST(1000))	/* us that it may last (in a session, which keeps itself alone: SESSION times as long), */
#define SESSION		20
#define TRIES		4			/* and so often eight times as long */
#define MORE		4			/* times what a row took that is no culprit, the next one may, before it goes by itself */

/* The row is deleted: the object is garbage of the handler that cleans up after it, or nothing any more. */
static void
hand_over(GtTable *objects, GtItem *item, const GtBatch *b)
{
	GtVictim   *v = &b->victims[0];
	GtBirth		birth = {CStringGetTextDatum(b->ttl->type), v->id, b->ttl->h.owner, 0, gt_now(), v->payload, v->metadata, NULL, 0, false};

	gt_garbage_forget(objects, &item->row);
	if (b->cleaner == NULL)
		return;
	birth.handler = b->cleaner->id;
	birth.due_at += b->cleaner->grace;
	if (gt_garbage_born(objects, &birth))
		gt_garbage_due(b->cleaner, birth.due_at);
}

static void
not_now(GtItem *item, const char *why, int64 after)
{
	item->done = false;
	item->excused = true;
	item->excuse = GT_EXCUSE_PLAIN;
	item->error = pstrdup(why);
	item->retry_after = after;
}

/* How often it was given back: that counts as conflicts do. */
static int
given_back(const GtItem *item)
{
	return item->row.isnull[O_CONFLICTS] ? 0 : GT_INT32(&item->row, O_CONFLICTS);
}

static int
by_given_back(const void *a, const void *b)
{
	return given_back(a) - given_back(b);
}

/* How long it may last this time; 0: as long as a run. */
static int64
patience(const GtItem *item)
{
	int			tries = given_back(item);

	return tries < TRIES ? (FIRST_TRY * (gt_my_slot == NULL ? SESSION : 1)) << (3 * tries) : 0;
}

/* What came of a try, in the item: as of a run, but for what is settled here: that is gone. */
static void
settle(GtTable *objects, GtItem *item, const GtBatch *b)
{
	int64		lag;

	if (!item->done && item->timed_out && b->may_last != 0)
	{
		not_now(item, psprintf("its deletion lasts for over %d ms: it is tried again with more time", (int) (b->may_last / 1000)), -1);
		item->excuse = GT_EXCUSE_CONFLICT;
		return;
	}
	if (!item->done)
	{
		gt_run_log_failure(&b->ttl->h, item, 1);
		return;
	}
	if (b->why != NULL)
		not_now(item, psprintf("suspended: %s", b->why), (int64) gt_naptime * USECS_PER_SEC);
	else if (b->locked_out || b->busy > 0)
		not_now(item, "somebody has the row or its table locked", BUSY);
	else
	{
		item->gone = true;
		if (b->n == 0)
		{
			gt_garbage_forget(objects, &item->row);
			return;
		}
		gt_rows_set_patience(b->ttl->id, item->took * MORE, false);
		lag = gt_row_lag(b->ttl, &b->victims[0], gt_now());
		gt_observe_rows(b->ttl->id, b->ttl->h.owner, 1, &lag);
		gt_tally(&b->ttl->h, 1, 0, NULL);
		hand_over(objects, item, b);
	}
}

static void
try(const GtTtl *ttl, GtItem *item, bool in_block, TimestampTz not_before, GtTable *objects)
{
	GtVictim	victims[2];
	GtBatch		batch;

	memset(&batch, 0, sizeof(batch));
	batch.ttl = ttl;
	batch.context = CurrentMemoryContext;
	batch.not_before = not_before;
	batch.which = GT_BATCH_BY_KEY;
	batch.key = item->row.isnull[O_PAYLOAD] ? NULL : DatumGetJsonbP(item->row.v[O_PAYLOAD]);
	batch.id = TextDatumGetCString(item->row.v[O_OBJECT_ID]);
	batch.limit = batch.n = 1;
	batch.by_row = true;
	batch.may_last = patience(item);
	batch.victims = victims;
	/* the table was renamed: by its new name the row is looked for anew */
	if (batch.key == NULL || strcmp(TextDatumGetCString(item->row.v[O_OBJECT_TYPE]), ttl->type) != 0)
	{
		item->gone = true;
		gt_garbage_forget(objects, &item->row);
		return;
	}
	gt_run_body(&ttl->h, item, in_block, gt_batch_run, &batch);
	settle(objects, item, &batch);
}

int
gt_rows_try_again(const GtTtl *ttl, GtTable *objects, GtItem *items, int n, bool in_block, TimestampTz not_before,
				  bool (*judge) (GtItem *item, void *arg), void *arg)
{
	TimestampTz began = gt_now();
	int			i;

	qsort(items, n, sizeof(GtItem), by_given_back);
	for (i = 0; i < n && i < GT_MAX_SQL_ITEMS && gt_now() < began + MAX_US; i++)
	{
		if (gt_now() > began + GT_TURN && gt_slot_work_waits())
			break;
		items[i].gone = i > 0 && !judge(&items[i], arg);
		if (!items[i].gone)
			try(ttl, &items[i], in_block, not_before, objects);
		CHECK_FOR_INTERRUPTS();
	}
	return i;
}
