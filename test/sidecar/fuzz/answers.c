/*
 * answers.c
 *		Fuzzing what targets answer: HTTP/1.1 to http, s3 and azure_blob, HTTP/2
 *		to grpc, RESP to redis, each through the whole of the executors but the
 *		database, libcurl included.
 *
 * The first byte picks the kind; the rest is what the target sends before it
 * closes, for grpc in frames of HTTP/2.  Sockets are pairs, and what libcurl
 * asks the system about them is answered here.
 *
 * Besides not crashing: a call ends, and as a success only when the answer has
 * in it what the kind calls one.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "executors/util.h"
#include "executors/context.h"
#include "executors/hosts.h"
#include "executors/calls.h"
#include "executors/link.h"
#include "executors/executors.h"
#include "executors/claims.h"
#include "insist.h"

#define TARGET_TIMEOUT_MS 1000

extern int	LLVMFuzzerInitialize(int *argc, char ***argv);
extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Context context;
static const uint8_t *answer;
static size_t answer_len;
static int	target = -1;

/* ---- the network ---- */

/*
 * One end is libcurl's; in the other the answer waits already.  What a target
 * says that it has not begun is asked for once more.
 */
int
socket(int domain, int type, int protocol)
{
	int			ends[2];

	/* It may try whether there is IPv6. */
	if (domain != AF_INET)
	{
		errno = EAFNOSUPPORT;
		return -1;
	}
	if (target >= 0)
		close(target);
	insist(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "a connection");
	target = ends[1];
	insist(write(target, answer, answer_len) == (ssize_t) answer_len, "the answer is sent");
	shutdown(target, SHUT_WR);
	return ends[0];
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return 0;
}

static int
loopback(struct sockaddr *address, socklen_t *len)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET,.sin_port = htons(80),.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	insist(*len >= sizeof(v4), "room for the address");
	memcpy(address, &v4, sizeof(v4));
	*len = sizeof(v4);
	return 0;
}

int
getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
	return loopback(address, len);
}

int
getsockname(int fd, struct sockaddr *address, socklen_t *len)
{
	return loopback(address, len);
}

/* ---- what the executors ask of the others ---- */

Handler *
handler_find(Context *asking, const char *name)
{
	return NULL;
}

void
exec_log(Context *logging, ExecutorLogLevel level, const char *format,...)
{
}

void
exec_problem(Context *having, Problem problem, const char *format,...)
{
}

/* ---- the answers ---- */

/*
 * HTTP/2 from a script: SETTINGS come first, then frames of a type, flags,
 * stream and payload of the script's.
 */
static size_t
make_frames(const uint8_t *script, size_t size, uint8_t *out, size_t max)
{
	const uint8_t *end = script + size;
	size_t		len = 9;

	memcpy(out, "\0\0\0\4\0\0\0\0\0", len);
	while (end - script >= 3)
	{
		size_t		payload = script[2];

		if (payload > (size_t) (end - script) - 3)
			payload = (size_t) (end - script) - 3;
		if (len + 9 + payload > max)
			break;
		memset(out + len, 0, 9);
		out[len + 2] = (uint8_t) payload;
		out[len + 3] = script[0] % 16;
		out[len + 4] = script[1];
		out[len + 8] = script[0] / 16 == 0 ? 1 : script[0] / 16 - 1;
		memcpy(out + len + 9, script + 3, payload);
		len += 9 + payload;
		script += 3 + payload;
	}
	return len;
}

static const char *const commands[EXEC_KINDS] = {
	[EXEC_HTTP] = "DELETE http://127.0.0.1/{object_id}",
	[EXEC_GRPC] = "http://127.0.0.1:80",
	[EXEC_S3] = "s3://bucket/{object_id}",
	[EXEC_AZURE_BLOB] = "azure://container/{object_id}",
	[EXEC_REDIS] = "redis://127.0.0.1:6379/1/{object_id}",
};

static Call *
make_call(ExecutorKind kind)
{
	Call	   *call = call_create(&context);

	call->cleanup_id = 1;
	call->attempt = 1;
	call->kind = kind;
	call->handler = exec_strdup("handler");
	call->command = exec_strdup(commands[kind]);
	call->object_id = exec_strdup("object");
	call->object_type = exec_strdup("custom");
	call->lease_id = exec_strdup("lease");
	call->service_id = exec_strdup("service");
	call->timeout_ms = TARGET_TIMEOUT_MS;
	call->lapses_at = call->extend_at = INT64_MAX;
	return call;
}

static bool
has(const char *text)
{
	return memmem(answer, answer_len, text, strlen(text)) != NULL;
}

/* Is there a line "HTTP/version status" with such a status? */
static bool
has_status(int lowest, int highest)
{
	const uint8_t *at = answer;
	const uint8_t *end = answer + answer_len;

	while ((at = memmem(at, (size_t) (end - at), "HTTP/", 5)) != NULL)
	{
		const uint8_t *space = memchr(at, ' ', (size_t) (end - at));

		if (space != NULL && end - space > 3)
		{
			char		digits[4] = {(char) space[1], (char) space[2], (char) space[3], '\0'};

			if (atoi(digits) >= lowest && atoi(digits) <= highest)
				return true;
		}
		at += 5;
	}
	return false;
}

/* What must be somewhere in an answer that is a success. */
static bool
may_succeed(ExecutorKind kind)
{
	switch (kind)
	{
		case EXEC_GRPC:
			return has("\x08");
		case EXEC_REDIS:
			return has("+") && has(":");
		default:
			return has_status(200, 299) || has_status(404, 404) || (kind == EXEC_HTTP && has_status(410, 410));
	}
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1", 1);
	setenv("AWS_ACCESS_KEY_ID", "id", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1/a", 1);
	setenv("REDIS_PASSWORD", "secret", 1);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	context.multi = curl_multi_init();
	/* Each run begins with a new connection. */
	curl_multi_setopt(context.multi, CURLMOPT_MAXCONNECTS, -1L);
	context.settings.max_in_flight = context.settings.max_per_host = 1;
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ExecutorKind kinds[] = {EXEC_HTTP, EXEC_GRPC, EXEC_S3, EXEC_AZURE_BLOB, EXEC_REDIS};
	static uint8_t frames[65536];
	ExecutorKind kind;
	Call	   *call;
	int			running;

	if (size == 0)
		return 0;
	kind = kinds[data[0] % 5];
	answer = kind == EXEC_GRPC ? frames : data + 1;
	answer_len = kind == EXEC_GRPC ? make_frames(data + 1, size - 1, frames, sizeof(frames)) : size - 1;

	call = make_call(kind);
	call_accept(&context, call);
	calls_start(&context);
	while (context.running.count > 0)
	{
		struct curl_waitfd fd;
		int			count;

		curl_multi_perform(context.multi, &running);
		calls_collect(&context);
		calls_check_times(&context);
		count = calls_poll_fds(&context, &fd, 1);
		if (context.running.count > 0)
			curl_multi_poll(context.multi, &fd, (unsigned) count, 1, NULL);
	}
	insist(context.waiting == 0 && context.in_flight == 0, "the call has ended");
	insist(context.succeeded.count + context.failed.count == 1, "it has one outcome");
	insist(context.succeeded.count == 0 || may_succeed(kind), "no false success");
	insist(context.failed.count == 0 || call->error[0] != '\0', "a failure says why");
	call_free(&context, call);
	hosts_forget_idle(&context, INT64_MAX);
	if (target >= 0)
		close(target);
	target = -1;
	return 0;
}
