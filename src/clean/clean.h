/*-------------------------------------------------------------------------
 *
 * clean.h
 *	  A chain of runs: chosen, run, written, one step after another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLEAN_H
#define GT_CLEAN_H

#include "datatype/timestamp.h"

typedef struct GtCleaner GtCleaner; /* the state of one worker's (or gt_reclaim's) chain of runs in one database */

typedef struct GtPass
{
	int64		done;			/* leases ended and objects attempted */
	bool		more;			/* due now, and this process may do it */
	TimestampTz next;			/* when the next is due (also what another process must do: rates, slots); GT_NEVER */
	Oid			waits;			/* a role whose SQL is due, for another process to run; InvalidOid: none */
	TimestampTz looked_at;		/* when that was looked at; 0: it was not */
} GtPass;

extern GtCleaner *gt_cleaner_create(bool worker);
/* One step: outcome of the runs recorded before, and the choice of the next; to be committed by the caller. */
typedef struct GtChoosing GtChoosing;	/* see optimistic.h; NULL: no such pass is made, and none begun */

extern void gt_clean_step(GtCleaner *c, int max_items, const GtChoosing *choosing, GtPass *pass);
extern void gt_clean_committed(GtCleaner *c);	/* the step has been committed */

#endif
