/*
 * grpc.c
 *		gRPC calls.
 *
 * A call lives as long as its HTTP/2 stream, and longer while it is held.  It
 * is answered in one of three forms: a status alone (Trailers-Only), or
 * headers, messages and a status.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "grpc.h"
#include "grpc_codec.h"
#include "http2.h"
#include "log.h"
#include "message.h"
#include "metrics.h"

#define MAX_METHODS 64
#define MAX_EXTRA 4
#define COMPRESS_FROM 2048
#define UNSENT_LIMIT (8 * 1024 * 1024)

typedef struct Extra
{
	char	   *name;
	char	   *value;
} Extra;

struct GrpcCall
{
	Http2Stream *stream;		/* NULL: gone */
	const GrpcMethod *method;	/* NULL: refused before it was known */
	const void *caller;
	void	   *state;
	int			holds;
	bool		started;		/* the method has seen it */
	bool		finished;		/* a status was given, or nobody waits for one */
	bool		headers_sent;
	bool		input_over;
	bool		gzip_in;
	bool		gzip_out;
	int			messages;
	int64_t		deadline_us;
	int64_t		began_us;
	LoopTimer	deadline;
	FrameReader reader;
	Extra	   *headers;		/* MAX_EXTRA each; NULL: none */
	Extra	   *trailers;
};

static const GrpcMethod *methods[MAX_METHODS + 1];
static int	method_count;
static GrpcAuthenticate authenticate;
static int64_t max_message;

const Option grpc_options[] =
{
	{"max-message", OPTION_NUMBER, &max_message, "4194304", "BYTES", "the largest message that is taken, also once inflated", 1024, 1 << 28},
	OPTION_END
};

static Metric call_seconds = {"call_seconds", METRIC_HISTOGRAM, "Duration of unary calls.", .bounds = metric_latency_bounds};
static Metric code_metrics[GRPC_CODES];
static Metric method_metrics[MAX_METHODS];

void
grpc_register_metrics(void)
{
	int			i;

	for (i = 0; i < method_count; i++)
	{
		char	   *label;

		if (asprintf(&label, "%s/%s", methods[i]->service, methods[i]->name) < 0)
			continue;
		method_metrics[i] = (Metric) {"calls_total", METRIC_COUNTER, "Calls by method.", "method", label};
		metric_register(&method_metrics[i]);
	}
	for (i = 0; i < GRPC_CODES; i++)
	{
		code_metrics[i] = (Metric) {"answers_total", METRIC_COUNTER, "Calls by the status that they ended with.", "code", grpc_code_name((GrpcCode) i)};
		metric_register(&code_metrics[i]);
	}
	metric_register(&call_seconds);
}

/* ---- methods ---- */

static int
compare_methods(const GrpcMethod *a, const char *service, size_t service_len, const char *name)
{
	int			result = strncmp(a->service, service, service_len);

	if (result == 0)
		result = a->service[service_len] == '\0' ? strcmp(a->name, name) : 1;
	return result;
}

void
grpc_add_methods(const GrpcMethod *table)
{
	for (; table->service != NULL; table++)
	{
		int			i = method_count++;

		if (method_count > MAX_METHODS)
			abort();
		while (i > 0 && compare_methods(methods[i - 1], table->service, strlen(table->service), table->name) > 0)
		{
			methods[i] = methods[i - 1];
			i--;
		}
		methods[i] = table;
	}
}

const GrpcMethod *
grpc_method_at(int i)
{
	return i < method_count ? methods[i] : NULL;
}

/* Of a path "/package.Service/Method"; -1: there is none. */
static int
find_method(const char *path)
{
	const char *slash;
	int			low = 0;
	int			high = method_count - 1;

	if (path == NULL || path[0] != '/' || (slash = strchr(path + 1, '/')) == NULL)
		return -1;
	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_methods(methods[middle], path + 1, (size_t) (slash - path - 1), slash + 1);

		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return -1;
}

void
grpc_set_authenticate(GrpcAuthenticate given)
{
	authenticate = given;
}

/* ---- the call's properties ---- */

const GrpcMethod *
grpc_method(const GrpcCall *call)
{
	return call->method;
}

const char *
grpc_header(const GrpcCall *call, const char *name)
{
	return call->stream != NULL ? http2_header(call->stream, name) : NULL;
}

void
grpc_each_header(const GrpcCall *call, void (*visit) (const char *, const char *, void *), void *arg)
{
	if (call->stream != NULL)
		http2_each_header(call->stream, visit, arg);
}

Conn *
grpc_conn(const GrpcCall *call)
{
	return call->stream != NULL ? http2_conn(call->stream) : NULL;
}

const void *
grpc_caller(const GrpcCall *call)
{
	return call->caller;
}

int64_t
grpc_deadline(const GrpcCall *call)
{
	return call->deadline_us;
}

void *
grpc_state(const GrpcCall *call)
{
	return call->state;
}

void
grpc_set_state(GrpcCall *call, void *state)
{
	call->state = state;
}

bool
grpc_over(const GrpcCall *call)
{
	return call->finished;
}

size_t
grpc_unsent(const GrpcCall *call)
{
	return call->stream != NULL ? http2_unsent(call->stream) : 0;
}

void
grpc_hold(GrpcCall *call)
{
	call->holds++;
}

static void
free_extra(Extra *extra)
{
	int			i;

	for (i = 0; extra != NULL && i < MAX_EXTRA; i++)
	{
		free(extra[i].name);
		free(extra[i].value);
	}
	free(extra);
}

void
grpc_release(GrpcCall *call)
{
	if (--call->holds > 0)
		return;
	timer_stop(&call->deadline);
	frame_done(&call->reader);
	free_extra(call->headers);
	free_extra(call->trailers);
	free(call);
}

static void
add_extra(Extra **extra, const char *name, const char *value)
{
	int			i;

	if (*extra == NULL)
		*extra = calloc(MAX_EXTRA, sizeof(Extra));
	for (i = 0; *extra != NULL && i < MAX_EXTRA; i++)
	{
		if ((*extra)[i].name == NULL)
		{
			(*extra)[i].name = strdup(name);
			(*extra)[i].value = strdup(value);
			return;
		}
	}
}

void
grpc_add_header(GrpcCall *call, const char *name, const char *value)
{
	add_extra(&call->headers, name, value);
}

void
grpc_add_trailer(GrpcCall *call, const char *name, const char *value)
{
	add_extra(&call->trailers, name, value);
}

static int
append_extra(Http2Field *fields, int count, const Extra *extra)
{
	int			i;

	for (i = 0; extra != NULL && i < MAX_EXTRA && extra[i].name != NULL && extra[i].value != NULL; i++)
		fields[count++] = (Http2Field) {extra[i].name, extra[i].value};
	return count;
}

/* ---- the end of a call ---- */

/* Nothing more will be done for it; the service cleans up. */
static void
end_call(GrpcCall *call, GrpcCode code)
{
	call->finished = true;
	timer_stop(&call->deadline);
	metric_add(&code_metrics[code], 1);
	if (call->started && call->method->over != NULL)
		call->method->over(call);
	if (call->method != NULL && !(call->method->flags & (GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS)))
		metric_observe(&call_seconds, loop_now() - call->began_us);
}

static void
finish(GrpcCall *call, GrpcCode code, const char *message, const char *sqlstate, const char *detail, const char *hint)
{
	Http2Field	fields[6 + 2 * MAX_EXTRA];
	char		number[12];
	char		encoded[GRPC_ENCODED_MESSAGE];
	char		details[GRPC_ENCODED_DETAILS];
	int			count = 0;

	if (call->finished)
		return;
	if (call->stream != NULL)
	{
		if (!call->headers_sent)
		{
			fields[count++] = (Http2Field) {":status", "200"};
			fields[count++] = (Http2Field) {"content-type", "application/grpc"};
			count = append_extra(fields, count, call->headers);
		}
		snprintf(number, sizeof(number), "%d", (int) code);
		fields[count++] = (Http2Field) {"grpc-status", number};
		if (code != GRPC_OK)
		{
			grpc_encode_message(message, encoded);
			grpc_encode_details(code, message, sqlstate, detail, hint, details);
			fields[count++] = (Http2Field) {"grpc-message", encoded};
			fields[count++] = (Http2Field) {"grpc-status-details-bin", details};
		}
		count = append_extra(fields, count, call->trailers);
		if (call->headers_sent)
			http2_send_trailers(call->stream, fields, count);
		else
			http2_respond_only(call->stream, fields, count);
	}
	if (log_enabled(LOG_DEBUG))
		log_line(LOG_DEBUG, "%s/%s: %s%s%s", call->method != NULL ? call->method->service : "?",
				 call->method != NULL ? call->method->name : "?", grpc_code_name(code),
				 code != GRPC_OK ? ": " : "", code != GRPC_OK ? message : "");
	end_call(call, code);
}

void
grpc_ok(GrpcCall *call)
{
	finish(call, GRPC_OK, "", "00000", NULL, NULL);
}

void
grpc_fail(GrpcCall *call, GrpcCode code, const char *format,...)
{
	char		message[GRPC_MAX_MESSAGE + 1];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	/* The cut may have been inside of a character. */
	message[utf8_prefix(message, GRPC_MAX_MESSAGE - 1)] = '\0';
	finish(call, code, message, grpc_sqlstate_of_code(code), NULL, NULL);
}

void
grpc_fail_sql(GrpcCall *call, const char *sqlstate, const char *message, const char *detail, const char *hint)
{
	finish(call, grpc_code_of_sqlstate(sqlstate), message, sqlstate, detail, hint);
}

/* ---- messages out ---- */

static void
send_headers(GrpcCall *call)
{
	Http2Field	fields[4 + MAX_EXTRA];
	int			count = 0;

	if (call->headers_sent)
		return;
	call->headers_sent = true;
	fields[count++] = (Http2Field) {":status", "200"};
	fields[count++] = (Http2Field) {"content-type", "application/grpc"};
	fields[count++] = (Http2Field) {"grpc-accept-encoding", "identity,gzip"};
	if (call->gzip_out)
		fields[count++] = (Http2Field) {"grpc-encoding", "gzip"};
	count = append_extra(fields, count, call->headers);
	http2_respond(call->stream, fields, count);
}

void
grpc_send(GrpcCall *call, const ProtobufCMessage *message)
{
	static uint8_t *buffer;
	static size_t buffer_size;
	size_t		len;
	const uint8_t *data;
	uint8_t		prefix[5];

	if (call->finished || call->stream == NULL)
		return;
	len = protobuf_c_message_get_packed_size(message);
	if (len + 5 > buffer_size || buffer_size > 1024 * 1024)
	{
		free(buffer);
		buffer_size = len + 5 < 4096 ? 4096 : len + 5;
		buffer = malloc(buffer_size);
		if (buffer == NULL)
		{
			buffer_size = 0;
			grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
			return;
		}
	}
	if (grpc_unsent(call) > UNSENT_LIMIT)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "the client does not read its answers");
		return;
	}
	protobuf_c_message_pack(message, buffer + 5);
	send_headers(call);
	data = buffer;
	if (call->gzip_out && len >= COMPRESS_FROM)
	{
		const uint8_t *small;
		size_t		small_len;

		if (gzip_deflate(buffer + 5, len, &small, &small_len))
		{
			prefix[0] = 1;
			prefix[1] = (uint8_t) (small_len >> 24);
			prefix[2] = (uint8_t) (small_len >> 16);
			prefix[3] = (uint8_t) (small_len >> 8);
			prefix[4] = (uint8_t) small_len;
			http2_send_data(call->stream, prefix, 5);
			http2_send_data(call->stream, small, small_len);
			return;
		}
	}
	buffer[0] = 0;
	buffer[1] = (uint8_t) (len >> 24);
	buffer[2] = (uint8_t) (len >> 16);
	buffer[3] = (uint8_t) (len >> 8);
	buffer[4] = (uint8_t) len;
	http2_send_data(call->stream, data, len + 5);
}

void
grpc_answer(GrpcCall *call, const ProtobufCMessage *message)
{
	grpc_send(call, message);
	grpc_ok(call);
}

/* ---- messages in ---- */

static void
deliver(GrpcCall *call, const Frame *frame)
{
	const uint8_t *data = frame->data;
	size_t		len = frame->len;
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
		if (!gzip_inflate(data, len, (size_t) max_message, &data, &len, &code, &why))
		{
			grpc_fail(call, code, "%s", why);
			return;
		}
	}
	message = message_unpack(call->method->request, data, len, error, sizeof(error));
	if (message == NULL)
	{
		grpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", error);
		return;
	}
	call->started = true;
	call->method->message(call, message);
	message_release();
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
	while (len > 0 && !call->finished)
	{
		if (unary && call->messages > 0)
		{
			grpc_fail(call, GRPC_INTERNAL, "a unary call has one message");
			break;
		}
		if (!frame_read(&call->reader, &data, &len, (size_t) max_message, &frame, &code, &why))
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
	}
	grpc_release(call);
}

static void
receive_end(Http2Stream *stream)
{
	GrpcCall   *call = http2_data(stream);
	Frame		frame;

	call->input_over = true;
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
			grpc_add_header(call, "grpc-accept-encoding", "identity,gzip");
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

static void
receive_request(Http2Stream *stream)
{
	GrpcCall   *call;
	int			method;

	if (foreign_status(stream) != NULL)
		return;
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
	method = find_method(http2_header(stream, ":path"));
	if (method < 0)
	{
		grpc_fail(call, GRPC_UNIMPLEMENTED, "there is no method %s", http2_header(stream, ":path"));
		return;
	}
	call->method = methods[method];
	metric_add(&method_metrics[method], 1);
	if (!read_call_headers(call))
		return;
	if (authenticate != NULL)
		authenticate(call, &call->caller);
}

static void
stream_closed(Http2Stream *stream, bool completely)
{
	GrpcCall   *call = http2_data(stream);

	if (call == NULL)
		return;
	call->stream = NULL;
	if (!call->finished)
		end_call(call, GRPC_CANCELLED);
	grpc_release(call);
}

static void
drain_stream(Http2Stream *stream)
{
	GrpcCall   *call = http2_data(stream);

	if (call != NULL && !call->finished && call->method != NULL && (call->method->flags & GRPC_OPEN_ENDED))
		grpc_fail(call, GRPC_UNAVAILABLE, "the server ends this connection: connect anew");
}

/* A foreign stream has no call, and is answered when the client has said all. */
static void
data_or_nothing(Http2Stream *stream, const uint8_t *data, size_t len)
{
	if (http2_data(stream) != NULL)
		receive_data(stream, data, len);
}

static void
end_or_foreign(Http2Stream *stream)
{
	if (http2_data(stream) != NULL)
		receive_end(stream);
	else
		answer_foreign(stream);
}

void
grpc_start(void)
{
	static const Http2Handlers handlers = {receive_request, data_or_nothing, end_or_foreign, stream_closed, drain_stream};

	http2_set_handlers(&handlers);
}
