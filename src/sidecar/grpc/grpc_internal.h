/*
 * grpc_internal.h
 *		What grpc.c and grpc_receive.c share: a call.
 */
#ifndef GT_GRPC_INTERNAL_H
#define GT_GRPC_INTERNAL_H

#include "grpc/grpc.h"
#include "grpc/grpc_codec.h"
#include "http2/http2.h"
#include "net/loop.h"

#define MAX_EXTRA 4

typedef struct Extra
{
	char	   *name;
	char	   *value;
} Extra;

struct GrpcCall
{
	Http2Stream *stream;		/* NULL: gone */
	const GrpcMethod *method;	/* NULL: refused before it was known */
	const void *caller;
	Party	   *party;
	void	   *state;
	int			holds;
	bool		started;		/* the method has seen it */
	bool		finished;		/* a status was given, or nobody waits for one */
	bool		headers_sent;
	bool		input_over;
	bool		gzip_in;
	bool		gzip_out;
	int			messages;
	int64_t		deadline_us;
	int64_t		began_us;
	LoopTimer	deadline;
	LoopTimer	unfinished;		/* runs while a message is incomplete, or its call's only one is without an end */
	FrameReader reader;
	Extra	   *headers;		/* MAX_EXTRA each; NULL: none */
	Extra	   *trailers;
};

/* ---- grpc.c ---- */

extern int64_t grpc_max_message;
extern GrpcAuthenticate grpc_authenticate;

/* Note the method of a path in the call; false: there is none. */
extern bool call_find_method(GrpcCall *call, const char *path);

/* Nothing more will be done for it; the service cleans up. */
extern void call_end(GrpcCall *call, GrpcCode code);

#endif							/* GT_GRPC_INTERNAL_H */
