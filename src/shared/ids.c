/*-------------------------------------------------------------------------
 *
 * ids.c
 *	  Lease ids, the numbers that fences are made of, and cleanup ids.
 *
 * Every process that creates leases runs this.  Nothing is locked: a process never
 * draws a number twice, ids of two processes differ by their random bits, and fences
 * of one object are drawn while its row is locked; but that of a new row before it is
 * inserted.  Then it is later than those of all rows that there were, if none has
 * been deleted since, of which deletions are counted in shared memory, by the hash of the
 * id.  Who deletes has had the row locked, and counts before: so what was counted
 * before the fence was drawn has no later one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/uuid.h"

#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/parts.h"

#define COUNTS		256			/* of deletions */
#define UNIX_EPOCH_US ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

char *
gt_uuid_cstring(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

int64
gt_unique_us(void)
{
	static int64 last = 0;
	int64		now = gt_now() + UNIX_EPOCH_US;

	last = now > last ? now : last + 1;
	return last;
}

/* Of strong random bits many are drawn at once, which costs as much as a few. */
static void
draw_random(unsigned char *to, int n)
{
	static unsigned char drawn[2048];
	static int	left = 0;

	if (left < n)
	{
		if (!pg_strong_random(drawn, sizeof(drawn)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
		left = sizeof(drawn);
	}
	left -= n;
	memcpy(to, &drawn[left], n);
	memset(&drawn[left], 0, n);
}

/*
 * UUID version 7 (RFC 9562): 48 bits of milliseconds, then, as its method 3
 * allows, 12 bits of the fraction of the millisecond, then 62 random bits.
 */
void
gt_uuid_v7(pg_uuid_t *id)
{
	int64		us = gt_unique_us();
	uint64		ms = us / 1000;
	uint32		fraction = (us % 1000) * 4096 / 1000;

	draw_random(&id->data[8], 8);
	id->data[0] = ms >> 40;
	id->data[1] = ms >> 32;
	id->data[2] = ms >> 24;
	id->data[3] = ms >> 16;
	id->data[4] = ms >> 8;
	id->data[5] = ms;
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction;
	id->data[8] = 0x80 | (id->data[8] & 0x3f);
}

static pg_atomic_uint64 *counts = NULL;

static void
share(bool first)
{
	bool		found;
	int			i;

	counts = ShmemInitStruct("garbagetruck deletions", COUNTS * sizeof(pg_atomic_uint64), &found);
	for (i = 0; i < COUNTS && first; i++)
		pg_atomic_init_u64(&counts[i], 0);
}

void
gt_ids_init(void)
{
	gt_shmem_part(COUNTS * sizeof(pg_atomic_uint64), share);
}

static pg_atomic_uint64 *
count_of(Datum object_id)
{
	return &counts[datum_image_hash(object_id, false, -1) % COUNTS];
}

/* What is drawn after this is later than what was drawn before the deletions that it counts. */
uint64
gt_deletions(Datum object_id)
{
	static uint64 unknown = 0;
	uint64		n;

	if (counts == NULL)
		return unknown++;
	n = pg_atomic_read_u64(count_of(object_id));
	pg_memory_barrier();
	return n;
}

void
gt_deleting(Datum object_id)
{
	if (counts != NULL)
		pg_atomic_fetch_add_u64(count_of(object_id), 1);
}

int
gt_by_id(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y ? 1 : 0;
}
