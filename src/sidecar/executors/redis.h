/*
 * redis.h
 *		Keys of redis.
 */
#ifndef GT_EXECUTORS_REDIS_H
#define GT_EXECUTORS_REDIS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executors/context.h"

extern bool redis_prepare(Context *context, Call *call);
extern bool redis_start(Context *context, Call *call);

/* libcurl has connected: go on with the protocol. */
extern void redis_connected(Context *context, Call *call);

/* Go on if possible; the call may have ended after this. */
extern void redis_step(Context *context, Call *call);
extern bool redis_wants_poll(const Call *call, struct curl_waitfd *fd);
extern void redis_cleanup(Call *call);

/* One RESP2 reply.  Returns its length, 0: not all there, -1: no reply. */
typedef struct RedisReply
{
	char		type;			/* + - : $ */
	const char *text;			/* of + - $; points into the input */
	size_t		text_len;
	int64_t		integer;		/* of : */
} RedisReply;

extern int	redis_parse(const char *data, size_t len, RedisReply *reply);

#endif							/* GT_EXECUTORS_REDIS_H */
