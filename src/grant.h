/*-------------------------------------------------------------------------
 *
 * grant.h
 *	  What create.c, request.c and grant.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_GRANT_H
#define GT_GRANT_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "garbagetruck.h"
#include "lease.h"

/* what a caller asks for; pointers are NULL where nothing was given */
typedef struct GtRequest
{
	char	   *object_id;
	char	   *object_type;
	char	   *service_id;
	Interval   *duration;
	char	   *cleanup;
	Jsonb	   *payload;
	Jsonb	   *metadata;
	pg_uuid_t  *parent;
	bool		exclusive;
	char	   *request_key;
	bool		has_max_attempts;
	int			max_attempts;
	Interval   *retry_delay;
	Interval   *regrant_delay;
	/* made of these by gt_request_check() */
	const char *key_service;	/* service_id as it was given; '' for NULL: request_key is unique with it */
	int64		duration_us;
	int64		retry_delay_us;
	int64		regrant_delay_us;
} GtRequest;

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
	List	   *handlers;		/* of HeldHandler */
	List	   *parents;		/* of HeldParent */
	const char *counted_service;	/* whose leases have been counted, for the quota */
	int			counted;
} GtGranter;

/* request.c */
extern bool gt_request_check_object(const GtRequest *r, GtFail *f);	/* does it name one? */
extern bool gt_request_check(GtRequest *r, GtFail *f);
extern void gt_request_of_args(FunctionCallInfo fcinfo, bool with_key, GtRequest *r);
extern bool gt_request_of_json(GtRequest *r, JsonbValue *v, GtFail *f);

/* grant.c */
extern void gt_granter_open(GtGranter *g, const char *function, bool all_or_none);
extern void gt_granter_close(GtGranter *g);
extern void gt_grant(GtGranter *g, GtGrant **grants, int n);	/* in the order of their objects */

#endif
