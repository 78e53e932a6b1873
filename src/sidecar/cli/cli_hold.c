/*
 * cli_hold.c
 *		lease hold: run a command under a lease.
 *
 * Runs in the command line's process: takes the lease, starts the guard (see
 * cli_guard.c), whose child is COMMAND, and then renews, passes signals and the
 * terminal on, and reports.  What must not fail is done elsewhere: the guard
 * knows until when the lease is surely ours, and ends everything that COMMAND
 * has started before that, whatever becomes of this process.
 *
 * The deadline that counts is our own: the moment the last renewal was *sent*
 * plus the time it bought, by CLOCK_BOOTTIME.  A sixth of that time (a second
 * at most) is kept back, for SIGKILL to do its work in; before that COMMAND has
 * --kill-after, a third of the time at most, to stop by SIGTERM.
 *
 * Signals stay blocked and are fetched, so nothing runs in a signal handler.
 * Each event is acted upon first and reported afterwards, to a stderr that is
 * never waited for.
 *
 * The terminal: where hold is all of a job, COMMAND's group is the foreground
 * group in its place.  In a pipeline or a script, where others of our group may
 * want to read, COMMAND gets it when it stops for the want of it.  When COMMAND
 * is stopped there we take it back and stop with our whole job, as the terminal
 * would have had it, so that the shell sees it.  When we are told to stop,
 * COMMAND is first.  Stopped, nothing is renewed, and the guard ends COMMAND in
 * time.  Continued, COMMAND goes on when a renewal has come through.
 *
 * A crash of this process: the guard stops COMMAND, and the lease ends by
 * itself.  The guard's death: COMMAND dies with it, what it has started becomes
 * ours, and is killed.  As process 1 we reap what others leave.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli_hold.h"
#include "cli/cli_tree.h"

#define MAX_INHERITED 4096

/* Passed on to COMMAND; while there is none, the first four end us. */
#define ENDING 4
static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH};
static const int stopping[] = {SIGTSTP, SIGTTIN, SIGTTOU};

#define COUNT(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* ---- signals and other events ---- */

void
hold_tell(const Hold *hold, GuardWord word, int number)
{
	GuardMessage message = {.word = word, .number = number, .times = hold->times};

	if (hold->guard >= 0)
		guard_tell(hold->guard, &message);
}

/* Block what is fetched from now on: before COMMAND is there, stop signals may do their usual work. */
static bool
catch_signals(Hold *hold, bool all)
{
	sigset_t	set;
	int			i;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (i = 0; i < (all ? COUNT(passed_on) : ENDING); i++)
		sigaddset(&set, passed_on[i]);
	for (i = 0; all && i < COUNT(stopping); i++)
		sigaddset(&set, stopping[i]);
	if (all)
		sigaddset(&set, SIGCONT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	hold->signals = signalfd(hold->signals, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return hold->signals >= 0;
}

static bool
is_one_of(int signo, const int *signals, int count)
{
	while (count > 0)
		if (signals[--count] == signo)
			return true;
	return false;
}

/* Let COMMAND's group be the terminal's foreground group, if ours is. */
static void
give_terminal(Hold *hold)
{
	if (hold->terminal < 0 || tcgetpgrp(hold->terminal) != getpgrp())
		return;
	if (tcsetpgrp(hold->terminal, hold->command) == 0)
		hold->given = true;
}

/* And back, unless somebody else has it by now. */
static void
take_terminal(Hold *hold)
{
	pid_t		now;

	if (hold->terminal < 0 || !hold->given)
		return;
	now = tcgetpgrp(hold->terminal);
	if (now == hold->command || (now > 0 && kill(-now, 0) != 0 && errno == ESRCH))
		tcsetpgrp(hold->terminal, getpgrp());
}

/*
 * Stop, until somebody continues us: this process alone, or its job.  Nothing
 * happens where nobody could (an orphaned process group).
 */
static void
stop_self(Hold *hold, int signo, bool job)
{
	sigset_t	set;

	hold->paused = true;
	take_terminal(hold);
	kill(job ? 0 : getpid(), signo);
	sigemptyset(&set);
	sigaddset(&set, signo);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	hold->next_renewal = boot_ms();
}

/* A renewal has come through: COMMAND may go on. */
void
hold_go_on(Hold *hold)
{
	give_terminal(hold);
	hold_tell(hold, GUARD_SIGNAL, SIGCONT);
	hold->paused = false;
}

/* Children that have ended; as process 1, and as a subreaper, also those of others. */
static void
reap(Hold *hold)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0)
	{
		/* Nobody but us has a reason to stop the guard. */
		if (pid == hold->guard_pid && WIFSTOPPED(status))
			kill(pid, SIGCONT);
	}
}

static void
take_signal(Hold *hold, int signo)
{
	if (signo == SIGCHLD)
		reap(hold);
	else if (hold->guard < 0)
	{
		if (!is_one_of(signo, passed_on, ENDING))
			return;
		/* The second one ends the wait for an answer. */
		hold->quit_at = hold->quit == 0 ? boot_ms() + QUIT_PATIENCE_MS : 0;
		hold->quit = signo;
	}
	else if (is_one_of(signo, stopping, COUNT(stopping)))
	{
		hold_tell(hold, GUARD_SIGNAL, signo);
		stop_self(hold, signo, false);
	}
	else if (signo == SIGCONT)
	{
		hold->paused = true;
		hold->next_renewal = boot_ms();
	}
	else
		hold_tell(hold, GUARD_SIGNAL, signo);
}

void
hold_take_signals(Hold *hold)
{
	struct signalfd_siginfo info;

	while (read(hold->signals, &info, sizeof(info)) == (ssize_t) sizeof(info))
		take_signal(hold, (int) info.ssi_signo);
}

/* COMMAND was stopped, and not by us. */
static void
command_stopped(Hold *hold, int signo)
{
	if (hold->paused || hold->terminal < 0 || !is_one_of(signo, stopping, COUNT(stopping)))
		return;
	/* It wanted the terminal, and our job has got it since: then it need not stop. */
	if (signo != SIGTSTP && tcgetpgrp(hold->terminal) == getpgrp())
		hold_go_on(hold);
	else
		stop_self(hold, signo, true);
}

/* A COMMAND that had ended already was under the lease to its end. */
void
hold_lose(Hold *hold)
{
	hold->lost = true;
	hold->cut = !hold->ended;
}

/* The guard was killed: who is left has become our child. */
static void
guard_gone(Hold *hold)
{
	close(hold->guard);
	hold->guard = -1;
	if (hold->done)
		return;
	hold->denied = guard_kill_all(hold->command);
	hold->done = true;
	hold_lose(hold);
	cli_error(hold->cli->json, "ABORTED", "the process that guards %s was killed, and %s with it",
			  hold->cli->command[0], hold->cli->command[0]);
}

static void
late(Hold *hold)
{
	hold_lose(hold);
	cli_error(hold->cli->json, grpc_code_name(hold->last_error ? hold->last_status : GRPC_DEADLINE_EXCEEDED),
			  "the lease could not be renewed and is about to end, stopping %s: %s",
			  hold->cli->command[0],
			  hold->last_error ? hold->last_error : "this machine or process was suspended, or the server does not answer");
}

static void
take_message(Hold *hold, const GuardMessage *message)
{
	switch (message->word)
	{
		case GUARD_STARTED:
			hold->command = message->pid;
			hold->given = hold->terminal >= 0 && tcgetpgrp(hold->terminal) == hold->command;
			break;
		case GUARD_FAILED:
			hold->run_error = message->number;
			hold->done = true;
			break;
		case GUARD_UNABLE:
			hold->start_error = message->number;
			hold->done = true;
			break;
		case GUARD_STOPPED:
			command_stopped(hold, message->number);
			break;
		case GUARD_ENDED:
			hold->ended = true;
			hold->wait_status = message->number;
			take_terminal(hold);
			break;
		case GUARD_LATE:
			late(hold);
			break;
		case GUARD_LEFT:
			cli_error(hold->cli->json, "OK", "%s has ended; what it has left running (processes: %d) is stopped, as the lease ends with it",
					  hold->cli->command[0], message->number);
			break;
		case GUARD_DONE:
			hold->denied = message->number;
			hold->denied_pid = message->pid;
			hold->done = true;
			break;
		default:
			break;
	}
}

static void
take_messages(Hold *hold)
{
	GuardMessage message;
	int			heard = 0;

	while (hold->guard >= 0 && (heard = guard_hear(hold->guard, &message)) > 0)
		take_message(hold, &message);
	if (hold->guard >= 0 && heard < 0)
		guard_gone(hold);
}

void
hold_take_events(Hold *hold)
{
	hold_take_signals(hold);
	take_messages(hold);
}

/* Wait for something to happen, until `when` at most. */
void
hold_wait(Hold *hold, int64_t when)
{
	struct pollfd fds[] = {{hold->signals, POLLIN, 0}, {hold->timer, POLLIN, 0}, {hold->guard, POLLIN, 0}};
	uint64_t	count;
	ssize_t		ignored;

	boot_timer(hold->timer, when);
	poll(fds, 3, -1);
	ignored = read(hold->timer, &count, sizeof(count));
	(void) ignored;
	hold_take_events(hold);
}

/* Until nothing of COMMAND is left. */
static void
watch(Hold *hold)
{
	int			watched[] = {hold->signals, hold->guard};

	grpc_client_set_give_up(hold->cli->client, hold_give_up_renewal, hold, watched, 2);
	while (!hold->done)
	{
		if (!hold->lost && boot_ms() >= hold->next_renewal)
			hold_renew(hold);
		if (!hold->done)
			hold_wait(hold, hold->lost ? INT64_MAX : hold->next_renewal);
	}
	take_terminal(hold);
}

/* ---- the command ---- */

/* Note the descriptors that were here before us: these COMMAND gets. */
static void
note_inherited(uint8_t *bits)
{
	DIR		   *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		int			fd = atoi(entry->d_name);

		if (fd < MAX_INHERITED && fd != dirfd(dir))
			bits[fd / 8] |= (uint8_t) (1 << fd % 8);
	}
	if (dir != NULL)
		closedir(dir);
}

/* Has our group the terminal, and nobody else in it a use for it?  As far as can be seen from here. */
static bool
is_whole_job(const Hold *hold)
{
	return tcgetpgrp(hold->terminal) == getpgrp() && getpgrp() == getpid() &&
		isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

static int
start(Hold *hold, const uint8_t *inherited)
{
	GuardPlan	plan = {
		.command = hold->cli->command, .mask = hold->old_mask, .broken_pipe = hold->old_pipe,
		.terminal = hold->terminal, .inherited = inherited, .inherited_max = MAX_INHERITED,
		.times = hold->times
	};

	if (hold->terminal >= 0 && !is_whole_job(hold))
		plan.terminal = -1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	hold->guard_pid = guard_start(&plan, &hold->guard);
	return hold->guard_pid < 0 ? errno : 0;
}

/* --kill-after was more than the duration allows. */
static void
say_if_cut(const Hold *hold)
{
	const Cli  *cli = hold->cli;

	if (cli->kill_after_ms > hold->times.kill_after)
		cli_error(cli->json, "OK", "--kill-after is cut to %.3g s, a third of the lease's duration, so that %s is gone before the lease can end",
				  (double) hold->times.kill_after / 1000, cli->command[0]);
}

/* Ctrl-C and Ctrl-\ were meant for our whole job, and only COMMAND's group has heard of it. */
static void
pass_to_job(const Hold *hold)
{
	int			signo = WIFSIGNALED(hold->wait_status) ? WTERMSIG(hold->wait_status) : 0;

	if (hold->given && hold->ended && (signo == SIGINT || signo == SIGQUIT))
		kill(0, signo);			/* we have it blocked */
}

static void
report_end(const Hold *hold)
{
	const Cli  *cli = hold->cli;

	if (hold->run_error != 0)
		cli_error(cli->json, "INVALID_ARGUMENT", "cannot run %s: %s", cli->command[0], strerror(hold->run_error));
	if (hold->start_error != 0)
		cli_error(cli->json, grpc_code_name(GRPC_RESOURCE_EXHAUSTED), "cannot start a process for %s: %s%s", cli->command[0],
				  strerror(hold->start_error),
				  hold->start_error == EAGAIN ? ": end others of this user, or raise their limit (ulimit -u)" : "");
	if (hold->denied > 0)
		cli_error(cli->json, "PERMISSION_DENIED", "what %s has started still runs as another user, and cannot be stopped from here (processes: %d%s%.0d)",
				  cli->command[0], hold->denied, hold->denied_pid ? ", one of them " : "", hold->denied_pid);
}

static int
exit_code(const Hold *hold)
{
	if (hold->run_error != 0)
		return hold->run_error == ENOENT ? 127 : 126;
	if (!hold->ended)
		return CLI_FAILED;
	return WIFSIGNALED(hold->wait_status) ? 128 + WTERMSIG(hold->wait_status) : WEXITSTATUS(hold->wait_status);
}

/* With the lease in hand. */
static int
run(Hold *hold, const uint8_t *inherited)
{
	bool		whole;
	int			code;

	catch_signals(hold, true);
	if (hold->quit == 0 && boot_ms() < hold->times.stop_at)
	{
		hold->start_error = start(hold, inherited);
		if (hold->start_error == 0)
		{
			say_if_cut(hold);
			watch(hold);
		}
	}
	else if (hold->quit == 0)
		late(hold);
	code = hold->quit != 0 ? 128 + hold->quit : exit_code(hold);
	whole = hold->over || hold_release(hold);
	report_end(hold);
	pass_to_job(hold);
	if (hold->cut || (!whole && code == CLI_OK))
		code = CLI_FAILED;
	return code;
}

int
cli_lease_hold(Cli *cli)
{
	static uint8_t inherited[MAX_INHERITED / 8];
	Hold		hold = {.cli = cli, .signals = -1, .guard = -1};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	int			code;

	note_inherited(inherited);
	if (!tree_usable())
	{
		cli_error(cli->json, "FAILED_PRECONDITION",
				  "lease hold finds what COMMAND starts by /proc, which does not show it: mount it (unshare --mount-proc)");
		return CLI_FAILED;
	}
	if (!cli_connect(cli))
		return CLI_FAILED;
	srandom((unsigned) getpid());
	signal(SIGCHLD, SIG_DFL);
	sigaction(SIGPIPE, &ignore, &hold.old_pipe);
	sigprocmask(SIG_BLOCK, NULL, &hold.old_mask);
	hold.timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	hold.terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (hold.timer < 0 || !catch_signals(&hold, false))
	{
		cli_error(cli->json, "INTERNAL", "cannot wait for signals: %s", strerror(errno));
		return CLI_FAILED;
	}
	cli_error_never_waits();
	code = hold_take(&hold);
	if (code == CLI_OK)
		code = run(&hold, inherited);
	free(hold.lease_id);
	free(hold.last_error);
	return code;
}
