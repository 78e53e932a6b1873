/*
 * callers.h
 *		Who calls, and what a caller may do.
 *
 * Callers have names when there is a token file or a CA of client
 * certificates; without either everybody may do everything that the sidecar's
 * database role may.  The name is a service id S: its caller acts as service S
 * and as S/anything.
 */
#ifndef GT_CALLERS_H
#define GT_CALLERS_H

#include "grpc/grpc.h"

/*
 * Read the token file (NULL: there is none): lines of
 * `TOKEN SERVICE_ID [claim=H1,H2] [admin]`.  A TOKEN of `-` gives rights to
 * the client certificate of that name.  False: `error` says why, and what was
 * read before stays.
 */
extern bool callers_load(const char *token_file, bool certificates, char *error, size_t error_size);

/* For grpc_set_authenticate(). */
extern bool callers_authenticate(GrpcCall *call, GrpcIdentity *who);

/* For grpc_each_caller(), after a reload: what a token or certificate has lost its open calls lose. */
extern const void *callers_judge(GrpcCall *call);

/* The caller's name; NULL: callers have none here. */
extern const char *caller_name(const GrpcCall *call);

/* May it act as that service?  False: the call has been failed. */
extern bool caller_acts_as(GrpcCall *call, const char *service_id);

/* Is `service_id` one that the caller may see? */
extern bool caller_owns(const GrpcCall *call, const char *service_id);

/* Has its line in the token file `admin`? */
extern bool caller_is_admin(const GrpcCall *call);

/* May it claim of that handler? */
extern bool caller_claims(const GrpcCall *call, const char *handler);

/* The handlers that it may claim of; "*" among them is all of them. */
extern int	caller_handlers(const GrpcCall *call, const char *const **handlers);

#endif							/* GT_CALLERS_H */
