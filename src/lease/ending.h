/*-------------------------------------------------------------------------
 *
 * ending.h
 *	  The one way in which a lease ends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ENDING_H
#define GT_ENDING_H

#include "garbage/objects.h"
#include "table/find.h"

typedef struct GtLeaseKey		/* enough to lock in order */
{
	pg_uuid_t	id;
	char	   *object_type;
	char	   *object_id;
	bool		child;
	pg_uuid_t	parent;			/* of a child */
	bool		over;			/* known to be over, not judged again: child of an ended parent */
	TimestampTz ended_at;		/* of such a child; out: when the lease was over */
	bool		ended;			/* out: this call ended it */
	bool		orphans;		/* out: and it leaves children, which the worker has to end */
	bool		left;			/* out: another pass is to end it, though this one has chosen it */
	bool		busy;			/* out: it could not, for somebody else has a row of it locked */
	GtEndReason reason;			/* of gt_end(): how this one ends */
	int			lane;			/* of pick.c: whose it is */
	GtRow	   *row;			/* as read in this transaction under a snapshot that it holds; NULL: gt_end() reads it */
} GtLeaseKey;

/*
 * Ends the leases: locks objects, then leases; deletes, adjusts counts, makes
 * garbage.  GT_END_EXPIRED passes over (and re-arms) what is not over yet;
 * skip: passes over what others have locked and returns how many those were.
 */
extern int	gt_end(GtLeaseKey *keys, int nkeys, GtEndReason reason, bool skip);
/*
 * Ends a lease whose row is known, if it is over, and takes its object away with
 * it, for whoever cleans that in this very subtransaction: `object` is the garbage that
 * it would be, of this handler, but for its cleanup_id.  GT_NOT_TAKEN: it is not so, or somebody has a row of it;
 * then gt_end() is to judge it.  GT_LOST: the subtransaction is to be rolled back, and
 * gt_end() to judge all of it.  The first says what speaks against it beforehand, the
 * last what is still to be done of those that have ended, once it is certain.
 */
typedef enum
{
	GT_NOT_TAKEN, GT_TAKEN, GT_LOST
} GtTaken;

extern bool gt_end_may_take_object(const GtLeaseKey *key);
/* finder: of objects, by GT_OBJECT_PKEY */
extern GtTaken gt_end_with_object(GtFinder *finder, GtTable *objects, GtTable *leases, GtLeaseKey *key, int handler,
								  GtRow *object);
extern void gt_end_finish(GtTable *leases, GtLeaseKey *keys, int n);
/* Its children are to be ended by the worker, in the turn of this role. */
extern void gt_orphan_add(Datum parent, Oid owner, bool expired, TimestampTz ended_at);
extern void gt_lease_key(const GtRow *lease, GtLeaseKey *key);
/* Of a locked lease that is not over yet: it is looked at again then. 1: it can not be judged yet. */
extern int	gt_re_arm(GtTable *leases, GtRow *lease, TimestampTz over_at);

#endif
