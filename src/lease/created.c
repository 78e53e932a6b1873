/*-------------------------------------------------------------------------
 *
 * created.c
 *	  The leases that the transaction in progress has created.
 *
 * A lease starts its life when it is created, and others see it when that commits.
 * So those of which less than half is left by then start it at the commit, and until
 * then none of them is over, however long the transaction lasts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/transaction.h"
#include "lease/created.h"
#include "shared/after_commit.h"
#include "shared/counts.h"
#include "shared/shmem.h"
#include "table/relations.h"
#include "table/table.h"

/* a lease that this transaction has created */
typedef struct Created
{
	pg_uuid_t	id;
	TimestampTz look_at;		/* from when on less than half of its duration may be left; GT_NEVER: a child */
	SubTransactionId subid;
} Created;

/* sorted by id, since the ids of a process grow; in TopTransactionContext */
static Created *created;
static int	ncreated;
static int	created_room;

static int
compare_created(const void *key, const void *element)
{
	return memcmp(key, &((const Created *) element)->id, sizeof(pg_uuid_t));
}

static Created *
find_created(const pg_uuid_t *id)
{
	return ncreated == 0 ? NULL : bsearch(id, created, ncreated, sizeof(Created), compare_created);
}

bool
gt_created_here(const pg_uuid_t *id)
{
	return find_created(id) != NULL;
}

/* Before the commit, which an error still prevents: leases with less than half of their life left start it now. */
static void
re_stamp(void)
{
	TimestampTz now = ncreated > 0 ? gt_now() : 0;
	GtTable		leases;
	bool		opened = false;
	int			i;

	for (i = 0; i < ncreated; i++)
	{
		Created    *c = &created[i];
		Datum		id = UUIDPGetDatum(&c->id);
		int64		duration;
		GtRow		row;

		if (c->look_at == GT_NEVER || now <= c->look_at)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(gt_extension()))
			return;				/* dropped since */
		if (!opened)
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			gt_open(&leases, GT_LEASE, RowExclusiveLock);
			opened = true;
		}
		/* it may have been released, or renewed */
		if (gt_fetch_lock(&leases, GT_LEASE_PKEY, 1, &id, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED)
			continue;
		now = gt_now();
		duration = GT_INT64(&row, L_DURATION);
		if (GT_TIME(&row, L_DEADLINE) - now >= duration / 2)
			continue;
		GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(now + duration));
		GT_SET(&row, L_CHECK_AT, row.v[L_DEADLINE]);
		gt_update(&leases, &row);
	}
	if (opened)
	{
		gt_close(&leases);
		PopActiveSnapshot();
	}
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			re_stamp();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			created = NULL;
			ncreated = created_room = 0;
			break;
		default:
			break;
	}
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			i;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (ncreated > 0 && created[ncreated - 1].subid >= mine)
			ncreated--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (i = ncreated - 1; i >= 0 && created[i].subid == mine; i--)
			created[i].subid = parent;
}

void
gt_lease_created(const pg_uuid_t *id, TimestampTz now, int64 duration)
{
	Created    *c;

	gt_at_end(GT_AT_END_CREATED, at_end_of_transaction, at_end_of_subtransaction);
	if (ncreated == created_room)
		created = gt_more_notes(created, &created_room, sizeof(Created));
	c = &created[ncreated++];
	c->id = *id;
	c->look_at = now == GT_NEVER ? GT_NEVER : now + duration / 2;
	c->subid = GetCurrentSubTransactionId();
	gt_count_created(1);
	if (now != GT_NEVER)
		gt_due_after_commit(now + duration);
}

/* A shorter duration is looked at sooner; one that a savepoint takes back costs a look in vain. */
void
gt_lease_restarted(const pg_uuid_t *id, TimestampTz now, int64 duration)
{
	Created    *c = find_created(id);

	if (c != NULL)
		c->look_at = Min(c->look_at, now + duration / 2);
}

/* Workers pin synchronous_commit. */
void
gt_commit_flushed(void)
{
	if (gt_my_slot == NULL)
		ForceSyncCommit();
}
