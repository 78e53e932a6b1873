/*-------------------------------------------------------------------------
 *
 * expiry.h
 *	  Ending the leases that are over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_EXPIRY_H
#define GT_EXPIRY_H

#include "lease/ending.h"
#include "shared/in_hand.h"

/* One pass over leases whose check_at has passed, and over children of ended leases, in the current transaction. */
typedef struct GtExpiry
{
	int			ended;
	int			looked_at;
	int			busy;			/* locked by others: look again soon */
	TimestampTz busy_from;		/* when the last of those was to be looked at; 0: there are none */
	bool		more;			/* there is more that is due now */
	TimestampTz next;			/* else when the next is due; GT_NEVER */
	GtInHand	in_hand;		/* what was picked */
} GtExpiry;

/*
 * Somebody who may do something else with the leases that are chosen than to end
 * them.  divide() puts those that are to be ended first, and returns how many these
 * are; it sets `ended`, `left` or `busy` of the others.
 */
typedef struct GtDivision
{
	int			(*divide) (GtLeaseKey *keys, int n, GtExpiry *result, void *arg);
	void	   *arg;
	bool		children_last;	/* those of leases that have ended come after the chosen: their rows are not to be locked before */
} GtDivision;

/*
 * own: in a block of the caller's: only leases on objects of current_user, and
 * those too that this very transaction has made.  on_more: called as soon as the
 * leases are picked, with result->in_hand, where there is more that is due.  division: or NULL.
 */
extern void gt_expire_pass(int limit, bool own, void (*on_more) (GtExpiry *), const GtDivision *division,
						   GtExpiry *result);

#endif
