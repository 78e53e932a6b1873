/*-------------------------------------------------------------------------
 *
 * rows_due.c
 *	  When rows of a table with deadlines are due: what sessions tell workers.
 *
 * For each row TTL shared memory has the earliest time at which a row is known to be
 * due (row_due of its entry in observe.c), under the lock of that.  It is lowered
 * as next_due of a database is, see due.c: a worker first takes it, then looks with
 * a new snapshot, then, when what it has done is committed, puts in what it has seen,
 * unless somebody has lowered it meanwhile; a commit lowers it in its callback, which
 * runs when the commit is visible.  An entry that is not there, or was pushed out,
 * says that nobody has looked: it costs one look.  Nothing must survive a crash.
 *
 * row_low tells where to begin: the entries of rows that are gone stay at the low
 * end of an index until they are vacuumed, and rows that could not be deleted stay
 * there for good.  A commit lowers it, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "base/transaction.h"
#include "base/workers.h"
#include "shared/after_commit.h"
#include "shared/observe.h"
#include "shared/rows_due.h"

#define LOOK_AT_ALL		(10 * USECS_PER_SEC)	/* of a table, as often */
#define AGAIN_FIRST		(50 * INT64CONST(1000))	/* us at least until what is left is looked at again */
#define LATELY			(10 * USECS_PER_SEC)	/* for so long a row that has lasted makes the others of its table suspect */

/* What this transaction has told of, of one table. */
typedef struct Told
{
	int			ttl;
	TimestampTz deadline;
	TimestampTz due;
	struct Told *next;
} Told;

/* What this process has seen of a table, for where shared memory has no room for it. */
typedef struct Remembered
{
	int			ttl;
	TimestampTz due;
} Remembered;

static HTAB *remembered = NULL;
static Told *told = NULL;		/* in TopTransactionContext */
static TimestampTz stirred = GT_NEVER;	/* this transaction changes what tables need: all are to be looked at then */

static void
remember(int ttl, TimestampTz due)
{
	HASHCTL		control;

	if (remembered == NULL)
	{
		memset(&control, 0, sizeof(control));
		control.keysize = sizeof(int);
		control.entrysize = sizeof(Remembered);
		remembered = hash_create("garbagetruck row TTLs", 64, &control, HASH_ELEM | HASH_BLOBS);
	}
	((Remembered *) hash_search(remembered, &ttl, HASH_ENTER, NULL))->due = due;
}

static TimestampTz
recall(int ttl)
{
	Remembered *r = remembered != NULL ? hash_search(remembered, &ttl, HASH_FIND, NULL) : NULL;

	return r != NULL ? r->due : 0;
}

TimestampTz
gt_rows_due(int ttl)
{
	GtHandlerEntry *entry;
	TimestampTz result = 0;

	gt_observe_lock();
	entry = gt_handler_known(ttl);
	if (entry != NULL)
		result = entry->row_due;
	gt_observe_unlock();
	return entry != NULL ? result : recall(ttl);
}

void
gt_rows_take(int ttl, Oid owner, TimestampTz until, TimestampTz *low)
{
	GtHandlerEntry *entry;

	*low = 0;
	gt_observe_lock();
	entry = gt_handler_entry(ttl, owner);
	if (entry != NULL)
	{
		entry->row_due = until;
		if (gt_now() < entry->row_looked_at + LOOK_AT_ALL)
			*low = entry->row_low;
		entry->row_low = 0;		/* should nothing more be heard of us */
		entry->row_told = GT_NEVER;
	}
	gt_observe_unlock();
}

TimestampTz
gt_rows_again(TimestampTz since, TimestampTz now, int64 most)
{
	return now + Min(Max((now - since) / 4, AGAIN_FIRST), most);
}

/* When to look again where nothing could be done. */
static TimestampTz
try_again(GtHandlerEntry *entry, TimestampTz now)
{
	if (entry->row_vain_since == 0)
		entry->row_vain_since = now;
	return gt_rows_again(entry->row_vain_since, now, (int64) gt_naptime * USECS_PER_SEC);
}

TimestampTz
gt_rows_seen(const GtRowsSeen *seen)
{
	TimestampTz result = Min(seen->next, gt_now() + (int64) gt_naptime * USECS_PER_SEC);
	GtHandlerEntry *entry;

	gt_observe_lock();
	entry = gt_handler_known(seen->ttl);
	if (entry != NULL)
	{
		bool		ours = entry->row_due == seen->taken;
		TimestampTz now = gt_now();
		TimestampTz next = seen->next;

		if (seen->in_vain)
			next = Min(next, try_again(entry, now));
		else
			entry->row_vain_since = 0;
		if (seen->complete)
			entry->row_looked_at = now;
		entry->row_waits = seen->waits || (entry->row_waits && !seen->complete);
		result = entry->row_due = ours ? next : Min(entry->row_due, next);
		/* another looks now: then all of it is looked at next */
		entry->row_low = ours ? Min(entry->row_told, seen->low) : 0;
	}
	gt_observe_unlock();
	remember(seen->ttl, result);
	return result;
}

void
gt_rows_put_off(int ttl, Oid owner, TimestampTz until)
{
	GtHandlerEntry *entry;

	gt_observe_lock();
	entry = gt_handler_entry(ttl, owner);
	if (entry != NULL)
		entry->row_due = until;
	gt_observe_unlock();
}

bool
gt_rows_wait(int ttl)
{
	GtHandlerEntry *entry;
	bool		result;

	gt_observe_lock();
	entry = gt_handler_known(ttl);
	result = entry != NULL && entry->row_waits;
	gt_observe_unlock();
	return result;
}

bool
gt_rows_wary(int ttl, int64 *patience)
{
	GtHandlerEntry *entry;
	TimestampTz from = gt_now() - LATELY;
	bool		failed = false;

	*patience = 0;
	gt_observe_lock();
	entry = gt_handler_known(ttl);
	if (entry != NULL && entry->row_lasted_at > from)
		*patience = entry->row_patience;
	if (entry != NULL)
		failed = entry->row_failed;
	gt_observe_unlock();
	return failed || *patience > 0;
}

void
gt_rows_failed(int ttl, bool failed)
{
	GtHandlerEntry *entry;

	gt_observe_lock();
	entry = gt_handler_known(ttl);
	if (entry != NULL)
		entry->row_failed = failed;
	gt_observe_unlock();
}

void
gt_rows_set_patience(int ttl, int64 patience, bool lasted)
{
	GtHandlerEntry *entry;

	gt_observe_lock();
	entry = gt_handler_known(ttl);
	if (entry != NULL && lasted)
	{
		entry->row_patience = patience;
		entry->row_lasted_at = gt_now();
	}
	else if (entry != NULL)
		entry->row_patience = Max(entry->row_patience, patience);
	gt_observe_unlock();
}

static void
tell(const Told *t)
{
	GtHandlerEntry *entry = gt_handler_known(t->ttl);

	if (entry == NULL)
		return;
	entry->row_due = Min(entry->row_due, t->due);
	entry->row_low = t->deadline <= 0 ? 0 : Min(entry->row_low, t->deadline);
	entry->row_told = Min(entry->row_told, Max(t->deadline, 0));
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && told != NULL)
	{
		gt_observe_lock();
		for (; told != NULL; told = told->next)
			tell(told);
		gt_observe_unlock();
	}
	if (event == XACT_EVENT_COMMIT && stirred != GT_NEVER)
		gt_handlers_stir(stirred);
	told = NULL;
	stirred = GT_NEVER;
}

/* What an aborted subtransaction has told of costs one look in vain. */
void
gt_rows_due_after_commit(int ttl, TimestampTz deadline, TimestampTz due)
{
	Told	   *t;

	for (t = told; t != NULL && t->ttl != ttl; t = t->next)
		;
	if (t == NULL)
	{
		gt_at_end(GT_AT_END_ROWS, at_end_of_transaction, NULL);
		t = MemoryContextAlloc(TopTransactionContext, sizeof(Told));
		t->ttl = ttl;
		t->deadline = t->due = GT_NEVER;
		t->next = told;
		told = t;
	}
	t->deadline = Min(t->deadline, deadline);
	if (due >= t->due)
		return;
	t->due = due;
	gt_wake_after_commit(due);
}

void
gt_rows_stir(TimestampTz when)
{
	gt_at_end(GT_AT_END_ROWS, at_end_of_transaction, NULL);
	stirred = Min(stirred, when);
	gt_wake_after_commit(when);
}
