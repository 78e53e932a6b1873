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

#include "base/log.h"
#include "base/metrics.h"
#include "grpc/grpc_internal.h"

#define MAX_METHODS 64
#define COMPRESS_FROM 2048
#define UNSENT_LIMIT (8 * 1024 * 1024)

static const GrpcMethod *methods[MAX_METHODS + 1];
static int	method_count;
GrpcAuthenticate grpc_authenticate;
int64_t		grpc_max_message;

const Option grpc_options[] =
{
	{"max-message", OPTION_NUMBER, &grpc_max_message, "4194304", "BYTES", "the largest message that is taken, also once inflated", 1024, 1 << 28},
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

bool
call_find_method(GrpcCall *call, const char *path)
{
	int			i = find_method(path);

	if (i < 0)
		return false;
	call->method = methods[i];
	metric_add(&method_metrics[i], 1);
	return true;
}

void
grpc_set_authenticate(GrpcAuthenticate given)
{
	grpc_authenticate = given;
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

Party *
grpc_party(const GrpcCall *call)
{
	return call->party;
}

bool
grpc_charge(GrpcCall *call, size_t bytes)
{
	if (call->stream == NULL || http2_charge(call->stream, bytes))
		return true;
	grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "%s", grpc_too_much);
	return false;
}

void
grpc_give_back(GrpcCall *call, size_t bytes)
{
	if (call->stream != NULL)
		http2_give_back(call->stream, bytes);
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
	timer_stop(&call->unfinished);
	frame_done(&call->reader);
	party_release(call->party);
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

void
call_end(GrpcCall *call, GrpcCode code)
{
	call->finished = true;
	timer_stop(&call->deadline);
	timer_stop(&call->unfinished);
	frame_done(&call->reader);
	metric_add(&code_metrics[code], 1);
	if (call->started && call->method->over != NULL)
		call->method->over(call);
	if (call->method != NULL && !(call->method->flags & (GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS)))
		metric_observe(&call_seconds, loop_now() - call->began_us);
}

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

static void
finish(GrpcCall *call, GrpcCode code, const char *message, const char *sqlstate, const GrpcMore *more)
{
	Http2Field	fields[6 + 2 * MAX_EXTRA];
	char		number[12];
	char		encoded[GRPC_ENCODED_MESSAGE];
	char		details[GRPC_ENCODED_DETAILS];
	static const GrpcMore nothing_more;
	int			count = 0;

	if (call->finished)
		return;
	if (call->stream != NULL)
	{
		if (http2_is_early(call->stream))
			send_headers(call);
		if (!call->headers_sent)
		{
			fields[count++] = (Http2Field) {":status", "200"};
			fields[count++] = (Http2Field) {"content-type", "application/grpc"};
			fields[count++] = (Http2Field) {"grpc-accept-encoding", "identity,gzip"};
			count = append_extra(fields, count, call->headers);
		}
		snprintf(number, sizeof(number), "%d", (int) code);
		fields[count++] = (Http2Field) {"grpc-status", number};
		if (code != GRPC_OK)
		{
			grpc_encode_message(message, encoded);
			grpc_encode_details(code, message, sqlstate, more != NULL ? more : &nothing_more, details);
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
	call_end(call, code);
}

void
grpc_ok(GrpcCall *call)
{
	finish(call, GRPC_OK, "", "00000", NULL);
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
	utf8_mend(message);
	finish(call, code, message, grpc_sqlstate_of_code(code), NULL);
}

void
grpc_fail_sql(GrpcCall *call, const char *sqlstate, const char *message, const GrpcMore *more)
{
	finish(call, grpc_code_of_sqlstate(sqlstate), message, sqlstate, more);
}

/* ---- messages out ---- */

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
	if (grpc_unsent(call) > UNSENT_LIMIT || !party_fits(call->party, 2 * len + 512))
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
