/*
 * cli_hold.c
 *		lease hold: run a command under a lease.
 *
 * Runs in the command line's process, the parent of COMMAND.  Signals stay
 * blocked and are fetched, between renewals and while one waits for its
 * answer, so nothing here runs in a signal handler.
 *
 * The deadline that counts is our own: the moment the last renewal was *sent*
 * plus the time it bought.  Time includes suspension, which the server's clock
 * does not stop for.  When a sixth of that time is left and no renewal has come
 * through, COMMAND is stopped while nobody else can yet own the object.
 *
 * A crash of this process leaves COMMAND with a SIGTERM from the kernel, and a
 * lease that ends by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "cli_requests.h"
#include "memory.h"

#define LONGEST_NAP_MS 5000		/* to notice that the machine was suspended */

typedef struct Hold
{
	Cli		   *cli;
	char	   *lease_id;
	int64_t		ttl_ms;			/* what a renewal buys */
	int64_t		deadline;		/* until then the lease is surely ours */
	int64_t		next_renewal;
	int64_t		kill_at;		/* once lost: when patience ends */
	pid_t		child;
	bool		own_group;		/* COMMAND leads a process group of its own */
	bool		lost;
	bool		over;			/* lost, and the server said so */
	bool		exited;
	int			wait_status;
	char	   *last_error;		/* of the renewals that failed since the last good one */
	GrpcCode	last_status;
} Hold;

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t
duration_ms(const Google__Protobuf__Duration *duration)
{
	return duration == NULL ? 0 : duration->seconds * 1000 + duration->nanos / 1000000;
}

static void
signal_command(const Hold *hold, int signo)
{
	if (hold->child > 0 && !hold->exited)
		kill(hold->own_group ? -hold->child : hold->child, signo);
}

/* The lease bought `ttl_ms` from the moment `sent`. */
static void
bought(Hold *hold, int64_t sent, int64_t ttl_ms)
{
	hold->ttl_ms = ttl_ms;
	hold->deadline = sent + ttl_ms;
	hold->next_renewal = sent + ttl_ms / 3;
	free(hold->last_error);
	hold->last_error = NULL;
}

static bool
create(Hold *hold, int64_t *fence)
{
	Cli		   *cli = hold->cli;
	char	   *type = cli_object_type(cli->object_type);
	Garbagetruck__V1__CreateRequest *request = cli_create_request(cli, type);
	int64_t		sent = now_ms();
	Garbagetruck__V1__Grant *grant = (Garbagetruck__V1__Grant *)
		cli_call(cli, "/garbagetruck.v1.GarbageTruck/Create", &request->base,
				 &garbagetruck__v1__grant__descriptor);

	cli_free_create_request(request);
	free(type);
	if (grant == NULL)
		return false;
	hold->lease_id = needed(strdup(grant->lease_id));
	*fence = grant->fence;
	bought(hold, sent, duration_ms(grant->ttl));
	garbagetruck__v1__grant__free_unpacked(grant, NULL);
	return true;
}

/* In the child: become COMMAND, or tell the parent why not. */
static void
become_command(const Hold *hold, int64_t fence, const sigset_t *old_mask,
			   pid_t parent, int report)
{
	char		text[32];
	int			error;

	if (hold->own_group)
		setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	snprintf(text, sizeof(text), "%" PRId64, fence);
	sigprocmask(SIG_SETMASK, old_mask, NULL);
	if (setenv("GARBAGETRUCK_LEASE_ID", hold->lease_id, 1) == 0 && setenv("GARBAGETRUCK_FENCE", text, 1) == 0)
		execvp(hold->cli->command[0], hold->cli->command);
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

/* Start COMMAND.  0, or the errno that kept it from running. */
static int
start(Hold *hold, int64_t fence, const sigset_t *old_mask)
{
	pid_t		parent = getpid();
	int			report[2];
	int			error = 0;

	/* At a terminal COMMAND must stay in its foreground group to read from it. */
	hold->own_group = !(isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp());
	if (pipe2(report, O_CLOEXEC) != 0)
		return errno;
	hold->child = fork();
	if (hold->child == 0)
		become_command(hold, fence, old_mask, parent, report[1]);
	if (hold->child < 0)
		error = errno;
	else if (hold->own_group)
		setpgid(hold->child, hold->child);
	close(report[1]);
	if (hold->child > 0 && read(report[0], &error, sizeof(error)) == (ssize_t) sizeof(error))
		waitpid(hold->child, NULL, 0);
	close(report[0]);
	return error;
}

/* Act upon one fetched signal. */
static void
take_signal(Hold *hold, const siginfo_t *info)
{
	if (info->si_signo == SIGCHLD)
	{
		if (!hold->exited && waitpid(hold->child, &hold->wait_status, WNOHANG) == hold->child)
			hold->exited = true;
	}
	else if (hold->own_group || info->si_code != SI_KERNEL)
		signal_command(hold, info->si_signo);
	/* else the terminal has sent it to COMMAND as well */
}

static void
signals_of_interest(sigset_t *set)
{
	size_t		i;

	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	for (i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(set, forwarded[i]);
}

/* Fetch signals for at most `ms`; returns when one has come. */
static void
wait_signals(Hold *hold, int64_t ms)
{
	sigset_t	set;
	siginfo_t	info;
	struct timespec limit;

	if (ms < 0)
		ms = 0;
	if (ms > LONGEST_NAP_MS)
		ms = LONGEST_NAP_MS;
	limit.tv_sec = ms / 1000;
	limit.tv_nsec = (ms % 1000) * 1000000;
	signals_of_interest(&set);
	if (sigtimedwait(&set, &info, &limit) > 0)
		take_signal(hold, &info);
}

/* Asked while a renewal waits: not for the answer when COMMAND has ended. */
static bool
give_up_renewal(void *arg)
{
	Hold	   *hold = arg;

	wait_signals(hold, 0);
	return hold->exited;
}

static void
lose(Hold *hold, bool over)
{
	hold->lost = true;
	hold->over = over;
	hold->kill_at = now_ms() + hold->cli->kill_after_ms;
	signal_command(hold, SIGTERM);
	signal_command(hold, SIGCONT);
}

/* The moment to stop COMMAND when no renewal comes through. */
static int64_t
stop_at(const Hold *hold)
{
	return hold->deadline - hold->ttl_ms / 6;
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
	int64_t		retry = hold->ttl_ms / 12;

	if (retry > 2000)
		retry = 2000;
	hold->next_renewal = now_ms() + (retry < 50 ? 50 : retry);
	free(hold->last_error);
	hold->last_error = needed(strdup(reply->message));
	hold->last_status = reply->status;
}

static void
renew(Hold *hold)
{
	Cli		   *cli = hold->cli;
	int64_t		sent = now_ms();
	int64_t		limit = stop_at(hold) - sent;
	Garbagetruck__V1__RenewResult *result;
	GrpcReply	reply;

	/* A call that hangs must leave time for another try. */
	if (limit > hold->ttl_ms / 4)
		limit = hold->ttl_ms / 4;
	if (limit > cli->timeout_ms)
		limit = cli->timeout_ms;
	if (limit < hold->ttl_ms / 12)
		limit = (hold->deadline - sent) / 2 + 1;
	result = cli_renew(cli, hold->lease_id, cli->duration_ms, (long) limit, &reply);
	if (result != NULL)
	{
		bought(hold, sent, duration_ms(result->ttl));
		garbagetruck__v1__renew_result__free_unpacked(result, NULL);
	}
	else if (is_over(&reply))
	{
		cli_error(cli->json, grpc_code_name(reply.status),
				  "the lease is lost, stopping %s: %s", cli->command[0], reply.message);
		lose(hold, true);
	}
	else
		renewal_failed(hold, &reply);
	grpc_reply_free(&reply);
}

/* Time is up, or nearly, and the last we heard was a failure. */
static bool
must_stop(const Hold *hold, int64_t now)
{
	return now >= hold->deadline || (now >= stop_at(hold) && hold->last_error != NULL);
}

/* Until COMMAND has ended, whatever it takes. */
static void
watch(Hold *hold)
{
	while (!hold->exited)
	{
		int64_t		now = now_ms();

		if (hold->lost && now >= hold->kill_at)
		{
			signal_command(hold, SIGKILL);
			hold->kill_at = now + 1000;
		}
		else if (!hold->lost && must_stop(hold, now))
		{
			cli_error(hold->cli->json, grpc_code_name(hold->last_status),
					  "the lease could not be renewed and is about to end, stopping %s: %s",
					  hold->cli->command[0],
					  hold->last_error ? hold->last_error : "this machine or process was suspended");
			lose(hold, false);
		}
		else if (!hold->lost && now >= hold->next_renewal)
			renew(hold);
		if (!hold->exited)
			wait_signals(hold, (hold->lost ? hold->kill_at : hold->next_renewal) - now_ms());
	}
}

/*
 * End the lease.  False when it had ended before COMMAND did, so that COMMAND
 * did not run under it to the end.
 */
static bool
release(Hold *hold)
{
	Cli		   *cli = hold->cli;
	DistributedGc__ReleaseLeaseRequest request = DISTRIBUTED_GC__RELEASE_LEASE_REQUEST__INIT;
	ProtobufCMessage *answer;
	GrpcReply	reply;
	bool		over = false;

	grpc_client_set_give_up(cli->client, NULL, NULL);
	request.lease_id = hold->lease_id;
	request.service_id = (char *) cli->service_id;
	answer = cli_call_quiet(cli, "/distributed_gc.DistributedGCService/ReleaseLease",
							&request.base, &distributed_gc__release_lease_response__descriptor,
							(long) cli->timeout_ms, &reply);
	if (answer != NULL)
		protobuf_c_message_free_unpacked(answer, NULL);
	else if (is_over(&reply))
	{
		over = true;
		cli_error(cli->json, grpc_code_name(reply.status),
				  "the lease had ended before %s did: %s", cli->command[0], reply.message);
	}
	else
		cli_error(cli->json, grpc_code_name(reply.status),
				  "the lease could not be released and ends by itself: %s", reply.message);
	grpc_reply_free(&reply);
	return !over;
}

int
cli_lease_hold(Cli *cli)
{
	Hold		hold = {.cli = cli};
	sigset_t	set,
				old_mask;
	int64_t		fence;
	int			error;
	int			status;

	if (!create(&hold, &fence))
		return CLI_FAILED;
	signal(SIGCHLD, SIG_DFL);
	signals_of_interest(&set);
	sigprocmask(SIG_BLOCK, &set, &old_mask);
	error = start(&hold, fence, &old_mask);
	if (error != 0)
	{
		hold.exited = true;
		cli_error(cli->json, "INVALID_ARGUMENT", "cannot run %s: %s", cli->command[0],
				  strerror(error));
		status = error == ENOENT ? 127 : 126;
	}
	else
	{
		grpc_client_set_give_up(cli->client, give_up_renewal, &hold);
		watch(&hold);
		status = WIFSIGNALED(hold.wait_status) ? 128 + WTERMSIG(hold.wait_status)
			: WEXITSTATUS(hold.wait_status);
	}
	if (!hold.over && !release(&hold) && status == 0)
		status = CLI_FAILED;
	if (hold.lost)
		status = CLI_FAILED;
	free(hold.lease_id);
	free(hold.last_error);
	return status;
}
