/*-------------------------------------------------------------------------
 *
 * request.h
 *	  What a caller asks for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_REQUEST_H
#define GT_REQUEST_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "base/fail.h"

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

extern bool gt_request_check_object(const GtRequest *r, GtFail *f);	/* does it name one? */
extern bool gt_request_check(GtRequest *r, GtFail *f);
extern void gt_request_of_args(FunctionCallInfo fcinfo, bool with_key, GtRequest *r);
extern bool gt_request_of_json(GtRequest *r, JsonbValue *v, GtFail *f);

#endif
