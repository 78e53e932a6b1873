/*
 * cli_tree.c
 *		The processes that descend from this one, by /proc.
 *
 * Runs in the guard of `lease hold` (see cli_guard.c), and in hold itself when
 * the guard is gone.  The process that asks is a subreaper, so that whoever
 * loses its parent becomes its child: a double fork, setsid() or a changed user
 * leads nobody out of the tree.  No memory is allocated.
 *
 * Each process of /proc lists its children: a walk goes down from this one by
 * those lists, so that it takes as long as COMMAND has processes, not as long as
 * the machine has.  Where the kernel keeps no such lists (CONFIG_PROC_CHILDREN) a
 * look through all of /proc marks each process whose parent is marked.  What was
 * forked behind its back is found by the next one; who forks all the time would
 * always be new, so the number of looks for one signal is limited.
 *
 * A process that forks and ends at once, in a session of its own each time, may
 * be gone whenever its signal comes.  So SIGKILL goes to the process group: then
 * it reaches the child that has just been forked too, as a signal to a group and
 * a fork exclude each other.  Only groups that nobody else can be in: those of
 * another session, which its first process and its descendants alone are in, and
 * those whose leader is one of ours.
 *
 * Children of this process keep their numbers until it has reaped them.  Others'
 * are taken for what they are only while their parent is who it was; between that and
 * the signal a process may end and its number be given to another only if all
 * numbers are used up within that moment.
 *
 * In a PID namespace of its own a process may see the /proc of the one around
 * it, whose numbers are others.  The line NSpid of its status has them all,
 * outermost first; how many it has of this process says which one is ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli_tree.h"

#define QUICK_MS 50				/* of killing who is new again and again, without a pause */
#define LOOKS 6
#define MAX_PID (4 * 1024 * 1024)	/* the kernel's own limit */
#define MAX_FOUND (64 * 1024)	/* by one walk; who is behind them is found when they are gone */

static int	proc = -1;			/* kept open: opening it takes a descriptor */
static uint8_t marks[MAX_PID / 8];
static int	level;				/* of our PID namespace, from the one of /proc, from 1 */

typedef struct Process
{
	int			parent;
	bool		alive;			/* no zombie */
} Process;

/* Whom a walk has found, by their numbers in /proc. */
static struct
{
	int			number;
	int			parent;
}			found[MAX_FOUND];

/* A walk, or a look. */
typedef struct Search
{
	int			signo;
	pid_t		except;
	pid_t		group;			/* ours alone */
	int			self;			/* our own number in /proc */
	int			used;			/* of found[] */
	int			at;				/* whose children are being read */
	bool		fresh;			/* somebody new was found */
	int64_t		until;			/* no longer, by now_ms() */
	TreeCount	count;
} Search;

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
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
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
	ssize_t		n = readlinkat(proc, "self", text, sizeof(text) - 1);

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
	close(proc);
	proc = -1;
	return usable;
}

bool
tree_open(void)
{
	if (proc < 0)
		proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return proc >= 0;
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
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

/* Begin anew. */
static void
forget(Search *search)
{
	memset(marks, 0, sizeof(marks));
	search->self = tree_open() ? number_of_self() : 0;
	mark(search->self);
}

/* Its process group, when nobody else can be in that; 0: not. */
static pid_t
own_group(const Search *search, pid_t pid)
{
	pid_t		group = getpgid(pid);
	pid_t		session = getsid(pid);

	return group > 1 && (group == search->group || group == pid || (session > 0 && session != getsid(0))) ? group : 0;
}

static void
deliver(Search *search, int number)
{
	pid_t		pid = own_number(number);
	pid_t		group;

	if (pid <= 1 || (search->except != 0 && getpgid(pid) == search->except))
		return;
	group = search->signo == SIGKILL ? own_group(search, pid) : 0;
	/* Who is killed shall be gone at once, however many want to run; root may say so. */
	if (search->signo == SIGKILL)
		setpriority(PRIO_PROCESS, (id_t) pid, -20);
	if (group != 0)
		kill(-group, SIGKILL);
	if (kill(pid, search->signo) == 0)
		search->count.signalled++;
	else if (errno == EPERM)
	{
		search->count.denied++;
		search->count.denied_pid = pid;
	}
}

/* ---- a walk ---- */

/* Call `visit` with each number in a directory's names. */
static void
each_number(int dir, void (*visit) (Search *search, int number), Search *search)
{
	char		buffer[8192] __attribute__((aligned(8)));
	long		n;
	long		at;

	/* As readdir() does, which takes memory. */
	while ((n = syscall(SYS_getdents64, dir, buffer, sizeof(buffer))) > 0)
	{
		for (at = 0; at < n;)
		{
			uint16_t	len;
			int			number = atoi(buffer + at + 19);

			memcpy(&len, buffer + at + 16, sizeof(len));
			at += len;
			if (number > 0)
				visit(search, number);
		}
	}
}

/* Is it still who it was when it was found?  Whoever has lost its parent is ours. */
static bool
is_child(const Search *search, int number, int parent, Process *process)
{
	return parent == 0 ||
		(read_process(number, process) && (process->parent == parent || process->parent == search->self));
}

static void
meet(Search *search, int number)
{
	int			parent = found[search->at].number;
	Process		process = {.alive = true};

	if (search->used == MAX_FOUND || now_ms() >= search->until)
		return;
	/* Who is a child of ours is so until it is reaped, and cannot be killed too soon. */
	if (!(search->signo == SIGKILL && search->at == 0) && !is_child(search, number, parent, &process))
		return;
	found[search->used].number = number;
	found[search->used++].parent = search->at == 0 ? 0 : parent;
	if (is_marked(number) && search->signo != SIGKILL)
		return;
	search->fresh = search->fresh || !is_marked(number);
	mark(number);
	if (process.alive)
		deliver(search, number);
}

/* Meet the children of one thread; false: there is no such list. */
static bool
read_children(Search *search, int number, int thread)
{
	char		path[64];
	char		text[4096];
	size_t		kept = 0;
	ssize_t		n;
	int			fd;

	snprintf(path, sizeof(path), "%d/task/%d/children", number, thread);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while ((n = read(fd, text + kept, sizeof(text) - kept)) > 0)
	{
		char	   *end = text + kept + n;
		char	   *at = text;
		char	   *blank;

		/* A number ends with a blank, or goes on in the next piece. */
		for (; (blank = memchr(at, ' ', (size_t) (end - at))) != NULL; at = blank + 1)
			meet(search, atoi(at));
		kept = (size_t) (end - at);
		memmove(text, at, kept);
	}
	close(fd);
	return true;
}

static void
visit_thread(Search *search, int thread)
{
	read_children(search, found[search->at].number, thread);
}

/* Those whom the process found[at] has. */
static void
visit_process(Search *search)
{
	int			number = found[search->at].number;
	Process		process;
	char		path[32];
	int			dir;

	if (!is_child(search, number, found[search->at].parent, &process))
		return;
	snprintf(path, sizeof(path), "%d/task", number);
	dir = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	each_number(dir, visit_thread, search);
	close(dir);
}

/* Down the lists of children; false: the kernel has none. */
static bool
walk(Search *search)
{
	found[0].number = search->self;
	found[0].parent = 0;
	search->used = 1;
	search->at = 0;
	/* We have one thread, the process that asks. */
	if (!read_children(search, search->self, search->self))
		return false;
	for (search->at = 1; search->at < search->used; search->at++)
		visit_process(search);
	return true;
}

/* ---- a look through /proc ---- */

static void
look_at(Search *search, int number)
{
	Process		process;

	if (is_marked(number) || !read_process(number, &process) || !is_marked(process.parent))
		return;
	mark(number);
	search->fresh = true;
	if (process.alive)
		deliver(search, number);
}

/* ---- both ---- */

/* Find who was not found before. */
static void
search_once(Search *search)
{
	search->fresh = false;
	if (walk(search))
		return;
	if (search->signo == SIGKILL)
		forget(search);
	lseek(proc, 0, SEEK_SET);
	each_number(proc, look_at, search);
}

TreeCount
tree_signal(int signo, pid_t except, int64_t most_ms)
{
	Search		search = {.signo = signo, .except = except, .until = now_ms() + most_ms};
	int			i;

	forget(&search);
	search.fresh = search.self > 0;
	for (i = 0; i < LOOKS && search.fresh && now_ms() < search.until; i++)
		search_once(&search);
	return search.count;
}

TreeCount
tree_kill(pid_t group, bool (*reap) (void *arg), void *arg)
{
	int64_t		until = now_ms() + QUICK_MS;
	Search		search = {.signo = SIGKILL, .group = group, .until = INT64_MAX};
	bool		left = true;

	forget(&search);
	search.fresh = search.self > 0;
	while (search.fresh && left && now_ms() < until)
	{
		memset(&search.count, 0, sizeof(search.count));
		search_once(&search);
		left = reap(arg);
	}
	return search.count;
}
