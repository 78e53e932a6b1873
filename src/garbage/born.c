/*-------------------------------------------------------------------------
 *
 * born.c
 *	  An object that nobody has leased becomes garbage.
 *
 * Of rows that were deleted, or could not be: see ttl.c.  In the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/sequence.h"
#include "utils/timestamp.h"

#include "base/text.h"
#include "garbage/history.h"
#include "garbage/objects.h"
#include "shared/clock.h"
#include "shared/counts.h"
#include "table/relations.h"

/* There is one of this name. That it was leased is over and remembered for a while only (regrant_at): it gives its place to this one. */
static bool
take_place(GtTable *objects, GtRow *row)
{
	Datum		key[2];
	GtRow		here;

	key[0] = row->v[O_OBJECT_ID];
	key[1] = row->v[O_OBJECT_TYPE];
	if (gt_fetch_lock(objects, GT_OBJECT_PKEY, 2, key, &here, LockTupleExclusive, true) != GT_LOCKED ||
		GT_CHAR(&here, O_STATE) != GT_STATE_FORGOTTEN)
		return false;
	row->tid = here.tid;
	row->xmin = here.xmin;
	row->v[O_FENCE] = here.v[O_FENCE];
	row->v[O_REGRANT_AT] = here.v[O_REGRANT_AT];
	row->isnull[O_REGRANT_AT] = here.isnull[O_REGRANT_AT];
	gt_update(objects, row);
	return true;
}

bool
gt_garbage_born(GtTable *objects, const GtBirth *birth)
{
	GtRow		row;

	gt_object_init(&row, birth->type, birth->id);
	GT_SET(&row, O_LEASES, Int32GetDatum(0));
	GT_SET(&row, O_STATE, CharGetDatum(GT_STATE_WAITING));
	GT_SET(&row, O_OWNER, ObjectIdGetDatum(birth->owner));
	GT_SET(&row, O_HANDLER, Int32GetDatum(birth->handler));
	GT_SET(&row, O_CLEANUP_ID, Int64GetDatum(nextval_internal(gt_sequence(GT__CLEANUP_ID), false)));
	GT_SET(&row, O_SINCE, TimestampTzGetDatum(gt_now()));
	GT_SET(&row, O_DUE_AT, TimestampTzGetDatum(birth->due_at));
	GT_SET(&row, O_ALONE, BoolGetDatum(birth->alone));
	if (birth->max_attempts > 0)
		GT_SET(&row, O_MAX_ATTEMPTS, Int32GetDatum(birth->max_attempts));
	if (birth->payload != (Datum) 0)
		GT_SET(&row, O_PAYLOAD, birth->payload);
	if (birth->metadata != (Datum) 0)
		GT_SET(&row, O_METADATA, birth->metadata);
	if (birth->error != NULL)
	{
		GT_SET(&row, O_ATTEMPTS, Int32GetDatum(1));
		GT_SET(&row, O_STEPS, Int32GetDatum(1));
		GT_SET(&row, O_ERROR, gt_error_text(birth->error));
	}
	if (!gt_insert_if_free(objects, &row, GT_OBJECT_PKEY) && !take_place(objects, &row))
		return false;
	gt_observe_gauges(0, 1, 0);
	if (birth->error != NULL)
		gt_history_add("failed", &row, NULL, 1, -1, -1, birth->error);
	return true;
}
