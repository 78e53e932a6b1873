/*
 * aws.c
 *		AWS credentials: those of the environment, or of a role.
 *
 * A role's are had, in this order, by a web identity token (at STS), from the
 * container's endpoint, or from the instance's metadata, as the SDKs have them;
 * the first that is configured is the one that is asked.  They last for an hour
 * or so.  A thread of our own fetches them, so that nobody waits for it, begins
 * when they are first wanted, and again well before they are over; what it has
 * last got is guarded by the lock.  While there are none, or they are over, the
 * handlers of kind s3 are left to others.
 *
 * What is asked for them is named by the environment, so by whoever runs us,
 * and by nothing that a lease says.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "executors/aws.h"
#include "executors/context.h"
#include "executors/documents.h"
#include "executors/util.h"

#define ANSWER_MAX		65536
#define TOKEN_MAX		65536
#define FIRST_RETRY_S	1
#define LAST_RETRY_S	60
#define AHEAD_S			300		/* so long before the end they are fetched again */
#define RENEW_S			3600	/* at the latest */
#define LOOK_S			30		/* how often the clock on the wall is looked at */
#define STS_VERSION		"2011-06-15"

struct Aws
{
	const char *tls_ca;
	pthread_t	thread;
	bool		started;		/* the executors' thread alone knows */
	pthread_mutex_t lock;
	pthread_cond_t changed;

	/* guarded by lock */
	AwsKeys		keys;
	time_t		expires;		/* of keys; 0: not said */
	char		why[EXEC_ERROR_SIZE];	/* there are none */
	bool		stop;
};

/* What is fetched, and why it was not. */
typedef struct Fetch
{
	Aws		   *aws;
	AwsKeys		keys;
	Buffer		expiration;
	time_t		expires;
	char		why[EXEC_ERROR_SIZE];

	/* of the request under way */
	struct curl_slist *headers;
	Buffer		answer;
	bool		local_only;		/* to this machine or the container's agent */
	bool		refused;
} Fetch;

static const char *
environment(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

const char *
aws_region(void)
{
	const char *value = environment("AWS_REGION");

	if (value == NULL)
		value = environment("AWS_DEFAULT_REGION");
	return value != NULL ? value : "us-east-1";
}

const char *
aws_domain(void)
{
	return strncmp(aws_region(), "cn-", 3) == 0 ? "amazonaws.com.cn" : "amazonaws.com";
}

static void
free_secret(char *text)
{
	if (text != NULL)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
}

void
aws_keys_free(AwsKeys *keys)
{
	free_secret(keys->access_key);
	free_secret(keys->secret_key);
	free_secret(keys->token);
	memset(keys, 0, sizeof(*keys));
}

/* --- one request --- */

static size_t
take_answer(char *data, size_t size, size_t count, void *arg)
{
	Fetch	   *fetch = arg;

	if (fetch->answer.len + size * count > ANSWER_MAX)
		return 0;
	buffer_add(&fetch->answer, data, size * count);
	return size * count;
}

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	Fetch	   *fetch = arg;

	fetch->refused = fetch->local_only && !address_is_of_agent(&address->addr);
	return fetch->refused ? CURL_SOCKET_BAD :
		socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool
is_stopped(Aws *aws)
{
	bool		stop;

	pthread_mutex_lock(&aws->lock);
	stop = aws->stop;
	pthread_mutex_unlock(&aws->lock);
	return stop;
}

/* As curl_easy_perform(), but for a stop. */
static CURLcode
perform(Aws *aws, CURL *easy)
{
	CURLM	   *multi = curl_multi_init();
	CURLcode	code = CURLE_ABORTED_BY_CALLBACK;
	CURLMsg    *message;
	int			running = 1;

	if (multi == NULL || curl_multi_add_handle(multi, easy) != CURLM_OK)
		code = CURLE_OUT_OF_MEMORY;
	while (code != CURLE_OUT_OF_MEMORY && running > 0 && !is_stopped(aws))
	{
		curl_multi_perform(multi, &running);
		if (running > 0)
			curl_multi_poll(multi, NULL, 0, 200, NULL);
	}
	if (multi != NULL && (message = curl_multi_info_read(multi, &running)) != NULL)
		code = message->data.result;
	curl_multi_remove_handle(multi, easy);
	curl_multi_cleanup(multi);
	return code;
}

/* The answer of status 200 is in fetch->answer; else it says why not. */
static bool
request(Fetch *fetch, const char *method, const char *url, const char *body, long timeout_ms)
{
	CURL	   *easy = curl_easy_init();
	char		error[CURL_ERROR_SIZE] = "";
	CURLcode	code = CURLE_OUT_OF_MEMORY;
	long		status = 0;
	bool		set = easy != NULL;

	buffer_free(&fetch->answer);
#define SET(option, value) \
	(set = set && curl_easy_setopt(easy, option, value) == CURLE_OK)
	SET(CURLOPT_ERRORBUFFER, error);
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_TIMEOUT_MS, timeout_ms);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_USERAGENT, "garbagetruck");
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, fetch);
	SET(CURLOPT_WRITEFUNCTION, take_answer);
	SET(CURLOPT_WRITEDATA, fetch);
	SET(CURLOPT_HTTPHEADER, fetch->headers);
	if (body != NULL)
		SET(CURLOPT_POSTFIELDS, body);
	SET(CURLOPT_CUSTOMREQUEST, method);
	if (fetch->aws->tls_ca != NULL)
		SET(CURLOPT_CAINFO, fetch->aws->tls_ca);
#undef SET
	if (set)
	{
		code = perform(fetch->aws, easy);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	}
	curl_easy_cleanup(easy);
	curl_slist_free_all(fetch->headers);
	fetch->headers = NULL;
	if (code == CURLE_OK && status == 200)
		return true;
	if (fetch->refused)
		snprintf(fetch->why, sizeof(fetch->why), "%.200s: without https only this machine and the agent of containers may be asked", url);
	else if (code == CURLE_OK)
		snprintf(fetch->why, sizeof(fetch->why), "%.200s answered with status %ld", url, status);
	else
		snprintf(fetch->why, sizeof(fetch->why), "%.200s: %.200s", url, error[0] != '\0' ? error : curl_easy_strerror(code));
	return false;
}

/* --- what the answers say --- */

typedef bool (*ReadValue) (const char *text, size_t len, const char *name, Buffer *value);

/* The names are those of its kind of document. */
static bool
take_credentials(Fetch *fetch, const char *url, ReadValue read, const char *id, const char *secret, const char *token, const char *expiration)
{
	const char *names[] = {id, secret, token};
	char	  **values[] = {&fetch->keys.access_key, &fetch->keys.secret_key, &fetch->keys.token};
	bool		valid = true;
	int			i;

	for (i = 0; i < 3; i++)
	{
		Buffer		value = {NULL, 0, 0};

		valid = read(fetch->answer.data, fetch->answer.len, names[i], &value) && text_is_plain(value.data) && valid;
		*values[i] = value.data;
	}
	if (!valid)
	{
		snprintf(fetch->why, sizeof(fetch->why), "the answer of %.200s has no credentials", url);
		return false;
	}
	if (!read(fetch->answer.data, fetch->answer.len, expiration, &fetch->expiration))
		return true;
	if (text_time(fetch->expiration.data, &fetch->expires) && fetch->expires > time(NULL))
		return true;
	snprintf(fetch->why, sizeof(fetch->why), "the credentials that %.200s gave are over since %.40s", url, fetch->expiration.data);
	return false;
}

static bool
take_json(Fetch *fetch, const char *url)
{
	return take_credentials(fetch, url, json_value, "AccessKeyId", "SecretAccessKey", "Token", "Expiration");
}

/* The first line of a small file; NULL: `why` says why not. */
static char *
read_file(Fetch *fetch, const char *path)
{
	FILE	   *file = fopen(path, "re");
	char	   *text = exec_alloc(TOKEN_MAX);
	size_t		len = file != NULL ? fread(text, 1, TOKEN_MAX - 1, file) : 0;

	text[len] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	if (file == NULL)
		snprintf(fetch->why, sizeof(fetch->why), "could not open \"%.200s\": %s", path, strerror(errno));
	else
		fclose(file);
	if (file != NULL && text_is_plain(text))
		return text;
	if (file != NULL)
		snprintf(fetch->why, sizeof(fetch->why), "there is no token in \"%.200s\"", path);
	free_secret(text);
	return NULL;
}

/* --- where they come from --- */

/* A token that somebody else keeps fresh in a file is exchanged for a role's credentials. */
static bool
fetch_web_identity(Fetch *fetch)
{
#define RESULT "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/"
	const char *endpoint = environment("AWS_ENDPOINT_URL_STS");
	const char *role = environment("AWS_ROLE_ARN");
	const char *session = environment("AWS_ROLE_SESSION_NAME");
	char	   *token;
	Buffer		url = {NULL, 0, 0};
	Buffer		body = {NULL, 0, 0};
	Buffer		code = {NULL, 0, 0};
	bool		fetched;

	if (role == NULL)
	{
		snprintf(fetch->why, sizeof(fetch->why), "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN is not");
		return false;
	}
	token = read_file(fetch, environment("AWS_WEB_IDENTITY_TOKEN_FILE"));
	if (token == NULL)
		return false;
	if (endpoint == NULL)
		endpoint = environment("AWS_ENDPOINT_URL");
	if (endpoint != NULL)
		buffer_text(&url, endpoint);
	else
		buffer_printf(&url, "https://sts.%s.%s/", aws_region(), aws_domain());
	buffer_parameter(&body, "Action", "AssumeRoleWithWebIdentity");
	buffer_parameter(&body, "Version", STS_VERSION);
	buffer_parameter(&body, "RoleArn", role);
	buffer_parameter(&body, "RoleSessionName", session != NULL ? session : "garbagetruck");
	buffer_parameter(&body, "WebIdentityToken", token);
	free_secret(token);
	fetched = request(fetch, "POST", url.data, body.data, 20000);
	if (!fetched && xml_value(fetch->answer.data, fetch->answer.len, "ErrorResponse/Error/Code", &code))
	{
		size_t		len = strlen(fetch->why);

		snprintf(fetch->why + len, sizeof(fetch->why) - len, ": %.100s", code.data);
	}
	else if (fetched)
		fetched = take_credentials(fetch, url.data, xml_value, RESULT "AccessKeyId", RESULT "SecretAccessKey", RESULT "SessionToken", RESULT "Expiration");
	OPENSSL_cleanse(body.data, body.len);
	buffer_free(&body);
	buffer_free(&url);
	buffer_free(&code);
	return fetched;
}

/* The agent of ECS or EKS. */
static bool
fetch_container(Fetch *fetch)
{
	const char *relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *proof = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	char	   *token = file != NULL ? read_file(fetch, file) : exec_strdup(proof);
	Buffer		url = {NULL, 0, 0};
	bool		fetched;

	if (token == NULL && file != NULL)
		return false;
	if (relative != NULL)
		buffer_printf(&url, "http://169.254.170.2%s%s", relative[0] == '/' ? "" : "/", relative);
	else
		buffer_text(&url, full);
	fetch->local_only = strncasecmp(url.data, "https://", 8) != 0;
	/* a line break would begin another header */
	if (token != NULL && token[strcspn(token, "\r\n")] != '\0')
	{
		snprintf(fetch->why, sizeof(fetch->why), "there is a line break in AWS_CONTAINER_AUTHORIZATION_TOKEN");
		fetched = false;
	}
	else
	{
		if (token != NULL)
			fetch->headers = exec_header_value(fetch->headers, "Authorization", token);
		fetched = request(fetch, "GET", url.data, NULL, 5000) && take_json(fetch, url.data);
	}
	free_secret(token);
	buffer_free(&url);
	return fetched;
}

/* One line of the instance's metadata goes to `value`, by the session whose token it is. */
static bool
get_metadata(Fetch *fetch, const char *url, const char *token)
{
	fetch->headers = exec_header_value(fetch->headers, "X-aws-ec2-metadata-token", token);
	return request(fetch, "GET", url, NULL, 5000);
}

/* The instance, by version 2 of its metadata service: version 1 answers whoever can make us ask. */
static bool
fetch_instance(Fetch *fetch)
{
	const char *endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	const char *mode = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
	Buffer		base = {NULL, 0, 0};
	Buffer		url = {NULL, 0, 0};
	char	   *token = NULL;
	bool		fetched = false;

	if (endpoint == NULL)
		endpoint = mode != NULL && strcasecmp(mode, "IPv6") == 0 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
	buffer_add(&base, endpoint, strlen(endpoint) - (endpoint[strlen(endpoint) - 1] == '/'));
	buffer_printf(&url, "%s/latest/api/token", base.data);
	fetch->headers = exec_header(fetch->headers, "X-aws-ec2-metadata-token-ttl-seconds: 300");
	if (request(fetch, "PUT", url.data, NULL, 2000))
	{
		token = exec_strdup(fetch->answer.data != NULL ? fetch->answer.data : "");
		if (text_is_plain(token))
		{
			buffer_free(&url);
			buffer_printf(&url, "%s/latest/meta-data/iam/security-credentials/", base.data);
			fetched = get_metadata(fetch, url.data, token);
		}
		else
			snprintf(fetch->why, sizeof(fetch->why), "%.200s gave no token", url.data);
	}
	if (fetched && fetch->answer.data != NULL)
	{
		fetch->answer.data[strcspn(fetch->answer.data, "\r\n")] = '\0';
		fetched = text_is_plain(fetch->answer.data);
		if (fetched)
		{
			buffer_encoded(&url, fetch->answer.data, strlen(fetch->answer.data), "+=,@");
			fetched = get_metadata(fetch, url.data, token) && take_json(fetch, url.data);
		}
		else
			snprintf(fetch->why, sizeof(fetch->why), "the instance has no role");
	}
	else if (fetched)
	{
		snprintf(fetch->why, sizeof(fetch->why), "the instance has no role");
		fetched = false;
	}
	free_secret(token);
	buffer_free(&base);
	buffer_free(&url);
	return fetched;
}

static bool
fetch_keys(Fetch *fetch)
{
	const char *disabled = environment("AWS_EC2_METADATA_DISABLED");

	if (environment("AWS_WEB_IDENTITY_TOKEN_FILE") != NULL)
		return fetch_web_identity(fetch);
	if (environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != NULL || environment("AWS_CONTAINER_CREDENTIALS_FULL_URI") != NULL)
		return fetch_container(fetch);
	if (disabled == NULL || strcasecmp(disabled, "true") != 0)
		return fetch_instance(fetch);
	snprintf(fetch->why, sizeof(fetch->why), "AWS_EC2_METADATA_DISABLED is true");
	return false;
}

/* --- the thread --- */

/* Seconds until they are to be fetched again. */
static time_t
renew_after(time_t expires)
{
	time_t		lasts = expires - time(NULL);
	time_t		after;

	if (expires == 0)
		return RENEW_S;
	after = lasts > 2 * AHEAD_S ? lasts - AHEAD_S : lasts / 2;
	if (after > RENEW_S)
		after = RENEW_S;
	return after > 1 ? after : 1;
}

static void
take_fetched(Aws *aws, Fetch *fetch, bool fetched)
{
	pthread_mutex_lock(&aws->lock);
	if (fetched)
	{
		AwsKeys		before = aws->keys;

		aws->keys = fetch->keys;
		aws->expires = fetch->expires;
		aws->why[0] = '\0';
		fetch->keys = before;
	}
	else
		snprintf(aws->why, sizeof(aws->why), "%s", fetch->why);
	pthread_mutex_unlock(&aws->lock);
	aws_keys_free(&fetch->keys);
	buffer_free(&fetch->expiration);
	if (fetch->answer.data != NULL)
		OPENSSL_cleanse(fetch->answer.data, fetch->answer.len);
	buffer_free(&fetch->answer);
}

/* By the clock on the wall, which may jump: looked at now and then.  False: the end. */
static bool
sleep_until(Aws *aws, time_t when)
{
	bool		stop;

	pthread_mutex_lock(&aws->lock);
	while (!aws->stop && time(NULL) < when)
	{
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += when - time(NULL) < LOOK_S ? when - time(NULL) : LOOK_S;
		pthread_cond_timedwait(&aws->changed, &aws->lock, &until);
	}
	stop = aws->stop;
	pthread_mutex_unlock(&aws->lock);
	return !stop;
}

static void *
aws_thread(void *arg)
{
	Aws		   *aws = arg;
	time_t		retry = FIRST_RETRY_S;
	time_t		after;

	do
	{
		Fetch		fetch;
		bool		fetched;

		memset(&fetch, 0, sizeof(fetch));
		fetch.aws = aws;
		fetched = fetch_keys(&fetch);
		after = fetched ? renew_after(fetch.expires) : retry;
		retry = fetched ? FIRST_RETRY_S : 2 * retry < LAST_RETRY_S ? 2 * retry : LAST_RETRY_S;
		take_fetched(aws, &fetch, fetched);
	} while (sleep_until(aws, time(NULL) + after));
	return NULL;
}

Aws *
aws_create(const Settings *settings)
{
	Aws		   *aws = exec_alloc(sizeof(*aws));
	pthread_condattr_t attributes;

	aws->tls_ca = settings->tls_ca;
	snprintf(aws->why, sizeof(aws->why), "they are being fetched");
	pthread_mutex_init(&aws->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&aws->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return aws;
}

void
aws_free(Aws *aws)
{
	if (aws == NULL)
		return;
	pthread_mutex_lock(&aws->lock);
	aws->stop = true;
	pthread_cond_signal(&aws->changed);
	pthread_mutex_unlock(&aws->lock);
	if (aws->started)
		pthread_join(aws->thread, NULL);
	aws_keys_free(&aws->keys);
	pthread_cond_destroy(&aws->changed);
	pthread_mutex_destroy(&aws->lock);
	free(aws);
}

bool
aws_keys(Aws *aws, AwsKeys *keys, char *why, size_t why_size)
{
	const char *access_key = environment("AWS_ACCESS_KEY_ID");
	const char *secret_key = environment("AWS_SECRET_ACCESS_KEY");
	bool		known;

	memset(keys, 0, sizeof(*keys));
	if (access_key != NULL && secret_key != NULL)
	{
		keys->access_key = exec_strdup(access_key);
		keys->secret_key = exec_strdup(secret_key);
		keys->token = exec_strdup(environment("AWS_SESSION_TOKEN"));
		return true;
	}
	if (!aws->started)
		aws->started = pthread_create(&aws->thread, NULL, aws_thread, aws) == 0;
	pthread_mutex_lock(&aws->lock);
	known = aws->keys.access_key != NULL && (aws->expires == 0 || time(NULL) < aws->expires);
	if (known)
	{
		keys->access_key = exec_strdup(aws->keys.access_key);
		keys->secret_key = exec_strdup(aws->keys.secret_key);
		keys->token = exec_strdup(aws->keys.token);
	}
	else
		snprintf(why, why_size, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the sidecar's environment, or give it a role, whose credentials are not known: %s",
				 aws->why);
	pthread_mutex_unlock(&aws->lock);
	return known;
}
