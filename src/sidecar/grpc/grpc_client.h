/*
 * grpc_client.h
 *		A small unary gRPC client over libcurl.
 *
 * Used by the command line.  A client belongs to one thread and makes one call
 * at a time, each on a connection of its own.  Messages go in and out as
 * packed protobuf bytes: this file knows nothing of any service.
 */
#ifndef GT_GRPC_CLIENT_H
#define GT_GRPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc/grpc_status.h"

typedef struct GrpcClient GrpcClient;

typedef struct GrpcClientOptions
{
	const char *endpoint;		/* http://host:port (cleartext HTTP/2) or https://host:port */
	const char *token;			/* sent as a bearer token; NULL: none */
	const char *tls_ca;			/* file of trusted certificates; NULL: the system's */
	const char *tls_cert;		/* client certificate and its key; NULL: none */
	const char *tls_key;
} GrpcClientOptions;

/* What a call came to.  message is never NULL after grpc_client_call(). */
typedef struct GrpcReply
{
	GrpcCode	status;
	char	   *message;		/* the server's words, or what kept us from it */
	char	   *hint;			/* what the server says to do about it; NULL: nothing */
	const char *wants;			/* the scheme that the port may be of; NULL: no guess */
	bool		reached;		/* a gRPC server answered; else the outcome is unknown */
	uint8_t    *data;			/* the answer's packed bytes; only with GRPC_OK */
	size_t		len;
} GrpcReply;

/* Asked now and then while a call waits; true gives the call up. */
typedef bool (*GrpcGiveUp) (void *arg);

/* Is this an endpoint that a client can be opened for?  Else *error says why (static text). */
extern bool grpc_client_is_endpoint(const char *endpoint, const char **error);

/*
 * Prepare a client.  Nothing is connected yet.  NULL when the endpoint is no
 * usable URL or memory is short; *error then says why (static text).
 */
extern GrpcClient *grpc_client_open(const GrpcClientOptions *options,
									const char **error);

/*
 * Have `give_up` asked during every later call: once a second, and whenever one
 * of the watched descriptors can be read, which `give_up` then has to do.
 */
#define GRPC_CLIENT_WATCHED 4
extern void grpc_client_set_give_up(GrpcClient *client, GrpcGiveUp give_up, void *arg,
									const int *watched, int count);

/*
 * Call `path` ("/package.Service/Method") with a packed message and wait for
 * the answer, at most `timeout_ms`; the server is told that limit too.
 * `request_key` goes as idempotency-key, NULL: none.
 */
extern void grpc_client_call(GrpcClient *client, const char *path,
							 const char *request_key,
							 const uint8_t *data, size_t len,
							 long timeout_ms, GrpcReply *reply);

/* Free what a reply holds, not the reply itself. */
extern void grpc_reply_free(GrpcReply *reply);

extern void grpc_client_close(GrpcClient *client);

#endif							/* GT_GRPC_CLIENT_H */
