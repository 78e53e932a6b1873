/*
 * ephemeral.c
 *		serve --ephemeral: a private PostgreSQL for development.
 *
 * A keeper process, forked from the sidecar, makes the directory's database,
 * runs the server and waits for its lifeline to break: a pipe that only the
 * sidecar holds open.  Whether the sidecar leaves orderly, crashes or is
 * killed, the keeper then stops the server and removes the directory.  It has a
 * session of its own, so that Ctrl-C reaches the sidecar alone, which can still
 * finish its calls.  Only the death of the keeper itself leaves anything: a
 * server that stops at once, and its directory.
 *
 * The server listens on a socket in the directory only.  fsync is off: what it
 * holds is gone at the end anyway.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "db/ephemeral.h"

#define START_LIMIT_S 60
#define STOP_LIMIT_S 10
#define DEBIAN_ROOT "/usr/lib/postgresql"

static char error_text[1024];
static int	lifeline = -1;		/* of the keeper */

static bool __attribute__((format(printf, 1, 2)))
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(error_text, sizeof(error_text), format, args);
	va_end(args);
	return false;
}

/* Does the server with these programs have the extension? */
static bool
has_extension(const char *bindir)
{
	static const char *const layouts[] =
	{
		"%s/../../../../share/postgresql/%s/extension/garbagetruck.control",
		"%s/../share/postgresql/extension/garbagetruck.control",
		"%s/../share/extension/garbagetruck.control"
	};
	char		major[32] = "";
	char		path[512];
	const char *end = strstr(bindir, "/postgresql/");
	size_t		i;

	if (end != NULL)
		sscanf(end, "/postgresql/%31[0-9]", major);
	for (i = 0; i < 3; i++)
	{
		/* only the first layout has the major version in it */
		if (i == 0)
			snprintf(path, sizeof(path), layouts[0], bindir, major);
		else
			snprintf(path, sizeof(path), layouts[i], bindir);
		if (access(path, R_OK) == 0)
			return true;
	}
	return false;
}

/* The newest of the distribution's servers that has the extension. */
static bool
find_installed(char *bindir, size_t size)
{
	DIR		   *dir = opendir(DEBIAN_ROOT);
	struct dirent *entry;
	int			best = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		char		path[320];
		int			major = atoi(entry->d_name);

		snprintf(path, sizeof(path), DEBIAN_ROOT "/%s/bin", entry->d_name);
		if (major > best && has_extension(path))
		{
			best = major;
			snprintf(bindir, size, "%s", path);
		}
	}
	if (dir != NULL)
		closedir(dir);
	return best > 0;
}

/* The directory of PATH that has initdb. */
static bool
find_in_path(char *bindir, size_t size)
{
	const char *path = getenv("PATH");

	while (path != NULL && *path != '\0')
	{
		size_t		len = strcspn(path, ":");
		char		program[640];

		snprintf(program, sizeof(program), "%.*s/initdb", (int) len, path);
		if (len > 0 && access(program, X_OK) == 0)
		{
			snprintf(bindir, size, "%.*s", (int) len, path);
			return true;
		}
		path += len + (path[len] == ':');
	}
	return false;
}

static bool
find_programs(const char *wanted, char *bindir, size_t size)
{
	char		program[640];

	if (wanted != NULL && *wanted != '\0')
	{
		snprintf(program, sizeof(program), "%s/initdb", wanted);
		if (access(program, X_OK) != 0)
			return fail("there is no %s", program);
		snprintf(bindir, size, "%s", wanted);
		return true;
	}
	if (find_installed(bindir, size) || find_in_path(bindir, size))
		return true;
	return fail("no PostgreSQL found: install postgresql and the garbagetruck extension, or name the directory of initdb with --pg-bindir");
}

/* In a child: give root's rights up, for PostgreSQL does not run with them. */
static bool
become_user(const struct passwd *user)
{
	return user == NULL ||
		(initgroups(user->pw_name, user->pw_gid) == 0 &&
		 setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0);
}

/* Start a program with its output in the directory's log. */
static pid_t
run(const Ephemeral *server, const struct passwd *user, char *const argv[])
{
	pid_t		keeper = getpid();
	pid_t		pid = fork();
	char		path[512];
	sigset_t	none;
	int			log;

	/* With all that it starts, it can be killed at once. */
	if (pid >= 0)
		setpgid(pid, pid);
	if (pid != 0)
		return pid;
	snprintf(path, sizeof(path), "%s/log", server->directory);
	if (!become_user(user) || chdir(server->directory) != 0)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGQUIT);
	if (getppid() != keeper)
		_exit(127);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (log >= 0)
	{
		dup2(log, STDOUT_FILENO);
		dup2(log, STDERR_FILENO);
	}
	/* an environment meant for a client must not bend this server */
	unsetenv("PGDATA");
	unsetenv("PGPORT");
	unsetenv("PGOPTIONS");
	execv(argv[0], argv);
	_exit(127);
}

/* The last line of the log, to say why something failed. */
static const char *
last_log_line(const Ephemeral *server)
{
	static char line[512];
	char		next[512];
	char		path[512];
	FILE	   *log;

	snprintf(path, sizeof(path), "%s/log", server->directory);
	strcpy(line, "it left no message");
	log = fopen(path, "re");
	while (log != NULL && fgets(next, sizeof(next), log) != NULL)
	{
		/* the first fatal message tells more than what follows it */
		if (next[0] != '\n')
			snprintf(line, sizeof(line), "%.*s", (int) strcspn(next, "\n"), next);
		if (strstr(next, "FATAL") != NULL || strstr(next, "error:") != NULL)
			break;
	}
	if (log != NULL)
		fclose(log);
	return line;
}

/* Pass 20 ms; false: the sidecar is gone. */
static bool
pass_time(void)
{
	struct pollfd broken = {lifeline, POLLIN, 0};

	return poll(&broken, 1, 20) <= 0;
}

/* For a program to end, if the sidecar lives as long: its status, or -1. */
static int
wait_for(pid_t pid)
{
	int			status = -1;
	pid_t		ended;

	while ((ended = waitpid(pid, &status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR))
	{
		if (pass_time())
			continue;
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return -1;
	}
	return ended == pid ? status : -1;
}

static bool
init_database(const Ephemeral *server, const struct passwd *user, const char *bindir)
{
	char		program[640];
	char		data[512];
	char		conf[544];
	char	   *argv[] = {
		program, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--no-locale", "--no-sync", NULL
	};
	pid_t		pid;
	FILE	   *file;

	snprintf(program, sizeof(program), "%s/initdb", bindir);
	snprintf(data, sizeof(data), "%s/data", server->directory);
	pid = run(server, user, argv);
	if (pid < 0 || wait_for(pid) != 0)
		return fail("%s failed: %s", program, last_log_line(server));

	snprintf(conf, sizeof(conf), "%s/postgresql.conf", data);
	file = fopen(conf, "ae");
	if (file == NULL)
		return fail("could not write %s: %s", conf, strerror(errno));
	fprintf(file,
			"\nlisten_addresses = ''\nport = 5432\nunix_socket_directories = '%s'\n"
			"shared_preload_libraries = 'garbagetruck'\nfsync = off\n"
			"full_page_writes = off\nmax_connections = 200\n",
			server->directory);
	return fclose(file) == 0 || fail("could not write %s: %s", conf, strerror(errno));
}

/* Connect, once the server takes connections. */
static PGconn *
connect_when_up(const Ephemeral *server, pid_t postmaster)
{
	time_t		limit = time(NULL) + START_LIMIT_S;
	PGconn	   *connection;

	for (;;)
	{
		connection = PQconnectdb(server->conninfo);
		if (PQstatus(connection) == CONNECTION_OK)
			return connection;
		PQfinish(connection);
		if (waitpid(postmaster, NULL, WNOHANG) == postmaster)
		{
			if (strstr(last_log_line(server), "\"garbagetruck\"") != NULL)
				fail("that PostgreSQL does not have the garbagetruck extension: install it there, or name another's programs in --pg-bindir or GARBAGETRUCK_PG_BINDIR");
			else
				fail("PostgreSQL did not start: %s", last_log_line(server));
			return NULL;
		}
		if (time(NULL) >= limit)
		{
			fail("PostgreSQL did not take connections within %d s: %s",
				 START_LIMIT_S, last_log_line(server));
			return NULL;
		}
		if (!pass_time())
		{
			fail("the sidecar has ended");
			return NULL;
		}
	}
}

static bool
create_extension(const Ephemeral *server, pid_t postmaster)
{
	PGconn	   *connection = connect_when_up(server, postmaster);
	PGresult   *result;
	bool		ok;

	if (connection == NULL)
		return false;
	result = PQexec(connection, "CREATE EXTENSION garbagetruck");
	ok = PQresultStatus(result) == PGRES_COMMAND_OK;
	if (!ok)
		fail("could not create the extension: %s", PQresultErrorMessage(result));
	PQclear(result);
	PQfinish(connection);
	return ok;
}

static int
remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
	(void) info, (void) kind, (void) where;
	remove(path);
	return 0;
}

static void
stop_server(pid_t postmaster)
{
	static const int stages[] = {SIGINT, SIGQUIT, SIGKILL};
	size_t		i;

	for (i = 0; i < 3; i++)
	{
		time_t		limit = time(NULL) + STOP_LIMIT_S;

		kill(postmaster, stages[i]);
		while (time(NULL) < limit)
		{
			pid_t		pid = waitpid(postmaster, NULL, WNOHANG);

			if (pid == postmaster || (pid < 0 && errno == ECHILD))
				return;
			poll(NULL, 0, 10);
		}
	}
}

/*
 * What the sidecar has opened must not stay open here: a port that nobody serves
 * any more would still take connections, and who reads the sidecar's output
 * would wait for the keeper's end.
 */
static void
close_others(int one, int other)
{
	DIR		   *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int			nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	int			fd;

	for (fd = 0; nowhere >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(nowhere, fd);
	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		fd = atoi(entry->d_name);
		if (fd > STDERR_FILENO && fd != one && fd != other && fd != dirfd(dir))
			close(fd);
	}
	if (dir != NULL)
		closedir(dir);
	else
		for (fd = STDERR_FILENO + 1; fd < sysconf(_SC_OPEN_MAX); fd++)
			if (fd != one && fd != other)
				close(fd);
}

/* All that the keeper does.  It reports on `report`: "+", or why not. */
static void
keep(const Ephemeral *server, const struct passwd *user, const char *bindir, int report)
{
	char		program[640];
	char		data[512];
	char	   *argv[] = {program, "-D", data, NULL};
	pid_t		postmaster = 0;
	char		byte;
	bool		up = false;

	close_others(lifeline, report);
	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	snprintf(program, sizeof(program), "%s/postgres", bindir);
	snprintf(data, sizeof(data), "%s/data", server->directory);

	if (init_database(server, user, bindir))
	{
		postmaster = run(server, user, argv);
		if (postmaster > 0)
			up = create_extension(server, postmaster);
		else
			fail("could not fork: %s", strerror(errno));
	}
	if (up)
		strcpy(error_text, "+");
	if (write(report, error_text, strlen(error_text)) < 0)
		up = false;				/* nobody waits any more */
	close(report);

	while (up && read(lifeline, &byte, 1) < 0 && errno == EINTR)
		;
	if (postmaster > 0)
		stop_server(postmaster);
	nftw(server->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	_exit(up ? 0 : 1);
}

/* The temporary directory, owned by who will run the server. */
static bool
make_directory(Ephemeral *server, const struct passwd *user)
{
	const char *parent = getenv("TMPDIR");

	/* a socket's path has room for about a hundred bytes */
	if (parent == NULL || *parent == '\0' || strlen(parent) > 60)
		parent = "/tmp";
	snprintf(server->directory, sizeof(server->directory), "%s/garbagetruck-XXXXXX", parent);
	if (mkdtemp(server->directory) == NULL)
		return fail("could not make a directory in %s: %s", parent, strerror(errno));
	if (user != NULL && chown(server->directory, user->pw_uid, user->pw_gid) != 0)
	{
		fail("could not give %s to %s: %s", server->directory, user->pw_name, strerror(errno));
		rmdir(server->directory);
		return false;
	}
	snprintf(server->conninfo, sizeof(server->conninfo),
			 "host=%s port=5432 user=postgres dbname=postgres", server->directory);
	return true;
}

/* Is a signal that ends us waiting until somebody fetches it? */
static bool
told_to_end(void)
{
	sigset_t	set;

	return sigpending(&set) == 0 && (sigismember(&set, SIGINT) || sigismember(&set, SIGTERM));
}

/* Read the keeper's report to its end.  Silence means that it died. */
static bool
read_report(int fd)
{
	struct pollfd readable = {fd, POLLIN, 0};
	size_t		len = 0;
	ssize_t		got = 1;

	while (got > 0)
	{
		if (told_to_end())
			return fail("ended by a signal while PostgreSQL was being started");
		if (poll(&readable, 1, 100) <= 0)
			continue;
		got = read(fd, error_text + len, sizeof(error_text) - 1 - len);
		len += got > 0 ? (size_t) got : 0;
	}
	while (len > 0 && error_text[len - 1] == '\n')
		len--;
	error_text[len] = '\0';
	if (len == 0)
		return fail("the process that starts PostgreSQL died");
	return strcmp(error_text, "+") == 0;
}

bool
ephemeral_start(Ephemeral *server, const char *bindir, const char **error)
{
	char		programs[512];
	struct passwd *user = NULL;
	int			ends[2];
	int			report[2];
	bool		ok;

	*error = error_text;
	memset(server, 0, sizeof(*server));
	if (!find_programs(bindir, programs, sizeof(programs)))
		return false;
	if (geteuid() == 0 && (user = getpwnam("postgres")) == NULL)
		return fail("PostgreSQL does not run as root, and there is no user postgres: run this as another user");
	if (pipe2(ends, O_CLOEXEC) != 0 || pipe2(report, O_CLOEXEC) != 0)
		return fail("could not make a pipe: %s", strerror(errno));
	if (!make_directory(server, user))
		return false;

	server->keeper = fork();
	if (server->keeper < 0)
	{
		rmdir(server->directory);
		return fail("could not fork: %s", strerror(errno));
	}
	if (server->keeper == 0)
	{
		close(ends[1]);
		close(report[0]);
		lifeline = ends[0];
		keep(server, user, programs, report[1]);
	}
	close(ends[0]);
	close(report[1]);
	server->lifeline = ends[1];
	ok = read_report(report[0]);
	close(report[0]);
	if (ok)
		log_line(LOG_INFO, "a private PostgreSQL runs until this ends: psql '%s'", server->conninfo);
	else
		ephemeral_stop(server);
	return ok;
}

void
ephemeral_stop(Ephemeral *server)
{
	if (server->keeper <= 0)
		return;
	close(server->lifeline);
	while (waitpid(server->keeper, NULL, 0) < 0 && errno == EINTR)
		;
	server->keeper = 0;
}
