/*
 * calls.c
 *		The life of a call: accepted, waiting for its host, running, ended.
 *
 * A call that has ended stays in one of the context's two lists until the
 * database has taken its outcome.  Success is only ever entered after the
 * target has answered; whatever else happens, the claim lapses or the attempt
 * fails, and the garbage is tried again.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

const double executor_buckets[EXEC_BUCKETS] = {
	0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30
};

static const ExecutorOps file_ops = {file_prepare, file_start, NULL, NULL, file_lacks};
static const ExecutorOps redis_ops = {redis_prepare, redis_start, NULL, redis_cleanup, NULL};

const ExecutorOps *const kind_ops[EXEC_KINDS] = {
	[EXEC_HTTP] = &http_ops,
	[EXEC_GRPC] = &grpc_ops,
	[EXEC_S3] = &s3_ops,
	[EXEC_AZURE_BLOB] = &azure_ops,
	[EXEC_FILE] = &file_ops,
	[EXEC_REDIS] = &redis_ops,
};

Call *
call_create(Context *context)
{
	return exec_alloc(sizeof(Call));
}

bool
call_expand(Call *call, const char *template, TargetForm form)
{
	TargetValues values = {
		call->object_id, call->object_type, call->lease_id, call->service_id,
		call->payload, call->payload_count
	};

	return target_expand(template, form, &values, &call->target, call->error, sizeof(call->error));
}

void
call_idempotency_key(const Context *context, const Call *call, char *key, size_t size)
{
	snprintf(key, size, "%s-%lld", context->place, (long long) call->cleanup_id);
}

/* Free what the run needed, and leave the outcome. */
static void
end_run(Context *context, Call *call)
{
	const ExecutorOps *ops = kind_ops[call->kind];

	transfer_end(context, call);
	if (ops->cleanup != NULL)
		ops->cleanup(call);
	curl_slist_free_all(call->headers);
	call->headers = NULL;
	buffer_free(&call->answer);
}

void
call_free(Context *context, Call *call)
{
	list_remove(call);
	end_run(context, call);
	free(call->handler);
	free(call->command);
	free(call->object_id);
	free(call->object_type);
	free(call->lease_id);
	free(call->service_id);
	free(call->body);
	pairs_free(call->payload, call->payload_count);
	pairs_free(call->metadata, call->metadata_count);
	target_free(&call->target);
	free(call->url);
	free(call->host_name);
	free(call->trailer_status);
	free(call->trailer_message);
	free(call->retry_after);
	free(call->error_code);
	free(call);
}

/* Count how many wait for hosts that do not come from leases. */
static void
count_fixed(Context *context, const Call *call, int change)
{
	int			i;

	context->waiting += change;
	if (call->target.lease_host)
		return;
	for (i = 0; i < context->handler_count; i++)
	{
		Handler    *handler = &context->handlers[i];

		if (strcmp(handler->name, call->handler) != 0)
			continue;
		handler->fixed_waiting += change;
		if (change < 0 && handler->fixed_waiting == FIXED_WAITING_MAX - 1)
			database_wake(context);	/* it may be claimed again */
	}
}

static void
leave_list(Context *context, Call *call)
{
	if (call->state == CALL_WAITING && call->list != NULL)
		count_fixed(context, call, -1);
	else if (call->state == CALL_RUNNING && call->list != NULL)
	{
		context->in_flight--;
		context->stats.kind[call->kind].in_flight--;
		call->host->in_flight--;
	}
	list_remove(call);
}

static void
enter_waiting(Context *context, Call *call)
{
	call->state = CALL_WAITING;
	list_add(&call->host->waiting, call);
	count_fixed(context, call, 1);
}

void
call_accept(Context *context, Call *call)
{
	Buffer		key = {NULL, 0, 0};
	char	   *at;

	if (!kind_ops[call->kind]->prepare(context, call) ||
		(call->target.lease_host &&
		 !allow_host(context->settings.allow, call->host_name, call->port, call->error, sizeof(call->error))))
	{
		call_fail(context, call, false);
		return;
	}
	buffer_printf(&key, "%s:%d", call->host_name, call->port);
	for (at = key.data; *at != '\0'; at++)
		*at = (char) tolower((unsigned char) *at);
	call->host = host_get(context, key.data);
	buffer_free(&key);
	if (call->kind == EXEC_FILE)
		call->host->limit = 1;	/* one thread does it */
	if (call->target.lease_host && call->target.lease_text != NULL && call->host->lease_text == NULL)
		call->host->lease_text = exec_strdup(call->target.lease_text);
	enter_waiting(context, call);
}

/* Move an ended call to the list for the database. */
static void
finish(Context *context, Call *call, CallList *list)
{
	leave_list(context, call);
	end_run(context, call);
	call->state = CALL_DONE;
	list_add(list, call);
}

static void
observe(Context *context, Call *call)
{
	double		seconds = (double) (exec_now() - call->started_at) / 1000;
	int			bucket = 0;

	while (bucket < EXEC_BUCKETS && seconds > executor_buckets[bucket])
		bucket++;
	context->stats.kind[call->kind].buckets[bucket]++;
	context->stats.kind[call->kind].seconds += seconds;
}

void
call_succeed(Context *context, Call *call)
{
	context->stats.kind[call->kind].succeeded++;
	observe(context, call);
	if (call->host->limit < context->settings.max_per_host && call->kind != EXEC_FILE)
		call->host->limit++;
	finish(context, call, &context->succeeded);
}

void
call_fail(Context *context, Call *call, bool timed_out)
{
	context->stats.kind[call->kind].failed++;
	if (timed_out)
		context->stats.kind[call->kind].timed_out++;
	if (call->state == CALL_RUNNING)
		observe(context, call);
	if (timed_out && call->host != NULL && call->host->limit > 2)
		call->host->limit = call->host->limit / 2;
	exec_sanitize(call->error, EXEC_ERROR_SIZE - 1);
	exec_log(context, EXEC_LOG_DEBUG, "cleanup %lld attempt %d of %s failed: %s",
			 (long long) call->cleanup_id, call->attempt, call->handler, call->error);
	finish(context, call, &context->failed);
}

void
call_abandon(Context *context, Call *call)
{
	leave_list(context, call);
	call_free(context, call);
}

/* A call whose claim is over must not run: somebody else may have it. */
static void
give_up(Context *context, Call *call)
{
	context->stats.lapsed++;
	exec_log(context, EXEC_LOG_DEBUG, "gave up cleanup %lld attempt %d of %s: its claim could not be extended",
			 (long long) call->cleanup_id, call->attempt, call->handler);
	call_abandon(context, call);
}

/* Start one call that waits for this host. */
static void
start_call(Context *context, Host *host)
{
	Call	   *call = host->waiting.head;
	const ExecutorOps *ops = kind_ops[call->kind];

	bool		crowded = host_crowded(context, host);

	if (exec_now() >= call->lapses_at)
	{
		give_up(context, call);
		return;
	}
	leave_list(context, call);
	if (crowded && !host_crowded(context, host))
		database_wake(context);
	call->state = CALL_RUNNING;
	call->started_at = exec_now();
	call->deadline = call->started_at + call->timeout_ms;
	list_add(&context->running, call);
	context->in_flight++;
	context->stats.kind[call->kind].in_flight++;
	host->in_flight++;
	if (!ops->start(context, call) ||
		(call->kind != EXEC_FILE && !transfer_start(context, call, call->kind == EXEC_REDIS)))
		call_fail(context, call, false);
}

/* A round over the hosts takes one from each, so that they share. */
void
calls_start(Context *context)
{
	bool		started = context->waiting > 0;

	while (started)
	{
		int			i;

		started = false;
		for (i = 0; i < HOST_BUCKETS; i++)
		{
			Host	   *host;

			for (host = context->hosts[i]; host != NULL; host = host->next)
			{
				if (context->in_flight >= context->settings.max_in_flight)
					return;
				if (host->waiting.count > 0 && host->in_flight < host->limit)
				{
					start_call(context, host);
					started = true;
				}
			}
		}
	}
}

/* libcurl has finished with a call. */
static void
take_result(Context *context, Call *call, CURLcode code)
{
	long		status = 0;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK && call->kind == EXEC_REDIS)
	{
		redis_connected(context, call);
		return;
	}
	/* of an answer whose body is too long, the status has been seen */
	if (code == CURLE_OK || (call->too_long && call->header_bytes <= EXEC_HEADER_MAX && call->kind != EXEC_GRPC))
	{
		if (status != call->status)
			snprintf(call->error, sizeof(call->error), "%.200s port %d: the answer is not HTTP", call->host_name, call->port);
		else if (kind_ops[call->kind]->judge(context, call, status))
		{
			call_succeed(context, call);
			return;
		}
		call_fail(context, call, false);
		return;
	}
	if (call->too_long)
		snprintf(call->error, sizeof(call->error), "%.200s port %d: the answer is too long", call->host_name, call->port);
	else
		transfer_error(call, code);
	call_fail(context, call, code == CURLE_OPERATION_TIMEDOUT);
}

void
calls_collect(Context *context)
{
	CURLMsg    *message;
	Call	   *call;
	Call	   *next;
	int			left;

	while ((message = curl_multi_info_read(context->multi, &left)) != NULL)
	{
		CURLcode	code = message->data.result;
		CURL	   *easy = message->easy_handle;

		if (message->msg != CURLMSG_DONE)
			continue;
		for (call = context->running.head; call != NULL && call->easy != easy; call = call->next)
			;
		if (call != NULL)
			take_result(context, call, code);
	}
	for (call = context->running.head; call != NULL; call = next)
	{
		next = call->next;
		if (call->kind == EXEC_REDIS)
			redis_step(context, call);
	}
	file_collect(context);
}

static void
check_lapse(Context *context, Call *call, int64_t now)
{
	/* what the file thread has in hand can not be called back */
	if (now >= call->lapses_at && !(call->state == CALL_RUNNING && call->kind == EXEC_FILE))
		give_up(context, call);
}

void
calls_check_times(Context *context)
{
	int64_t		now = exec_now();
	uint64_t	lapsed = context->stats.lapsed;
	Call	   *call;
	Call	   *next;
	int			i;

	for (call = context->running.head; call != NULL; call = next)
	{
		next = call->next;
		if (call->kind == EXEC_REDIS && now >= call->deadline)
		{
			transfer_error(call, CURLE_OPERATION_TIMEDOUT);
			call_fail(context, call, true);
		}
		else
			check_lapse(context, call, now);
	}
	for (i = 0; i < HOST_BUCKETS; i++)
	{
		Host	   *host;

		for (host = context->hosts[i]; host != NULL; host = host->next)
		{
			for (call = host->waiting.head; call != NULL; call = next)
			{
				next = call->next;
				if (context->draining && now >= context->start_until)
				{
					call->release = true;
					snprintf(call->error, sizeof(call->error), "the sidecar stopped before the call");
					finish(context, call, &context->failed);
				}
				else
					check_lapse(context, call, now);
			}
		}
	}
	if (context->stats.lapsed > lapsed)
		exec_log(context, EXEC_LOG_WARNING, "gave up %llu cleanups, as their claims could not be extended; they are tried again",
				 (unsigned long long) (context->stats.lapsed - lapsed));
}

int64_t
calls_next_time(const Context *context)
{
	int64_t		next = INT64_MAX;
	const Call *call;

	for (call = context->running.head; call != NULL; call = call->next)
	{
		if (call->kind == EXEC_REDIS && call->deadline < next)
			next = call->deadline;
		if (call->lapses_at < next && call->kind != EXEC_FILE)
			next = call->lapses_at;
	}
	return next;
}

int
calls_poll_fds(const Context *context, struct curl_waitfd *fds, int max)
{
	const Call *call;
	int			count = 0;

	for (call = context->running.head; call != NULL && count < max; call = call->next)
	{
		if (call->kind == EXEC_REDIS && redis_wants_poll(call, &fds[count]))
			count++;
	}
	return count;
}

void
calls_visit(Context *context, void (*visit) (Context *context, Call *call, void *arg), void *arg)
{
	Call	   *call;
	Call	   *next;
	int			i;

	for (call = context->running.head; call != NULL; call = next)
	{
		next = call->next;
		visit(context, call, arg);
	}
	for (i = 0; i < HOST_BUCKETS && context->waiting > 0; i++)
	{
		Host	   *host;

		for (host = context->hosts[i]; host != NULL; host = host->next)
		{
			for (call = host->waiting.head; call != NULL; call = next)
			{
				next = call->next;
				visit(context, call, arg);
			}
		}
	}
}
