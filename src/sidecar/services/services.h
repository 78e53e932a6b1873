/*
 * services.h
 *		The services, and what they share.
 *
 * Each service is a table of methods (grpc.h) whose functions check a request,
 * call one SQL statement and make the answer of its rows.  A unary call's
 * state is the SQL call that it waits for.
 */
#ifndef GT_SERVICES_H
#define GT_SERVICES_H

#include "db/database.h"
#include "executors/executors.h"
#include "grpc/grpc.h"
#include "services/callers.h"
#include "services/values.h"

extern const GrpcMethod gc_methods[];
extern const GrpcMethod v1_methods[];
extern const GrpcMethod health_methods[];
extern const GrpcMethod reflection_methods[];

/* --cleanup, --allow-target and what else the services read. */
extern const Option services_options[];

/* Add all methods; to be called once, before grpc_start(). */
extern bool services_start(char *error, size_t error_size);

/* Say which handlers of --cleanup are none, once the database answers. */
extern void services_check_cleanups(void);

/* The server drains: health says NOT_SERVING. */
extern void health_set_serving(bool serving);

/* For development: what is on this machine may be a target. */
extern void services_allow_loopback(void);

/* What leases may name as targets (--allow-target). */
extern const AllowList *services_allow_list(void);

/* --cleanup's handler of a type; NULL: it has none. */
extern const char *cleanup_of_type(const char *object_type);

/*
 * Have a unary call wait for SQL.  `done` gets the call as its argument; it is
 * not called once the call is over.  `route` as in DbHow.
 */
extern void call_sql(GrpcCall *call, DbStatement *statement, const char *const *params,
					 uint64_t route, bool repeatable, DbDone done);

/* The same for reading what may be some megabytes. */
extern void call_sql_large(GrpcCall *call, DbStatement *statement, const char *const *params, DbDone done);

/* How a call goes to SQL: with its deadline, for its caller. */
extern DbHow call_how(const GrpcCall *call);

/* `over` of every method that uses call_sql(). */
extern void call_sql_over(GrpcCall *call);

/*
 * What each `done` begins with: the call no longer waits.  False after it has
 * failed the call, for which the outcome has the reason.
 */
extern bool call_sql_done(GrpcCall *call, const DbOutcome *outcome);

/* A failed outcome's message, completed in the buffer where its detail is what one wants to know. */
#define PROBLEM_SIZE 700
extern const char *outcome_problem(const DbOutcome *outcome, char *buffer);

/* Fail the call with a failed outcome; `message` as outcome_problem() or the like gave it. */
extern void call_fail_outcome(GrpcCall *call, const DbOutcome *outcome, const char *message);

/*
 * The parameter of a duration, NULL when it is absent or zero.  False after it
 * has failed the call: it is negative, or out of all range.
 */
extern bool read_duration(GrpcCall *call, const char *field, const Google__Protobuf__Duration *duration,
						  char *buffer, const char **param);

/*
 * Clients take messages of 4 MiB unless they were told otherwise.  Answers of
 * many rows end before: a page gets shorter, a claim takes less.
 */
#define ANSWER_MOST (4 * 1024 * 1024 - 8192)

/*
 * As many of the rows of `from`, whose alias is g, as fit into an answer, and
 * one: of a thousand large ones the rest shall not even be sent to us.  g.total
 * is how many there are.
 */
#define ROWS_THAT_FIT(from, order) \
	"(SELECT * FROM (SELECT s.*, sum(s.size) OVER (ORDER BY s.lease_id " order ") - s.size AS before, count(*) OVER () AS total" \
	" FROM (SELECT g.*, 200 + octet_length(g.object_id) + octet_length(g.service_id)" \
	" + coalesce(octet_length(g.payload::text), 0) + coalesce(octet_length(g.metadata::text), 0) AS size FROM " from ") s) s" \
	" WHERE s.before < 4186112) g"

/* What a repeated message adds to an answer. */
extern size_t answer_share(const ProtobufCMessage *message);

extern uint64_t route_of_object(const char *object_type, const char *object_id);
extern uint64_t route_of_lease(const char *lease_id);

/* Fail the call as for an unknown lease. */
extern void fail_unknown_lease(GrpcCall *call, const char *lease_id);

/*
 * Parameters for statements that show a named caller only its own services'
 * leases: its name, or NULL.  They judge by
 *		($n IS NULL OR service_id = $n OR starts_with(service_id, $n || '/'))
 */
#define OWN_SERVICE(param) \
	"(" param "::text IS NULL OR g.service_id = " param " OR pg_catalog.starts_with(g.service_id, " param " || '/'))"

/* ---- methods of garbagetruck.v1, by file ---- */

/* service_renew.c */
extern void v1_keep_alive(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_keep_alive_end(GrpcCall *call);
extern void v1_keep_alive_over(GrpcCall *call);
extern void v1_renew_batch_over(GrpcCall *call);
extern void v1_renew_batch(GrpcCall *call, const ProtobufCMessage *message);

/* service_create.c */
extern void v1_create(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_create_batch(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_create_batch_over(GrpcCall *call);

/* service_queue.c */
extern void v1_claim(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_claim_over(GrpcCall *call);
extern void v1_ack(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_nack(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_extend(GrpcCall *call, const ProtobufCMessage *message);

/* service_admin.c */
extern void v1_redrive(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_pause(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_resume(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_forecast(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_health(GrpcCall *call, const ProtobufCMessage *message);

/* service_watch.c */
extern void v1_watch(GrpcCall *call, const ProtobufCMessage *message);
extern void v1_watch_end(GrpcCall *call);
extern void v1_watch_over(GrpcCall *call);

#endif							/* GT_SERVICES_H */
