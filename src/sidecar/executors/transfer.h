/*
 * transfer.h
 *		One request through libcurl.
 */
#ifndef GT_EXECUTORS_TRANSFER_H
#define GT_EXECUTORS_TRANSFER_H

#include <curl/curl.h>
#include <stdbool.h>

#include "executors/context.h"

/* How a call goes to its target. */
typedef enum TransferMode
{
	TRANSFER_HTTP,				/* by HTTP/1.1 */
	TRANSFER_HTTP2,				/* for gRPC, which tells what came of it behind the body */
	TRANSFER_CONNECT,			/* libcurl connects, and that is all */
	TRANSFER_NONE				/* not through libcurl */
} TransferMode;

extern bool transfer_start(Context *context, Call *call, TransferMode mode);
extern void transfer_end(Context *context, Call *call);

/* The call that a handle of libcurl works for. */
extern Call *transfer_call(CURL *easy);

/* Set host_name and port by call->url; false when it is none of http or https. */
extern bool transfer_split_url(Call *call);

/* Text for a request that failed before there was an answer. */
extern void transfer_error(Call *call, CURLcode code);

/* A URL of http or https, as libcurl reads it and nobody reads it otherwise. */
typedef struct Url
{
	bool		tls;
	bool		user;			/* it has one in it */
	char	   *host;			/* without brackets */
	int			port;
	const char *path;			/* in the text, with the query; perhaps "" */
} Url;

/* False: it is none.  To be freed otherwise. */
extern bool url_parse(const char *text, Url *parts);
extern void url_free(Url *parts);

#endif							/* GT_EXECUTORS_TRANSFER_H */
