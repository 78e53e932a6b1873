/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  What grant.c, hold.c and way.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HOLD_H
#define GT_HOLD_H

#include "handler/handler.h"
#include "lease/grant.h"

/* A handler that the batch names: neither dropped nor changed in kind to the end of the transaction. */
typedef struct GtHeldHandler
{
	GtHandler	h;
	bool		used;			/* by something granted */
} GtHeldHandler;

/* A parent that the batch names. */
typedef struct GtHeldParent
{
	pg_uuid_t	id;
	bool		ok;
	GtFail		fail;
	bool		wanted;			/* by a request that is not refused */
	TimestampTz expires_at;		/* once it is held */
} GtHeldParent;

/* An object of the batch, locked. */
typedef struct GtHeldObject
{
	GtRow		row;
	bool		is_new;			/* the row is ours, and nothing has been granted on it yet; */
	const GtGrant *maker;		/* it is as this one needs it, with a fence that is later than all before; NULL: it is not */
	bool		stale;			/* leases on it were ended: the row is to be read again */
} GtHeldObject;

extern GtHeldParent *gt_parent_find(GtGranter *g, const pg_uuid_t *id); /* once for a batch; it is held later */
extern void gt_hold_objects(GtGranter *g, GtGrant **grants, int n);
extern void gt_hold_parents(GtGranter *g, GtGrant **grants, int n);
extern void gt_object_read_again(GtGranter *g, const GtGrant *e);	/* where leases on it were ended */
extern void gt_object_take_back(GtRow *object);	/* of garbage, in memory */
extern void gt_object_set_cleanup(GtRow *object, const GtGrant *e);
extern void gt_object_set_owner(GtRow *object, const GtRequest *r);

extern void gt_grant_refuse(GtGranter *g, GtGrant *e);	/* raises it, where all or none is to be granted */
extern void gt_grant_set_at(GtGranter *g, GtGrant *e);	/* from here on what is raised concerns this one; NULL: no one of them */
extern bool gt_request_fetch(GtGranter *g, const GtGrant *e, GtRow *lease); /* the lease of its request_key, whatever it is */
extern bool gt_leased_already(const GtRequest *r, const char *holder, TimestampTz until, TimestampTz now, GtFail *f);
/* Is it clear of leases? Those that have expired are appended to *expired, to be ended. */
extern bool gt_way_of_leases(GtGranter *g, const GtRequest *r, const GtRow *object, List **expired, GtFail *f);

/* Could the lease be granted as the object is now? What only has to be ended first is in *expired. */
extern bool gt_way_is_clear(GtGranter *g, const GtRequest *r, const GtHeldObject *object, List **expired, GtFail *f);
extern void gt_way_end_expired(List *expired);	/* of GtLeaseKey *; each is judged again, under its lock */
extern void gt_way_clear(GtGranter *g, GtGrant **grants, int n);

#endif
