/*
 * grpc.h
 *		gRPC calls on HTTP/2 streams: methods, messages, deadlines, statuses.
 *
 * A service is a table of methods.  Each message of a call is handed to its
 * method's `message`; the method answers with grpc_send() and grpc_finish(),
 * now or later.  A call that something asynchronous refers to is held
 * (grpc_hold) until that has let go.
 */
#ifndef GT_GRPC_H
#define GT_GRPC_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/options.h"
#include "grpc/grpc_status.h"
#include "net/net.h"
#include "net/party.h"

typedef struct GrpcCall GrpcCall;

typedef enum GrpcMethodFlags
{
	GRPC_CLIENT_STREAMS = 1,
	GRPC_SERVER_STREAMS = 2,
	GRPC_PUBLIC = 4,			/* needs no token */
	GRPC_ADMIN = 8,				/* a named caller needs `admin` */
	GRPC_OPEN_ENDED = 16,		/* never ends by itself: ended when the server drains */
	GRPC_BY_ELEMENT = 32		/* the request's elements are judged one by one: message_fault() */
} GrpcMethodFlags;

typedef struct GrpcMethod
{
	const char *service;		/* "grpc.health.v1.Health" */
	const char *name;			/* "Check" */
	const ProtobufCMessageDescriptor *request;
	unsigned	flags;

	/*
	 * A message came: the only one of a unary call, after the client has sent
	 * all; each one of a streaming call.  It is gone when this returns.
	 */
	void		(*message) (GrpcCall *call, const ProtobufCMessage *message);

	/* The client will send no more.  Streaming calls only; may be NULL. */
	void		(*half_closed) (GrpcCall *call);

	/*
	 * The call is over, in whatever way: its state is to be freed.  May be
	 * NULL.  Called once, for calls that got as far as `message` or
	 * `half_closed`.
	 */
	void		(*over) (GrpcCall *call);
} GrpcMethod;

/* Tables end with a method without a service. */
extern void grpc_add_methods(const GrpcMethod *methods);

/* All that were added, for reflection and health; NULL at the end. */
extern const GrpcMethod *grpc_method_at(int i);

/* Who calls. */
typedef struct GrpcIdentity
{
	const void *caller;			/* what grpc_caller() returns */
	const char *name;			/* NULL: none */
	bool		asked;			/* callers have names here, but for methods that need none */
} GrpcIdentity;

/*
 * Who calls?  Returns false after it has finished the call (UNAUTHENTICATED).
 * NULL: nobody is asked.
 */
typedef bool (*GrpcAuthenticate) (GrpcCall *call, GrpcIdentity *who);
extern void grpc_set_authenticate(GrpcAuthenticate authenticate);

/* Take over the streams of http2.h.  Call once, after adding the methods. */
extern void grpc_start(void);

/*
 * Judge again who calls over a connection: `judge` gives what the caller is now,
 * of the same name, or NULL after it has failed the call.
 */
extern void grpc_each_caller(Conn *conn, const void *(*judge) (GrpcCall *call));

extern const Option grpc_options[];
extern void grpc_register_metrics(void);

extern const GrpcMethod *grpc_method(const GrpcCall *call);
extern const char *grpc_header(const GrpcCall *call, const char *name);
extern Conn *grpc_conn(const GrpcCall *call);
extern const void *grpc_caller(const GrpcCall *call);

/* For whom memory and SQL calls of it are reckoned; referred to as long as the call is there. */
extern Party *grpc_party(const GrpcCall *call);

/*
 * Reckon memory of the call's state, before it is allocated, until its stream is
 * over or it is given back; false after it has failed the call: too much.
 */
extern bool grpc_charge(GrpcCall *call, size_t bytes);
extern void grpc_give_back(GrpcCall *call, size_t bytes);

/* loop_now() of the end of the client's patience; 0: it has no end. */
extern int64_t grpc_deadline(const GrpcCall *call);

extern void *grpc_state(const GrpcCall *call);
extern void grpc_set_state(GrpcCall *call, void *state);

/* Finished, cancelled or disconnected: there is nobody to answer. */
extern bool grpc_over(const GrpcCall *call);

/* Keep the call's memory beyond its end.  The service's `over` is not delayed. */
extern void grpc_hold(GrpcCall *call);
extern void grpc_release(GrpcCall *call);

/* Additional fields of the answer's headers and trailers, before they leave. */
extern void grpc_add_header(GrpcCall *call, const char *name, const char *value);
extern void grpc_add_trailer(GrpcCall *call, const char *name, const char *value);

/* Send a message.  Nothing happens when the call is over. */
extern void grpc_send(GrpcCall *call, const ProtobufCMessage *message);

/* Bytes of messages that the client has not taken yet. */
extern size_t grpc_unsent(const GrpcCall *call);

/* End the call. */
extern void grpc_ok(GrpcCall *call);
extern void grpc_fail(GrpcCall *call, GrpcCode code, const char *format,...)
			__attribute__((format(printf, 3, 4)));
extern void grpc_fail_sql(GrpcCall *call, const char *sqlstate, const char *message, const GrpcMore *more);

/* Send the one message of a unary call, and end it. */
extern void grpc_answer(GrpcCall *call, const ProtobufCMessage *message);

#endif							/* GT_GRPC_H */
