/*
 * kinds.h
 *		The kinds of executors, and how each is carried out.
 */
#ifndef GT_EXECUTORS_KINDS_H
#define GT_EXECUTORS_KINDS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executors/context.h"
#include "executors/executors.h"
#include "executors/transfer.h"
#include "executors/util.h"

/*
 * How a kind is carried out.  Each is a step that may fail the attempt, with
 * false and call->error.
 */
typedef struct ExecutorOps
{
	/* From the claim to url, host_name, port and target: no I/O. */
	bool		(*prepare) (Context *context, Call *call);

	/* Complete method, headers and body, now that it starts. */
	bool		(*start) (Context *context, Call *call);

	/* The answer is there: was it success? */
	bool		(*judge) (Context *context, Call *call, long status);

	/* Free call->work; may be NULL. */
	void		(*cleanup) (Call *call);

	/*
	 * Would every call of a handler with this command lack something?  Then
	 * `why` is advice.  May be NULL.
	 */
	bool		(*lacks) (Context *context, const char *command, char *why, size_t why_size);

	/* A target, for handlers that leave all of it to leases. */
	const char *sample;

	TransferMode transfer;

	/*
	 * Of TRANSFER_CONNECT: it is connected; go on where possible, after which the
	 * call may have ended; what to wait for, if anything.
	 */
	void		(*connected) (Context *context, Call *call);
	void		(*step) (Context *context, Call *call);
	bool		(*wants_poll) (const Call *call, struct curl_waitfd *fd);

	/*
	 * Of TRANSFER_NONE: take what has ended; take back what has not begun, false:
	 * it can not be ended any more; calls at once, whatever the settings say.
	 */
	void		(*collect) (Context *context);
	bool		(*withdraw) (Context *context, const Call *call);
	int			at_once;
} ExecutorOps;

extern const ExecutorOps *const kind_ops[EXEC_KINDS];

/*
 * The signature of a webhook (Standard Webhooks) for the header of that name,
 * with each of the secrets, which are separated by spaces.  False: one of them
 * begins with "whsec_" and is no base64, or memory is short.
 */
extern bool http_sign(const char *secrets, const char *id, const char *timestamp,
					  const void *body, size_t len, Buffer *signature);

/* Milliseconds from `now` (seconds since 1970) until what a Retry-After says; 0: nothing that can be read. */
extern int64_t http_retry_after(const char *text, int64_t now);

extern const ExecutorOps http_ops;
extern const ExecutorOps grpc_ops;
extern const ExecutorOps s3_ops;
extern const ExecutorOps azure_ops;
extern const ExecutorOps file_ops;
extern const ExecutorOps redis_ops;

#endif							/* GT_EXECUTORS_KINDS_H */
