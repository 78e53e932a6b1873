/*-------------------------------------------------------------------------
 *
 * beside.h
 *	  What other workers have in hand of the leases of this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_BESIDE_H
#define GT_BESIDE_H

#include "base/workers.h"
#include "shared/in_hand.h"
#include "shared/shmem.h"

typedef struct GtBeside
{
	int			nranges;		/* that their passes in progress have in hand */
	GtRange    *ranges;
	int			nattended;		/* roles whose own workers look at their leases, too */
	Oid			attended[GT_MAX_WORKERS];
} GtBeside;

extern int	gt_compare_places(const GtPlaceInQueue *a, const GtPlaceInQueue *b);	/* the order of a queue; of equal times it is that of the index */
/* Is this another worker, whose pass in this database is in progress, but for a run that lasts? Lock held. */
extern bool gt_is_beside(const GtSlot *slot);
extern bool gt_beside_runs(void);	/* Is any in a pass here, however long? It has leases locked. */
extern void gt_beside_find(GtBeside *beside);	/* a session knows of nothing */
/* The range of another pass that a lease there is in; NULL: nobody has it. */
extern const GtRange *gt_beside_has(const GtBeside *beside, Oid owner, const GtPlaceInQueue *place);
/* Has a worker that is bound to this role, where we are to another, looked within a turn? */
extern bool gt_beside_attends(const GtBeside *beside, Oid owner);

#endif
