/*-------------------------------------------------------------------------
 *
 * trim.c
 *	  Deleting from gt_history what is too old.
 *
 * Workers and gt_reclaim() run this, in a transaction of their own and of bounded
 * size.  By the history's own time (start.c), so that a clock that jumps takes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "clean/trim.h"
#include "lease/start.h"
#include "lease/start_record.h"
#include "shared/clock.h"
#include "table/records.h"
#include "table/relations.h"
#include "table/table.h"

#define TRIM_ROWS 10000			/* of gt_history in one transaction */

TimestampTz
gt_history_trim_at(void)
{
	GtTable		history;
	GtScan	   *scan;
	GtRow		row;
	TimestampTz result = GT_NEVER;

	gt_open(&history, GT__HISTORY, AccessShareLock);
	scan = gt_scan_begin(&history, GT__HISTORY_PKEY, 0, NULL);
	if (gt_scan_next(scan, &row))
		result = GT_TIME(&row, HISTORY_AT) + (int64) gt_history_retention * USECS_PER_SEC + (gt_now() - gt_history_now());
	gt_scan_end(scan);
	gt_close(&history);
	return result;
}

/*
 * Through the table access method as all our writes: a statement
 * would be refused, or do something else, for what others have made of the table.
 */
bool
gt_history_trim(void)
{
	MemoryContext context;
	MemoryContext old;
	GtTable		history;
	GtScan	   *scan;
	GtRow		row;
	int			n = 0;

	if (!OidIsValid(gt_extension()))
		return false;
	gt_start_ensure();
	gt_open(&history, GT__HISTORY, RowExclusiveLock);
	scan = gt_scan_begin_bound(&history, GT__HISTORY_PKEY, 0, NULL, BTLessStrategyNumber,
							   TimestampTzGetDatum(gt_history_now() - (int64) gt_history_retention * USECS_PER_SEC));
	context = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck history", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	/* what another is deleting is passed over */
	while (n < TRIM_ROWS && gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		n += gt_try_delete(&history, &row);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	gt_scan_end(scan);
	gt_close(&history);
	return n >= TRIM_ROWS;
}
