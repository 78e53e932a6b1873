/*
 * storm.c: for test_hold.py, processes that live for a moment only.
 *
 *		storm FILE HOW
 *
 * Starts a process that forks another one, ends, and leaves the same to that: a
 * chain that nobody can look at for long.  Each writes a byte to FILE.  The
 * letters of HOW: s, in a session of its own each time; g, in a process group of
 * its own; t, forked by a thread, and executed anew; l, each ends a little later (more of them:
 * later yet), so that several generations live at once; b, a bomb: whoever is there
 * forks for as long as it may.  More than one s: as many chains.  None stops at
 * SIGTERM, and all do after LIFE_S.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIFE_S 20

static int	fd;
static time_t begun;
static const char *how;
static unsigned late;

static void
leave_it(void)
{
	pid_t		pid = fork();

	if (pid == 0)
		return;
	if (late > 0)
		usleep(late);
	_exit(pid < 0);
}

/* As many as the limit on processes allows, of which half end all the time. */
static void
bomb(void)
{
	signal(SIGCHLD, SIG_IGN);
	while (time(NULL) <= begun + LIFE_S)
	{
		if (fork() == 0)
		{
			srandom((unsigned) getpid());
			if (random() % 2 == 0)
				setsid();
			if (write(fd, "x", 1) != 1)
				_exit(1);
		}
		usleep(1000 + (unsigned) random() % 10000);
		if (random() % 4 == 0)
			_exit(0);
	}
	_exit(0);
}

static void *
in_thread(void *file)
{
	char		since[24];

	leave_it();
	snprintf(since, sizeof(since), "%ld", (long) begun);
	execl("/proc/self/exe", "storm", (char *) file, how, since, NULL);
	_exit(1);
}

static void
chain(char *file)
{
	for (;;)
	{
		pthread_t	thread;

		if (time(NULL) > begun + LIFE_S)
			_exit(0);
		if (strchr(how, 's') != NULL)
			setsid();
		if (strchr(how, 'g') != NULL)
			setpgid(0, 0);
		if (write(fd, "x", 1) != 1)
			_exit(1);
		if (strchr(how, 't') == NULL)
			leave_it();
		else if (pthread_create(&thread, NULL, in_thread, file) == 0)
			pthread_join(thread, NULL);
		else
			_exit(1);
	}
}

int
main(int argc, char **argv)
{
	const char *at;
	int			chains = 0;
	pid_t		first = getpid();

	if (argc < 3)
		return 2;
	how = argv[2];
	for (at = how; *at != '\0'; at++)
	{
		late = late * 3 + (*at == 'l' ? 1000 : 0);
		chains += *at == 's';
	}
	fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600);
	signal(SIGTERM, SIG_IGN);
	begun = argc > 3 ? atol(argv[3]) : time(NULL);
	if (argc > 3)
		chain(argv[1]);
	do
	{
		if (fork() == 0 && strchr(how, 'b') != NULL)
			bomb();
		else if (getpid() != first)
			chain(argv[1]);
	} while (--chains > 0);
	puts("begun");
	fflush(stdout);
	for (;;)
		pause();
}
