/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process that ends leases and cleans garbage in one database.
 *
 * The launcher starts it (launcher.c) in a slot of shared memory.  It works as
 * long as anything is due, sleeps while something will be soon, and after ten
 * seconds without gives its slot up.  Expiring and cleaning are transactions of
 * their own, of bounded size, in turn.
 *
 * next_due of the database (see due.c) is taken (set to GT_NEVER) by the one
 * who goes to look; what a look finds but does not do is lowered in again.
 * Before a worker runs anything it publishes all else that is due, so that the
 * launcher starts another one: that is how a slow handler stops neither expiry
 * nor other handlers, and how several workers come to work at once.
 *
 * Where more roles have work than there are slots, a worker is there for one pass
 * and the runs of one role (must_leave).  So that the pass is not the most of that,
 * it is of a part of a batch (pass_limit), it begins where the worker before has
 * left off (low.c), and the first run does not wait for another one.  And it leaves no
 * leases for a pass that ends and cleans in one (optimistic.c): the run that comes
 * first may be another role's, and each worker would leave them to the next.
 *
 * What a crash leaves: leases and garbage as they were before the transaction in
 * progress, and the record of the run (record.c).  Coming and going: process.c.
 *
 * Fault points (make FAULTS=1), in the order in which a lease comes by:
 *
 *		worker_start	connected, nothing done yet
 *		oldest_picked	the older half of a role's leases is chosen (pick.c)
 *		lease_chosen	leases whose time is over are chosen (expiry.c)
 *		ended			they are ended, and their objects garbage (expiry.c)
 *		expire_commit	before the commit of that
 *		expired			after it
 *		clean_chosen	a run is chosen and its record written
 *		clean_commit	before the commit of that, and of the outcome of the run before
 *		clean_committed	after it: the run is on record
 *		run_locked		its objects are locked
 *		run_done		its handler has run
 *		outcome_written	what came of it is written
 *
 * and in a pass that ends and cleans in one (optimistic.c), in the place of the last three:
 *
 *		whole_chosen	its leases are chosen, others may choose
 *		whole_lease		in its subtransaction: a lease is deleted, its object not yet (ending.c)
 *		whole_taken		some are ended, with their objects
 *		whole_run		its handler has run, or failed
 *		whole_written	what came of it is written
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/point.h"
#include "base/text.h"
#include "clean/clean.h"
#include "clean/crash.h"
#include "clean/marks.h"
#include "clean/optimistic.h"
#include "clean/record.h"
#include "clean/trim.h"
#include "handler/slots.h"
#include "handler/turns.h"
#include "lease/expiry.h"
#include "lease/rearm.h"
#include "process/look.h"
#include "process/passes.h"
#include "process/process.h"
#include "process/worker.h"
#include "rights/place.h"
#include "shared/due.h"
#include "shared/shmem.h"
#include "shared/wake.h"
#include "table/tampered.h"

#define BUSY_DELAY		(50 * 1000) /* us until leases that others had locked are looked at again */
#define LOOK_EVERY		(1 * USECS_PER_SEC)	/* is the extension still here, is it a copy: with work only */
#define REARM_AGAIN		(2 * USECS_PER_SEC) /* others have rows locked that are to be written anew */
#define PASS_SHARE		8			/* a pass has this part of a batch where slots are few */
#define TRIM_EVERY		(60 * USECS_PER_SEC)	/* gt_history */

static GtDatabase *database;
static GtCleaner *cleaner = NULL;
static bool working;			/* there is something for us in this database; once false it is so until the next look around */
static bool leaving = false;	/* no new run */
static bool nothing_ours = false;	/* our last look has found nothing for us to run */
static bool expired_last = false;	/* there has been no run since our last expiry pass */
static bool all_left = false;	/* it has ended nothing, and left all of it for a pass that ends and cleans in one */
static bool all_busy = false;	/* our last expiry pass has ended nothing, for all that it chose is locked by others */

/* ---------------------------------------------------------------- what transactions do */

/* again: look once more in a while */
static void
look_around(void *again)
{
	*(bool *) again = false;
	working = gt_worker_may_work(again);
}

/* more: at once */
static void
do_sweep(void *more)
{
	*(bool *) more = gt_clean_sweep(cleaner);
}

static void
do_trim(void *more)
{
	*(bool *) more = gt_history_trim();
}

static void
do_rearm(void *more)
{
	working = working && gt_place(NULL) == GT_PLACE_OURS;
	*(bool *) more = working && gt_rearm(gt_batch_size);
}

/* trim_at: nothing may happen here until the history wants to be trimmed */
static void
do_end(void *trim_at)
{
	gt_clean_end(cleaner);
	*(TimestampTz *) trim_at = gt_history_trim_at();
}

/* Have more roles work than there are slots? A worker is here for one pass and one run then. */
static bool
slots_are_few(void)
{
	return gt_now() < gt_shared->starved_at + GT_SLOW;
}

/* How many leases a pass may end: where slots are few it is not to be the most of what a worker does. */
static int
pass_limit(void)
{
	return slots_are_few() ? Max(gt_batch_size / PASS_SHARE, 2) : gt_batch_size;
}

/* Was all that the last pass has chosen left to others, who are at it? */
static bool
is_attended(void)
{
	return all_left && gt_clean_is_attended(cleaner);
}

static void
do_expire(void *arg)
{
	GtWorkerPass *pass = arg;
	GtDivision	division;

	memset(&pass->expiry, 0, sizeof(pass->expiry));
	pass->expiry.next = GT_NEVER;
	working = working && gt_place(NULL) == GT_PLACE_OURS && gt_tables_obstructed() == NULL;
	gt_optimistic_division(cleaner, &division);
	if (working)
		gt_expire_pass(pass_limit(), false, all_busy || is_attended() ? NULL : gt_pass_hand_on,
					   leaving || slots_are_few() || gt_now() < gt_not_before(GT_DO_CLEAN) ? NULL : &division, &pass->expiry);
	GT_POINT("expire_commit");
}

static void
do_clean(void *arg)
{
	GtWorkerPass *pass = arg;
	GtChoosing	choosing = {pass_limit(), gt_pass_let_go, &pass->expiry};

	memset(&pass->clean, 0, sizeof(pass->clean));
	pass->clean.next = GT_NEVER;
	working = working && gt_place(NULL) == GT_PLACE_OURS && gt_tables_obstructed() == NULL;
	if (working)
		gt_clean_step(cleaner, leaving ? 0 : INT_MAX, &choosing, &pass->clean);
	GT_POINT("clean_commit");
}

/* ---------------------------------------------------------------- the work */

/* Judges runs that were interrupted, one in a transaction. */
static void
sweep(void)
{
	bool		wanted;
	bool		more = false;

	if (database->sweep && !gt_clean_has_failed(cleaner) && gt_now() < gt_not_before(GT_DO_JUDGE))
	{
		gt_due_at(database, gt_not_before(GT_DO_JUDGE));
		return;
	}
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	wanted = database->sweep || gt_clean_has_failed(cleaner);
	database->sweep = false;
	LWLockRelease(gt_shared->lock);
	if (!wanted)
		return;
	do
	{
		wanted = gt_in_transaction(GT_DO_JUDGE, do_sweep, &more, "garbagetruck: judging interrupted runs");
		if (!wanted)
			gt_clean_disown(cleaner);
	} while (wanted && more);
}

/* One expiry pass, unless another worker is choosing. Returns when the next is due. */
static TimestampTz
expire(void)
{
	GtWorkerPass pass;
	GtExpiry   *expiry = &pass.expiry;
	TimestampTz now;
	TimestampTz next;
	int64		busy_delay;

	if (gt_now() < gt_not_before(GT_DO_EXPIRE))
		return gt_not_before(GT_DO_EXPIRE);
	if (!gt_pass_begin(&pass, false))
		return GT_NEVER;
	expired_last = true;
	gt_slot_set_state(GT_SLOT_EXPIRING);
	if (!gt_in_transaction(GT_DO_EXPIRE, do_expire, &pass, "garbagetruck: ending leases"))
		return GT_NEVER;
	GT_POINT("expired");

	now = gt_now();
	next = expiry->more && !pass.handed_on ? now : expiry->next;
	/* what others have in hand may be a run's that lasts, and that is looked beyond then */
	if (pass.others)
		next = Min(next, now + GT_TURN);
	/*
	 * The wait grows with the time for which nothing but locked rows was found, not
	 * with the number of looks; and that of what has just become due is no longer
	 * for what has been locked since long ago.  It outlives this worker: a prepared
	 * transaction may stay for days.
	 */
	if (expiry->busy == 0)
		database->busy_since = 0;
	else if (expiry->ended > 0 || database->busy_since == 0)
		database->busy_since = now;
	busy_delay = Min(Max(now - Max(database->busy_since, expiry->busy_from), BUSY_DELAY), (int64) gt_naptime * USECS_PER_SEC);
	all_busy = expiry->busy > 0 && expiry->ended == 0;
	all_left = expiry->busy == 0 && expiry->ended == 0 && expiry->looked_at > 0;
	if (expiry->busy > 0 && !expiry->more)
		next = Min(next, now + busy_delay);
	else if (all_busy && pass.others)
		next = now + BUSY_DELAY;	/* theirs is not gone beyond */
	return gt_pass_end() ? now : next;
}

/* Goes on with the round of rearm.c, once in a server run, while there is nobody else at it. */
static void
rearm(void)
{
	static int64 wait = REARM_AGAIN;	/* grows while others have rows locked */
	bool		mine;
	bool		more;

	if (gt_now() < gt_not_before(GT_DO_REARM))
		return;
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	mine = !database->rearmed && (database->rearmer == 0 || database->rearmer == gt_my_slot->serial);
	if (mine)
		database->rearmer = gt_my_slot->serial;
	LWLockRelease(gt_shared->lock);
	if (mine && gt_in_transaction(GT_DO_REARM, do_rearm, &more, "garbagetruck: looking for times that are ahead") &&
		working && !database->rearmed)
	{
		wait = more ? REARM_AGAIN : Min(2 * wait, (int64) gt_naptime * USECS_PER_SEC);
		gt_due_at(database, gt_now() + (more ? 0 : wait));
	}
}

/* Tells the others that there will be work at this time, or earlier where our own commits have asked for it. */
static void
publish(TimestampTz when)
{
	when = Min(when, gt_worker_due);
	gt_worker_due = gt_worker_later = GT_NEVER;
	gt_due_again(database, when);
}

/* pg_stat_activity is read in every database: text in an encoding of our own is an error to those who read UTF-8. */
static const char *
legible_elsewhere(const char *name)
{
	return GetDatabaseEncoding() == PG_UTF8 ? name : gt_in_ascii(name);
}

/* What the run before came to, and the choice of the next. next: when there is other work, of which nobody knows yet. */
static void
clean(TimestampTz next)
{
	bool		runs = gt_clean_pending(cleaner);
	bool		in_pass = gt_clean_is_optimistic(cleaner);
	GtWorkerPass pass;

	if (gt_now() < gt_not_before(GT_DO_CLEAN))
	{
		if (!runs)
			gt_slot_release();	/* what had failed has been judged */
		publish(Min(next, gt_not_before(GT_DO_CLEAN)));
		return;
	}
	memset(&pass, 0, sizeof(pass));
	pass.expiry.next = GT_NEVER;
	if (in_pass)
		gt_pass_insist(&pass);
	if (!gt_in_transaction(GT_DO_CLEAN, do_clean, &pass, runs ?
						   psprintf("garbagetruck: cleaning with handler \"%s\"", legible_elsewhere(gt_my_slot->handler_name)) :
						   "garbagetruck: choosing what to clean"))
		return;
	if (in_pass && gt_pass_end())
		next = gt_now();
	expired_last = expired_last && !runs;
	nothing_ours = pass.clean.looked_at != 0 && !gt_clean_pending(cleaner) && OidIsValid(gt_my_slot->role);
	gt_clean_committed(cleaner);
	GT_POINT("clean_committed");
	/* there is more where that was: others are there, too */
	publish(is_attended() && next <= gt_now() ? pass.clean.next : Min(next, pass.clean.next));
	if (pass.clean.looked_at != 0)
		gt_role_waits(pass.clean.waits, pass.clean.looked_at);
}

/* Does another worker here serve our role, or any where we have none? Lock held. */
static bool
is_served(void)
{
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot != gt_my_slot && slot->state != GT_SLOT_FREE && slot->database == database->oid &&
			(!OidIsValid(gt_my_slot->role) || slot->role == gt_my_slot->role))
			return true;
	}
	return false;
}

/*
 * Does somebody else need this slot more, or is there to be none any more?  Where
 * one is needed and none is free, who is idle leaves, who is not the only one at
 * what it does, and who has had its turn; and who has nothing to run while a role
 * waits, however many leases are left to end: who comes next ends some, too.
 */
static bool
must_leave(TimestampTz began)
{
	GtSlot	   *slot = gt_my_slot;
	TimestampTz turn = OidIsValid(slot->role) ? slot->turn : began;
	int			here = 0;
	int			in_use = 0;
	bool		result;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		in_use += gt_shared->slots[i].state != GT_SLOT_FREE;
		here += gt_shared->slots[i].state != GT_SLOT_FREE && gt_shared->slots[i].database == database->oid;
	}
	/* the launcher has not seen that one, perhaps */
	result = slot->leave || database->hold > 0 || in_use > gt_max_workers ||
		(nothing_ours && in_use == gt_max_workers && gt_slot_is_wanted());
	if (!result && OidIsValid(gt_shared->starving) &&
		(slot->state == GT_SLOT_IDLE || nothing_ours || gt_now() > turn + GT_TURN || is_served() ||
		 (here > 1 && gt_shared->starving != database->oid)))
	{
		gt_shared->starving = InvalidOid;
		result = true;
	}
	LWLockRelease(gt_shared->lock);
	return result;
}

/*
 * Sleeps until there is something to do; false: there has been nothing for long.
 * The first idle worker of a database is who keeps its time.
 */
static bool
idle(TimestampTz *idle_since)
{
	TimestampTz limit = *idle_since + Min(GT_IDLE_LIMIT, (int64) gt_naptime * USECS_PER_SEC);
	TimestampTz until = limit;
	TimestampTz now;
	TimestampTz due;
	int			i;

	gt_slot_set_state(GT_SLOT_IDLE);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(true);

	due = (TimestampTz) pg_atomic_read_u64(&database->next_due);
	now = gt_now();
	if (due <= now)
		return true;
	/* asked again: who looked for somebody idle a moment ago has not found us */
	if (now >= limit || must_leave(*idle_since))
		return false;
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == gt_my_slot)
			until = Min(until, due);
		if (slot->state == GT_SLOT_IDLE && slot->database == database->oid)
			break;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 (until - now + 999) / 1000, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	return true;
}

/* One turn: expiry if it is due, and one step of cleaning. */
static void
work(bool taken)
{
	static TimestampTz trimmed_at = 0;
	TimestampTz next = GT_NEVER;
	bool		more;

	sweep();
	if (taken)
	{
		next = expire();
		if (gt_clean_pending(cleaner))
		{
			/* we are going to be busy, and have not looked at the queues */
			publish(gt_now());
			next = GT_NEVER;
		}
		else if (gt_worker_due <= gt_now())
			gt_worker_due = gt_worker_later;	/* the objects of what we have just ended: we look at them next */
	}
	clean(next);
	rearm();
	if (gt_now() > trimmed_at + TRIM_EVERY)
	{
		/* also when it failed: it is tried again, and nothing waits for it */
		if (!gt_in_transaction(GT_DO_TRIM, do_trim, &more, "garbagetruck: trimming the history") || !more)
			trimmed_at = gt_now();
	}
}

/* again: of the last look around */
static void
serve(bool *again)
{
	TimestampTz began = gt_now();
	TimestampTz idle_since = began;
	TimestampTz look_at = began + LOOK_EVERY;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "garbagetruck worker",
												  ALLOCSET_DEFAULT_SIZES);

	while (working)
	{
		bool		due;
		bool		look;
		bool		busy;			/* with something of our own */

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			look_at = 0;
		}

		due = (TimestampTz) pg_atomic_read_u64(&database->next_due) <= gt_now();
		leaving = leaving || must_leave(began);
		busy = (gt_clean_pending(cleaner) && gt_now() >= gt_not_before(GT_DO_CLEAN)) || gt_clean_has_failed(cleaner);
		if (leaving && !busy)
		{
			/* who comes next sees what we have not looked at */
			if (gt_my_slot->state != GT_SLOT_IDLE)
				gt_due_at(database, gt_now());
			break;
		}
		look = gt_slot_take_look();
		if (!due && !look && !busy && look_at > 0)
		{
			if (!idle(&idle_since))
				break;
			continue;
		}
		if (gt_now() > look_at)
		{
			look_at = gt_now() + LOOK_EVERY;
			if (!gt_in_transaction(GT_DO_LOOK, look_around, again, "garbagetruck: looking around") || !working)
			{
				look_at = Max(look_at, gt_not_before(GT_DO_LOOK));
				continue;
			}
		}
		if (due || look)
			idle_since = gt_now();
		/* the first run of a turn does not wait for one more pass */
		due = due && !(busy && (expired_last || gt_clean_is_optimistic(cleaner)));
		work(due && !leaving && (TimestampTz) pg_atomic_exchange_u64(&database->next_due, GT_NEVER) != GT_NEVER);
		if (!working)
			*again = true;		/* what was due is taken and not done: who comes next says why, and is due again */
	}
}

void
gt_worker_main(Datum arg)
{
	int64		serial;
	TimestampTz due;
	TimestampTz trim_at;
	bool		again = false;

	gt_worker_signals();
	memcpy(&serial, MyBgworkerEntry->bgw_extra, sizeof(serial));
	if (!gt_worker_attach(DatumGetInt32(arg), serial))
		proc_exit(0);
	database = gt_worker_database;
	cleaner = gt_worker_connect();
	GT_POINT("worker_start");

	/* taken before we look: what comes up from here on, the extension itself perhaps, is told of anew */
	due = (TimestampTz) pg_atomic_exchange_u64(&database->next_due, (uint64) GT_NEVER);
	if (!gt_in_transaction(GT_DO_LOOK, look_around, &again, "garbagetruck: looking around"))
		gt_worker_give_up();	/* the next one would fare no better */
	if (working)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		database->sweep = true;
		LWLockRelease(gt_shared->lock);
		gt_due_at(database, due);
		serve(&again);
		/* we leave in peace: without a trace, but for a run that could not be begun */
		if (working && !gt_clean_pending(cleaner) &&
			gt_in_transaction(GT_DO_LEAVE, do_end, &trim_at, "garbagetruck: leaving") && trim_at != GT_NEVER)
			gt_due_at(database, Max(trim_at, gt_now() + TRIM_EVERY));
	}
	if (!working)
		(void) gt_slot_take_look(); /* nothing here is for whoever comes next to look at */
	if (again)
		gt_due_at(database, gt_now());
	proc_exit(0);
}
