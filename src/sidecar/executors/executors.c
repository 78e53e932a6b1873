/*
 * executors.c
 *		The executors' thread: start, turn, end, and what others ask of it.
 *
 * The thread owns the context.  What other threads may see or set is in struct
 * Executors and guarded by its lock, which is held for copying only.  The
 * process may be killed at any time: claims lapse.
 */
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "executors/aws.h"
#include "executors/calls.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/file.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/link.h"
#include "executors/s3.h"
#include "executors/util.h"

#define MAX_TURN_MS 1000		/* the longest wait */
#define STALL_MS 1000			/* after which a turn was late */
#define END_MS		5000		/* at the end of draining: for telling the last outcomes */
#define MAX_IDLE_CONNECTIONS 64L	/* kept for the next call to the host */

const char *const executor_kind_names[EXEC_KINDS] = {
	[EXEC_HTTP] = "http",
	[EXEC_GRPC] = "grpc",
	[EXEC_S3] = "s3",
	[EXEC_AZURE_BLOB] = "azure_blob",
	[EXEC_FILE] = "file",
	[EXEC_REDIS] = "redis",
};

int
executor_kind(const char *name, size_t len)
{
	int			kind;

	for (kind = 0; kind < EXEC_KINDS; kind++)
	{
		if (strlen(executor_kind_names[kind]) == len && strncmp(executor_kind_names[kind], name, len) == 0)
			return kind;
	}
	return -1;
}

struct Executors
{
	pthread_t	thread;
	pthread_mutex_t lock;
	_Atomic bool finished;		/* the thread has ended */

	/* guarded by lock */
	ExecutorsStats stats;
	char	   *problems;
	bool		drain;
	int			drain_ms;

	Context		context;		/* the thread's own */
};

bool
executors_parse_kinds(const char *list, unsigned *mask, char *error, size_t error_size)
{
	*mask = 0;
	if (strcmp(list, "none") == 0)
		return true;
	while (*list != '\0')
	{
		size_t		len = strcspn(list, ",");
		int			kind = executor_kind(list, len);

		if (kind < 0)
		{
			snprintf(error, error_size, "\"%.*s\" is no executor: expected none, or some of http,grpc,s3,azure_blob,file,redis",
					 len < 100 ? (int) len : 100, list);
			return false;
		}
		*mask |= 1u << kind;
		list += len + (list[len] == ',');
	}
	return true;
}

void
exec_log(Context *context, ExecutorLogLevel level, const char *format,...)
{
	char		line[1024];
	va_list		args;

	if (context->settings.log == NULL)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	exec_sanitize(line, sizeof(line) - 1);
	context->settings.log(level, line);
}

void
exec_problem(Context *context, Problem problem, const char *format,...)
{
	char	  **known = &context->problems[problem];
	char		text[EXEC_ERROR_SIZE * 2];
	va_list		args;

	if (format == NULL)
	{
		context->problems_changed |= *known != NULL;
		free(*known);
		*known = NULL;
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	exec_sanitize(text, sizeof(text) - 1);
	if (*known != NULL && strcmp(*known, text) == 0)
		return;
	exec_log(context, EXEC_LOG_WARNING, "%s", text);
	free(*known);
	*known = exec_strdup(text);
	context->problems_changed = true;
}

/* Log what the role lacks, a line each, when that is news. */
static void
log_lacks(Context *context, const char *lacks)
{
	bool		news = context->lacks == NULL || strcmp(context->lacks, lacks) != 0;
	const char *line = lacks;

	if (!news || (!context->database->ready && !context->database->refused))
		return;
	free(context->lacks);
	context->lacks = exec_strdup(lacks);
	while (*line != '\0')
	{
		size_t		len = strcspn(line, "\n");

		exec_log(context, EXEC_LOG_WARNING, "%.*s", (int) len, line);
		line += len + (line[len] == '\n');
	}
}

/* Exchange with the other threads; once a turn. */
static void
exchange(Executors *executors)
{
	Context    *context = &executors->context;
	Buffer		problems = {NULL, 0, 0};

	if (context->problems_changed)
	{
		size_t		lacks;
		int			i;

		buffer_text(&problems, "");
		for (i = 0; i < PROBLEMS; i++)
		{
			if (context->problems[i] != NULL)
				buffer_printf(&problems, "%s\n", context->problems[i]);
		}
		lacks = problems.len;
		handlers_problems(context, &problems);
		log_lacks(context, problems.data + lacks);
		context->problems_changed = false;
	}
	context->stats.waiting = context->waiting;
	context->stats.hosts = context->host_count;

	pthread_mutex_lock(&executors->lock);
	executors->stats = context->stats;
	if (problems.data != NULL)
	{
		free(executors->problems);
		executors->problems = problems.data;
	}
	if (executors->drain && !context->draining)
	{
		context->draining = true;
		context->end_at = exec_now() + executors->drain_ms;
		context->drain_until = context->end_at - (executors->drain_ms / 6 < END_MS ? executors->drain_ms / 6 : END_MS);
		context->start_until = exec_now() + executors->drain_ms / 2;
	}
	pthread_mutex_unlock(&executors->lock);
}

/* Until when nothing is due. */
static int
turn_timeout(const Context *context)
{
	int64_t		now = exec_now();
	int64_t		next = database_next_time(context);
	int64_t		calls = calls_next_time(context);

	if (calls < next)
		next = calls;
	if (context->draining && context->drain_until > now && context->drain_until < next)
		next = context->drain_until;
	if (context->draining && context->start_until > now && context->start_until < next)
		next = context->start_until;
	if (context->draining && context->end_at < next)
		next = context->end_at;
	if (next <= now)
		return context->draining ? 10 : 1;
	return next - now < MAX_TURN_MS ? (int) (next - now) : MAX_TURN_MS;
}

static void
wait_for_events(Context *context)
{
	struct curl_waitfd *fds;
	int			room = context->running.count + 1;
	int			count = 0;
	int			timeout = turn_timeout(context);
	int64_t		due = exec_now() + timeout;
	int64_t		late;

	fds = exec_alloc((size_t) room * sizeof(*fds));
	if (database_wants_poll(context, &fds[0]))
		count = 1;
	count += calls_poll_fds(context, fds + count, room - count);
	curl_multi_poll(context->multi, fds, (unsigned) count, timeout, NULL);
	free(fds);
	late = exec_now() - due;
	if (late <= STALL_MS)
		return;
	context->stalled_at = exec_now();
	/* what is left of draining is still left */
	context->end_at += late;
	context->drain_until += late;
	context->start_until += late;
}

/* Draining is over: all is told, or there is no more time for it. */
static bool
is_finished(const Context *context)
{
	int64_t		now = exec_now();

	if (!context->draining)
		return false;
	if (context->in_flight == 0 && context->waiting == 0 && database_settled(context))
		return true;
	return now >= context->end_at ||
		(now >= context->drain_until && context->waiting == 0 && database_settled(context));
}

static void *
executors_thread(void *arg)
{
	Executors  *executors = arg;
	Context    *context = &executors->context;
	int64_t		forget_at = 0;

	for (;;)
	{
		int			running;

		exchange(executors);
		database_step(context);
		calls_start(context);
		curl_multi_perform(context->multi, &running);
		calls_collect(context);
		calls_check_times(context);
		calls_start(context);
		database_step(context);
		if (is_finished(context))
			break;
		if (exec_now() >= forget_at)
		{
			hosts_forget_idle(context, exec_now());
			forget_at = exec_now() + 10000;
		}
		wait_for_events(context);
	}
	exchange(executors);
	atomic_store(&executors->finished, true);
	return NULL;
}

bool
executors_finished(Executors *executors)
{
	return atomic_load(&executors->finished);
}

static char *
owners_literal(const ExecutorsConfig *config)
{
	ArrayParam	array;
	int			i;

	param_begin(&array);
	for (i = 0; i < config->handler_owner_count; i++)
		param_add(&array, config->handler_owners[i]);
	param_end(&array);
	return array.text;
}

static void
copy_settings(Settings *settings, const ExecutorsConfig *config)
{
	const char *ca = config->tls_ca != NULL ? config->tls_ca : getenv("SSL_CERT_FILE");

	settings->conninfo = exec_strdup(config->conninfo != NULL ? config->conninfo : "");
	settings->kinds = config->kinds;
	settings->expect_identity = exec_strdup(config->expect_identity);
	settings->file_root = exec_strdup(config->file_root);
	settings->tls_ca = exec_strdup(ca);
	settings->handler_owners = owners_literal(config);
	if (config->webhook_secret != NULL && config->webhook_secret[0] != '\0')
		settings->webhook_secret = exec_strdup(config->webhook_secret);
	settings->allow = config->allow;
	settings->max_in_flight = config->max_in_flight > 0 ? config->max_in_flight : 256;
	settings->max_per_host = config->max_per_host > 0 ? config->max_per_host : 16;
	settings->visibility_ms = config->visibility_ms > 0 ? config->visibility_ms : 30000;
	settings->log = config->log;
}

static void
free_all(Executors *executors)
{
	Context    *context = &executors->context;
	int			i;

	file_thread_stop(context->files);
	while (context->running.head != NULL)
		call_free(context, context->running.head);
	while (context->succeeded.head != NULL)
		call_free(context, context->succeeded.head);
	while (context->failed.head != NULL)
		call_free(context, context->failed.head);
	for (i = 0; i < HOST_BUCKETS; i++)
	{
		while (context->hosts[i] != NULL)
		{
			Host	   *host = context->hosts[i];

			context->hosts[i] = host->next;
			while (host->waiting.head != NULL)
				call_free(context, host->waiting.head);
			free(host->key);
			free(host);
		}
	}
	if (context->database != NULL)
	{
		while (context->database->sending.head != NULL)
			call_free(context, context->database->sending.head);
	}
	database_free(context->database);
	handlers_free(context);
	aws_free(context->aws);
	while (context->spare_count > 0)
		curl_easy_cleanup(context->spare[--context->spare_count]);
	curl_multi_cleanup(context->multi);
	for (i = 0; i < PROBLEMS; i++)
		free(context->problems[i]);
	free(context->lacks);
	free(context->settings.conninfo);
	free(context->settings.expect_identity);
	free(context->settings.file_root);
	free(context->settings.tls_ca);
	free(context->settings.webhook_secret);
	free(context->settings.handler_owners);
	free(executors->problems);
	pthread_mutex_destroy(&executors->lock);
	free(executors);
}

/* Threads of ours take no signals: those are for the main thread. */
static bool
start_threads(Executors *executors)
{
	Context    *context = &executors->context;
	sigset_t	all;
	sigset_t	before;
	bool		started;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	context->files = file_thread_start(context);
	started = (context->files != NULL || context->settings.file_root == NULL) &&
		pthread_create(&executors->thread, NULL, executors_thread, executors) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

static bool
can_sign_webhooks(const char *secrets)
{
	Buffer		signature = {NULL, 0, 0};
	bool		can = secrets == NULL || http_sign(secrets, "id", "0", "", 0, &signature);

	buffer_free(&signature);
	return can;
}

Executors *
executors_start(const ExecutorsConfig *config, char *error, size_t error_size)
{
	Executors  *executors = exec_alloc(sizeof(*executors));
	Context    *context = &executors->context;

	pthread_mutex_init(&executors->lock, NULL);
	copy_settings(&context->settings, config);
	context->database = database_create(context);
	context->aws = aws_create(&context->settings);
	context->problems_changed = true;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (context->multi = curl_multi_init()) == NULL)
		snprintf(error, error_size, "could not start the executors: out of memory");
	else if (!s3_can_sign())
		snprintf(error, error_size, "could not start the executors: OpenSSL has no memory, or no HMAC with SHA-256");
	else if (!can_sign_webhooks(context->settings.webhook_secret))
		snprintf(error, error_size, "GARBAGETRUCK_WEBHOOK_SECRET: expected whsec_ and base64, or up to 512 bytes; several are separated by spaces");
	else
	{
		curl_multi_setopt(context->multi, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS);
#if LIBCURL_VERSION_NUM >= 0x081400
		/* It has a pool of threads for look-ups: those that hang shall delay neither others nor the end. */
		curl_multi_setopt(context->multi, CURLMOPT_QUICK_EXIT, 1L);
		curl_multi_setopt(context->multi, CURLMOPT_RESOLVE_THREADS_MAX, (long) context->settings.max_in_flight);
#endif
		if (start_threads(executors))
			return executors;
		snprintf(error, error_size, "could not start the executors' threads");
	}
	free_all(executors);
	return NULL;
}

void
executors_stats(Executors *executors, ExecutorsStats *stats)
{
	pthread_mutex_lock(&executors->lock);
	*stats = executors->stats;
	pthread_mutex_unlock(&executors->lock);
}

char *
executors_problems(Executors *executors)
{
	char	   *copy;

	pthread_mutex_lock(&executors->lock);
	copy = exec_strdup(executors->problems != NULL ? executors->problems : "");
	pthread_mutex_unlock(&executors->lock);
	return copy;
}

void
executors_drain(Executors *executors, int drain_ms)
{
	pthread_mutex_lock(&executors->lock);
	executors->drain = true;
	executors->drain_ms = drain_ms;
	pthread_mutex_unlock(&executors->lock);
	curl_multi_wakeup(executors->context.multi);
}

void
executors_stop(Executors *executors)
{
	pthread_mutex_lock(&executors->lock);
	executors->drain = true;
	pthread_mutex_unlock(&executors->lock);
	curl_multi_wakeup(executors->context.multi);
	pthread_join(executors->thread, NULL);
	free_all(executors);
}
