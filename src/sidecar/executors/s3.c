/*
 * s3.c
 *		Handlers of kind s3: "s3://bucket/key", by DELETE.
 *
 * Signed here with Signature Version 4, over the key exactly as it is sent: a
 * key may have any byte.  The bucket goes into the path, never into the host
 * name, so that a bucket from a lease does not choose the host that is
 * connected to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "executors/aws.h"
#include "executors/calls.h"
#include "executors/context.h"
#include "executors/documents.h"
#include "executors/kinds.h"
#include "executors/s3.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

bool
exec_hmac(const void *key, size_t key_len, const void *data, size_t len, uint8_t *out)
{
	EVP_MAC    *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
	char		digest[] = "SHA256";
	OSSL_PARAM	params[2];
	size_t		written = 0;
	bool		done;

	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
	params[1] = OSSL_PARAM_construct_end();
	done = ctx != NULL && EVP_MAC_init(ctx, key, key_len, params) == 1 &&
		EVP_MAC_update(ctx, data, len) == 1 &&
		EVP_MAC_final(ctx, out, &written, 32) == 1 && written == 32;
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(mac);
	return done;
}

static void
add_hex(Buffer *buffer, const uint8_t *data, size_t len)
{
	size_t		i;

	for (i = 0; i < len; i++)
		buffer_printf(buffer, "%02x", data[i]);
}

/* The canonical request, whose hash is signed. */
static void
canonical_request(const S3Request *request, Buffer *text)
{
	buffer_printf(text, "%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:" EMPTY_SHA256 "\nx-amz-date:%s\n",
				  request->method, request->path, request->query, request->host, request->date);
	if (request->token != NULL)
		buffer_printf(text, "x-amz-security-token:%s\n", request->token);
	buffer_printf(text, "\nhost;x-amz-content-sha256;x-amz-date%s\n" EMPTY_SHA256,
				  request->token != NULL ? ";x-amz-security-token" : "");
}

/* The key for a day, a region and the service. */
static bool
signing_key(const S3Request *request, uint8_t *key)
{
	Buffer		secret = {NULL, 0, 0};
	bool		done;

	buffer_printf(&secret, "AWS4%s", request->secret_key);
	done = exec_hmac(secret.data, secret.len, request->date, 8, key) &&
		exec_hmac(key, 32, request->region, strlen(request->region), key) &&
		exec_hmac(key, 32, "s3", 2, key) &&
		exec_hmac(key, 32, "aws4_request", 12, key);
	OPENSSL_cleanse(secret.data, secret.len);
	buffer_free(&secret);
	return done;
}

bool
s3_sign(const S3Request *request, Buffer *authorization)
{
	Buffer		text = {NULL, 0, 0};
	Buffer		to_sign = {NULL, 0, 0};
	uint8_t		hash[EVP_MAX_MD_SIZE];
	uint8_t		key[32];
	uint8_t		signature[32];
	bool		done;

	canonical_request(request, &text);
	done = EVP_Digest(text.data, text.len, hash, NULL, EVP_sha256(), NULL) == 1 &&
		signing_key(request, key);
	if (done)
	{
		buffer_printf(&to_sign, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/s3/aws4_request\n",
					  request->date, request->date, request->region);
		add_hex(&to_sign, hash, 32);
		done = exec_hmac(key, 32, to_sign.data, to_sign.len, signature);
	}
	if (done)
	{
		buffer_printf(authorization, "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date%s, Signature=",
					  request->access_key, request->date, request->region,
					  request->token != NULL ? ";x-amz-security-token" : "");
		add_hex(authorization, signature, 32);
	}
	OPENSSL_cleanse(key, sizeof(key));
	buffer_free(&text);
	buffer_free(&to_sign);
	return done;
}

bool
s3_can_sign(void)
{
	static const S3Request request = {
		"DELETE", "", "host", "/bucket/key", "us-east-1", "access key", "a secret key of some length", NULL, "20260101T000000Z"
	};
	Buffer		authorization = {NULL, 0, 0};
	bool		signed_it = s3_sign(&request, &authorization);

	buffer_free(&authorization);
	return signed_it;
}

/* The first of the variables that is set and not empty. */
static const char *
environment(const char *name, const char *other)
{
	const char *value = getenv(name);

	if ((value == NULL || value[0] == '\0') && other != NULL)
		value = getenv(other);
	return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool
s3_lacks(Context *context, const char *command, char *why, size_t why_size)
{
	AwsKeys		keys;
	bool		known = aws_keys(context->aws, &keys, why, why_size);

	aws_keys_free(&keys);
	return !known;
}

static bool
s3_prepare(Context *context, Call *call)
{
	const char *endpoint = environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
	const char *bucket;
	const char *key;
	Buffer		url = {NULL, 0, 0};

	if (!call_expand(call, call->command, TARGET_NAME))
		return false;
	call->target.lease_host = false;	/* the host is the endpoint's */
	bucket = call->target.text.data;
	if (strncmp(bucket, "s3://", 5) != 0 || (key = strchr(bucket + 5, '/')) == NULL ||
		key == bucket + 5 || key[1] == '\0' || bucket[5 + strspn(bucket + 5, ".")] == '/')
	{
		snprintf(call->error, sizeof(call->error), "the target is no s3://bucket/key");
		return false;
	}
	if (endpoint != NULL)
		buffer_add(&url, endpoint, strlen(endpoint) - (endpoint[strlen(endpoint) - 1] == '/'));
	else
		buffer_printf(&url, "https://s3.%s.%s", aws_region(), aws_domain());
	buffer_text(&url, "/");
	buffer_encoded(&url, bucket + 5, strlen(bucket + 5), "/");
	call->url = url.data;
	call->method = "DELETE";
	if ((endpoint == NULL || strpbrk(endpoint, "?#@") == NULL) && transfer_split_url(call))
		return true;
	snprintf(call->error, sizeof(call->error), "AWS_ENDPOINT_URL_S3 is no URL of http or https without user and query");
	return false;
}

static bool
s3_start(Context *context, Call *call)
{
	const char *authority = strstr(call->url, "://") + 3;
	size_t		authority_len = strcspn(authority, "/");
	time_t		now = time(NULL);
	struct tm	utc;
	char		date[32];
	Buffer		host = {NULL, 0, 0};
	Buffer		authorization = {NULL, 0, 0};
	S3Request	request;
	AwsKeys		keys;
	bool		done;

	/* they were there when it was claimed: that is no attempt */
	call->ours = !aws_keys(context->aws, &keys, call->error, sizeof(call->error));
	if (call->ours)
		return false;
	gmtime_r(&now, &utc);
	strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &utc);
	buffer_add(&host, authority, authority_len);
	request.method = "DELETE";
	request.query = "";
	request.host = host.data;
	request.path = authority + authority_len;
	request.region = aws_region();
	request.access_key = keys.access_key;
	request.secret_key = keys.secret_key;
	request.token = keys.token;
	request.date = date;
	done = s3_sign(&request, &authorization);
	if (done)
	{
		/* libcurl would spell the host otherwise when the port is the default */
		call->headers = exec_header_value(call->headers, "Host", host.data);
		call->headers = exec_header_value(call->headers, "Authorization", authorization.data);
		call->headers = exec_header_value(call->headers, "x-amz-content-sha256", EMPTY_SHA256);
		call->headers = exec_header_value(call->headers, "x-amz-date", date);
		if (request.token != NULL)
			call->headers = exec_header_value(call->headers, "x-amz-security-token", request.token);
	}
	else
		snprintf(call->error, sizeof(call->error), "could not sign the request");
	aws_keys_free(&keys);
	buffer_free(&host);
	buffer_free(&authorization);
	return done;
}

/*
 * "Not there" is success only where the place is right: of a bucket that does not
 * exist, or a page of some web server, it is not.  And an error that came to mind
 * after the status line is one: some services have sent that already.
 */
static bool
s3_judge(Context *context, Call *call, long status)
{
	Buffer		code = {NULL, 0, 0};
	bool		is_error = xml_value(call->answer.data, call->answer.len, "Error/Code", &code);
	bool		removed;

	if (is_error)
		removed = status == 404 && (strcmp(code.data, "NoSuchKey") == 0 || strcmp(code.data, "NoSuchVersion") == 0);
	else
		removed = status >= 200 && status < 300;
	buffer_free(&code);
	if (removed)
		return true;
	snprintf(call->error, sizeof(call->error), "DELETE of %.200s: status %ld%s%.200s", call->target.text.data, status,
			 call->answer.len > 0 ? ": " : "", call->answer.len > 0 ? call->answer.data : "");
	return false;
}

const ExecutorOps s3_ops = {s3_prepare, s3_start, s3_judge, NULL, s3_lacks, "s3://1/1"};
