/*
 * http2.c
 *		Fuzzing HTTP/2 connections from the first byte to the last: frames,
 *		header fields, and the calls on them.
 *
 * The input is a script.  A step gives the server bytes of a client, raw or in
 * frames that are well-formed but for what the script says, takes what was
 * sent, answers a call, or lets time pass.  net.h is implemented here without
 * sockets, and the loop has a clock of the script's, so that every timer fires
 * in its turn.
 *
 * Besides not crashing: what is sent consists of frames, a call that a service
 * has seen is over once, and nothing is left of a connection that is closed.
 */
#include <stdint.h>
#include <time.h>

static int64_t script_us;

static int
script_clock(clockid_t clock, struct timespec *now)
{
	now->tv_sec = script_us / 1000000;
	now->tv_nsec = script_us % 1000000 * 1000;
	return 0;
}

/* The loop itself, by that clock. */
#define clock_gettime script_clock
#include "net/loop.c"
#undef clock_gettime

#include "garbagetruck_v1.pb-c.h"
#include "grpc/grpc.h"
#include "http2/http2_internal.h"
#include "insist.h"
#include "base/options.h"

#define MAX_LATER 64
#define FRAME_MAX 600

extern int	LLVMFuzzerInitialize(int *argc, char ***argv);
extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- net.h ---- */

struct Conn
{
	void	   *data;
	size_t		pending;
	bool		foreign;		/* it came by TLS, and not as HTTP/2 */
	bool		was_full;
	bool		finishing;
	bool		closing;
	bool		closed;
	LoopTask	destroy;
	uint8_t		header[FRAME_HEADER];	/* of the frame that is being sent */
	size_t		header_len;
	size_t		rest;			/* of it */
};

void *
conn_data(const Conn *conn)
{
	return conn->data;
}

void
conn_set_data(Conn *conn, void *data)
{
	conn->data = data;
}

const char *
conn_peer(const Conn *conn)
{
	return "peer";
}

const char *
conn_host(const Conn *conn)
{
	return "host";
}

bool
conn_is_late(const Conn *conn)
{
	return false;
}

const char *
conn_certificate_name(const Conn *conn)
{
	return NULL;
}

bool
conn_is_foreign(const Conn *conn)
{
	return conn->foreign;
}

void
conn_pause(Conn *conn, bool paused)
{
}

size_t
conn_pending(const Conn *conn)
{
	return conn->pending;
}

static void
destroy(void *arg)
{
	Conn	   *conn = arg;

	http2_conn_handlers.closed(conn);
	conn->closed = true;
}

void
conn_close(Conn *conn)
{
	if (conn->closing)
		return;
	conn->closing = true;
	task_defer(&conn->destroy, destroy, conn);
}

void
conn_finish(Conn *conn)
{
	conn->finishing = true;
}

static void
judge_header(const uint8_t *header)
{
	int			id = header[5] << 24 | header[6] << 16 | header[7] << 8 | header[8];

	hold(header[3] <= NGHTTP2_CONTINUATION && header[3] != NGHTTP2_PUSH_PROMISE);
	hold(id == 0 || id % 2 == 1);
}

void
conn_write(Conn *conn, const void *data, size_t len)
{
	const uint8_t *at = data;

	if (conn->finishing || conn->closing)
		return;
	/* Who speaks HTTP/1 is answered in that, and nothing else. */
	if (conn->pending == 0 && conn->header_len == 0 && conn->rest == 0 && len > 12 && memcmp(data, "HTTP/1.1 426", 12) == 0)
		return;
	conn->pending += len;
	conn->was_full |= conn->pending >= CONN_LOW_WATER;
	while (len > 0)
	{
		if (conn->rest > 0)
		{
			size_t		n = conn->rest < len ? conn->rest : len;

			conn->rest -= n;
			at += n;
			len -= n;
			continue;
		}
		conn->header[conn->header_len++] = *at++;
		len--;
		if (conn->header_len < FRAME_HEADER)
			continue;
		judge_header(conn->header);
		conn->header_len = 0;
		conn->rest = (size_t) conn->header[0] << 16 | (size_t) conn->header[1] << 8 | conn->header[2];
	}
}

/* As much leaves as the client reads. */
static void
take(Conn *conn, size_t len)
{
	conn->pending -= len < conn->pending ? len : conn->pending;
	if (conn->finishing && conn->pending == 0)
		conn_close(conn);
	else if (conn->was_full && !conn->closing && conn->pending < CONN_LOW_WATER)
	{
		conn->was_full = false;
		http2_conn_handlers.drained(conn);
	}
}

/* ---- a service ---- */

typedef struct Seen
{
	GrpcCall   *call;
	bool		over;
	bool		later;			/* the script will answer it */
} Seen;

static Seen *later[MAX_LATER];
static int	later_count;
static int	live;

static Seen *
see(GrpcCall *call)
{
	Seen	   *seen = grpc_state(call);

	if (seen == NULL)
	{
		seen = calloc(1, sizeof(Seen));
		seen->call = call;
		grpc_set_state(call, seen);
		live++;
	}
	return seen;
}

static void
over(GrpcCall *call)
{
	Seen	   *seen = grpc_state(call);

	if (seen == NULL)
		return;
	hold(!seen->over && grpc_over(call));
	seen->over = true;
	live--;
	if (!seen->later)
		free(seen);
}

static void
answer_now(GrpcCall *call, const ProtobufCMessage *message)
{
	see(call);
	grpc_answer(call, message);
}

static void
answer_later(GrpcCall *call, const ProtobufCMessage *message)
{
	Seen	   *seen = see(call);

	if (seen->later || later_count == MAX_LATER)
		return;
	seen->later = true;
	grpc_hold(call);
	later[later_count++] = seen;
}

static void
echo(GrpcCall *call, const ProtobufCMessage *message)
{
	see(call);
	grpc_send(call, message);
}

static void
half_closed(GrpcCall *call)
{
	see(call);
	grpc_ok(call);
}

static void
fail(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__CreateRequest *request = (const void *) message;

	see(call);
	grpc_add_header(call, "x-header", "h");
	grpc_add_trailer(call, "x-trailer", "t");
	grpc_fail_sql(call, "GT001", request->object_id, &(GrpcMore) {.detail = request->payload, .hint = request->metadata});
}

static bool
authenticate(GrpcCall *call, GrpcIdentity *who)
{
	const char *given = grpc_header(call, "authorization");

	*who = (GrpcIdentity) {"caller", "caller", true};
	if (given == NULL)
		return true;
	grpc_fail(call, GRPC_UNAUTHENTICATED, "no such token: %s", given);
	return false;
}

#define METHOD(name, flags, message, end) \
	{"t.T", name, &garbagetruck__v1__create_request__descriptor, flags, message, end, over}

static const GrpcMethod methods[] = {
	METHOD("Now", 0, answer_now, NULL),
	METHOD("Later", 0, answer_later, NULL),
	METHOD("Echo", GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS, echo, half_closed),
	METHOD("Watch", GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS | GRPC_OPEN_ENDED, answer_later, half_closed),
	METHOD("Fail", 0, fail, NULL),
	{NULL}
};

/* ---- the script ---- */

typedef struct Script
{
	const uint8_t *at;
	const uint8_t *end;
	uint32_t	next_id;
	uint8_t		given[4096];	/* to be received */
	size_t		given_len;
} Script;

static uint8_t
next(Script *script)
{
	return script->at < script->end ? *script->at++ : 0;
}

static void
give(Script *script, const void *data, size_t len)
{
	if (len > sizeof(script->given) - script->given_len)
		len = sizeof(script->given) - script->given_len;
	memcpy(script->given + script->given_len, data, len);
	script->given_len += len;
}

/* Copy at most len bytes of the script. */
static size_t
copy(Script *script, uint8_t *to, size_t len)
{
	size_t		left = (size_t) (script->end - script->at);

	if (len > left)
		len = left;
	memcpy(to, script->at, len);
	script->at += len;
	return len;
}

static void
give_frame(Script *script, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload, size_t len)
{
	uint8_t		header[FRAME_HEADER] = {(uint8_t) (len >> 16), (uint8_t) (len >> 8), (uint8_t) len, type, flags,
		(uint8_t) (id >> 24), (uint8_t) (id >> 16), (uint8_t) (id >> 8), (uint8_t) id};

	give(script, header, sizeof(header));
	give(script, payload, len);
}

/* The last that was opened, one before it, or any, such as there can not be. */
static uint32_t
stream_id(Script *script)
{
	uint8_t		byte = next(script);

	if (byte >= 0x80)
		return byte - 0x80u;
	return script->next_id > 2u * byte + 2 ? script->next_id - 2u * byte - 2 : 1;
}

static void
step_raw(Script *script)
{
	uint8_t		raw[255];

	give(script, raw, copy(script, raw, next(script)));
}

static void
step_frame(Script *script)
{
	uint8_t		type = next(script);
	uint8_t		flags = next(script);
	uint32_t	id = stream_id(script);
	uint8_t		payload[FRAME_MAX];
	size_t		len = copy(script, payload, next(script));

	give_frame(script, type, flags, id, payload, len);
}

/* Append a literal field that is not indexed (RFC 7541, 6.2.2). */
static size_t
field(uint8_t *block, size_t at, const char *name, const char *value, size_t value_len)
{
	size_t		name_len = strlen(name);

	block[at++] = 0;
	block[at++] = (uint8_t) name_len;
	memcpy(block + at, name, name_len);
	at += name_len;
	block[at++] = (uint8_t) value_len;
	memcpy(block + at, value, value_len);
	return at + value_len;
}

/* A message in its frame of gRPC, perhaps of another length than it says. */
static void
give_message(Script *script, uint8_t flags, uint32_t id)
{
	uint8_t		payload[5 + FRAME_MAX] = {flags & 2 ? 1 : 0};
	size_t		len = copy(script, payload + 5, next(script));
	size_t		said = flags & 4 ? (size_t) next(script) << 8 | next(script) : len;

	payload[3] = (uint8_t) (said >> 8);
	payload[4] = (uint8_t) said;
	give_frame(script, NGHTTP2_DATA, flags & 1 ? NGHTTP2_FLAG_END_STREAM : 0, id, payload, len + 5);
}

static void
step_message(Script *script)
{
	uint8_t		flags = next(script);

	give_message(script, flags, stream_id(script));
}

/*
 * A request.  Each of its fields has the first of a few likely values, or if
 * the script wants that another one, none, or one of the script's.
 */
static void
step_request(Script *script)
{
	static const struct
	{
		const char *name;
		const char *values[8];
	}			fields[] = {
		{":path", {"/t.T/Now", "/t.T/Later", "/t.T/Echo", "/t.T/Watch", "/t.T/Fail", "/t.T/None", "/"}},
		{":method", {"POST", "GET"}},
		{":scheme", {"http"}},
		{":authority", {"h"}},
		{"content-type", {"application/grpc", "application/grpc+proto", "text/html"}},
		{"te", {"trailers", NULL}},
		{"grpc-timeout", {NULL, "1n", "1S", "1H", "x"}},
		{"grpc-encoding", {NULL, "gzip", "identity", "br"}},
		{"grpc-accept-encoding", {NULL, "gzip"}},
		{"authorization", {NULL, "Bearer x"}},
	};
	uint8_t		block[2048];
	uint8_t		flags = next(script);
	size_t		len = 0;
	size_t		i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		uint8_t		choice = flags & 4 || i == 0 ? next(script) : 0;
		char		own[100];
		const char *value = fields[i].values[choice % 8];

		if (choice == 0xff)
			len = field(block, len, fields[i].name, own, copy(script, (uint8_t *) own, next(script) % sizeof(own)));
		else if (value != NULL)
			len = field(block, len, fields[i].name, value, strlen(value));
	}
	give_frame(script, NGHTTP2_HEADERS, flags & 1 ? NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM : NGHTTP2_FLAG_END_HEADERS,
			   flags & 2 ? stream_id(script) : script->next_id, block, len);
	script->next_id += 2;
	if (flags & 8)
		give_message(script, flags / 16, script->next_id - 2);
}

static void
step_answer(Script *script)
{
	Garbagetruck__V1__CreateRequest answer = GARBAGETRUCK__V1__CREATE_REQUEST__INIT;
	static char text[20000];
	uint8_t		how = next(script);
	int			i;
	Seen	   *seen;

	if (later_count == 0)
		return;
	i = how / 8 % later_count;
	seen = later[i];
	memset(text, 'x', sizeof(text) - 1);
	text[how & 4 ? sizeof(text) - 1 : 10] = '\0';
	answer.payload = text;
	if (how & 1)
	{
		grpc_send(seen->call, &answer.base);
		return;
	}
	if (how & 2)
		grpc_fail(seen->call, GRPC_ABORTED, "%s", text);
	else
		grpc_answer(seen->call, &answer.base);
	hold(seen->over);
	grpc_release(seen->call);
	free(seen);
	later[i] = later[--later_count];
}

static void
receive(Conn *conn, Script *script, size_t piece)
{
	size_t		at = 0;

	while (at < script->given_len && !conn->finishing && !conn->closing)
	{
		size_t		n = script->given_len - at < piece ? script->given_len - at : piece;
		uint8_t    *data = malloc(n);	/* of its size, so that reading on is noticed */

		memcpy(data, script->given + at, n);
		http2_conn_handlers.received(conn, data, n);
		free(data);
		at += n;
	}
	script->given_len = 0;
}

static void
step(Conn *conn, Script *script)
{
	uint8_t		byte = next(script);

	switch (byte % 8)
	{
		case 0:
			step_raw(script);
			break;
		case 1:
			step_frame(script);
			break;
		case 2:
			step_request(script);
			break;
		case 3:
			step_message(script);
			break;
		case 4:
			step_answer(script);
			break;
		case 5:
			script_us += (int64_t) 1 << next(script) % 35;
			now_us = script_us;
			fire_timers(false);
			break;
		case 6:
			take(conn, (size_t) next(script) << 9);
			break;
		default:
			if (!conn->closing)
				http2_drain(conn->data);
	}
	/* What comes with the next step, in one piece, in small ones. */
	if (byte & 0x40)
		return;
	receive(conn, script, byte & 0x80 ? 1 + byte / 8 % 8 : SIZE_MAX);
	run_tasks();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const Option *const tables[] = {http2_options, grpc_options, NULL};
	static char *flags[] = {"fuzz", "--max-streams", "6", "--max-calls", "8", "--max-message", "4096", "--max-connection-age", "1h"};
	char		error[256];
	bool		help;

	hold(options_parse(tables, sizeof(flags) / sizeof(flags[0]), flags, &help, error, sizeof(error)));
	hold(log_configure("error", "text"));
	grpc_add_methods(methods);
	grpc_set_authenticate(authenticate);
	grpc_start();
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Script		script = {.at = data, .end = data + size, .next_id = 1};
	Conn	   *conn;
	uint8_t		kind;

	if (size == 0)
		return 0;
	kind = next(&script);
	conn = calloc(1, sizeof(Conn));
	conn->foreign = kind >= 224;
	turning = true;
	now_us = script_us = 1000000;
	http2_conn_handlers.opened(conn);
	run_tasks();
	if (kind % 8 != 7)
	{
		give(&script, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE);
		give_frame(&script, NGHTTP2_SETTINGS, 0, 0, data, 0);
	}
	while (script.at < script.end && !conn->closing)
		step(conn, &script);
	conn_close(conn);
	run_tasks();
	hold(conn->closed && live == 0 && stream_total() == 0);
	while (later_count > 0)
	{
		Seen	   *seen = later[--later_count];

		hold(seen->over);
		grpc_release(seen->call);
		free(seen);
	}
	hold(heap_used == 0 && tasks.next == &tasks);
	free(conn);
	return 0;
}
