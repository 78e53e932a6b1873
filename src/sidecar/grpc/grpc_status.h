/*
 * grpc_status.h
 *		gRPC statuses: codes, how they travel, which one an SQLSTATE becomes.
 */
#ifndef GT_GRPC_STATUS_H
#define GT_GRPC_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum GrpcCode
{
	GRPC_OK, GRPC_CANCELLED, GRPC_UNKNOWN, GRPC_INVALID_ARGUMENT, GRPC_DEADLINE_EXCEEDED,
	GRPC_NOT_FOUND, GRPC_ALREADY_EXISTS, GRPC_PERMISSION_DENIED, GRPC_RESOURCE_EXHAUSTED,
	GRPC_FAILED_PRECONDITION, GRPC_ABORTED, GRPC_OUT_OF_RANGE, GRPC_UNIMPLEMENTED,
	GRPC_INTERNAL, GRPC_UNAVAILABLE, GRPC_DATA_LOSS, GRPC_UNAUTHENTICATED,
	GRPC_CODES					/* how many there are */
} GrpcCode;

extern const char *grpc_code_name(GrpcCode code);

/* The status that an SQLSTATE becomes. */
extern GrpcCode grpc_code_of_sqlstate(const char *sqlstate);

/* The SQLSTATE of a failure that did not come from SQL. */
extern const char *grpc_sqlstate_of_code(GrpcCode code);

/*
 * Length of the longest start of `text` that is at most `max` bytes and does
 * not cut a UTF-8 character.
 */
extern size_t utf8_prefix(const char *text, size_t max);

/* Put ? for the bytes of characters that were cut somewhere in the text. */
extern void utf8_mend(char *text);

/* The longest message that is sent; see grpc_status.c. */
#define GRPC_MAX_MESSAGE 299

/* Room for an encoded message and for encoded details. */
#define GRPC_ENCODED_MESSAGE 1900
#define GRPC_ENCODED_DETAILS 4096

/* grpc-message: percent-coded, at most GRPC_ENCODED_MESSAGE with the NUL. */
extern void grpc_encode_message(const char *message, char *out);

/* What else is known of a failure; NULL: not. */
typedef struct GrpcMore
{
	const char *detail;
	const char *hint;
	const char *holder;			/* the service that has the object */
	const char *retry_after;	/* seconds */
} GrpcMore;

/*
 * grpc-status-details-bin: a google.rpc.Status with an ErrorInfo whose reason
 * and metadata name the SQLSTATE; with what else is known, where it is short; a
 * BadRequest for bad values, with the field that the message begins with; a
 * RetryInfo for what is worth a retry.
 */
extern void grpc_encode_details(GrpcCode code, const char *message, const char *sqlstate,
								const GrpcMore *more, char *out);

#endif							/* GT_GRPC_STATUS_H */
