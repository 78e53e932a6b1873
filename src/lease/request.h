/*-------------------------------------------------------------------------
 *
 * request.h
 *	  What a caller asks for: read and checked here, granted in grant.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_REQUEST_H
#define GT_REQUEST_H

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "base/fail.h"

/* What a caller asks for, read and found good: pointers are NULL where nothing was given. */
typedef struct GtRequest
{
	const char *object_id;
	const char *object_type;
	const char *service_id;		/* or what stands for it */
	Datum		key[2];			/* text: object_id and object_type, as the objects' primary key has them */
	Datum		service;		/* service_id as text */
	const char *key_service;	/* as it was given; '' for NULL: request_key is unique with it */
	const char *cleanup;
	Jsonb	   *payload;
	Jsonb	   *metadata;
	pg_uuid_t  *parent;
	bool		exclusive;
	const char *request_key;
	int64		duration;		/* us; of a child it means nothing */
	int			max_attempts;	/* 0: not given */
	int64		retry_delay;	/* us; -1: not given */
	int64		regrant_delay;	/* us; -1: not given */
} GtRequest;

/* From the arguments of gt_lease_create() and gt_lease_grant(). Raises what is wrong. */
extern void gt_request_of_args(FunctionCallInfo fcinfo, GtRequest *r);
/* From those of gt_lease_create_many(): all but object_id, which gt_request_set_object() enters. Both raise likewise. */
extern void gt_request_of_many(FunctionCallInfo fcinfo, GtRequest *r);
extern void gt_request_set_object(GtRequest *r, const char *object_id);
extern bool gt_request_of_json(JsonbValue *v, GtRequest *r, GtFail *f); /* from an element of gt_lease_grant_each() */

#endif
