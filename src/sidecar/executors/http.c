/*
 * http.c
 *		Handlers of kind http: "[METHOD ]URL".
 *
 * Success is 2xx; for DELETE also 404 and 410, as what was to be deleted is
 * gone.  The JSON body is made by the database, in the claim query.
 *
 * Each attempt at one cleanup carries the same Idempotency-Key, by which a
 * target knows it again; webhook-id, webhook-timestamp and webhook-signature
 * are those of the Standard Webhooks specification (standardwebhooks.com).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "executors/calls.h"
#include "executors/context.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"

#define SECRET_PREFIX "whsec_"
#define SECRET_MAX 512
#define RETRY_AFTER_MAX (24 * 3600)	/* seconds: no longer than the longest step between attempts */

/* The methods that there are, so that they need not be copied. */
static const char *const methods[] = {
	"POST", "PUT", "DELETE", "GET", "HEAD", "PATCH", "OPTIONS", NULL
};

/* Take the method from the beginning of a template; *url is the rest. */
static const char *
split_method(const char *template, const char **url)
{
	size_t		len = strspn(template, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	int			i;

	*url = template;
	if (len == 0 || template[len] != ' ')
		return "POST";
	for (i = 0; methods[i] != NULL; i++)
	{
		if (strlen(methods[i]) == len && strncmp(methods[i], template, len) == 0)
		{
			*url = template + len + strspn(template + len, " ");
			return methods[i];
		}
	}
	return NULL;
}

static bool
http_prepare(Context *context, Call *call)
{
	const char *template;

	call->method = split_method(call->command, &template);
	if (call->method == NULL)
	{
		snprintf(call->error, sizeof(call->error), "the target begins with an unknown method: \"%.100s\"", call->command);
		return false;
	}
	if (!call_expand(call, template, TARGET_URL))
		return false;
	call->url = exec_strdup(call->target.text.data);
	if (transfer_split_url(call))
		return true;
	snprintf(call->error, sizeof(call->error), "the target is no URL of http or https: \"%.100s\"", call->url);
	return false;
}

/* The bytes of one secret: base64 behind the prefix, else the text itself.  Returns how many, -1: it is none. */
static int
secret_bytes(const char *secret, size_t len, uint8_t *bytes)
{
	uint8_t		text[SECRET_MAX + 1];
	size_t		prefix = strlen(SECRET_PREFIX);
	int			count;

	if (len > SECRET_MAX)
		return -1;
	if (len < prefix || strncmp(secret, SECRET_PREFIX, prefix) != 0)
	{
		memcpy(bytes, secret, len);
		return (int) len;
	}
	len -= prefix;
	memcpy(text, secret + prefix, len);
	count = EVP_DecodeBlock(bytes, text, (int) len);
	/* the padding counts as bytes there */
	while (count > 0 && len > 0 && text[--len] == '=')
		count--;
	OPENSSL_cleanse(text, sizeof(text));
	return count > 0 ? count : -1;
}

bool
http_sign(const char *secrets, const char *id, const char *timestamp,
		  const void *body, size_t len, Buffer *signature)
{
	Buffer		text = {NULL, 0, 0};
	bool		done = true;

	buffer_printf(&text, "%s.%s.", id, timestamp);
	buffer_add(&text, body, len);
	while (done && *(secrets += strspn(secrets, " ")) != '\0')
	{
		size_t		secret_len = strcspn(secrets, " ");
		uint8_t		key[SECRET_MAX + 3];
		uint8_t		mac[32];
		uint8_t		base64[64];
		int			key_len = secret_bytes(secrets, secret_len, key);

		done = key_len > 0 && exec_hmac(key, (size_t) key_len, text.data, text.len, mac);
		if (done)
		{
			EVP_EncodeBlock(base64, mac, sizeof(mac));
			buffer_printf(signature, "%sv1,%s", signature->len > 0 ? " " : "", (char *) base64);
		}
		OPENSSL_cleanse(key, sizeof(key));
		secrets += secret_len;
	}
	buffer_free(&text);
	return done && signature->len > 0;
}

/* What tells the target which cleanup this is, and that it comes from us. */
static bool
add_identity(Context *context, Call *call)
{
	char		id[40];
	char		number[24];
	Buffer		signature = {NULL, 0, 0};

	call_idempotency_key(context, call, id, sizeof(id));
	call->headers = exec_header_value(call->headers, "Idempotency-Key", id);
	call->headers = exec_header_value(call->headers, "webhook-id", id);
	snprintf(number, sizeof(number), "%d", call->attempt);
	call->headers = exec_header_value(call->headers, "Garbagetruck-Attempt", number);
	if (context->settings.webhook_secret == NULL)
		return true;
	snprintf(number, sizeof(number), "%lld", (long long) time(NULL));
	if (!http_sign(context->settings.webhook_secret, id, number, call->send != NULL ? (const char *) call->send : "",
				   call->send != NULL ? call->send_len : 0, &signature))
	{
		snprintf(call->error, sizeof(call->error), "could not sign the request");
		buffer_free(&signature);
		return false;
	}
	call->headers = exec_header_value(call->headers, "webhook-timestamp", number);
	call->headers = exec_header_value(call->headers, "webhook-signature", signature.data);
	buffer_free(&signature);
	return true;
}

static bool
http_start(Context *context, Call *call)
{
	call->headers = exec_header(call->headers, "Expect:");
	if (strcmp(call->method, "POST") == 0 || strcmp(call->method, "PUT") == 0)
	{
		call->send = (const uint8_t *) (call->body != NULL ? call->body : "{}");
		call->send_len = strlen((const char *) call->send);
		call->headers = exec_header(call->headers, "Content-Type: application/json");
	}
	return add_identity(context, call);
}

int64_t
http_retry_after(const char *text, int64_t now)
{
	char	   *end;
	long long	seconds;

	if (text == NULL)
		return 0;
	if (text[strspn(text, "0123456789")] == '\0')
		seconds = strtoll(text, &end, 10);
	else
		seconds = (long long) curl_getdate(text, NULL) - now;	/* -1 before that: in the past */
	if (seconds <= 0)
		return 0;
	return (seconds < RETRY_AFTER_MAX ? seconds : RETRY_AFTER_MAX) * 1000;
}

static bool
http_judge(Context *context, Call *call, long status)
{
	if (status >= 200 && status < 300)
		return true;
	if (strcmp(call->method, "DELETE") == 0 && (status == 404 || status == 410))
		return true;
	if (status == 429 || status == 503)
		call->retry_after_ms = http_retry_after(call->retry_after, (int64_t) time(NULL));
	/* whoever took these events wants no more of them */
	call->final = status == 410 && strcmp(call->method, "POST") == 0;
	snprintf(call->error, sizeof(call->error), "%s to %.150s port %d: status %ld%s%.200s",
			 call->method, call->host_name, call->port, status,
			 call->answer.len > 0 ? ": " : "", call->answer.len > 0 ? call->answer.data : "");
	return false;
}

const ExecutorOps http_ops = {http_prepare, http_start, http_judge, NULL, NULL, "http://1/1"};
