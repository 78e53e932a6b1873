/*-------------------------------------------------------------------------
 *
 * grant.h
 *	  What create.c, request.c and grant.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_GRANT_H
#define GT_GRANT_H

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
	/* made of these by gt_request_check() */
	int64		duration_us;
	int64		retry_delay_us;
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

/* the tables and the handler, opened once for a batch */
typedef struct GtGranter
{
	GtTable		objects;
	GtTable		leases;
	bool		has_handler;
	GtHandler	handler;
} GtGranter;

/* request.c */
extern bool gt_request_check_object(const GtRequest *r, GtFail *f);	/* does it name one? */
extern bool gt_request_check(GtRequest *r, GtFail *f);
extern void gt_request_of_args(FunctionCallInfo fcinfo, bool with_key, GtRequest *r);
extern bool gt_request_of_json(GtRequest *r, JsonbValue *v, GtFail *f);

/* grant.c */
extern void gt_granter_open(GtGranter *g, const char *function);
extern void gt_granter_close(GtGranter *g);
extern bool gt_grant(GtGranter *g, GtRequest *r, GtGranted *out, GtFail *f);

#endif
