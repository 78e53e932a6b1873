/*
 * cli_guard.h
 *		The process that runs the COMMAND of `lease hold`, and ends it in time.
 *
 * It is forked from hold, which the rest here calls the holder, and talks to it
 * over a socket of messages that neither waits for.
 */
#ifndef GT_CLI_GUARD_H
#define GT_CLI_GUARD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum GuardWord
{
	/* to the guard */
	GUARD_TIMES,				/* the lease was renewed: new times */
	GUARD_LOST,					/* the lease is over: end it now */
	GUARD_SIGNAL,				/* number: for COMMAND's process group */

	/* from the guard */
	GUARD_STARTED,				/* pid of COMMAND, which is its process group too */
	GUARD_FAILED,				/* number: errno, why COMMAND cannot be run; it is over */
	GUARD_UNABLE,				/* number: errno, why there cannot be a process for it; it is over */
	GUARD_STOPPED,				/* number: the signal that stopped COMMAND */
	GUARD_ENDED,				/* number: COMMAND's wait status */
	GUARD_LATE,					/* no renewal came in time: it ends COMMAND now */
	GUARD_LEFT,					/* number of processes that COMMAND has left and that are ended now; pid is one */
	GUARD_DONE					/* number of processes that could not be signalled; pid is one; it is over */
} GuardWord;

/* When COMMAND must be told to stop, and be gone; CLOCK_BOOTTIME, in ms. */
typedef struct GuardTimes
{
	int64_t		stop_at;
	int64_t		kill_at;
	int64_t		kill_after;		/* what it may take to stop, in other cases */
} GuardTimes;

typedef struct GuardMessage
{
	GuardWord	word;
	int			number;
	pid_t		pid;
	GuardTimes	times;
} GuardMessage;

typedef struct GuardPlan
{
	char	  **command;
	sigset_t	mask;			/* COMMAND's signals, as they were before hold's own */
	struct sigaction broken_pipe;
	int			terminal;		/* COMMAND gets it as its foreground group; -1: no */
	const uint8_t *inherited;	/* bits of the descriptors that COMMAND gets */
	int			inherited_max;
	GuardTimes	times;
} GuardPlan;

extern int64_t boot_ms(void);

/* Make a descriptor that can be read from `when` on, also when the machine was suspended. */
extern void boot_timer(int fd, int64_t when);

/* Start it: its pid, and in *fd the socket; -1 with errno: not. */
extern pid_t guard_start(const GuardPlan *plan, int *fd);

/* Say something; what cannot be said at once is not: the other one is gone, or stopped. */
extern void guard_tell(int fd, const GuardMessage *message);

/* Hear one message: 1, 0 when there is none now, -1 when the other one is gone. */
extern int	guard_hear(int fd, GuardMessage *message);

/*
 * Kill all descendants of this process, `command` and its group among them, and
 * wait until they are gone; what could not be signalled is counted.
 */
extern int	guard_kill_all(pid_t command);

#endif							/* GT_CLI_GUARD_H */
