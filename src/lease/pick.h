/*-------------------------------------------------------------------------
 *
 * pick.h
 *	  Which leases a pass of expiry looks at.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PICK_H
#define GT_PICK_H

#include "handler/beside.h"
#include "lease/ending.h"
#include "shared/in_hand.h"
#include "shared/low_end.h"

/* What a role has that is due. */
typedef struct GtLane
{
	Oid			owner;
	TimestampTz first;			/* it has nothing before */
	GtLow		low;
	bool		late;			/* it comes after those that have less */
	bool		more;			/* is due than was picked */
	bool		met;			/* some of it is in the hands of others */
	GtPlaceInQueue upto;		/* the last that was picked from the oldest on; GT_NOWHERE: nothing was */
	bool		ended;			/* one of those has been */
	TimestampTz missed;			/* the newest of all that were picked and have not; 0: there is none */
	int			busy;			/* so many were locked by others, */
	TimestampTz busy_from;		/* and the newest of them was due then */
} GtLane;

typedef struct GtPick
{
	bool		own;			/* only leases on objects of current_user, those too that this transaction has made */
	TimestampTz now;
	int			limit;
	int			n;				/* out: so many leases, */
	GtLeaseKey *keys;			/* with their rows */
	bool		more;			/* out: more is due, of these roles or of others */
	TimestampTz next;			/* out: else when the next is; GT_NEVER */
	GtInHand	in_hand;		/* out: what was picked, */
	bool		told;			/* out: all of it */
	int			nlanes;			/* roles that are looked at, */
	int			nfirst;			/* these before the others */
	GtLane	   *lanes;
	GtBeside	beside;
} GtPick;

extern bool gt_is_on_own_object(GtTable *objects, const GtRow *lease);	/* current_user's */
/* Picks up to `limit` leases whose check_at has passed, of all roles in turn. Rows stay where they are under the caller's snapshot. */
extern void gt_pick(GtPick *pick, int limit, bool own);
/* gt_end() has been called for them. Returns how many others have locked, of these and of what earlier passes met; *busy_from: and from when the newest is. */
extern int	gt_pick_done(GtPick *pick, TimestampTz *busy_from);

#endif
