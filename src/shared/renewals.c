/*-------------------------------------------------------------------------
 *
 * renewals.c
 *	  The table of renewals in shared memory.
 *
 * Every process reads it to judge a lease, and who renews, ends or changes one
 * writes it.  It is parted by a hash of the lease, each part with a lock of its own,
 * under which nothing is raised and no memory is asked for.  What an entry means,
 * and who may write it when, is told in lease/buffered.c.  A crash leaves it empty.
 *
 * An entry goes when the end of its lease has committed; after that nobody finds
 * the lease's row.  An abort takes nothing out.  What a prepared transaction or a
 * killed process leaves is taken by another lease once it is over, with the
 * regrant_delay that counts from then.  Without preload, and with a size of 0, there
 * is no table: nothing is found, and nothing kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "base/settings.h"
#include "base/transaction.h"
#include "shared/clock.h"
#include "shared/parts.h"
#include "shared/renewals.h"
#include "shared/renewed.h"

#define SHARE			8		/* this part of it is never of the role that has all the rest */
#define LOOK_FOR_OVER	64		/* entries that are looked at for one that can be taken */

/* Those of some leases: entries, and the first of each bucket. All of it is under the lock. */
typedef union Partition
{
	struct
	{
		LWLock		lock;
		uint32		used;
		uint32		free;		/* first of those that were in use, as in GtRenewal.next */
		uint32		touched;	/* entries beyond were never in use */
		uint32		hand;		/* the next to be looked at for whether it is over */
		Oid			database;	/* of the role that was found to have most when it was nearly full: */
		Oid			owner;
		uint32		owned;		/* entries of that role */
		TimestampTz counted_at; /* when those of a role were counted last */
	};
	char		pad[2 * PG_CACHE_LINE_SIZE];
} Partition;

typedef struct Renewals
{
	pg_atomic_uint64 missed_at; /* when there was no room last, by gt_clock(); 0: never */
	Partition	partitions[GT_RENEWALS_PARTS];
} Renewals;

static Renewals *buffer = NULL;
static uint32 room;				/* entries of a partition */
static uint32 *buckets;			/* as many, of each partition */
static GtRenewal *entries;

/* an ended lease that had an entry; in TopTransactionContext */
typedef struct Ended
{
	pg_uuid_t	id;
	SubTransactionId subid;
} Ended;

static Ended *ended = NULL;
static int	nended = 0;
static int	ended_room = 0;

/* ---------------------------------------------------------------- shared memory */

static uint32
room_of_partition(void)
{
	return (uint32) ((uint64) gt_renewal_buffer_size * 1024 / GT_RENEWALS_PARTS / (sizeof(GtRenewal) + sizeof(uint32)));
}

static Size
size_of(void)
{
	Size		each = add_size(sizeof(GtRenewal), sizeof(uint32));

	return add_size(MAXALIGN(sizeof(Renewals)), mul_size(mul_size(room_of_partition(), GT_RENEWALS_PARTS), each));
}

static void
start(bool first)
{
	static int	tranche = 0;
	bool		found;
	int			i;

	room = room_of_partition();
	if (room == 0)
		return;
	buffer = ShmemInitStruct("garbagetruck_renewals", size_of(), &found);
	entries = (GtRenewal *) ((char *) buffer + MAXALIGN(sizeof(Renewals)));
	buckets = (uint32 *) (entries + (Size) room * GT_RENEWALS_PARTS);
	if (found)
		return;
	memset(buffer, 0, MAXALIGN(sizeof(Renewals)));
	memset(buckets, 0, (Size) room * GT_RENEWALS_PARTS * sizeof(uint32));
	pg_atomic_init_u64(&buffer->missed_at, 0);
	/* the postmaster comes by again after a crash */
	if (tranche == 0)
		tranche = LWLockNewTrancheId();
	for (i = 0; i < GT_RENEWALS_PARTS; i++)
		LWLockInitialize(&buffer->partitions[i].lock, tranche);
	LWLockRegisterTranche(tranche, "garbagetruck_renewals");
}

/* See renewals.h. */
void
gt_renewals_init(void)
{
	gt_shmem_part(size_of(), start);
}

/* See renewals.h. */
bool
gt_renewals_kept(void)
{
	return buffer != NULL;
}

/* ---------------------------------------------------------------- entries */

/* See renewals.h. */
uint64
gt_renewal_hash(const pg_uuid_t *id)
{
	return hash_bytes_extended(id->data, UUID_LEN, MyDatabaseId);
}

static Partition *
partition_of(uint64 hash)
{
	return &buffer->partitions[hash % GT_RENEWALS_PARTS];
}

static GtRenewal *
entry_of(const Partition *p, uint32 number)
{
	return &entries[(Size) (p - buffer->partitions) * room + number - 1];
}

static uint32 *
bucket_of(const Partition *p, uint64 hash)
{
	return &buckets[(Size) (p - buffer->partitions) * room + (hash >> 32) % room];
}

/* See renewals.h. Lock held, also by many. */
GtRenewal *
gt_renewal_find(uint64 hash, const pg_uuid_t *id)
{
	const Partition *p = partition_of(hash);
	uint32		number = p->used == 0 ? 0 : *bucket_of(p, hash);	/* which is far from all that is at hand */

	while (number != 0)
	{
		GtRenewal  *e = entry_of(p, number);

		if (e->database == MyDatabaseId && memcmp(&e->lease, id, sizeof(pg_uuid_t)) == 0)
			return e;
		number = e->next;
	}
	return NULL;
}

static bool
is_of(const GtRenewal *e, Oid database, Oid owner)
{
	return OidIsValid(database) && e->database == database && e->owner == owner;
}

/* Lock held, exclusively. */
static void
take_out(Partition *p, uint32 number)
{
	GtRenewal  *e = entry_of(p, number);
	uint64		hash = hash_bytes_extended(e->lease.data, UUID_LEN, e->database);
	uint32	   *link = bucket_of(p, hash);

	while (*link != number)
		link = &entry_of(p, *link)->next;
	*link = e->next;
	if (is_of(e, p->database, p->owner))
		p->owned--;
	e->database = InvalidOid;
	e->next = p->free;
	p->free = number;
	p->used--;
}

/* What it kept alive is over, and so is the time for which that keeps others from the object. */
static bool
is_done(const GtRenewal *e, TimestampTz now)
{
	int64		delay = e->regrant_delay < 0 ? (int64) gt_regrant_delay * 1000 : e->regrant_delay;

	return OidIsValid(e->database) && now - e->deadline >= delay;
}

/* Makes room by an entry that is of no use any more, where one is found soon. Lock held, exclusively. */
static void
make_room(Partition *p, TimestampTz now)
{
	uint32		i;

	for (i = 0; i < Min(LOOK_FOR_OVER, p->touched); i++)
	{
		uint32		number = p->hand % p->touched + 1;

		p->hand = number;
		if (is_done(entry_of(p, number), now))
		{
			take_out(p, number);
			break;
		}
	}
}

/* Counts those of a role, which is remembered if it has more than the one that had most. Lock held, exclusively. */
static void
count_owned(Partition *p, Oid owner, TimestampTz now)
{
	uint32		owned = 0;
	uint32		number;

	p->counted_at = now;
	for (number = 1; number <= p->touched; number++)
		owned += is_of(entry_of(p, number), MyDatabaseId, owner);
	if (owned <= p->owned)
		return;
	p->database = MyDatabaseId;
	p->owner = owner;
	p->owned = owned;
}

/* Is the rest for others than this role? They are counted where it may have so many, and once a second. Lock held, exclusively. */
static bool
has_its_share(Partition *p, Oid owner, TimestampTz now)
{
	uint32		share = room - room / SHARE;
	bool		known = p->database == MyDatabaseId && p->owner == owner;

	if (p->used < share)
		return false;
	if (!known && p->used - p->owned >= share && now - p->counted_at >= USECS_PER_SEC)
		count_owned(p, owner, now);
	return p->database == MyDatabaseId && p->owner == owner && p->owned >= share;
}

/* See renewals.h. Lock held, exclusively. */
GtRenewal *
gt_renewal_add(uint64 hash, const pg_uuid_t *id, Oid owner, TimestampTz now)
{
	Partition  *p = partition_of(hash);
	uint32	   *bucket = bucket_of(p, hash);
	uint32		number;
	GtRenewal  *e;

	if ((p->free == 0 && p->touched == room) || has_its_share(p, owner, now))
		make_room(p, now);
	if (has_its_share(p, owner, now))
		number = 0;
	else if (p->free != 0)
	{
		number = p->free;
		p->free = entry_of(p, number)->next;
	}
	else if (p->touched < room)
		number = ++p->touched;
	else
		number = 0;
	if (number == 0)
	{
		pg_atomic_write_u64(&buffer->missed_at, (uint64) now);
		return NULL;
	}
	e = entry_of(p, number);
	memset(e, 0, sizeof(GtRenewal));
	e->database = MyDatabaseId;
	e->owner = owner;
	if (is_of(e, p->database, p->owner))
		p->owned++;
	e->lease = *id;
	e->next = *bucket;
	*bucket = number;
	p->used++;
	return e;
}

/* See renewals.h. */
void
gt_renewals_lock(uint64 hash)
{
	LWLockAcquire(&partition_of(hash)->lock, LW_EXCLUSIVE);
}

/* See renewals.h. */
void
gt_renewals_unlock(uint64 hash)
{
	LWLockRelease(&partition_of(hash)->lock);
}

/* See renewals.h. */
bool
gt_renewal_counts(const GtRenewal *renewal, TimestampTz renewed_at)
{
	return renewal != NULL && renewal->renewed_at >= renewed_at;
}

/* ---------------------------------------------------------------- reading */

/* See renewed.h. Whoever judges by it has read the clock before. */
TimestampTz
gt_renewal_deadline(const pg_uuid_t *id, TimestampTz renewed_at, TimestampTz deadline)
{
	uint64		hash;
	Partition  *p;
	GtRenewal  *e;

	if (buffer == NULL)
		return deadline;
	hash = gt_renewal_hash(id);
	p = partition_of(hash);
	LWLockAcquire(&p->lock, LW_SHARED);
	e = gt_renewal_find(hash, id);
	if (gt_renewal_counts(e, renewed_at))
		deadline = Max(deadline, e->deadline);
	LWLockRelease(&p->lock);
	return deadline;
}

/* See renewed.h. */
void
gt_renewal_shown(const pg_uuid_t *id, TimestampTz *renewed_at, int64 *renewals)
{
	uint64		hash;
	Partition  *p;
	GtRenewal  *e;

	if (buffer == NULL)
		return;
	hash = gt_renewal_hash(id);
	p = partition_of(hash);
	LWLockAcquire(&p->lock, LW_SHARED);
	e = gt_renewal_find(hash, id);
	if (gt_renewal_counts(e, *renewed_at))
		*renewed_at = e->renewed_at;
	if (e != NULL)
		*renewals = Max(*renewals, e->renewals);
	LWLockRelease(&p->lock);
}

/* ---------------------------------------------------------------- what is written to the table */

/* See renewed.h. */
int64
gt_renewal_written(const pg_uuid_t *id, int64 renewals)
{
	uint64		hash;
	Partition  *p;
	GtRenewal  *e;

	if (buffer == NULL)
		return renewals + 1;
	hash = gt_renewal_hash(id);
	p = partition_of(hash);
	LWLockAcquire(&p->lock, LW_EXCLUSIVE);
	e = gt_renewal_find(hash, id);
	renewals = (e == NULL ? renewals : Max(e->renewals, renewals)) + 1;
	if (e != NULL)
	{
		e->bound = GT_RENEWAL_CLOSED;
		e->renewals = renewals;
	}
	LWLockRelease(&p->lock);
	return renewals;
}

/* Returns whether there is one; *after: later than all that was acknowledged by it. */
static bool
close_entry(const pg_uuid_t *id, TimestampTz *after)
{
	uint64		hash;
	Partition  *p;
	GtRenewal  *e;

	if (buffer == NULL)
	{
		*after = gt_now();
		return false;
	}
	hash = gt_renewal_hash(id);
	p = partition_of(hash);
	LWLockAcquire(&p->lock, LW_EXCLUSIVE);
	*after = gt_now();
	e = gt_renewal_find(hash, id);
	if (e != NULL)
	{
		e->bound = GT_RENEWAL_CLOSED;
		*after = Max(*after, e->renewed_at + 1);
	}
	LWLockRelease(&p->lock);
	return e != NULL;
}

/* See renewed.h. */
TimestampTz
gt_renewal_changed(const pg_uuid_t *id)
{
	TimestampTz after;

	(void) close_entry(id, &after);
	return after;
}

static void
remove_entry(const pg_uuid_t *id)
{
	uint64		hash = gt_renewal_hash(id);
	Partition  *p = partition_of(hash);
	GtRenewal  *e;

	LWLockAcquire(&p->lock, LW_EXCLUSIVE);
	e = gt_renewal_find(hash, id);
	if (e != NULL)
		take_out(p, (uint32) (e - entry_of(p, 1)) + 1);
	LWLockRelease(&p->lock);
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	int			i;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	for (i = 0; i < nended && event == XACT_EVENT_COMMIT; i++)
		remove_entry(&ended[i].id);
	ended = NULL;
	nended = ended_room = 0;
}

static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			i;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nended > 0 && ended[nended - 1].subid >= mine)
			nended--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (i = nended - 1; i >= 0 && ended[i].subid == mine; i--)
			ended[i].subid = parent;
}

/* See renewed.h. */
void
gt_renewal_ended(const pg_uuid_t *id)
{
	TimestampTz after;

	if (!close_entry(id, &after))
		return;
	gt_at_end(GT_AT_END_RENEWALS, at_end_of_transaction, at_end_of_subtransaction);
	if (nended == ended_room)
		ended = gt_more_notes(ended, &ended_room, sizeof(Ended));
	ended[nended].id = *id;
	ended[nended++].subid = GetCurrentSubTransactionId();
}

/* ---------------------------------------------------------------- all entries */

/* See renewals.h. */
void
gt_renewals_forget(Oid database)
{
	int			i;
	uint32		number;

	for (i = 0; buffer != NULL && i < GT_RENEWALS_PARTS; i++)
	{
		Partition  *p = &buffer->partitions[i];

		LWLockAcquire(&p->lock, LW_EXCLUSIVE);
		for (number = 1; number <= p->touched && p->used > 0; number++)
			if (entry_of(p, number)->database == database)
				take_out(p, number);
		LWLockRelease(&p->lock);
	}
}

/* See renewals.h. */
int
gt_renewals_count(Oid database)
{
	TimestampTz now = gt_now();
	int			n = 0;
	int			i;
	uint32		number;

	for (i = 0; buffer != NULL && i < GT_RENEWALS_PARTS; i++)
	{
		Partition  *p = &buffer->partitions[i];

		LWLockAcquire(&p->lock, LW_SHARED);
		for (number = 1; number <= p->touched && p->used > 0; number++)
			n += entry_of(p, number)->database == database && entry_of(p, number)->deadline > now;
		LWLockRelease(&p->lock);
	}
	return n;
}

/* See renewals.h. */
void
gt_renewals_state(int *all, int *used, TimestampTz *missed_at)
{
	int			i;

	*all = *used = 0;
	*missed_at = 0;
	if (buffer == NULL)
		return;
	*all = (int) (room * GT_RENEWALS_PARTS);
	*missed_at = (TimestampTz) pg_atomic_read_u64(&buffer->missed_at);
	for (i = 0; i < GT_RENEWALS_PARTS; i++)
		*used += (int) buffer->partitions[i].used;
}
