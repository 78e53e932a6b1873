/*
 * calls.c
 *		The life of a call: accepted, waiting for its host, running, ended.
 *
 * A call that has ended stays in one of the context's two lists until the
 * database has taken its outcome.  Success is only ever entered after the
 * target has answered; whatever else happens, the claim lapses or the attempt
 * fails, and the garbage is tried again.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/allow.h"
#include "executors/calls.h"
#include "executors/claims.h"
#include "executors/context.h"
#include "executors/executors.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"

const double executor_buckets[EXEC_BUCKETS] = {
	0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30
};

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

static void
leave_list(Context *context, Call *call)
{
	if (call->state == CALL_WAITING && call->list != NULL)
		context->waiting--;
	else if (call->state == CALL_RUNNING && call->list != NULL)
	{
		context->in_flight--;
		context->of_rank[call->rank]--;
		context->stats.kind[call->kind].in_flight--;
		call->host->in_flight--;
		if (call->hanging)
		{
			context->hanging--;
			call->host->hanging--;
		}
	}
	list_remove(call);
}

/* Move an ended call to the list for the database. */
static void
finish(Context *context, Call *call, CallList *list)
{
	leave_list(context, call);
	host_forget_suspect(call);
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

/* No attempt was made, for which it says why: it is due again after so long. */
static void
call_give_back(Context *context, Call *call, int64_t after_ms, const char *why)
{
	Handler    *handler = call->target.lease_host ? handler_find(context, call->handler) : NULL;

	if (handler != NULL)
		handler->crowded = handler->gave_back = true;	/* what is due behind it may be for others */
	context->stats.given_back++;
	call->release = true;
	call->retry_after_ms = after_ms;
	exec_log(context, EXEC_LOG_DEBUG, "gave back cleanup %lld attempt %d of %s: %s",
			 (long long) call->cleanup_id, call->attempt, call->handler, why);
	finish(context, call, &context->failed);
}

void
call_succeed(Context *context, Call *call)
{
	context->stats.kind[call->kind].succeeded++;
	observe(context, call);
	finish(context, call, &context->succeeded);
}

void
call_fail(Context *context, Call *call, bool timed_out)
{
	if (call->ours)
	{
		call_give_back(context, call, host_back_off(call->host), call->error);
		return;
	}
	context->stats.kind[call->kind].failed++;
	if (timed_out)
		context->stats.kind[call->kind].timed_out++;
	if (call->state == CALL_RUNNING)
		observe(context, call);
	if (timed_out)
	{
		host_timed_out(call->host, call->started_at);
		host_note_hung(context, call, true);
	}
	exec_sanitize(call->error, EXEC_ERROR_SIZE - 1);
	exec_log(context, EXEC_LOG_DEBUG, "cleanup %lld attempt %d of %s failed: %s",
			 (long long) call->cleanup_id, call->attempt, call->handler, call->error);
	finish(context, call, &context->failed);
}

/* Its time is over; but was it the target that took it, or did we not run (SIGSTOP, a suspended machine)? */
static void
call_late(Context *context, Call *call, bool timed_out)
{
	if (timed_out && call->started_at < context->stalled_at)
		call->ours = true;
	call_fail(context, call, timed_out);
}

void
call_abandon(Context *context, Call *call)
{
	leave_list(context, call);
	host_forget_suspect(call);
	call_free(context, call);
}

/* A handler whose host is its own is not claimed while there would be no room. */
static void
hold_handler(Context *context, const Call *call, int64_t for_ms)
{
	Handler    *handler = call->target.lease_host ? NULL : handler_find(context, call->handler);

	if (handler != NULL)
		handler->hold_until = exec_now() + (for_ms < 250 ? for_ms : 250);
}

/* There is no room for it where it would wait. */
static void
turn_away(Context *context, Call *call)
{
	int64_t		after = host_back_off(call->host);

	context->turned_away += host_rank(call->host) != HOST_QUICK;
	hold_handler(context, call, after / 4);
	call_give_back(context, call, after, "too much waits for its target");
}

void
call_accept(Context *context, Call *call)
{
	int			room;
	int			enough;

	if (!kind_ops[call->kind]->prepare(context, call) ||
		(call->target.lease_host &&
		 !allow_host(context->settings.allow, call->host_name, call->port, call->error, sizeof(call->error))))
	{
		call_fail(context, call, false);
		return;
	}
	call->host = host_get(context, call->host_name, call->port);
	if (kind_ops[call->kind]->at_once > 0)
		call->host->limit = kind_ops[call->kind]->at_once;
	if (host_has_suspects(context, call))
	{
		context->turned_away++;
		call_give_back(context, call, host_suspect_back_off(call->host), "it hung before, and others that did have their places");
		return;
	}
	room = host_room(context, call->host);
	if (call->host->waiting.count >= room)
	{
		turn_away(context, call);
		return;
	}
	host_wait(context, call);
	/* what is claimed next would not find room */
	enough = room > 2 * BATCH_CLAIM ? room - BATCH_CLAIM : room / 2;
	if (call->host->waiting.count > enough)
		hold_handler(context, call, 1 + 1000 * (call->host->waiting.count - enough) / host_rate(call->host));
}

/*
 * A call whose claim is over must not run: somebody else may have it.  Where
 * nobody has, it was no attempt: the database was away.
 */
static void
give_up(Context *context, Call *call)
{
	context->stats.lapsed++;
	call_give_back(context, call, 0, "its claim could not be extended");
}

static void
count_as_hanging(Context *context, Call *call)
{
	call->hanging = true;
	call->host->hanging++;
	context->hanging++;
	/* its host is new no more: others' first calls have its place */
	if (call->rank == HOST_NEW)
	{
		context->of_rank[HOST_NEW]--;
		context->of_rank[HOST_SILENT]++;
		call->rank = HOST_SILENT;
	}
}

/* Start one call that waits for this host. */
static void
start_call(Context *context, Host *host, HostRank rank)
{
	Call	   *call = host->waiting.head;
	const ExecutorOps *ops = kind_ops[call->kind];

	if (exec_now() >= call->lapses_at)
	{
		give_up(context, call);
		return;
	}
	leave_list(context, call);
	call->state = CALL_RUNNING;
	call->started_at = exec_now();
	call->deadline = call->started_at + call->timeout_ms;
	list_add(&context->running, call);
	context->in_flight++;
	call->rank = rank;
	context->of_rank[rank]++;
	context->stats.kind[call->kind].in_flight++;
	host->in_flight++;
	if (call->suspect)
		count_as_hanging(context, call);	/* at once: not only when it has held a place for long again */
	if (!ops->start(context, call) ||
		(ops->transfer != TRANSFER_NONE && !transfer_start(context, call, ops->transfer)))
		call_fail(context, call, false);
}

/* A round over the hosts of a rank takes one from each, so that they share; it begins behind the last one of the one before. */
static bool
start_round(Context *context, HostRank rank)
{
	int			first = context->first_bucket;
	bool		started = false;
	int			i;

	for (i = 0; i < HOST_BUCKETS; i++)
	{
		int			bucket = (first + i) % HOST_BUCKETS;
		Host	   *host;

		for (host = context->hosts[bucket]; host != NULL && host_has_place(context, rank); host = host->next)
		{
			if (host->waiting.count == 0 || host_rank(host) != rank || host->in_flight >= host_limit(context, host))
				continue;
			start_call(context, host, rank);
			started = true;
			context->first_bucket = (bucket + 1) % HOST_BUCKETS;
		}
	}
	return started;
}

void
calls_start(Context *context)
{
	HostRank	rank;

	for (rank = HOST_QUICK; rank < HOST_RANKS; rank++)
	{
		while (context->waiting > 0 && host_has_place(context, rank) && start_round(context, rank))
			;
	}
}

/* libcurl has finished with a call. */
static void
take_result(Context *context, Call *call, CURLcode code)
{
	const ExecutorOps *ops = kind_ops[call->kind];
	long		status = 0;

	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	/* an answer that began and did not end is none */
	if (status > 0 && code != CURLE_OPERATION_TIMEDOUT)
	{
		host_answered(context, call->host, exec_now() - call->started_at);
		host_note_hung(context, call, false);
	}
	if (code == CURLE_OK && ops->transfer == TRANSFER_CONNECT)
	{
		ops->connected(context, call);
		return;
	}
	/* of an answer whose body is too long, the status has been seen */
	if (code == CURLE_OK || (call->too_long && call->header_bytes <= EXEC_HEADER_MAX && ops->transfer != TRANSFER_HTTP2))
	{
		if (status != call->status)
			snprintf(call->error, sizeof(call->error), "%.200s port %d: the answer is not HTTP", call->host_name, call->port);
		else if (ops->judge(context, call, status))
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
	call_late(context, call, code == CURLE_OPERATION_TIMEDOUT);
}

void
calls_collect(Context *context)
{
	CURLMsg    *message;
	Call	   *call;
	Call	   *next;
	int			left;
	int			kind;

	while ((message = curl_multi_info_read(context->multi, &left)) != NULL)
	{
		CURLcode	code = message->data.result;

		if (message->msg == CURLMSG_DONE && (call = transfer_call(message->easy_handle)) != NULL)
			take_result(context, call, code);
	}
	for (call = context->running.head; call != NULL; call = next)
	{
		next = call->next;
		if (kind_ops[call->kind]->step != NULL)
			kind_ops[call->kind]->step(context, call);
	}
	for (kind = 0; kind < EXEC_KINDS; kind++)
	{
		if (kind_ops[kind]->collect != NULL)
			kind_ops[kind]->collect(context);
	}
}

bool
call_withdraw(Context *context, const Call *call)
{
	const ExecutorOps *ops = kind_ops[call->kind];

	return call->state != CALL_RUNNING || ops->withdraw == NULL || ops->withdraw(context, call);
}

/* The process is about to end: what has not begun, or would not end in time, is given back. */
static bool
is_cut_off(Context *context, Call *call, int64_t now)
{
	bool		lasts = kind_ops[call->kind]->withdraw != NULL;

	return context->draining && now >= (lasts ? context->start_until : context->drain_until) && call_withdraw(context, call);
}

static void
check_lapse(Context *context, Call *call, int64_t now)
{
	if (now >= call->lapses_at && call_withdraw(context, call))
		give_up(context, call);
}

/* Counts who hangs by now. */
static void
count_hanging(Context *context, int64_t now)
{
	Call	   *call;

	for (call = context->running.head; call != NULL; call = call->next)
	{
		if (call->hanging || now - call->started_at < host_patience(call->host))
			continue;
		call->host->unanswered++;
		count_as_hanging(context, call);
	}
}

/* Do calls that hang hold more than their half of places for which others wait? What a thread has in hand can not be ended. */
static bool
is_in_the_way(const Context *context, const Call *call)
{
	const Host *host = call->host;
	int			most = context->settings.max_per_host;

	if (!call->hanging || kind_ops[call->kind]->withdraw != NULL)
		return false;
	if (host->waiting.count > 0 && host->in_flight >= most && host->hanging > (most + 1) / 2)
		return true;
	return context->waiting > 0 && context->hanging > (context->settings.max_in_flight + 3) / 4 &&
		!(host_has_place(context, HOST_SLOW) && host_has_place(context, HOST_SILENT));
}

static void
make_way(Context *context)
{
	Call	   *call;
	Call	   *prev;

	for (call = context->running.tail; call != NULL && context->hanging > 0 && context->waiting > 0; call = prev)
	{
		prev = call->prev;
		if (!is_in_the_way(context, call))
			continue;
		host_note_hung(context, call, true);
		call_give_back(context, call, host_back_off(call->host) + (call->suspect ? call->timeout_ms / 4 : 0), "its target hangs, and others wait");
	}
}

void
calls_check_times(Context *context)
{
	int64_t		now = exec_now();
	uint64_t	lapsed = context->stats.lapsed;
	Call	   *call;
	Call	   *next;
	int			i;

	count_hanging(context, now);
	make_way(context);
	for (call = context->running.head; call != NULL; call = next)
	{
		next = call->next;
		if (kind_ops[call->kind]->transfer == TRANSFER_CONNECT && now >= call->deadline)
		{
			transfer_error(call, CURLE_OPERATION_TIMEDOUT);
			call_late(context, call, true);
		}
		else if (is_cut_off(context, call, now))
			call_give_back(context, call, 0, "the sidecar stops");
		else
			check_lapse(context, call, now);
	}
	for (i = 0; i < HOST_BUCKETS; i++)
	{
		Host	   *host;

		for (host = context->hosts[i]; host != NULL; host = host->next)
		{
			while (host_is_crowded(context, host))
				call_give_back(context, host->waiting.tail, host_back_off(host), "its target does not answer, and others wait");
			for (call = host->waiting.head; call != NULL; call = next)
			{
				next = call->next;
				if (context->draining && now >= context->start_until)
					call_give_back(context, call, 0, "the sidecar stops");
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
		const ExecutorOps *ops = kind_ops[call->kind];

		if (ops->transfer == TRANSFER_CONNECT && call->deadline < next)
			next = call->deadline;
		if (!call->hanging && call->started_at + host_patience(call->host) < next)
			next = call->started_at + host_patience(call->host);
		if (call->lapses_at < next && ops->withdraw == NULL)
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
		if (kind_ops[call->kind]->wants_poll != NULL && kind_ops[call->kind]->wants_poll(call, &fds[count]))
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
