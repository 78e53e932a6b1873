/*
 * cli_guard.c
 *		The process that runs the COMMAND of `lease hold`, and ends it in time.
 *
 *		holder (hold)		renews the lease, takes signals, has the terminal, reports
 *		 `- guard			this: no network, no output, no terminal, no memory allocated
 *			 `- COMMAND		leader of a process group of its own
 *
 * Nothing that COMMAND started may be alive when the lease may be somebody
 * else's.  The guard alone sees to that.  With each renewal the holder tells it
 * two times: at stop_at everything is sent SIGTERM, at kill_at SIGKILL, without
 * asking anybody.  A holder that is stopped, that hangs in a write or in a name
 * look-up, or is killed, changes nothing about these two times; when it is
 * killed everything is ended at once, as nobody renews any more.  Time includes
 * suspension of the machine, which the server's clock does not stop for.
 *
 * The guard is a subreaper: every descendant of COMMAND is one of the guard, by
 * whatever sessions, groups and double forks, and there is none any more when
 * the guard has no child any more.  They are found by /proc (cli_tree.c).  A
 * signal goes to COMMAND's group as one, which no fork escapes, and to who has
 * left the group one by one; SIGKILL goes again until nobody is left.  Who runs
 * as a user that we may not signal is counted, told, and left.
 *
 * When COMMAND itself has ended, the others have a moment to end by themselves
 * (the `tee` behind a script's output), then they are stopped: the lease ends.
 *
 * Signals: all of them are blocked here, and its group is another than the
 * holder's, so that neither a key at the terminal nor a signal to the job
 * reaches it.  What can: SIGSTOP, which the holder undoes, and SIGKILL.  Then
 * COMMAND is killed by the kernel (PR_SET_PDEATHSIG), the others become the
 * holder's children, as it is a subreaper too, and it kills them.  Only who
 * kills or stops both of them at once, with SIGKILL or SIGSTOP, leaves COMMAND
 * without a lease.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli_guard.h"
#include "cli/cli_tree.h"

#define LINGER_MS 1000			/* for what COMMAND has left to end by itself */
#define SHORT_NAP_MS 1			/* between two rounds of SIGKILL, at first */
#define LONG_NAP_MS 1000
#define IDLE_ROUNDS 10
#define NEVER INT64_MAX

typedef enum Phase
{
	RUNNING,					/* COMMAND is there */
	LINGERING,					/* it has ended, others have not */
	STOPPING,					/* SIGTERM was sent */
	KILLING						/* SIGKILL is sent again and again */
} Phase;

typedef struct Guard
{
	int			holder;			/* socket; -1: the holder is gone */
	int			report;			/* pipe: exec's failure, or its end; -1: it was read */
	int			children;		/* signalfd */
	int			timer;
	pid_t		command;
	bool		ended;			/* COMMAND has, and its number is free */
	bool		empty;			/* nobody is left */
	Phase		phase;
	GuardTimes	times;			/* of the lease */
	int64_t		due;			/* when the phase is over */
	int64_t		nap;
	int			idle_rounds;	/* of SIGKILL that reached nobody */
	TreeCount	denied;
} Guard;

/* ---- what the holder uses too ---- */

int64_t
boot_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
boot_timer(int fd, int64_t when)
{
	struct itimerspec spec = {{0, 0}, {when / 1000, when % 1000 * 1000000}};

	/* All zeros would disarm it. */
	if (when <= 0)
		spec.it_value.tv_nsec = 1;
	if (when == NEVER)
		memset(&spec, 0, sizeof(spec));
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void
guard_tell(int fd, const GuardMessage *message)
{
	ssize_t		ignored = send(fd, message, sizeof(*message), MSG_DONTWAIT | MSG_NOSIGNAL);

	(void) ignored;
}

int
guard_hear(int fd, GuardMessage *message)
{
	ssize_t		n;

	do
		n = recv(fd, message, sizeof(*message), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t) sizeof(*message))
		return 1;
	return n < 0 && errno == EAGAIN ? 0 : -1;
}

/* Is there a child yet?  Those that have ended are no more. */
static bool
reap_all(void *arg)
{
	pid_t		pid;

	(void) arg;
	do
		pid = waitpid(-1, NULL, WNOHANG);
	while (pid > 0 || (pid < 0 && errno == EINTR));
	return pid == 0;
}

int
guard_kill_all(pid_t command)
{
	int			nap = SHORT_NAP_MS;

	while (reap_all(NULL))
	{
		TreeCount	count = tree_kill(command, reap_all, NULL);

		if (count.signalled == 0 && count.denied > 0)
			return count.denied;
		poll(NULL, 0, nap);
		nap = nap * 2 < LONG_NAP_MS ? nap * 2 : LONG_NAP_MS;
	}
	return 0;
}

/* ---- COMMAND ---- */

/* In the child: become COMMAND, or tell why not. */
static void
become_command(const GuardPlan *plan, pid_t guard, int report)
{
	int			error;

	setpgid(0, 0);
	/* All signals are blocked yet, so this works from the background, too. */
	if (plan->terminal >= 0)
		tcsetpgrp(plan->terminal, getpid());
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != guard)
		_exit(1);
	sigaction(SIGPIPE, &plan->broken_pipe, NULL);
	sigprocmask(SIG_SETMASK, &plan->mask, NULL);
	execvp(plan->command[0], plan->command);
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

static bool
start_command(Guard *guard, const GuardPlan *plan)
{
	int			report[2];
	pid_t		self = getpid();

	if (pipe2(report, O_CLOEXEC) != 0)
		return false;
	guard->command = fork();
	if (guard->command == 0)
		become_command(plan, self, report[1]);
	if (guard->command < 0)
		return false;
	setpgid(guard->command, guard->command);
	close(report[1]);
	guard->report = report[0];
	return true;
}

/* ---- ending it ---- */

static bool reap(void *arg);

static void
say(const Guard *guard, GuardWord word, int number, pid_t pid)
{
	GuardMessage message = {.word = word, .number = number, .pid = pid};

	if (guard->holder >= 0)
		guard_tell(guard->holder, &message);
}

/* Everything that COMMAND has started, and itself; by `until` it must be done. */
static void
signal_all(Guard *guard, int signo, int64_t until)
{
	/* To all of the group together, as long as its number cannot be another's. */
	bool		together = !guard->ended && kill(-guard->command, signo) == 0;

	tree_signal(signo, together ? guard->command : 0, until - boot_ms());
}

/*
 * SIGTERM for all, and SIGKILL after kill_after, or when the lease demands it.  Who
 * has ended is reaped before, and not looked at: of those who fork and end all the
 * time there would be thousands.  What ends by this is reaped when it has been told
 * why, or COMMAND would seem to have ended by itself.
 */
static void
stop_all(Guard *guard, int64_t now)
{
	int64_t		kill_at;

	if (guard->phase >= STOPPING)
		return;
	guard->phase = STOPPING;
	guard->due = now + guard->times.kill_after;
	kill_at = guard->due < guard->times.kill_at ? guard->due : guard->times.kill_at;
	reap(guard);
	signal_all(guard, SIGTERM, kill_at);
	signal_all(guard, SIGCONT, kill_at);
}

static void
command_ended(Guard *guard, int status, int64_t now)
{
	guard->ended = true;
	say(guard, GUARD_ENDED, status, 0);
	if (guard->phase != RUNNING)
		return;
	guard->phase = LINGERING;
	guard->due = now + LINGER_MS;
}

/* What has become of our children, among them all that have lost their parents; false: there are none. */
static bool
reap(void *arg)
{
	Guard	   *guard = arg;
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) != 0)
	{
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
		{
			guard->empty = true;
			return false;
		}
		if (pid == guard->command && WIFSTOPPED(status))
			say(guard, GUARD_STOPPED, WSTOPSIG(status), 0);
		else if (pid == guard->command && !guard->ended)
			command_ended(guard, status, boot_ms());
	}
	return true;
}

/* SIGKILL for all, and when to do it again. */
static void
kill_round(Guard *guard)
{
	guard->phase = KILLING;
	/* As one, as long as its number cannot be another's. */
	if (!guard->ended)
		kill(-guard->command, SIGKILL);
	guard->denied = tree_kill(guard->command, reap, guard);
	if (guard->empty)
		return;
	guard->idle_rounds = guard->denied.signalled > 0 ? 0 : guard->idle_rounds + 1;
	/* Those that are left are not ours to kill, or even to see (the mount option hidepid). */
	if (guard->idle_rounds > IDLE_ROUNDS || (guard->idle_rounds > 0 && guard->denied.denied > 0))
	{
		guard->empty = true;
		guard->denied.denied += guard->denied.denied == 0;
	}
	/* Those that are left need the processor more than we do. */
	guard->due = boot_ms() + guard->nap;
	guard->nap = guard->nap * 2 < LONG_NAP_MS ? guard->nap * 2 : LONG_NAP_MS;
}

/* The holder says nothing any more: it was killed, or crashed. */
static void
holder_gone(Guard *guard, int64_t now)
{
	close(guard->holder);
	guard->holder = -1;
	stop_all(guard, now);
}

static void
take_signal(Guard *guard, int signo, int64_t now)
{
	if (!guard->ended)
		kill(-guard->command, signo);
	else if (signo == SIGINT || signo == SIGTERM || signo == SIGQUIT || signo == SIGHUP)
	{
		/* Somebody is in a hurry; the second time, even more. */
		if (guard->phase == STOPPING)
			guard->due = now;
		stop_all(guard, now);
	}
}

static void
take_messages(Guard *guard, int64_t now)
{
	GuardMessage message;
	int			heard;

	while ((heard = guard_hear(guard->holder, &message)) > 0)
	{
		if (message.word == GUARD_TIMES)
			guard->times = message.times;
		else if (message.word == GUARD_LOST)
			stop_all(guard, now);
		else if (message.word == GUARD_SIGNAL)
			take_signal(guard, message.number, now);
	}
	if (heard < 0)
		holder_gone(guard, now);
}

/* True when COMMAND does not run, as there was an error. */
static bool
take_report(Guard *guard)
{
	int			error = 0;
	ssize_t		n = read(guard->report, &error, sizeof(error));

	if (n < 0 && errno == EINTR)
		return false;
	close(guard->report);
	guard->report = -1;
	if (n == (ssize_t) sizeof(error))
		say(guard, GUARD_FAILED, error, 0);
	return n == (ssize_t) sizeof(error);
}

/* What the time demands. */
static void
act(Guard *guard, int64_t now)
{
	/* The lease's times count in every phase. */
	if (now >= guard->times.stop_at && guard->phase < STOPPING)
	{
		stop_all(guard, now);
		say(guard, GUARD_LATE, 0, 0);
	}
	if (guard->phase == LINGERING && now >= guard->due)
	{
		TreeCount	left = tree_signal(0, 0, LINGER_MS);

		stop_all(guard, now);
		say(guard, GUARD_LEFT, left.signalled + left.denied, 0);
	}
	if ((guard->phase == STOPPING && (now >= guard->due || now >= guard->times.kill_at)) ||
		(guard->phase == KILLING && now >= guard->due))
		kill_round(guard);
}

static int64_t
wake_at(const Guard *guard)
{
	int64_t		when = guard->phase == RUNNING ? NEVER : guard->due;

	if (guard->phase < STOPPING && guard->times.stop_at < when)
		when = guard->times.stop_at;
	if (guard->phase == STOPPING && guard->times.kill_at < when)
		when = guard->times.kill_at;
	return when;
}

static void
drain(int fd)
{
	char		buffer[1024];

	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
}

/* Until nobody is left. */
static void
watch(Guard *guard)
{
	for (;;)
	{
		struct pollfd fds[] = {
			{guard->children, POLLIN, 0}, {guard->timer, POLLIN, 0},
			{guard->holder, POLLIN, 0}, {guard->report, POLLIN, 0}
		};

		boot_timer(guard->timer, wake_at(guard));
		poll(fds, 4, -1);
		drain(guard->children);
		drain(guard->timer);
		if (guard->report >= 0 && fds[3].revents != 0 && take_report(guard))
			return;
		if (guard->holder >= 0 && fds[2].revents != 0)
			take_messages(guard, boot_ms());
		reap(guard);
		if (!guard->empty)
			act(guard, boot_ms());
		if (guard->empty)
			return;
	}
}

/* ---- starting ---- */

static bool
is_inherited(const GuardPlan *plan, int fd)
{
	return fd < plan->inherited_max && (plan->inherited[fd / 8] & 1 << fd % 8) != 0;
}

/* What hold has opened for itself is nobody's business here. */
static void
close_others(const GuardPlan *plan, int socket)
{
	DIR		   *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		int			fd = atoi(entry->d_name);

		if (fd > STDERR_FILENO && fd != socket && fd != plan->terminal && fd != dirfd(dir) && !is_inherited(plan, fd))
			close(fd);
	}
	if (dir != NULL)
		closedir(dir);
}

/* Nor keep open what COMMAND reads and writes. */
static void
close_inherited(const GuardPlan *plan)
{
	int			nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	int			fd;

	for (fd = 0; fd <= STDERR_FILENO && nowhere >= 0; fd++)
		dup2(nowhere, fd);
	if (nowhere > STDERR_FILENO)
		close(nowhere);
	for (fd = STDERR_FILENO + 1; fd < plan->inherited_max; fd++)
		if (is_inherited(plan, fd))
			close(fd);
	if (plan->terminal >= 0)
		close(plan->terminal);
}

static void
guard_main(const GuardPlan *plan, int socket)
{
	Guard		guard = {.holder = socket, .report = -1, .nap = SHORT_NAP_MS, .times = plan->times};
	sigset_t	all;

	/* Not by the program's name: who kills that means the holder. */
	prctl(PR_SET_NAME, "gt-guard");
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setpgid(0, 0);
	close_others(plan, socket);
	sigemptyset(&all);
	sigaddset(&all, SIGCHLD);
	guard.children = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
	guard.timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (guard.children < 0 || guard.timer < 0 || !tree_open() ||
		prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || !start_command(&guard, plan))
	{
		say(&guard, GUARD_UNABLE, errno, 0);
		_exit(1);
	}
	close_inherited(plan);
	/* To be in time where many want to run; root may, and COMMAND does not inherit it. */
	setpriority(PRIO_PROCESS, 0, -20);
	say(&guard, GUARD_STARTED, 0, guard.command);
	watch(&guard);
	say(&guard, GUARD_DONE, guard.denied.denied, guard.denied.denied_pid);
	_exit(0);
}

pid_t
guard_start(const GuardPlan *plan, int *fd)
{
	int			ends[2];
	pid_t		pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	pid = fork();
	if (pid == 0)
	{
		close(ends[0]);
		guard_main(plan, ends[1]);
	}
	if (pid > 0)
		*fd = ends[0];
	else
	{
		int			error = errno;

		close(ends[0]);
		errno = error;
	}
	close(ends[1]);
	return pid;
}
