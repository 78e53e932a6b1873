/*-------------------------------------------------------------------------
 *
 * others.c
 *	  What other processes have in hand, of the garbage of this database.
 *
 * It lies in their slots (slots.c), and is read under GtShared.lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "handler/others.h"
#include "shared/ids.h"
#include "shared/shmem.h"

GtSlot	   *gt_session_slot = NULL;

GtSlot *
gt_slot_own(void)
{
	return gt_my_slot != NULL ? gt_my_slot : gt_session_slot;
}

/* PG_INT64_MIN: nobody runs anything of it. */
TimestampTz
gt_slot_others_upto(int handler)
{
	TimestampTz upto = PG_INT64_MIN;
	int			i;

	if (gt_shared == NULL)
		return upto;
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot != gt_slot_own() && slot->state != GT_SLOT_FREE && slot->database == MyDatabaseId && slot->handler == handler)
			upto = Max(upto, slot->upto);
	}
	LWLockRelease(gt_shared->lock);
	return upto;
}

int64 *
gt_slot_others(int *n)
{
	int64	   *items;
	int			room = 0;
	int			i;

	*n = 0;
	if (gt_shared == NULL)
		return palloc(sizeof(int64));
	for (i = 0; i < GT_SLOTS; i++)
		if (gt_shared->slots[i].database == MyDatabaseId)
			room += lengthof(gt_shared->slots[i].items);
	items = palloc((room + 1) * sizeof(int64));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	for (i = 0; i < GT_SLOTS; i++)
	{
		GtSlot	   *slot = &gt_shared->slots[i];

		if (slot == gt_slot_own() || slot->state == GT_SLOT_FREE || slot->database != MyDatabaseId ||
			*n + slot->nitems > room)
			continue;
		memcpy(items + *n, slot->items, slot->nitems * sizeof(int64));
		*n += slot->nitems;
	}
	LWLockRelease(gt_shared->lock);
	qsort(items, *n, sizeof(int64), gt_by_id);
	return items;
}
