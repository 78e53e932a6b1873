/*
 * server.c
 *		gRPC's interoperability test service on the sidecar's transport: a
 *		program of its own, for tests.
 *
 *		server ADDRESS		prints where it listens, and serves until it is killed
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/grpc.h"
#include "http2/http2.h"
#include "net/loop.h"
#include "net/net.h"
#include "testing.pb-c.h"

#define MAX_SIZE (8 * 1024 * 1024)

/* Echo what the client asks to be echoed in headers and trailers. */
static void
echo_metadata(GrpcCall *call)
{
	const char *initial = grpc_header(call, "x-grpc-test-echo-initial");
	const char *trailing = grpc_header(call, "x-grpc-test-echo-trailing-bin");

	if (initial != NULL)
		grpc_add_header(call, "x-grpc-test-echo-initial", initial);
	if (trailing != NULL)
		grpc_add_trailer(call, "x-grpc-test-echo-trailing-bin", trailing);
}

static void
fill(Grpc__Testing__Payload *payload, int size)
{
	static uint8_t zeros[MAX_SIZE];

	grpc__testing__payload__init(payload);
	payload->body.data = zeros;
	payload->body.len = (size_t) (size < 0 || size > MAX_SIZE ? 0 : size);
}

static void
empty_call(GrpcCall *call, const ProtobufCMessage *message)
{
	Grpc__Testing__Empty response = GRPC__TESTING__EMPTY__INIT;

	echo_metadata(call);
	grpc_answer(call, &response.base);
}

static void
unary_call(GrpcCall *call, const ProtobufCMessage *message)
{
	const Grpc__Testing__SimpleRequest *request = (const void *) message;
	Grpc__Testing__SimpleResponse response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
	Grpc__Testing__Payload payload;

	echo_metadata(call);
	if (request->response_status != NULL && request->response_status->code != 0)
	{
		grpc_fail(call, (GrpcCode) request->response_status->code, "%s", request->response_status->message);
		return;
	}
	fill(&payload, request->response_size);
	response.payload = &payload;
	grpc_answer(call, &response.base);
}

/* ---- StreamingInputCall: the state is the size so far ---- */

static void
input_message(GrpcCall *call, const ProtobufCMessage *message)
{
	const Grpc__Testing__StreamingInputCallRequest *request = (const void *) message;
	size_t		size = request->payload != NULL ? request->payload->body.len : 0;

	grpc_set_state(call, (char *) grpc_state(call) + size);
}

static void
input_end(GrpcCall *call)
{
	Grpc__Testing__StreamingInputCallResponse response = GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT;

	response.aggregated_payload_size = (int32_t) (intptr_t) grpc_state(call);
	grpc_answer(call, &response.base);
}

/* ---- StreamingOutputCall, FullDuplexCall: a queue of answers, each after a while ---- */

typedef struct Answer
{
	struct Answer *next;
	int			size;
	int64_t		delay_us;
} Answer;

typedef struct Output
{
	GrpcCall   *call;
	Answer	   *first;
	Answer	  **last;
	LoopTimer	timer;
	bool		ended;
} Output;

static void
send_next(void *arg)
{
	Output	   *output = arg;
	Grpc__Testing__StreamingOutputCallResponse response = GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT;
	Grpc__Testing__Payload payload;
	Answer	   *answer = output->first;

	if (answer != NULL)
	{
		output->first = answer->next;
		if (output->first == NULL)
			output->last = &output->first;
		fill(&payload, answer->size);
		response.payload = &payload;
		free(answer);
		grpc_send(output->call, &response.base);
	}
	if (output->first != NULL)
		timer_start(&output->timer, output->first->delay_us, send_next, output);
	else if (output->ended)
		grpc_ok(output->call);
}

static void
output_message(GrpcCall *call, const ProtobufCMessage *message)
{
	const Grpc__Testing__StreamingOutputCallRequest *request = (const void *) message;
	Output	   *output = grpc_state(call);
	size_t		i;

	if (output == NULL)
	{
		output = calloc(1, sizeof(Output));
		output->call = call;
		output->last = &output->first;
		grpc_set_state(call, output);
		echo_metadata(call);
	}
	if (request->response_status != NULL && request->response_status->code != 0)
	{
		grpc_fail(call, (GrpcCode) request->response_status->code, "%s", request->response_status->message);
		return;
	}
	for (i = 0; i < request->n_response_parameters; i++)
	{
		Answer	   *answer = calloc(1, sizeof(Answer));

		answer->size = request->response_parameters[i]->size;
		answer->delay_us = request->response_parameters[i]->interval_us;
		*output->last = answer;
		output->last = &answer->next;
	}
	if (!(grpc_method(call)->flags & GRPC_CLIENT_STREAMS))
		output->ended = true;
	if (!timer_running(&output->timer) && (output->first != NULL || output->ended))
		timer_start(&output->timer, output->first != NULL ? output->first->delay_us : 0, send_next, output);
}

static void
output_end(GrpcCall *call)
{
	Output	   *output = grpc_state(call);

	if (output == NULL || output->first == NULL)
		grpc_ok(call);
	else
		output->ended = true;
}

static void
output_over(GrpcCall *call)
{
	Output	   *output = grpc_state(call);

	if (output == NULL)
		return;
	timer_stop(&output->timer);
	while (output->first != NULL)
	{
		Answer	   *next = output->first->next;

		free(output->first);
		output->first = next;
	}
	free(output);
}

#define METHOD(name, request, flags, message, end, over) \
	{"grpc.testing.TestService", name, &grpc__testing__##request##__descriptor, flags, message, end, over}

static const GrpcMethod methods[] =
{
	METHOD("EmptyCall", empty, 0, empty_call, NULL, NULL),
	METHOD("UnaryCall", simple_request, 0, unary_call, NULL, NULL),
	METHOD("StreamingInputCall", streaming_input_call_request, GRPC_CLIENT_STREAMS, input_message, input_end, NULL),
	METHOD("StreamingOutputCall", streaming_output_call_request, GRPC_SERVER_STREAMS, output_message, NULL, output_over),
	METHOD("FullDuplexCall", streaming_output_call_request, GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS, output_message, output_end, output_over),
	METHOD("HalfDuplexCall", streaming_output_call_request, GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS, output_message, output_end, output_over),
	{NULL}
};

int
main(int argc, char **argv)
{
	static const Option *const tables[] = {http2_options, grpc_options, NULL};
	ListenOptions options = {&http2_conn_handlers, NULL, 1000, 10000000, NULL};
	char		error[256];
	bool		help;
	Listener   *listener;

	if (argc < 2 || !options_parse(tables, argc - 1, argv + 1, &help, error, sizeof(error)) || !loop_init())
		return 2;
	grpc_add_methods(methods);
	grpc_start();
	listener = net_listen(argv[1], &options, error, sizeof(error));
	if (listener == NULL)
	{
		fprintf(stderr, "%s\n", error);
		return 1;
	}
	printf("%s\n", listener_address(listener));
	fflush(stdout);
	loop_run();
	return 0;
}
