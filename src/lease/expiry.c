/*-------------------------------------------------------------------------
 *
 * expiry.c
 *	  A pass of expiry: the leases that are over are ended.
 *
 * Workers run this, and gt_reclaim() in its session's transaction.  Half of a pass at
 * most are children of ended leases (orphans.c), the rest is picked of all roles in
 * turn (pick.c), without a lock, and handed to gt_end(), which locks and judges.
 * Several passes may be in progress: each passes over what those before have in
 * hand.  A crash leaves everything to be picked again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/point.h"
#include "lease/ending.h"
#include "lease/expiry.h"
#include "lease/orphans.h"
#include "lease/pick.h"
#include "lease/start.h"
#include "shared/clock.h"

void
gt_expire_pass(int limit, bool own, void (*on_more) (GtExpiry *), const GtDivision *division, GtExpiry *result)
{
	bool		children_last = division != NULL && division->children_last;
	GtPick		pick;
	int			n_to_end;
	int			i;

	memset(result, 0, sizeof(GtExpiry));
	result->next = GT_NEVER;
	gt_start_ensure();
	if (!children_last)
		gt_end_orphans(Max(limit / 2, 1), own, result);

	PushActiveSnapshot(GetTransactionSnapshot());	/* the rows that are picked stay where they are */
	gt_pick(&pick, Max(limit - result->ended, 1), own);
	result->in_hand = pick.in_hand;
	if (pick.more && pick.told && on_more != NULL)
		on_more(result);

	GT_POINT("lease_chosen");
	result->looked_at = pick.n;
	result->more = result->more || pick.more;
	n_to_end = division != NULL ? division->divide(pick.keys, pick.n, result, division->arg) : pick.n;
	gt_end(pick.keys, n_to_end, GT_END_EXPIRED, true);
	PopActiveSnapshot();
	for (i = 0; i < pick.n; i++)
	{
		result->ended += pick.keys[i].ended;
		result->more = result->more || pick.keys[i].orphans;
	}
	result->next = Min(result->next, pick.next);
	result->busy += gt_pick_done(&pick, &result->busy_from);
	if (children_last)
		gt_end_orphans(Max(limit / 2, 1), own, result);
	GT_POINT("ended");
}
