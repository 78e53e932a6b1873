/*
 * cli_hold_lease.c
 *		lease hold: taking the lease, renewing and releasing it.
 *
 * Runs in the holder (see cli_hold.c), on its only thread.  While a call waits
 * for its answer, signals and the guard are heard.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/cli_hold.h"
#include "cli/cli_requests.h"

#define V1_PATH "/garbagetruck.v1.GarbageTruck/"
#define STANDARD_KILL_AFTER_MS 10000
#define LONGEST_PAUSE_MS 1000	/* between two tries to get the lock */

static int64_t
duration_ms(const Google__Protobuf__Duration *duration)
{
	return duration == NULL ? 0 : duration->seconds * 1000 + duration->nanos / 1000000;
}

/* ---- what the lease's time means ---- */

static int64_t
kill_after(const Hold *hold)
{
	int64_t		wanted = hold->cli->kill_after_ms >= 0 ? hold->cli->kill_after_ms : STANDARD_KILL_AFTER_MS;

	return least(wanted, hold->ttl_ms / 3);
}

/* The lease bought `ttl_ms` from the moment `sent`. */
static void
bought(Hold *hold, int64_t sent, int64_t ttl_ms)
{
	hold->ttl_ms = ttl_ms;
	hold->deadline = sent + ttl_ms;
	hold->times.kill_after = kill_after(hold);
	hold->times.kill_at = hold->deadline - least(ttl_ms / 6, 1000);
	hold->times.stop_at = hold->times.kill_at - hold->times.kill_after;
	/* A third, but with time for more than one try. */
	hold->next_renewal = sent + least(ttl_ms / 3, (hold->times.stop_at - sent) / 2);
	free(hold->last_error);
	hold->last_error = NULL;
}

/* How long one try to renew may take, so that another one has time, too. */
static int64_t
renewal_limit(const Hold *hold, int64_t now)
{
	int64_t		left = hold->times.stop_at - now;
	int64_t		limit = least(least(left / 2, hold->ttl_ms / 4), hold->cli->timeout_ms);

	return limit > 20 ? limit : 20;
}

/* ---- taking the lease ---- */

/* Asked while a request waits and there is no COMMAND. */
static bool
give_up_call(void *arg)
{
	Hold	   *hold = arg;

	hold_take_signals(hold);
	/* What has been sent may be done: better to know the lease, and release it. */
	return hold->quit != 0 && boot_ms() >= hold->quit_at;
}

/* A try that is repeated, and one whose answer gets lost, must not meet its own lease. */
static void
make_request_key(char *key, size_t size)
{
	uint8_t		random[16];
	size_t		i;

	if (getrandom(random, sizeof(random), 0) != (ssize_t) sizeof(random))
		memset(random, 0, sizeof(random));
	snprintf(key, size, "hold-%d-", (int) getpid());
	for (i = 0; i < sizeof(random); i++)
		snprintf(key + strlen(key), size - strlen(key), "%02x", random[i]);
}

/* One try; false with the reply. */
static bool
try_lease(Hold *hold, long limit, GrpcReply *reply)
{
	Cli		   *cli = hold->cli;
	char	   *type = cli_object_type(cli->object_type);
	Garbagetruck__V1__CreateRequest *request = cli_create_request(cli, type);
	int64_t		sent = boot_ms();
	Garbagetruck__V1__Grant *grant = (Garbagetruck__V1__Grant *)
		cli_call_quiet(cli, V1_PATH "Create", &request->base,
					   &garbagetruck__v1__grant__descriptor, limit, reply);
	char		fence[32];

	cli_free_create_request(request);
	free(type);
	if (grant == NULL)
		return false;
	hold->lease_id = needed(strdup(grant->lease_id));
	snprintf(fence, sizeof(fence), "%" PRId64, grant->fence);
	if (setenv("GARBAGETRUCK_LEASE_ID", hold->lease_id, 1) != 0 || setenv("GARBAGETRUCK_FENCE", fence, 1) != 0)
		out_of_memory();
	bought(hold, sent, duration_ms(grant->ttl));
	garbagetruck__v1__grant__free_unpacked(grant, NULL);
	return true;
}

/* Does somebody else have it?  Then it is worth waiting. */
static bool
is_held(const GrpcReply *reply)
{
	return reply->reached && (reply->status == GRPC_ALREADY_EXISTS || reply->status == GRPC_ABORTED ||
							  reply->status == GRPC_DEADLINE_EXCEEDED);
}

static bool
is_passing(const GrpcReply *reply)
{
	return is_held(reply) || reply->status == GRPC_UNAVAILABLE || reply->status == GRPC_DEADLINE_EXCEEDED;
}

/* Told to end: the exit code. */
static int
quit_code(const Hold *hold, bool unsure)
{
	if (unsure)
		cli_error(hold->cli->json, "CANCELLED", "ended by signal %d while the lease was being taken: if it was, it ends by itself",
				  hold->quit);
	return 128 + hold->quit;
}

/* Try until it is ours, or --wait is over: an exit code. */
static int
take_within_wait(Hold *hold)
{
	Cli		   *cli = hold->cli;
	int64_t		until = boot_ms() + cli->wait_ms;
	int64_t		pause = 100;
	bool		held = false;

	grpc_client_set_give_up(cli->client, give_up_call, hold, &hold->signals, 1);
	for (;;)
	{
		GrpcReply	reply;
		int64_t		limit = cli->timeout_ms;
		int64_t		now;
		bool		done;
		bool		unsure;

		done = try_lease(hold, (long) limit, &reply);
		now = boot_ms();
		held = held || (!done && is_held(&reply));
		unsure = !done && !reply.reached && reply.status != GRPC_UNAVAILABLE;
		if (!done && hold->quit == 0 && (!is_passing(&reply) || now >= until))
		{
			cli_report(cli, &reply);
			grpc_reply_free(&reply);
			return held ? CLI_NOT_GOT : CLI_FAILED;
		}
		grpc_reply_free(&reply);
		if (done)
			return CLI_OK;
		if (hold->quit != 0)
			return quit_code(hold, unsure);
		/* Not all that wait in step. */
		hold_wait(hold, now + least(pause - pause / 4 + random() % (pause / 2), until - now));
		if (hold->quit != 0)
			return quit_code(hold, unsure);
		pause = least(pause * 2, LONGEST_PAUSE_MS);
	}
}

int
hold_take(Hold *hold)
{
	char		key[64];
	int			code;

	make_request_key(key, sizeof(key));
	hold->cli->request_key = key;
	code = take_within_wait(hold);
	hold->cli->request_key = NULL;
	return code;
}

/* ---- renewing it ---- */

/* Asked while a renewal waits: not for the answer when it matters no more. */
bool
hold_give_up_renewal(void *arg)
{
	Hold	   *hold = arg;

	hold_take_events(hold);
	return hold->done || hold->lost;
}

/* Did the server say that the lease is no longer ours? */
static bool
is_over(const GrpcReply *reply)
{
	return reply->status == GRPC_NOT_FOUND || reply->status == GRPC_PERMISSION_DENIED ||
		reply->status == GRPC_FAILED_PRECONDITION;
}

static void
renewal_failed(Hold *hold, GrpcReply *reply)
{
	int64_t		retry = least(hold->ttl_ms / 12, 2000);

	hold->next_renewal = boot_ms() + (retry < 50 ? 50 : retry);
	free(hold->last_error);
	hold->last_error = needed(strdup(reply->message));
	hold->last_status = reply->status;
}

void
hold_renew(Hold *hold)
{
	Cli		   *cli = hold->cli;
	int64_t		sent = boot_ms();
	Garbagetruck__V1__RenewResult *result;
	GrpcReply	reply;

	result = cli_renew(cli, hold->lease_id, cli->duration_ms, (long) renewal_limit(hold, sent), &reply);
	if (result != NULL)
	{
		bought(hold, sent, duration_ms(result->ttl));
		hold_tell(hold, GUARD_TIMES, 0);
		if (hold->paused)
			hold_go_on(hold);
		garbagetruck__v1__renew_result__free_unpacked(result, NULL);
	}
	else if (hold->lost || hold->done)
		;
	else if (is_over(&reply))
	{
		hold_tell(hold, GUARD_LOST, 0);
		hold_lose(hold);
		hold->over = true;
		cli_error(cli->json, grpc_code_name(reply.status),
				  "the lease is lost, stopping %s: %s", cli->command[0], reply.message);
	}
	else
		renewal_failed(hold, &reply);
	grpc_reply_free(&reply);
}

/*
 * End the lease.  False when it had ended before COMMAND did, so that COMMAND
 * did not run under it to the end.
 */
bool
hold_release(Hold *hold)
{
	Cli		   *cli = hold->cli;
	Garbagetruck__V1__ReleaseRequest request = GARBAGETRUCK__V1__RELEASE_REQUEST__INIT;
	Garbagetruck__V1__CountResponse *answer;
	GrpcReply	reply;
	int64_t		limit = cli->timeout_ms;
	bool		over;

	/* A server that did not answer is not worth waiting for longer than the lease lives. */
	if (hold->lost)
		limit = least(limit, hold->deadline - boot_ms());
	if (limit <= 0)
		return true;
	/* From now on a signal ends this, as in the beginning. */
	if (hold->guard >= 0)
		close(hold->guard);
	hold->guard = -1;
	hold->quit_at = boot_ms() + QUIT_PATIENCE_MS;
	grpc_client_set_give_up(cli->client, give_up_call, hold, &hold->signals, 1);
	request.n_lease_ids = 1;
	request.lease_ids = &hold->lease_id;
	answer = (Garbagetruck__V1__CountResponse *)
		cli_call_quiet(cli, V1_PATH "Release", &request.base,
					   &garbagetruck__v1__count_response__descriptor, (long) limit, &reply);
	over = (answer != NULL && answer->count == 0) || (answer == NULL && is_over(&reply));
	if (answer == NULL && !over && !hold->lost)
		cli_error(cli->json, grpc_code_name(reply.status),
				  "the lease could not be released and ends by itself: %s", reply.message);
	else if (over && !hold->lost)
		cli_error(cli->json, "NOT_FOUND", "the lease had ended before %s did: lease %s not found",
				  cli->command[0], hold->lease_id);
	if (answer != NULL)
		garbagetruck__v1__count_response__free_unpacked(answer, NULL);
	grpc_reply_free(&reply);
	return !over;
}
