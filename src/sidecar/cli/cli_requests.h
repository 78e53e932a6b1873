/*
 * cli_requests.h
 *		Requests of garbagetruck.v1 that several commands make.
 */
#ifndef GT_CLI_REQUESTS_H
#define GT_CLI_REQUESTS_H

#include "cli/cli.h"
#include "distributed_gc.pb-c.h"
#include "garbagetruck_v1.pb-c.h"

/*
 * The Create that the arguments ask for; `type` is borrowed.
 */
extern Garbagetruck__V1__CreateRequest *cli_create_request(const Cli *cli, char *type);
extern void cli_free_create_request(Garbagetruck__V1__CreateRequest *request);

/*
 * Renew one lease, -1 ms: by its own duration.  NULL when it was not renewed:
 * *reply then says why, a lease that is over as NOT_FOUND, FAILED_PRECONDITION
 * or PERMISSION_DENIED like RenewLease.
 */
extern Garbagetruck__V1__RenewResult *cli_renew(Cli *cli, const char *lease_id,
												int64_t duration_ms,
												long timeout_ms, GrpcReply *reply);

/* grpc://host:port and grpcs:// name a CleanupService; without that: a POST. */
extern bool cli_endpoint_is_grpc(const char *endpoint);

/* The http(s) URL of a --cleanup-endpoint, allocated. */
extern char *cli_endpoint_url(const char *endpoint);

#endif							/* GT_CLI_REQUESTS_H */
