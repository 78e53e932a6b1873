/*-------------------------------------------------------------------------
 *
 * beside.c
 *	  What other workers have in hand of the leases of this database.
 *
 * Each tells of it in its slot, under GtShared.lock.  All of it is a hint: a renewal
 * moves a lease, a worker goes.  What it is good for: lease/pick.c and process/passes.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "handler/beside.h"
#include "handler/turns.h"

int
gt_compare_places(const GtPlaceInQueue *a, const GtPlaceInQueue *b)
{
	if (a->check_at != b->check_at)
		return a->check_at < b->check_at ? -1 : 1;
	return ItemPointerCompare((ItemPointer) &a->tid, (ItemPointer) &b->tid);
}

static bool
is_in_pass(const GtSlot *slot)
{
	return slot != gt_my_slot && slot->in_pass && slot->database == MyDatabaseId;
}

/* What lasts in a pass is a handler's run (clean/optimistic.c): others are not to wait for what it has beside the rows that it has locked. */
bool
gt_is_beside(const GtSlot *slot)
{
	return is_in_pass(slot) && (slot->run_since == 0 || slot->run_since > gt_now() - GT_TURN);
}

bool
gt_beside_runs(void)
{
	bool		result = false;
	int			i;

	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS && !result; i++)
		result = is_in_pass(&gt_shared->slots[i]);
	LWLockRelease(gt_shared->lock);
	return result;
}

/* Is it bound to a role, as we are to another, and has looked at leases not long ago? */
static bool
attends(const GtSlot *slot)
{
	return slot->database == MyDatabaseId && OidIsValid(gt_my_slot->role) && OidIsValid(slot->role) &&
		slot->role != gt_my_slot->role && !slot->leave && slot->passed_at > gt_now() - GT_TURN;
}

void
gt_beside_find(GtBeside *beside)
{
	int			i;

	beside->nranges = beside->nattended = 0;
	beside->ranges = NULL;
	if (gt_my_slot == NULL)
		return;
	beside->ranges = palloc(GT_MAX_WORKERS * GT_RANGES * sizeof(GtRange));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (attends(slot))
			beside->attended[beside->nattended++] = slot->role;
		if (!gt_is_beside(slot))
			continue;
		memcpy(beside->ranges + beside->nranges, slot->in_hand.ranges, slot->in_hand.n * sizeof(GtRange));
		beside->nranges += slot->in_hand.n;
	}
	LWLockRelease(gt_shared->lock);
}

const GtRange *
gt_beside_has(const GtBeside *beside, Oid owner, const GtPlaceInQueue *place)
{
	int			i;

	for (i = 0; i < beside->nranges; i++)
	{
		const GtRange *range = &beside->ranges[i];

		if (range->owner == owner && gt_compare_places(place, &range->from) >= 0 && gt_compare_places(place, &range->to) <= 0)
			return range;
	}
	return NULL;
}

bool
gt_beside_attends(const GtBeside *beside, Oid owner)
{
	int			i;

	for (i = 0; i < beside->nattended && beside->attended[i] != owner; i++)
		;
	return i < beside->nattended;
}
