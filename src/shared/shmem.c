/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  What all processes share.
 *
 * GtShared is there only when the library is preloaded; without it gt_shared is
 * NULL and every function here does nothing.  Nothing in it must survive a
 * crash: the tables are the truth, this is who sleeps until when.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "shared/counters.h"
#include "shared/parts.h"
#include "shared/shmem.h"

GtShared   *gt_shared = NULL;
GtSlot	   *gt_my_slot = NULL;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/* what other files keep there */
static GtShmemStart parts[8];
static int	nparts = 0;
static Size parts_size = 0;

static void
request(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(GtShared)));
	RequestAddinShmemSpace(parts_size);
	RequestNamedLWLockTranche("garbagetruck", 1);
}

static void
startup(void)
{
	bool		found;
	int			i;
	int			n;

	if (previous_startup)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	gt_shared = ShmemInitStruct("garbagetruck", sizeof(GtShared), &found);
	if (!found)
	{
		memset(gt_shared, 0, sizeof(GtShared));
		gt_shared->lock = &GetNamedLWLockTranche("garbagetruck")->lock;
		pg_atomic_init_u64(&gt_shared->serial, 1);
		pg_atomic_init_u64(&gt_shared->slots_missing, 0);
		pg_atomic_init_u64(&gt_shared->slots_missing_at, 0);
		gt_shared->launcher_procno = -1;
		for (i = 0; i < GT_MAX_DATABASES; i++)
		{
			pg_atomic_init_u64(&gt_shared->databases[i].next_due, GT_NEVER);
			pg_atomic_init_u64(&gt_shared->databases[i].late, 0);
			pg_atomic_init_u64(&gt_shared->databases[i].prepared_ends, 0);
			pg_atomic_init_u64(&gt_shared->databases[i].lease_horizon, (uint64) GT_NOWHERE);
			pg_atomic_init_u64(&gt_shared->databases[i].lease_beyond, (uint64) GT_NEVER);
			pg_atomic_init_u64(&gt_shared->databases[i].lease_news, 0);
			for (n = 0; n < GT_NCOUNTERS; n++)
				pg_atomic_init_u64(&gt_shared->counters[i].n[n], 0);
		}
		for (i = 0; i < GT_SLOTS; i++)
			gt_shared->slots[i].procno = -1;
	}
	gt_clock_share(&gt_shared->clock, gt_shared->lock, !found);
	for (i = 0; i < nparts; i++)
		parts[i] (!found);
	LWLockRelease(AddinShmemInitLock);
}

/* From _PG_init, when preloaded. */
void
gt_shmem_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/* The entry of a database, made where `create`; NULL: not preloaded, not there, or no room. */
GtDatabase *
gt_database(Oid database, bool create)
{
	GtDatabase *unused = NULL;
	int			i;

	if (gt_shared == NULL || !OidIsValid(database))
		return NULL;
	LWLockAcquire(gt_shared->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (i = 0; i < GT_MAX_DATABASES; i++)
	{
		GtDatabase *db = &gt_shared->databases[i];

		if (db->oid == database)
		{
			LWLockRelease(gt_shared->lock);
			return db;
		}
		if (!OidIsValid(db->oid) && unused == NULL)
			unused = db;
	}
	if (create && unused != NULL)
	{
		/* the place was another's, of which nothing is to be left */
		memset((char *) unused + offsetof(GtDatabase, started), 0, sizeof(GtDatabase) - offsetof(GtDatabase, started));
		unused->oid = database;
		pg_atomic_write_u64(&unused->next_due, GT_NEVER);
	}
	LWLockRelease(gt_shared->lock);
	return create ? unused : NULL;
}

void
gt_slot_free(GtSlot *slot)
{
	slot->state = GT_SLOT_FREE;
	slot->pid = 0;
	slot->procno = -1;
	slot->database = InvalidOid;
	slot->role = InvalidOid;
	slot->leave = slot->look = false;
}

void
gt_shmem_part(Size size, GtShmemStart start)
{
	Assert(nparts < (int) lengthof(parts));
	parts[nparts++] = start;
	parts_size = add_size(parts_size, MAXALIGN(size));
}
