/*
 * redis.c
 *		Handlers of kind redis: "redis[s]://host:port/DB/KEY", by UNLINK.
 *
 * libcurl makes the connection, as it does for every other kind: so the
 * address is judged in the same place, and TLS is the same.  Then this file
 * speaks RESP2 over it, one command at a time: a SELECT that fails must not be
 * followed by an UNLINK in another database.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

#define LINE_MAX_LEN 4096

typedef enum RedisStep
{
	STEP_CONNECT, STEP_AUTH, STEP_SELECT, STEP_UNLINK
} RedisStep;

typedef struct Redis
{
	RedisStep	step;
	int			database;
	char	   *key;
	Buffer		out;			/* not yet sent */
	size_t		sent;
	Buffer		in;
	curl_socket_t socket;
} Redis;

int
redis_parse(const char *data, size_t len, RedisReply *reply)
{
	const char *end = memchr(data, '\n', len < LINE_MAX_LEN ? len : LINE_MAX_LEN);
	char		number[24];
	char	   *stop;
	size_t		line;

	if (end == NULL)
		return len >= LINE_MAX_LEN ? -1 : 0;
	line = (size_t) (end - data);
	if (line < 2 || end[-1] != '\r' || strchr("+-:$", data[0]) == NULL || data[0] == '\0')
		return -1;
	reply->type = data[0];
	reply->text = data + 1;
	reply->text_len = line - 2;
	reply->integer = 0;
	if (reply->type == '+' || reply->type == '-')
		return (int) line + 1;

	/* a number, or the length of what follows */
	if (reply->text_len == 0 || reply->text_len >= sizeof(number))
		return -1;
	memcpy(number, reply->text, reply->text_len);
	number[reply->text_len] = '\0';
	errno = 0;
	reply->integer = strtoll(number, &stop, 10);
	if (errno != 0 || *stop != '\0' || stop == number)
		return -1;
	if (reply->type == ':' || reply->integer == -1)
	{
		reply->text_len = 0;
		return (int) line + 1;
	}
	if (reply->integer < 0 || reply->integer > LINE_MAX_LEN)
		return -1;
	reply->text = end + 1;
	reply->text_len = (size_t) reply->integer;
	if (len - line - 1 < reply->text_len + 2)
		return 0;
	if (memcmp(reply->text + reply->text_len, "\r\n", 2) != 0)
		return -1;
	return (int) (line + 1 + reply->text_len + 2);
}

/* Divide "/DB/KEY". */
static bool
split_path(const char *path, Redis *redis)
{
	char	   *end;
	long		number;

	if (path[0] != '/' || path[1] < '0' || path[1] > '9')
		return false;
	number = strtol(path + 1, &end, 10);
	if (number > 1000000 || *end != '/' || end[1] == '\0')
		return false;
	redis->database = (int) number;
	redis->key = exec_strdup(end + 1);
	return true;
}

bool
redis_prepare(Context *context, Call *call)
{
	Redis	   *redis = exec_alloc(sizeof(*redis));
	Buffer		url = {NULL, 0, 0};
	const char *text;
	const char *path;
	bool		tls;

	call->work = redis;
	if (!call_expand(call, call->command, TARGET_REDIS))
		return false;
	text = call->target.text.data;
	tls = strncmp(text, "rediss://", 9) == 0;
	if (!tls && strncmp(text, "redis://", 8) != 0)
	{
		snprintf(call->error, sizeof(call->error), "the target does not begin with redis:// or rediss://");
		return false;
	}
	text += tls ? 9 : 8;
	path = text + strcspn(text, "/");
	if (!split_path(path, redis))
	{
		snprintf(call->error, sizeof(call->error), "the target has no /DB/KEY, where DB is a number");
		return false;
	}
	buffer_text(&url, tls ? "https://" : "http://");
	buffer_add(&url, text, (size_t) (path - text));
	call->url = url.data;
	if (memchr(text, '@', (size_t) (path - text)) != NULL || !transfer_split_url(call))
	{
		snprintf(call->error, sizeof(call->error), "the target has no host:port");
		return false;
	}
	/* without a port redis' own is meant, not that of the web */
	if (path[-1] == ']' || memchr(text, ':', (size_t) (path - text)) == NULL)
	{
		buffer_text(&url, ":6379");
		call->url = url.data;
		call->port = 6379;
	}
	return true;
}

bool
redis_start(Context *context, Call *call)
{
	Redis	   *redis = call->work;

	redis->step = STEP_CONNECT;
	redis->socket = CURL_SOCKET_BAD;
	return true;
}

static void
add_argument(Buffer *out, const char *text)
{
	buffer_printf(out, "$%zu\r\n", strlen(text));
	buffer_text(out, text);
	buffer_text(out, "\r\n");
}

/* Write the command of the step that comes next. */
static void
next_command(Redis *redis)
{
	const char *password = getenv("REDIS_PASSWORD");
	char		number[16];

	redis->out.len = redis->sent = 0;
	redis->step++;
	if (redis->step == STEP_AUTH && (password == NULL || password[0] == '\0'))
		redis->step++;
	if (redis->step == STEP_SELECT && redis->database == 0)
		redis->step++;
	buffer_text(&redis->out, "*2\r\n");
	switch (redis->step)
	{
		case STEP_AUTH:
			add_argument(&redis->out, "AUTH");
			add_argument(&redis->out, password);
			break;
		case STEP_SELECT:
			snprintf(number, sizeof(number), "%d", redis->database);
			add_argument(&redis->out, "SELECT");
			add_argument(&redis->out, number);
			break;
		default:
			add_argument(&redis->out, "UNLINK");
			add_argument(&redis->out, redis->key);
			break;
	}
}

void
redis_connected(Context *context, Call *call)
{
	Redis	   *redis = call->work;

	if (curl_easy_getinfo(call->easy, CURLINFO_ACTIVESOCKET, &redis->socket) != CURLE_OK ||
		redis->socket == CURL_SOCKET_BAD)
	{
		transfer_error(call, CURLE_COULDNT_CONNECT);
		call_fail(context, call, false);
		return;
	}
	next_command(redis);
}

/* One whole reply: the end of the call, or the next command. */
static void
take_reply(Context *context, Call *call, const RedisReply *reply)
{
	Redis	   *redis = call->work;
	static const char *const names[] = {"", "AUTH", "SELECT", "UNLINK"};

	if (reply->type == '-' || (redis->step == STEP_UNLINK) != (reply->type == ':'))
	{
		snprintf(call->error, sizeof(call->error), "%.150s port %d: %s: %.*s", call->host_name, call->port,
				 names[redis->step], (int) (reply->text_len < 200 ? reply->text_len : 200), reply->text);
		call_fail(context, call, false);
	}
	else if (redis->step == STEP_UNLINK)
		call_succeed(context, call);
	else
		next_command(redis);
}

/* False: nothing more to be had now, or the call has failed. */
static bool
receive(Context *context, Call *call, bool *ended)
{
	Redis	   *redis = call->work;
	char		data[1024];
	size_t		got = 0;
	CURLcode	code = curl_easy_recv(call->easy, data, sizeof(data), &got);

	if (code == CURLE_OK && got > 0)
	{
		buffer_add(&redis->in, data, got);
		return true;
	}
	if (code == CURLE_AGAIN)
		return false;
	transfer_error(call, code == CURLE_OK ? CURLE_GOT_NOTHING : code);
	call_fail(context, call, false);
	*ended = true;
	return false;
}

static bool
send_rest(Context *context, Call *call)
{
	Redis	   *redis = call->work;
	size_t		sent = 0;
	CURLcode	code;

	while (redis->sent < redis->out.len)
	{
		code = curl_easy_send(call->easy, redis->out.data + redis->sent, redis->out.len - redis->sent, &sent);
		if (code == CURLE_AGAIN)
			return true;
		if (code != CURLE_OK)
		{
			transfer_error(call, code);
			call_fail(context, call, false);
			return false;
		}
		redis->sent += sent;
	}
	return true;
}

void
redis_step(Context *context, Call *call)
{
	Redis	   *redis = call->work;
	bool		ended = false;

	if (redis->step == STEP_CONNECT || !send_rest(context, call))
		return;
	while (receive(context, call, &ended))
	{
		RedisReply	reply;
		int			len = redis_parse(redis->in.data, redis->in.len, &reply);

		if (len < 0)
		{
			snprintf(call->error, sizeof(call->error), "%.150s port %d: the answer is not redis'", call->host_name, call->port);
			call_fail(context, call, false);
			return;
		}
		if (len == 0)
			continue;
		/* nothing may follow: one reply for each command */
		redis->in.len = 0;
		take_reply(context, call, &reply);
		if (call->state != CALL_RUNNING || !send_rest(context, call))
			return;
	}
}

bool
redis_wants_poll(const Call *call, struct curl_waitfd *fd)
{
	const Redis *redis = call->work;

	if (redis == NULL || redis->step == STEP_CONNECT)
		return false;
	fd->fd = redis->socket;
	fd->events = CURL_WAIT_POLLIN | (redis->sent < redis->out.len ? CURL_WAIT_POLLOUT : 0);
	fd->revents = 0;
	return true;
}

void
redis_cleanup(Call *call)
{
	Redis	   *redis = call->work;

	if (redis == NULL)
		return;
	buffer_free(&redis->out);
	buffer_free(&redis->in);
	free(redis->key);
	free(redis);
	call->work = NULL;
}
