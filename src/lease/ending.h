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

typedef struct GtLeaseKey		/* enough to lock in order */
{
	pg_uuid_t	id;
	char	   *object_type;	/* NULL, as the next: the row tells, and gt_end() reads it there */
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
/* What is still to be done of leases that have ended, once that is certain. */
extern void gt_end_finish(GtTable *leases, GtLeaseKey *keys, int n);
/* Its children are to be ended by the worker, in the turn of this role. */
extern void gt_orphan_add(Datum parent, Oid owner, bool expired, TimestampTz ended_at);
/* What the handler will be given is that of this lease, which ends: the object keeps it. context: NULL where its row stays as long. */
extern void gt_keep_spec(GtRow *object, const GtRow *lease, MemoryContext context);
extern void gt_lease_key(const GtRow *lease, GtLeaseKey *key);	/* of a row that does not last */
extern void gt_lease_key_of_row(GtRow *lease, GtLeaseKey *key); /* and of one that does, as read under a snapshot that is held */
/* Of a locked lease that is not over yet: it is looked at again then. 1: it can not be judged yet. */
extern int	gt_re_arm(GtTable *leases, GtRow *lease, TimestampTz over_at);

#endif
