/*
 * grpc_client.c
 *		A small unary gRPC client over libcurl.
 *
 * Runs in the command line's process, on its only thread.  Owns one easy handle
 * and the multi handle that drives it; each call has a connection of its own.  A
 * crash leaves nothing behind but a call whose outcome the server alone knows.
 *
 * gRPC needs three things of HTTP/2 that libcurl gives: HTTP/2 without an
 * upgrade on cleartext connections (prior knowledge), ALPN h2 on TLS, and the
 * trailers, which arrive through the header callback.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/memory.h"
#include "grpc/grpc_client.h"
#include "grpc/grpc_details.h"

/* An answer may hold a thousand leases with payloads; this is to bound a bug. */
#define MAX_REPLY_BYTES (128u * 1024 * 1024)
#define FRAME_HEADER 5
#define MAX_TRIES 50
#define CONNECT_TIMEOUT_MS 5000L

struct GrpcClient
{
	CURL	   *curl;
	CURLM	   *multi;
	char	   *base;			/* endpoint without a trailing slash */
	char	   *token;
	GrpcGiveUp	give_up;
	void	   *give_up_arg;
	int			watched[GRPC_CLIENT_WATCHED];
	int			watched_count;
	char		error[CURL_ERROR_SIZE];
};

/* What the callbacks of one call gather. */
typedef struct Answer
{
	uint8_t    *bytes;
	size_t		len;
	size_t		allocated;
	int			status;			/* -1: no grpc-status seen */
	bool		grpc;			/* content-type was application/grpc */
	char	   *message;
	char	   *hint;
} Answer;

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Undo grpc-message's percent coding; bad escapes stay as they are. */
static char *
percent_decode(const char *text, size_t len)
{
	char	   *out = needed(malloc(len + 1));
	size_t		i,
				n = 0;

	for (i = 0; i < len; i++)
	{
		if (text[i] == '%' && i + 2 < len &&
			hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0)
		{
			out[n++] = (char) (hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
			i += 2;
		}
		else
			out[n++] = text[i];
	}
	out[n] = '\0';
	return out;
}

/* Is this header line `name`?  Then its value, without the line's end. */
static bool
header_value(const char *line, size_t len, const char *name,
			 const char **value, size_t *value_len)
{
	size_t		name_len = strlen(name);

	if (len <= name_len || line[name_len] != ':' ||
		strncasecmp(line, name, name_len) != 0)
		return false;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	*value = line;
	*value_len = len;
	return true;
}

/* libcurl: a header or trailer line has arrived. */
static size_t
on_header(char *line, size_t size, size_t nitems, void *arg)
{
	Answer	   *answer = arg;
	size_t		len = size * nitems;
	const char *value;
	size_t		value_len;

	if (header_value(line, len, "grpc-status", &value, &value_len))
	{
		int			code = value_len <= 2 ? atoi(value) : GRPC_UNKNOWN;

		answer->status = code >= 0 && code < GRPC_CODES ? code : GRPC_UNKNOWN;
	}
	else if (header_value(line, len, "grpc-message", &value, &value_len))
	{
		free(answer->message);
		answer->message = percent_decode(value, value_len);
	}
	else if (header_value(line, len, "grpc-status-details-bin", &value, &value_len))
	{
		free(answer->hint);
		answer->hint = grpc_details_hint(value, value_len);
	}
	else if (header_value(line, len, "content-type", &value, &value_len))
		answer->grpc = value_len >= 16 && strncasecmp(value, "application/grpc", 16) == 0;
	return len;
}

/* libcurl: a piece of the body has arrived. */
static size_t
on_body(char *bytes, size_t size, size_t nitems, void *arg)
{
	Answer	   *answer = arg;
	size_t		len = size * nitems;

	if (answer->len + len > MAX_REPLY_BYTES)
		return 0;
	if (answer->len + len > answer->allocated)
	{
		size_t		want = (answer->len + len) * 2;
		uint8_t    *grown = realloc(answer->bytes, want);

		if (grown == NULL)
			return 0;
		answer->bytes = grown;
		answer->allocated = want;
	}
	memcpy(answer->bytes + answer->len, bytes, len);
	answer->len += len;
	return len;
}

/* libcurl: a socket is needed; a command that we start must not inherit it. */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	(void) arg, (void) purpose;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* host:port is short for http://host:port; a path makes no sense here. */
static char *
base_url(const char *endpoint, const char **error)
{
	const char *host;
	char	   *base;
	size_t		len;

	if (strncasecmp(endpoint, "http://", 7) == 0)
		host = endpoint + 7;
	else if (strncasecmp(endpoint, "https://", 8) == 0)
		host = endpoint + 8;
	else if (strstr(endpoint, "://") == NULL)
		host = endpoint;
	else
	{
		*error = "is neither http://host:port nor https://host:port";
		return NULL;
	}
	len = strcspn(host, "/?#");
	if (len == 0 || strspn(host + len, "/") != strlen(host + len))
	{
		*error = "is not of the form http://host:port";
		return NULL;
	}
	if (asprintf(&base, "%s%.*s", host == endpoint ? "http://" : "",
				 (int) (host - endpoint + (ptrdiff_t) len), endpoint) < 0)
	{
		*error = "does not fit in memory";
		return NULL;
	}
	return base;
}

/* Settings that hold for every call of this client. */
static void
configure(CURL *curl, const GrpcClientOptions *options, bool tls)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
					 tls ? (long) CURL_HTTP_VERSION_2TLS
					 : (long) CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
	/*
	 * libcurl 7.88 fails every second call on a cleartext connection.  A fresh
	 * one for each costs little at the pace of heartbeats, and finds a server
	 * that has moved.
	 */
	curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
	/* An HTTP proxy of the environment could not carry cleartext HTTP/2. */
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(curl, CURLOPT_POST, 1L);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	/* Nor wait for a name server that nobody waits for any more. */
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	if (options->tls_ca != NULL)
		curl_easy_setopt(curl, CURLOPT_CAINFO, options->tls_ca);
	if (options->tls_cert != NULL)
		curl_easy_setopt(curl, CURLOPT_SSLCERT, options->tls_cert);
	if (options->tls_key != NULL)
		curl_easy_setopt(curl, CURLOPT_SSLKEY, options->tls_key);
}

bool
grpc_client_is_endpoint(const char *endpoint, const char **error)
{
	char	   *base = base_url(endpoint, error);

	free(base);
	return base != NULL;
}

GrpcClient *
grpc_client_open(const GrpcClientOptions *options, const char **error)
{
	GrpcClient *client = calloc(1, sizeof(GrpcClient));

	*error = "does not fit in memory";
	if (client == NULL)
		return NULL;
	client->base = base_url(options->endpoint, error);
	if (client->base == NULL)
	{
		free(client);
		return NULL;
	}
	if (options->token != NULL)
		client->token = strdup(options->token);
	client->curl = curl_easy_init();
	client->multi = curl_multi_init();
	if (client->curl == NULL || client->multi == NULL || (options->token != NULL && client->token == NULL))
	{
		grpc_client_close(client);
		return NULL;
	}
	configure(client->curl, options, strncasecmp(client->base, "https:", 6) == 0);
	curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->error);
	return client;
}

void
grpc_client_set_give_up(GrpcClient *client, GrpcGiveUp give_up, void *arg,
						const int *watched, int count)
{
	int			i;

	client->give_up = give_up;
	client->give_up_arg = arg;
	client->watched_count = count < GRPC_CLIENT_WATCHED ? count : GRPC_CLIENT_WATCHED;
	for (i = 0; i < client->watched_count; i++)
		client->watched[i] = watched[i];
}

void
grpc_client_close(GrpcClient *client)
{
	if (client == NULL)
		return;
	if (client->curl != NULL)
		curl_easy_cleanup(client->curl);
	if (client->multi != NULL)
		curl_multi_cleanup(client->multi);
	free(client->base);
	free(client->token);
	free(client);
}

/*
 * Append "name: value" to a curl list, or "name:", by which libcurl leaves its
 * own header out; false when memory is short.
 */
static bool
add_header(struct curl_slist **list, const char *name, const char *value)
{
	char	   *line;
	struct curl_slist *longer;

	if (asprintf(&line, "%s:%s%s", name, value ? " " : "", value ? value : "") < 0)
		return false;
	longer = curl_slist_append(*list, line);
	free(line);
	if (longer == NULL)
		return false;
	*list = longer;
	return true;
}

static struct curl_slist *
request_headers(GrpcClient *client, const char *request_key, long timeout_ms)
{
	struct curl_slist *list = NULL;
	char		text[64];
	char	   *bearer = NULL;
	bool		ok;

	/* grpc-timeout has at most eight digits */
	if (timeout_ms < 100000000)
		snprintf(text, sizeof(text), "%ldm", timeout_ms);
	else
		snprintf(text, sizeof(text), "%ldS", timeout_ms / 1000 < 99999999 ? timeout_ms / 1000 : 99999999);
	ok = add_header(&list, "accept", NULL) &&
		add_header(&list, "content-type", "application/grpc") &&
		add_header(&list, "te", "trailers") &&
		add_header(&list, "grpc-timeout", text) &&
		add_header(&list, "user-agent", "garbagetruck");
	if (ok && client->token != NULL)
	{
		ok = asprintf(&bearer, "Bearer %s", client->token) >= 0 &&
			add_header(&list, "authorization", bearer);
		free(bearer);
	}
	if (ok && request_key != NULL)
		ok = add_header(&list, "idempotency-key", request_key);
	if (!ok)
	{
		curl_slist_free_all(list);
		return NULL;
	}
	return list;
}

static void
set_failure(GrpcReply *reply, GrpcCode status, char *message)
{
	reply->status = status;
	free(reply->message);
	reply->message = message;
}

/* libcurl could not bring an answer. */
static void
transport_failure(GrpcClient *client, CURLcode rc, GrpcReply *reply)
{
	const char *detail = client->error[0] ? client->error : curl_easy_strerror(rc);
	char	   *message = NULL;
	GrpcCode	status = GRPC_UNAVAILABLE;
	curl_off_t	connected = 0;

	/* Without a connection nothing can have been done. */
	curl_easy_getinfo(client->curl, CURLINFO_CONNECT_TIME_T, &connected);
	if (rc == CURLE_OPERATION_TIMEDOUT && connected > 0)
		status = GRPC_DEADLINE_EXCEEDED;
	else if (rc == CURLE_ABORTED_BY_CALLBACK)
		status = GRPC_CANCELLED;
	else if (rc == CURLE_WRITE_ERROR)
		status = GRPC_RESOURCE_EXHAUSTED;
	else if (rc == CURLE_SSL_CONNECT_ERROR)
		reply->wants = "http://";
	else if ((rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR || rc == CURLE_GOT_NOTHING || rc == CURLE_HTTP2 ||
			  rc == CURLE_HTTP2_STREAM || rc == CURLE_WEIRD_SERVER_REPLY) && strncasecmp(client->base, "http:", 5) == 0)
		reply->wants = "https://";
	if (asprintf(&message, "%s: %s", client->base, detail) < 0)
		out_of_memory();
	set_failure(reply, status, message);
}

/* An HTTP answer without grpc-status: somebody else listens there. */
static void
http_failure(GrpcClient *client, long http, GrpcReply *reply)
{
	char	   *message = NULL;
	GrpcCode	status = GRPC_UNKNOWN;

	switch (http)
	{
		case 401:
			status = GRPC_UNAUTHENTICATED;
			break;
		case 403:
			status = GRPC_PERMISSION_DENIED;
			break;
		case 404:
			status = GRPC_UNIMPLEMENTED;
			break;
		case 429:
		case 502:
		case 503:
		case 504:
			status = GRPC_UNAVAILABLE;
			break;
		default:
			break;
	}
	if (asprintf(&message, "%s answers HTTP %ld without a gRPC status", client->base, http) < 0)
		out_of_memory();
	set_failure(reply, status, message);
}

/* Take the one message out of its frame, in place. */
static bool
unframe(Answer *answer, GrpcReply *reply)
{
	size_t		len;

	if (answer->len < FRAME_HEADER || answer->bytes[0] != 0)
		return false;
	len = (size_t) answer->bytes[1] << 24 | (size_t) answer->bytes[2] << 16 |
		(size_t) answer->bytes[3] << 8 | answer->bytes[4];
	if (len != answer->len - FRAME_HEADER)
		return false;
	memmove(answer->bytes, answer->bytes + FRAME_HEADER, len);
	reply->data = answer->bytes;
	reply->len = len;
	answer->bytes = NULL;
	return true;
}

static void
judge(GrpcClient *client, CURLcode rc, Answer *answer, GrpcReply *reply)
{
	long		http = 0;

	curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &http);

	/* A status that has arrived counts, whatever became of the stream then. */
	if (answer->status >= 0 && answer->grpc)
	{
		reply->reached = true;
		set_failure(reply, (GrpcCode) answer->status, answer->message);
		answer->message = NULL;
		reply->hint = answer->hint;
		answer->hint = NULL;
		if (answer->status == GRPC_OK && !unframe(answer, reply))
			set_failure(reply, GRPC_INTERNAL,
						needed(strdup("the server's answer is not one gRPC message")));
	}
	else if (rc != CURLE_OK)
		transport_failure(client, rc, reply);
	else
		http_failure(client, http, reply);
}

/*
 * A server that refuses a call by its headers answers and closes the stream at
 * once.  When that overtakes our body, libcurl 7.88 drops the answer.  As the
 * server did not get the message, it is safe to ask again, and soon the body
 * wins.
 */
static bool
refused_unread(GrpcClient *client, CURLcode rc, const Answer *answer, size_t len)
{
	curl_off_t	sent = 0;

	curl_easy_getinfo(client->curl, CURLINFO_SIZE_UPLOAD_T, &sent);
	return rc == CURLE_HTTP2_STREAM && answer->status < 0 && (size_t) sent < len;
}

/*
 * As curl_easy_perform(), but what else the caller watches is looked at as soon
 * as it moves.
 */
static CURLcode
perform(GrpcClient *client)
{
	CURLcode	rc = CURLE_OUT_OF_MEMORY;
	struct curl_waitfd watched[GRPC_CLIENT_WATCHED];
	CURLMsg    *message;
	int			running = 1;
	int			left;
	int			i;

	if (curl_multi_add_handle(client->multi, client->curl) != CURLM_OK)
		return rc;
	while (curl_multi_perform(client->multi, &running) == CURLM_OK && running > 0)
	{
		for (i = 0; i < client->watched_count; i++)
			watched[i] = (struct curl_waitfd) {client->watched[i], CURL_WAIT_POLLIN, 0};
		if (client->give_up != NULL && client->give_up(client->give_up_arg))
		{
			rc = CURLE_ABORTED_BY_CALLBACK;
			break;
		}
		if (curl_multi_poll(client->multi, watched, (unsigned) client->watched_count, 1000, NULL) != CURLM_OK)
			break;
	}
	while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
		if (message->msg == CURLMSG_DONE)
			rc = message->data.result;
	curl_multi_remove_handle(client->multi, client->curl);
	return rc;
}

void
grpc_client_call(GrpcClient *client, const char *path, const char *request_key,
				 const uint8_t *data, size_t len, long timeout_ms,
				 GrpcReply *reply)
{
	Answer		answer = {.status = -1};
	struct curl_slist *headers = request_headers(client, request_key, timeout_ms);
	uint8_t    *body = malloc(FRAME_HEADER + len);
	char	   *url = NULL;
	CURLcode	rc = CURLE_OUT_OF_MEMORY;
	int			tries = 0;

	memset(reply, 0, sizeof(*reply));
	client->error[0] = '\0';
	if (asprintf(&url, "%s%s", client->base, path) < 0)
		url = NULL;
	if (headers != NULL && body != NULL && url != NULL)
	{
		body[0] = 0;
		body[1] = (uint8_t) (len >> 24);
		body[2] = (uint8_t) (len >> 16);
		body[3] = (uint8_t) (len >> 8);
		body[4] = (uint8_t) len;
		if (len > 0)
			memcpy(body + FRAME_HEADER, data, len);
		curl_easy_setopt(client->curl, CURLOPT_URL, url);
		curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE_LARGE,
						 (curl_off_t) (FRAME_HEADER + len));
		curl_easy_setopt(client->curl, CURLOPT_HEADERDATA, &answer);
		curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &answer);
		curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, timeout_ms);
		curl_easy_setopt(client->curl, CURLOPT_CONNECTTIMEOUT_MS,
						 timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS);
		do
			rc = perform(client);
		while (refused_unread(client, rc, &answer, FRAME_HEADER + len) && ++tries < MAX_TRIES);
		curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
		curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, NULL);
	}
	judge(client, rc, &answer, reply);
	if (reply->message == NULL)
		reply->message = needed(strdup(""));
	free(answer.bytes);
	free(answer.message);
	free(answer.hint);
	free(url);
	free(body);
	curl_slist_free_all(headers);
}

void
grpc_reply_free(GrpcReply *reply)
{
	free(reply->message);
	free(reply->hint);
	free(reply->data);
	memset(reply, 0, sizeof(*reply));
}
