/*-------------------------------------------------------------------------
 *
 * grant.h
 *	  Granting leases, one or a batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_GRANT_H
#define GT_GRANT_H

#include "nodes/pg_list.h"

#include "lease/ending.h"
#include "lease/request.h"

typedef struct GtGranted
{
	pg_uuid_t	id;
	int64		fence;
	TimestampTz expires_at;
	TimestampTz now;
	bool		created;
	int			attempts;
} GtGranted;

/* one of a batch: a request and what became of it */
typedef struct GtGrant
{
	GtRequest	request;
	bool		ok;
	GtGranted	granted;		/* if ok */
	GtFail		fail;			/* else */
	/* of grant.c, on the way */
	bool		open;			/* nothing is decided yet */
	struct GtHeldHandler *handler;
	struct GtHeldParent *parent;
	struct GtHeldObject *object;
	GtLeaseKey *old;			/* an expired lease of the same request_key */
} GtGrant;

/* the tables, and what a batch has looked up and holds */
typedef struct GtGranter
{
	GtTable		objects;
	GtTable		leases;
	bool		all_or_none;	/* raise what is refused first */
	bool		one_by_one;		/* clear the way for each by itself, so that `at` says for which it failed */
	GtGrant   **at;				/* of which there may be something to wait for; or NULL */
	List	   *handlers;		/* of GtHeldHandler */
	List	   *parents;		/* of GtHeldParent */
	GtRow	   *unwritten;		/* leases that are granted, to be inserted together; NULL: each at once */
	int			nunwritten;
	const char *counted_service;	/* whose leases have been counted, for the quota */
	int64		counted;
} GtGranter;

extern void gt_granter_open(GtGranter *g, const char *function, bool all_or_none);
extern void gt_granter_close(GtGranter *g);
extern void gt_grant(GtGranter *g, GtGrant **grants, int n);	/* in the order of their objects */

#endif
