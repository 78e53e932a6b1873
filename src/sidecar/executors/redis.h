/*
 * redis.h
 *		Keys of redis.
 */
#ifndef GT_EXECUTORS_REDIS_H
#define GT_EXECUTORS_REDIS_H

#include <stddef.h>
#include <stdint.h>

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
