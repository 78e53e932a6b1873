/*
 * service_queue.h
 *		What Claim and WatchCleanups share.
 */
#ifndef GT_SERVICE_QUEUE_H
#define GT_SERVICE_QUEUE_H

#include "base/array.h"
#include "garbagetruck_v1.pb-c.h"
#include "services/service_poll.h"
#include "services/services.h"

#define MAX_CLAIM 1000
#define CLAIM_PARAMS 5

/*
 * gt_claim($1 handlers, $2 max_items, $3 visibility), but at most as much as
 * surely fits into $4 bytes, and one; cleanup_read() reads its rows.  Their last
 * columns are the max_items that it was and the bytes that one may have.  When
 * the database's identity is not $5 nothing is claimed: claim_came() says so.
 */
extern DbStatement claim_statement;

/* Did the claim come to something, rows or none?  False after it has failed the call. */
extern bool claim_came(GrpcCall *call, const DbOutcome *outcome);

typedef struct CleanupRow
{
	Garbagetruck__V1__Cleanup message;
	char		lease_id[UUID_SIZE];
	Google__Protobuf__Timestamp claimed_until;
} CleanupRow;

extern void cleanup_read(const PGresult *result, int i, CleanupRow *row);

/*
 * The handlers to claim of, as an array's text, or NULL for all; the caller
 * frees it.  False after it has failed the call: one of them is not the
 * caller's.
 */
extern bool claim_handlers(GrpcCall *call, char *const *names, size_t count, char **param);

/* Parameters of a token; the text lives in the struct. */
typedef struct OutcomeParams
{
	const char *params[6];
	char		cleanup_id[24],
				attempt[16],
				delay[INTERVAL_SIZE];
	ArrayParam	handlers;
} OutcomeParams;

/* NULL, or what is wrong with it. */
extern const char *outcome_params(GrpcCall *call, const Garbagetruck__V1__Outcome *outcome, OutcomeParams *out);
extern void outcome_params_free(OutcomeParams *params);

#endif							/* GT_SERVICE_QUEUE_H */
