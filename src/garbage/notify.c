/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  Announces garbage of the kinds notify and notify_only.
 *
 * Workers run this on objects that they have locked, a batch in a transaction:
 * its NOTIFYs go out with its commit, or not at all.  Sending is no attempt.  Of
 * kind notify the object stays until it is acknowledged and is announced again,
 * first after retry_delay, then at doubling intervals up to an hour, for ever.
 *
 * A full notify queue would raise an error at the commit and undo the batch.  So
 * as many as fit into half of what is free are sent; the rest is excused, which
 * delays nothing but these kinds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "garbage/garbage.h"
#include "garbage/notify.h"
#include "handler/run.h"
#include "shared/clock.h"
#include "shared/counts.h"

#define MAX_PAYLOAD		7999	/* bytes: what PostgreSQL sends */
#define MAX_INTERVAL	USECS_PER_HOUR	/* between two announcements */
#define ENTRY_OVERHEAD	(NAMEDATALEN + 32)	/* of a notification in the queue */
#define QUEUE_PAGES		1048576.0	/* of the queue, where no setting says it */
#define FULL_DELAY		(5 * USECS_PER_SEC)

static void
put_key(StringInfo json, const char *key)
{
	appendStringInfoString(json, json->len > 1 ? ", " : "");
	escape_json(json, key);
	appendStringInfoString(json, ": ");
}

static void
put_string(StringInfo json, const char *key, const char *value)
{
	put_key(json, key);
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, value);
}

static void
put_text(StringInfo json, const char *key, const GtRow *row, int column)
{
	put_string(json, key, row->isnull[column] ? NULL : TextDatumGetCString(row->v[column]));
}

static void
put_jsonb(StringInfo json, const char *key, const GtRow *row, int column)
{
	put_key(json, key);
	if (row->isnull[column])
		appendStringInfoString(json, "null");
	else
	{
		Jsonb	   *value = DatumGetJsonbP(row->v[column]);

		(void) JsonbToCString(json, &value->root, VARSIZE(value));
	}
}

/* All that gt_claim() would show of it. */
static char *
announcement(const GtHandler *h, const GtItem *item, bool truncated)
{
	const GtRow *row = &item->row;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	put_key(&json, "cleanup_id");
	appendStringInfo(&json, INT64_FORMAT, item->cleanup_id);
	put_key(&json, "attempt");
	appendStringInfo(&json, "%d", item->attempt);
	put_text(&json, "object_id", row, O_OBJECT_ID);
	put_text(&json, "object_type", row, O_OBJECT_TYPE);
	put_string(&json, "handler", h->name);
	put_string(&json, "kind", gt_kind_names[h->kind]);
	put_string(&json, "command", h->command);
	if (!truncated)
	{
		put_jsonb(&json, "payload", row, O_PAYLOAD);
		put_jsonb(&json, "metadata", row, O_METADATA);
	}
	put_string(&json, "lease_id", row->isnull[O_LEASE_ID] ? NULL :
			   DatumGetCString(DirectFunctionCall1(uuid_out, row->v[O_LEASE_ID])));
	put_text(&json, "service_id", row, O_SERVICE_ID);
	put_key(&json, "fence");
	appendStringInfo(&json, INT64_FORMAT, GT_INT64(row, O_FENCE));
	put_string(&json, "claimed_until", NULL);
	if (truncated)
	{
		put_key(&json, "truncated");
		appendStringInfoString(&json, "true");
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* Bytes that may be sent now. */
static double
room_in_queue(void)
{
	const char *setting = GetConfigOption("max_notify_queue_pages", true, false);
	double		pages = setting != NULL ? atof(setting) : QUEUE_PAGES;
	double		usage = DatumGetFloat8(OidFunctionCall0(F_PG_NOTIFICATION_QUEUE_USAGE));

	return (1.0 - usage) / 2 * pages * BLCKSZ;
}

/* When to announce it again. */
static int64
interval_after(const GtRow *row, const GtHandler *h, int sends)
{
	int64		delay = gt_retry_delay_of(row, h);

	while (--sends > 0 && delay < MAX_INTERVAL)
		delay *= 2;
	return Min(delay, MAX_INTERVAL);
}

static void
sent(GtTable *objects, GtItem *item, const GtHandler *h)
{
	GtRow	   *row = &item->row;
	int			sends = GT_INT32(row, O_SENDS) + 1;

	item->done = true;
	if (h->kind == GT_KIND_NOTIFY_ONLY)
	{
		gt_observe_cleanup(h->id, h->owner, true, -1, GT_INT32(row, O_ATTEMPTS) == 0 ? gt_garbage_lag(row, h, gt_now()) : -1);
		gt_garbage_done(objects, row, h, item->attempt, -1);
		return;
	}
	if (sends == 1 && GT_INT32(row, O_ATTEMPTS) == 0)
		gt_observe_lag(gt_garbage_lag(row, h, gt_now()));
	gt_garbage_wait(row, h, gt_now() + interval_after(row, h, sends));
	GT_SET(row, O_SENDS, Int32GetDatum(sends));
	GT_SET(row, O_EVICTED, Int32GetDatum(0));
	GT_SET_NULL(row, O_CLAIMED_UNTIL);
	gt_update(objects, row);
}

/*
 * Announces the items, whose rows are locked, and writes what became of them:
 * done (sent), or excused.  An item whose last claim has lapsed is dead now and
 * neither of the two.
 */
void
gt_notify_items(const GtHandler *h, GtItem *items, int n)
{
	double		room = room_in_queue();
	GtTable		objects;
	int			i;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	for (i = 0; i < n; i++)
	{
		GtItem	   *item = &items[i];
		char	   *json;

		CHECK_FOR_INTERRUPTS();
		if (GT_CHAR(&item->row, O_STATE) == GT_STATE_CLAIMED && !gt_garbage_lapsed(&objects, &item->row, h))
			continue;
		item->attempt = GT_INT32(&item->row, O_ATTEMPTS) + 1;
		json = announcement(h, item, false);
		if (strlen(json) > MAX_PAYLOAD)
		{
			pfree(json);
			json = announcement(h, item, true);
		}
		/* an entry does not cross pages: count what may be left over at a page's end */
		room -= (strlen(json) + ENTRY_OVERHEAD) * (strlen(json) > BLCKSZ / 4 ? 2 : 1);
		if (room < 0)
		{
			item->excused = true;
			gt_garbage_excused(&objects, &item->row, h, "the notify queue is full", GT_EXCUSE_PLAIN, FULL_DELAY);
		}
		else
		{
			Async_Notify(h->command, json);
			sent(&objects, item, h);
		}
		pfree(json);
	}
	gt_close(&objects);
}
