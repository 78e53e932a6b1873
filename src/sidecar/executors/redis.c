/*
 * redis.c
 *		Handlers of kind redis: "redis[s]://[user:password@]host[:port]/DB/KEY",
 *		by UNLINK, or DEL where that is not known.
 *
 * libcurl makes the connection, as it does for every other kind: so the
 * address is judged in the same place, and TLS is the same.  Then this file
 * speaks RESP2 over it, one command at a time: a SELECT that fails must not be
 * followed by an UNLINK in another database.
 *
 * Credentials, those in the target or else those of the environment
 * (REDIS_USERNAME, REDIS_PASSWORD), are for the host that a handler names and for
 * those in REDIS_HOST; a host that a lease names is sent none.  A node of a
 * cluster that says MOVED or ASK is one whose word counts for nothing but the
 * allow-list: it leads to hosts on that list only, and credentials go there only
 * if the host is in REDIS_HOST or the handler's own.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "executors/allow.h"
#include "executors/calls.h"
#include "executors/context.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/redis.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"

#define LINE_MAX_LEN 4096
#define MAX_REDIRECTIONS 5

typedef enum RedisStep
{
	STEP_CONNECT, STEP_AUTH, STEP_SELECT, STEP_ASKING, STEP_UNLINK
} RedisStep;

typedef struct Redis
{
	RedisStep	step;
	int			database;
	char	   *key;
	bool		tls;
	char	   *own_host;		/* as the handler names it; NULL: a lease does */
	char	   *user;			/* credentials of the target; NULL: none */
	char	   *password;
	bool		asking;			/* the node takes the key for once */
	bool		del;			/* UNLINK is not known there */
	int			redirections;
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

/* A copy of a part of the URL; NULL when it has none, or an empty one. */
static char *
url_part(CURLU *url, CURLUPart part, unsigned flags)
{
	char	   *text = NULL;
	char	   *copy = NULL;

	if (curl_url_get(url, part, &text, flags) == CURLUE_OK && text[0] != '\0')
		copy = exec_strdup(text);
	curl_free(text);
	return copy;
}

/* From "user:password@host:port" to call->url, by the parser that the request will be made by. */
static bool
take_authority(Call *call, Redis *redis, const char *authority, size_t len)
{
	Buffer		text = {NULL, 0, 0};
	CURLU	   *url = curl_url();
	char	   *port = NULL;
	bool		valid;

	buffer_text(&text, redis->tls ? "https://" : "http://");
	buffer_add(&text, authority, len);
	valid = url != NULL && curl_url_set(url, CURLUPART_URL, text.data, 0) == CURLUE_OK;
	if (valid)
	{
		redis->user = url_part(url, CURLUPART_USER, CURLU_URLDECODE);
		redis->password = url_part(url, CURLUPART_PASSWORD, CURLU_URLDECODE);
		port = url_part(url, CURLUPART_PORT, 0);
		valid = curl_url_set(url, CURLUPART_USER, NULL, 0) == CURLUE_OK &&
			curl_url_set(url, CURLUPART_PASSWORD, NULL, 0) == CURLUE_OK &&
			/* without a port redis' own is meant, not that of the web */
			(port != NULL || curl_url_set(url, CURLUPART_PORT, "6379", 0) == CURLUE_OK) &&
			(call->url = url_part(url, CURLUPART_URL, 0)) != NULL &&
			transfer_split_url(call);
	}
	curl_url_cleanup(url);
	buffer_free(&text);
	free(port);
	return valid;
}

static bool
redis_prepare(Context *context, Call *call)
{
	Redis	   *redis = exec_alloc(sizeof(*redis));
	const char *text;
	const char *path;

	call->work = redis;
	if (!call_expand(call, call->command, TARGET_REDIS))
		return false;
	text = call->target.text.data;
	redis->tls = strncmp(text, "rediss://", 9) == 0;
	if (!redis->tls && strncmp(text, "redis://", 8) != 0)
	{
		snprintf(call->error, sizeof(call->error), "the target does not begin with redis:// or rediss://");
		return false;
	}
	text += redis->tls ? 9 : 8;
	path = text + strcspn(text, "/?#");
	if (!split_path(path, redis))
	{
		snprintf(call->error, sizeof(call->error), "the target has no /DB/KEY behind its host, where DB is a number");
		return false;
	}
	if (path == text || !take_authority(call, redis, text, (size_t) (path - text)))
	{
		snprintf(call->error, sizeof(call->error), "the target has no host:port");
		return false;
	}
	if (!call->target.lease_host)
		redis->own_host = exec_strdup(call->host_name);
	else if (redis->user != NULL || redis->password != NULL)
	{
		snprintf(call->error, sizeof(call->error), "the target has credentials, and its host comes from a lease");
		return false;
	}
	return true;
}

static bool
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

/* Is this host (and port) one of REDIS_HOST: HOST[:PORT], separated by commas or spaces? */
static bool
is_named_host(const char *host, int port)
{
	const char *list = getenv("REDIS_HOST");

	while (list != NULL && *(list += strspn(list, ", ")) != '\0')
	{
		size_t		len = strcspn(list, ", ");
		size_t		host_len = strlen(host);
		const char *end = list + len;
		const char *name = list + (list[0] == '[');

		list = end;
		if ((size_t) (end - name) < host_len || strncasecmp(name, host, host_len) != 0)
			continue;
		name += host_len;
		name += *name == ']';
		if (name == end || (*name == ':' && atoi(name + 1) == port))
			return true;
	}
	return false;
}

/* A variable that is set and not empty. */
static const char *
environment(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* What to prove ourselves by where we are connected now; false: nothing. */
static bool
credentials(const Call *call, const char **user, const char **password)
{
	const Redis *redis = call->work;
	bool		trusted = redis->own_host != NULL &&
		(strcasecmp(redis->own_host, call->host_name) == 0 || is_named_host(call->host_name, call->port));
	bool		given = redis->user != NULL || redis->password != NULL;

	*user = !trusted ? NULL : given ? redis->user : environment("REDIS_USERNAME");
	*password = !trusted ? NULL : given ? redis->password : environment("REDIS_PASSWORD");
	return *password != NULL;
}

/* Write the command of the step that comes next. */
static void
next_command(Call *call)
{
	Redis	   *redis = call->work;
	const char *user = NULL;
	const char *password = NULL;
	char		number[16];

	redis->out.len = redis->sent = 0;
	redis->step++;
	if (redis->step == STEP_AUTH && !credentials(call, &user, &password))
		redis->step++;
	if (redis->step == STEP_SELECT && redis->database == 0)
		redis->step++;
	if (redis->step == STEP_ASKING && !redis->asking)
		redis->step++;
	switch (redis->step)
	{
		case STEP_AUTH:
			buffer_text(&redis->out, user != NULL ? "*3\r\n" : "*2\r\n");
			add_argument(&redis->out, "AUTH");
			if (user != NULL)
				add_argument(&redis->out, user);
			add_argument(&redis->out, password);
			break;
		case STEP_SELECT:
			snprintf(number, sizeof(number), "%d", redis->database);
			buffer_text(&redis->out, "*2\r\n");
			add_argument(&redis->out, "SELECT");
			add_argument(&redis->out, number);
			break;
		case STEP_ASKING:
			buffer_text(&redis->out, "*1\r\n");
			add_argument(&redis->out, "ASKING");
			break;
		default:
			buffer_text(&redis->out, "*2\r\n");
			add_argument(&redis->out, redis->del ? "DEL" : "UNLINK");
			add_argument(&redis->out, redis->key);
			break;
	}
}

static void
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
	next_command(call);
}

static bool
begins(const RedisReply *reply, const char *text)
{
	size_t		len = strlen(text);

	return reply->type == '-' && reply->text_len >= len && strncasecmp(reply->text, text, len) == 0;
}

static bool
contains(const RedisReply *reply, const char *text)
{
	return memmem(reply->text, reply->text_len, text, strlen(text)) != NULL;
}

/* "MOVED 3999 host:port", of which the host may be empty or an IPv6 address without brackets. False: call->error. */
static bool
redirect(Context *context, Call *call, const RedisReply *reply)
{
	Redis	   *redis = call->work;
	const char *end = reply->text + reply->text_len;
	const char *host = memrchr(reply->text, ' ', reply->text_len);
	const char *colon = host != NULL ? memrchr(host, ':', (size_t) (end - host)) : NULL;
	Buffer		name = {NULL, 0, 0};
	Buffer		url = {NULL, 0, 0};
	int			port;
	bool		allowed;

	if (colon == NULL || (port = atoi(colon + 1)) <= 0 || port > 65535 || ++redis->redirections > MAX_REDIRECTIONS)
	{
		snprintf(call->error, sizeof(call->error), "%.150s port %d: leads nowhere: %.*s", call->host_name, call->port,
				 (int) (reply->text_len < 200 ? reply->text_len : 200), reply->text);
		return false;
	}
	host++;
	if (colon == host)
		buffer_text(&name, call->host_name);
	else
		buffer_add(&name, host, (size_t) (colon - host));
	allowed = allow_host(context->settings.allow, name.data, port, call->error, sizeof(call->error));
	if (!allowed)
		snprintf(call->error, sizeof(call->error), "%.150s port %d leads to host \"%.150s\" port %d, which --allow-target does not allow",
				 call->host_name, call->port, name.data, port);
	else
	{
		buffer_printf(&url, strchr(name.data, ':') != NULL ? "%s[%s]:%d" : "%s%s:%d", redis->tls ? "https://" : "http://", name.data, port);
		transfer_end(context, call);
		free(call->url);
		call->url = url.data;
		call->target.lease_host = true; /* judged as what a handler does not name itself */
		redis->asking = begins(reply, "ASK ");
		redis->step = STEP_CONNECT;
		redis->socket = CURL_SOCKET_BAD;
		redis->in.len = 0;
		allowed = transfer_split_url(call) && transfer_start(context, call, TRANSFER_CONNECT);
	}
	buffer_free(&name);
	return allowed;
}

/* An answer that is an error. */
static void
take_error(Context *context, Call *call, const RedisReply *reply)
{
	static const char *const names[] = {"", "AUTH", "SELECT", "ASKING", "UNLINK"};
	Redis	   *redis = call->work;

	/* the password in the environment is that of another host: this one wants none */
	if (redis->step == STEP_AUTH && redis->password == NULL &&
		(contains(reply, "without any password") || contains(reply, "no password is set")))
		next_command(call);
	else if (redis->step == STEP_UNLINK && !redis->del && begins(reply, "ERR unknown command"))
	{
		redis->del = true;
		redis->step = STEP_SELECT;	/* ASKING counts for one command */
		next_command(call);
	}
	else if (redis->step == STEP_UNLINK && (begins(reply, "MOVED ") || begins(reply, "ASK ")))
	{
		if (!redirect(context, call, reply))
			call_fail(context, call, false);
	}
	else
	{
		snprintf(call->error, sizeof(call->error), "%.150s port %d: %s: %.*s", call->host_name, call->port,
				 redis->del && redis->step == STEP_UNLINK ? "DEL" : names[redis->step],
				 (int) (reply->text_len < 200 ? reply->text_len : 200), reply->text);
		call_fail(context, call, false);
	}
}

/* One whole reply: the end of the call, or the next command. */
static void
take_reply(Context *context, Call *call, const RedisReply *reply)
{
	Redis	   *redis = call->work;

	host_answered(context, call->host, exec_now() - call->started_at);
	if (reply->type == '-' || (redis->step == STEP_UNLINK) != (reply->type == ':') || reply->integer < 0)
		take_error(context, call, reply);
	else if (redis->step == STEP_UNLINK)
		call_succeed(context, call);
	else
		next_command(call);
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

static void
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
		if (call->state != CALL_RUNNING || redis->step == STEP_CONNECT || !send_rest(context, call))
			return;
	}
}

static bool
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

static void
redis_cleanup(Call *call)
{
	Redis	   *redis = call->work;

	if (redis == NULL)
		return;
	buffer_free(&redis->out);
	buffer_free(&redis->in);
	if (redis->password != NULL)
		OPENSSL_cleanse(redis->password, strlen(redis->password));
	free(redis->key);
	free(redis->own_host);
	free(redis->user);
	free(redis->password);
	free(redis);
	call->work = NULL;
}

const ExecutorOps redis_ops = {
	.prepare = redis_prepare,
	.start = redis_start,
	.cleanup = redis_cleanup,
	.sample = "redis://1/1/1",
	.transfer = TRANSFER_CONNECT,
	.connected = redis_connected,
	.step = redis_step,
	.wants_poll = redis_wants_poll,
};
