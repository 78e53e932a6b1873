/*-------------------------------------------------------------------------
 *
 * low.c
 *	  The low end of the queue of a handler: from where on there was any garbage.
 *
 * The entries of what has been cleaned stay at the low end of the index until they
 * are vacuumed, and a long snapshot elsewhere keeps them there.  So each process
 * remembers from where on it has found anything, and looks at all of it once in a while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "garbage/low.h"
#include "table/relations.h"

GtLow *
gt_low_of(GtLow *lows, int handler)
{
	GtLow	   *oldest = &lows[0];
	int			i;

	for (i = 0; i < GT_LOWS; i++)
	{
		if (lows[i].handler == handler && lows[i].changes == gt_table_changes)
			return &lows[i];
		if (lows[i].handler == handler)
		{
			oldest = &lows[i];
			break;
		}
		if (lows[i].looked_at_all < oldest->looked_at_all)
			oldest = &lows[i];
	}
	oldest->handler = handler;
	oldest->low = PG_INT64_MIN;
	oldest->looked_at_all = 0;
	oldest->cost = 0;
	oldest->changes = gt_table_changes;
	return oldest;
}
