/*-------------------------------------------------------------------------
 *
 * passed.c
 *	  Rows that are over and have to be left: a worker passes them over for a while.
 *
 * Any number of rows may be over and stay: somebody has locked them all, objects of
 * their names are held, they could not be deleted.  They are the oldest, and each batch
 * comes upon them first.  To look at one anew takes much longer than to pass it over.
 * So each is passed over for a while that grows with the time for which it has been left
 * (gt_rows_again()); and of those that are due again a batch looks at so many, the others have
 * their turn in the next one.  Rows that are not known are looked at always.
 *
 * It is kept by each worker for itself, by the place of the row: who comes into that
 * place waits for a moment too long.  A session knows nothing, and looks at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "shared/clock.h"
#include "shared/rows_due.h"
#include "shared/shmem.h"
#include "ttl/passed.h"

#define MAX_KNOWN	65536		/* then it begins anew */
#define MAX_AGAIN	2000		/* that a batch looks at again */
#define MOST		(10 * USECS_PER_SEC)

typedef struct Place
{
	Oid			file;			/* what has been rewritten has other places */
	ItemPointerData tid;
} Place;

typedef struct Passed
{
	Place		place;
	GtLeft		why;
	TimestampTz since;
	TimestampTz until;
} Passed;

static HTAB *known = NULL;
static int	again;
static TimestampTz now;			/* when the batch began */

static HTAB *
create(void)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(Place);
	control.entrysize = sizeof(Passed);
	return hash_create("garbagetruck rows passed over", 64, &control, HASH_ELEM | HASH_BLOBS);
}

static Passed *
search(Relation rel, ItemPointer tid, HASHACTION action)
{
	Place		place;

	memset(&place, 0, sizeof(place));
	place.file = rel->rd_rel->relfilenode;
	place.tid = *tid;
	return hash_search(known, &place, action, NULL);
}

void
gt_passed_begin(void)
{
	again = 0;
	now = gt_now();
}

GtLeft
gt_passed_over(Relation rel, ItemPointer tid)
{
	Passed	   *passed = known != NULL ? search(rel, tid, HASH_FIND) : NULL;

	if (passed == NULL || (now >= passed->until && again++ < MAX_AGAIN))
		return GT_NOT_LEFT;
	return passed->why;
}

void
gt_passed_note(Relation rel, ItemPointer tid, GtLeft why)
{
	Passed	   *passed;

	if (gt_my_slot == NULL)
		return;
	if (why == GT_NOT_LEFT)
	{
		if (known != NULL)
			(void) search(rel, tid, HASH_REMOVE);
		return;
	}
	if (known != NULL && hash_get_num_entries(known) >= MAX_KNOWN)
	{
		hash_destroy(known);
		known = NULL;
	}
	if (known == NULL)
		known = create();
	passed = search(rel, tid, HASH_FIND);
	if (passed == NULL || now - passed->until > MOST)
	{
		passed = search(rel, tid, HASH_ENTER);
		passed->since = now;
	}
	passed->why = why;
	passed->until = gt_rows_again(passed->since, now, MOST);
}
