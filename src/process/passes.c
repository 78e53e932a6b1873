/*-------------------------------------------------------------------------
 *
 * passes.c
 *	  Passes of expiry, of one worker beside others.
 *
 * One worker at a time chooses leases (pick.c): it has the token, expirer.  Where
 * there is more than one batch it hands the token on as soon as it has chosen, and
 * tells what it has in hand (in_hand of its slot): the next one passes over that while
 * the first still ends what it chose, and the two flush at once.  That is a hint, good
 * while its pass is in progress (in_pass).  Who finds the token taken, or another pass
 * in progress, asks for one more look (expire_again), at everything, by whoever
 * commits the last pass in progress: so nothing is missed that came in below, or that
 * a pass left when it failed.  A pass in which a handler
 * runs (clean/optimistic.c) is in progress so only for a turn: what it still has
 * in hand then are locked rows of that handler, and others are not to wait for it.
 *
 * All of it lies in shared memory, under GtShared.lock: GtDatabase, and in_pass of the slots.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "handler/beside.h"
#include "process/passes.h"
#include "process/process.h"
#include "shared/due.h"
#include "shared/shmem.h"

#define MAX_TRIES		50			/* of a millisecond each, for the token */

/* Is another worker in an expiry pass here? Lock held. */
static bool
any_in_pass(void)
{
	int			i;

	for (i = 0; i < GT_MAX_WORKERS; i++)
		if (gt_is_beside(&gt_shared->slots[i]))
			return true;
	return false;
}

bool
gt_pass_begin(GtWorkerPass *pass, bool insist)
{
	bool		mine;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	mine = gt_worker_database->expirer == 0;
	pass->others = any_in_pass();
	if (mine)
	{
		gt_worker_database->expirer = gt_my_slot->serial;
		gt_my_slot->in_pass = true;
		gt_my_slot->in_hand.n = 0;
		gt_my_slot->passed_at = gt_now();
	}
	if (mine || !insist)
		gt_worker_database->expire_again = !mine || pass->others;
	LWLockRelease(gt_shared->lock);
	pass->handed_on = false;
	return mine;
}

void
gt_pass_insist(GtWorkerPass *pass)
{
	int			tries = 0;

	while (!gt_pass_begin(pass, true) && tries++ < MAX_TRIES)
	{
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
let_go(GtExpiry *chosen)
{
	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	if (gt_worker_database->expirer == gt_my_slot->serial)
		gt_worker_database->expirer = 0;
	gt_my_slot->in_hand = chosen->in_hand;
	LWLockRelease(gt_shared->lock);
	((GtWorkerPass *) chosen)->handed_on = true;
}

void
gt_pass_hand_on(GtExpiry *chosen)
{
	let_go(chosen);
	gt_due_again(gt_worker_database, gt_now());
}

void
gt_pass_let_go(GtExpiry *chosen)
{
	if (chosen->more)
		gt_pass_hand_on(chosen);
	else
		let_go(chosen);
}

bool
gt_pass_end(void)
{
	bool		look_again;

	LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
	gt_leave_pass(gt_worker_database, gt_my_slot);
	look_again = gt_worker_database->expire_again && !any_in_pass();
	if (look_again)
		gt_worker_database->expire_again = false;
	LWLockRelease(gt_shared->lock);
	return look_again;
}
