/*
 * cli_tree.c
 *		The processes that descend from this one, by /proc.
 *
 * Runs in the guard of `lease hold` (see cli_guard.c), and in hold itself when
 * the guard is gone.  The process that asks is a subreaper, so that whoever
 * loses its parent becomes its child: a double fork, setsid() or a changed user
 * leads nobody out of the tree.  No memory is allocated.
 *
 * A look goes through /proc and marks each process whose parent is marked, and
 * again until nothing new is found: what was forked behind the look's back is
 * found by the next one.  A process that forks and ends all the time is gone
 * whenever somebody looks; but it is a child of ours then, and the list of those
 * is short enough to be faster.  Between a look and its signal a process may end and
 * its number be given to another only if all numbers are used up within that
 * moment.
 *
 * In a PID namespace of its own a process may see the /proc of the one around
 * it, whose numbers are others.  The line NSpid of its status has them all,
 * outermost first; how many it has of this process says which one is ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_tree.h"

#define QUICK_ROUNDS 500
#define MAX_PID (4 * 1024 * 1024)	/* the kernel's own limit */

static DIR *proc;				/* kept open: opening it takes memory and a descriptor */
static uint8_t marks[MAX_PID / 8];
static int	level;				/* of our PID namespace, from the one of /proc, from 1 */

typedef struct Process
{
	int			parent;
	bool		alive;			/* no zombie */
} Process;

/*
 * A file of /proc/PID, or of our own, into a buffer; false when there is no such
 * process.  It is that /proc which was opened, whatever has been mounted over it.
 */
static bool
read_file(int pid, const char *name, char *buffer, size_t size)
{
	char		path[64];
	int			fd;
	ssize_t		n;

	if (pid > 0)
		snprintf(path, sizeof(path), "%d/%s", pid, name);
	else
		snprintf(path, sizeof(path), "self/%s", name);
	fd = openat(dirfd(proc), path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buffer, size - 1);
	close(fd);
	buffer[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static bool
read_process(int pid, Process *process)
{
	char		text[1024];
	char	   *at;
	char		state;
	int			threads;

	if (!read_file(pid, "stat", text, sizeof(text)))
		return false;
	/* The name, in parentheses, may have anything in it. */
	at = strrchr(text, ')');
	if (at == NULL ||
		sscanf(at + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d", &state, &process->parent, &threads) != 3)
		return false;
	/* A first thread that has ended looks like a zombie while others go on. */
	process->alive = (state != 'Z' && state != 'X') || threads > 1;
	return true;
}

/* The line NSpid; NULL: the kernel has no PID namespaces. */
static char *
namespace_pids(int pid, char *buffer, size_t size)
{
	char	   *line = read_file(pid, "status", buffer, size) ? strstr(buffer, "\nNSpid:") : NULL;

	return line != NULL ? line + strlen("\nNSpid:") : NULL;
}

/* The number by which we know a process of /proc; 0: none. */
static int
own_number(int pid)
{
	char		text[4096];
	char	   *at = level > 1 ? namespace_pids(pid, text, sizeof(text)) : NULL;
	long		number = level > 1 ? 0 : pid;
	int			i;

	for (i = 0; at != NULL && i < level; i++)
	{
		char	   *end;

		number = *at != '\n' ? strtol(at, &end, 10) : 0;
		if (number <= 0)
			return 0;
		at = end;
	}
	return (int) number;
}

/* Our own number in /proc; 0: it does not show us. */
static int
number_of_self(void)
{
	char		text[32];
	ssize_t		n = readlinkat(dirfd(proc), "self", text, sizeof(text) - 1);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	return atoi(text);
}

bool
tree_usable(void)
{
	char		text[4096];
	char	   *at;
	bool		usable;

	if (!tree_open())
		return false;
	at = namespace_pids(0, text, sizeof(text));
	level = 0;
	while (at != NULL && *at != '\n' && strtol(at, &at, 10) > 0)
		level++;
	if (level == 0)
		level = 1;
	usable = number_of_self() > 0 && own_number(number_of_self()) == getpid();
	closedir(proc);
	proc = NULL;
	return usable;
}

bool
tree_open(void)
{
	if (proc == NULL)
		proc = opendir("/proc");
	return proc != NULL;
}

static bool
is_marked(int pid)
{
	return pid > 0 && pid < MAX_PID && (marks[pid / 8] & 1 << pid % 8) != 0;
}

static void
mark(int pid)
{
	if (pid > 0 && pid < MAX_PID)
		marks[pid / 8] |= (uint8_t) (1 << pid % 8);
}

static void
deliver(int number, int signo, pid_t except, TreeCount *count)
{
	pid_t		pid = own_number(number);

	if (pid <= 1 || (except != 0 && getpgid(pid) == except))
		return;
	if (kill(pid, signo) == 0)
		count->signalled++;
	else if (errno == EPERM)
	{
		count->denied++;
		count->denied_pid = pid;
	}
}

/* One look; true when it found somebody new. */
static bool
look(int signo, pid_t except, TreeCount *count)
{
	struct dirent *entry;
	bool		found = false;

	rewinddir(proc);
	while ((entry = readdir(proc)) != NULL)
	{
		int			pid = atoi(entry->d_name);
		Process		process;

		if (pid <= 0 || is_marked(pid) || !read_process(pid, &process) || !is_marked(process.parent))
			continue;
		mark(pid);
		found = true;
		if (process.alive)
			deliver(pid, signo, except, count);
	}
	return found;
}

TreeCount
tree_signal(int signo, pid_t except)
{
	TreeCount	count = {0};

	if (!tree_open())
		return count;
	memset(marks, 0, sizeof(marks));
	mark(number_of_self());
	while (look(signo, except, &count))
		;
	return count;
}

/* True when there was one to kill.  Without CONFIG_PROC_CHILDREN there never is. */
static bool
kill_listed(void)
{
	char		name[48];
	char		text[4096];
	TreeCount	count = {0};
	char	   *at = text;
	char	   *end;
	long		number;

	snprintf(name, sizeof(name), "task/%d/children", number_of_self());
	if (!read_file(0, name, text, sizeof(text)))
		return false;
	while ((number = strtol(at, &end, 10)) > 0 && *end == ' ')
	{
		deliver((int) number, SIGKILL, 0, &count);
		at = end;
	}
	return count.signalled > 0;
}

void
tree_kill_children(void (*reap) (void *arg), void *arg)
{
	int			i;

	for (i = 0; i < QUICK_ROUNDS && kill_listed(); i++)
		reap(arg);
}
