/*
 * grpc_receive.c
 *		What clients send: the headers of a call, its messages, its end.
 */
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "base/message.h"
#include "grpc/grpc_internal.h"

#define UNFINISHED_US 30000000

/* ---- messages ---- */

/* What a message takes while it is looked at counts, too: of what it says, the method keeps more. */
static void
deliver(GrpcCall *call, const Frame *frame)
{
	const uint8_t *data = frame->data;
	size_t		len = frame->len;
	size_t		held = 0;
	const ProtobufCMessage *message;
	char		error[256];
	GrpcCode	code;
	const char *why;

	if (frame->compressed)
	{
		if (!call->gzip_in)
		{
			grpc_fail(call, GRPC_INTERNAL, "the message is compressed, but no grpc-encoding was given");
			return;
		}
		if (!gzip_inflate(data, len, (size_t) grpc_max_message, call->party, &data, &len, &code, &why))
		{
			grpc_fail(call, code, "%s", why);
			return;
		}
		party_recharge(call->party, &held, len);
	}
	message = message_unpack(call->method->request, (call->method->flags & GRPC_BY_ELEMENT) != 0, data, len,
							 party_room(call->party), error, sizeof(error));
	if (message != NULL)
	{
		party_recharge(call->party, &held, held + message_size());
		call->started = true;
		call->method->message(call, message);
		message_release();
	}
	else if (error[0] == '\0')
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "%s", grpc_too_much);
	else
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", error);
	party_recharge(call->party, &held, 0);
}

/* Who begins messages must end them: what is kept of them is kept from the others. */
static void
stays_unfinished(void *arg)
{
	grpc_fail(arg, GRPC_DEADLINE_EXCEEDED, "a message began %d s ago and is not complete", UNFINISHED_US / 1000000);
}

/*
 * The message of a unary call waits for the end of the client's stream, which
 * is in the same DATA frame as a rule.  A second one is an error.
 */
static void
receive_data(Http2Stream *stream, const uint8_t *data, size_t len)
{
	GrpcCall   *call = http2_data(stream);
	bool		unary = call->method != NULL && !(call->method->flags & GRPC_CLIENT_STREAMS);
	Frame		frame;
	GrpcCode	code = GRPC_OK;
	const char *why;

	grpc_hold(call);
	if (len > 0 && !call->finished && !timer_running(&call->unfinished))
		timer_start_patient(&call->unfinished, UNFINISHED_US, stays_unfinished, call);
	while (len > 0 && !call->finished)
	{
		if (unary && call->messages > 0)
		{
			grpc_fail(call, GRPC_INTERNAL, "a unary call has one message");
			break;
		}
		if (!frame_read(&call->reader, &data, &len, (size_t) grpc_max_message, &frame, &code, &why))
		{
			if (code != GRPC_OK)
				grpc_fail(call, code, "%s", why);
			break;
		}
		call->messages++;
		if (unary)
		{
			if (!frame_keep(&call->reader, &frame))
			{
				grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "the server has too many unfinished messages");
				break;
			}
			continue;
		}
		deliver(call, &frame);
		frame_done(&call->reader);
		/* The next one has its time. */
		timer_stop(&call->unfinished);
		if (len > 0 && !call->finished)
			timer_start_patient(&call->unfinished, UNFINISHED_US, stays_unfinished, call);
	}
	grpc_release(call);
}

static void
receive_end(Http2Stream *stream)
{
	GrpcCall   *call = http2_data(stream);
	Frame		frame;

	call->input_over = true;
	timer_stop(&call->unfinished);
	if (call->finished)
		return;
	grpc_hold(call);
	if (call->method->flags & GRPC_CLIENT_STREAMS)
	{
		call->started = true;
		if (frame_partial(&call->reader))
			grpc_fail(call, GRPC_INTERNAL, "the last message is incomplete");
		else if (call->method->half_closed != NULL)
			call->method->half_closed(call);
	}
	else if (call->messages == 0)
		grpc_fail(call, GRPC_INTERNAL, frame_partial(&call->reader) ? "the message is incomplete" : "the call has no message");
	else
	{
		frame_kept(&call->reader, &frame);
		deliver(call, &frame);
		frame_done(&call->reader);
	}
	grpc_release(call);
}

static void
exceeded_deadline(void *arg)
{
	grpc_fail(arg, GRPC_DEADLINE_EXCEEDED, "the deadline that the client gave (grpc-timeout) has passed");
}

/*
 * HTTP's own ways to say no, for clients that do not speak gRPC: the status,
 * or NULL.
 */
static const char *
foreign_status(const Http2Stream *stream)
{
	const char *type = http2_header(stream, "content-type");
	const char *method = http2_header(stream, ":method");

	if (type == NULL || strncmp(type, "application/grpc", 16) != 0 ||
		(type[16] != '\0' && type[16] != ';' && strncmp(type + 16, "+proto", 6) != 0))
		return "415";
	return method != NULL && strcmp(method, "POST") == 0 ? NULL : "405";
}

static void
answer_foreign(Http2Stream *stream)
{
	static const char text[] = "This is a gRPC server: POST with content-type application/grpc is expected.\n";
	Http2Field	fields[3] = {{":status", foreign_status(stream)}, {"content-type", "text/plain"}, {"allow", "POST"}};

	http2_respond(stream, fields, 3);
	http2_send_data(stream, (const uint8_t *) text, sizeof(text) - 1);
	http2_send_trailers(stream, NULL, 0);
}

/* Read grpc-timeout and grpc-encoding; false after a failure. */
static bool
read_call_headers(GrpcCall *call)
{
	const char *timeout = grpc_header(call, "grpc-timeout");
	const char *encoding = grpc_header(call, "grpc-encoding");
	int64_t		us;

	call->gzip_out = list_has(grpc_header(call, "grpc-accept-encoding"), "gzip");
	if (encoding != NULL && strcmp(encoding, "identity") != 0)
	{
		if (strcmp(encoding, "gzip") != 0)
		{
			grpc_fail(call, GRPC_UNIMPLEMENTED, "grpc-encoding \"%s\" is not supported, only gzip is", encoding);
			return false;
		}
		call->gzip_in = true;
	}
	if (timeout != NULL)
	{
		if (!parse_grpc_timeout(timeout, &us))
		{
			grpc_fail(call, GRPC_INTERNAL, "malformed grpc-timeout \"%s\"", timeout);
			return false;
		}
		call->deadline_us = loop_now() + us;
		timer_start(&call->deadline, us, exceeded_deadline, call);
	}
	return true;
}

/* What is it, and who calls?  Fails the call where that cannot be said. */
static void
identify(GrpcCall *call, GrpcIdentity *who)
{
	const char *path = http2_header(call->stream, ":path");

	if (!call_find_method(call, path))
		grpc_fail(call, GRPC_UNIMPLEMENTED, "there is no method %.200s", path);
	else if (read_call_headers(call) && (grpc_authenticate == NULL || grpc_authenticate(call, who)))
		call->caller = who->caller;
}

/*
 * Let the stream in, also where it has been answered: the client need not take
 * the answer.  Who is not known, or needs not be, takes nothing from those who
 * are.  who NULL: nobody.
 */
static bool
admit(Http2Stream *stream, const GrpcIdentity *who)
{
	bool		known = who != NULL && who->caller != NULL && who->name != NULL;
	Party	   *party = known ? party_of_caller(who->name) : party_hold(http2_peer(stream));
	bool		admitted = http2_admit(stream, party, known || (who != NULL && !who->asked), known);

	party_release(party);
	return admitted;
}

static void
receive_request(Http2Stream *stream)
{
	GrpcCall   *call;
	GrpcIdentity who = {NULL, NULL, false};

	if (foreign_status(stream) != NULL)
	{
		answer_foreign(stream);
		admit(stream, NULL);
		return;
	}
	call = calloc(1, sizeof(GrpcCall));
	if (call == NULL)
	{
		http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
		return;
	}
	call->stream = stream;
	call->holds = 1;
	call->began_us = loop_now();
	http2_set_data(stream, call);
	identify(call, &who);
	if (admit(stream, call->finished ? NULL : &who))
		call->reader.party = call->party = party_hold(http2_party(stream));
}

static void
stream_closed(Http2Stream *stream, bool completely)
{
	GrpcCall   *call = http2_data(stream);

	if (call == NULL)
		return;
	call->stream = NULL;
	if (!call->finished)
		call_end(call, GRPC_CANCELLED);
	grpc_release(call);
}

static void
drain_stream(Http2Stream *stream)
{
	GrpcCall   *call = http2_data(stream);

	if (call != NULL && !call->finished && call->method != NULL && (call->method->flags & GRPC_OPEN_ENDED))
		grpc_fail(call, GRPC_UNAVAILABLE, "the server ends this connection: connect anew");
}

/* A foreign stream has no call, and was answered. */
static void
data_or_nothing(Http2Stream *stream, const uint8_t *data, size_t len)
{
	if (http2_data(stream) != NULL)
		receive_data(stream, data, len);
}

static void
end_or_nothing(Http2Stream *stream)
{
	if (http2_data(stream) != NULL)
		receive_end(stream);
}

typedef struct Judge
{
	const void *(*judge) (GrpcCall *call);
} Judge;

static void
judge_stream(Http2Stream *stream, void *arg)
{
	GrpcCall   *call = http2_data(stream);

	if (call != NULL && !call->finished && call->caller != NULL)
		call->caller = ((const Judge *) arg)->judge(call);
}

void
grpc_each_caller(Conn *conn, const void *(*judge) (GrpcCall *call))
{
	Judge		arg = {judge};

	http2_each_stream(conn, judge_stream, &arg);
}

void
grpc_start(void)
{
	static const Http2Handlers handlers = {receive_request, data_or_nothing, end_or_nothing, stream_closed, drain_stream};

	http2_set_handlers(&handlers);
}
