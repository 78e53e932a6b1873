/*
 * cli_hold.h
 *		What the files of `lease hold` share: cli_hold.c, which has the events,
 *		and cli_hold_lease.c, which has the lease.
 */
#ifndef GT_CLI_HOLD_H
#define GT_CLI_HOLD_H

#include "cli/cli.h"
#include "cli/cli_guard.h"

#define QUIT_PATIENCE_MS 2000	/* for the answer to a request that is under way when we are told to end */

typedef struct Hold
{
	Cli		   *cli;
	char	   *lease_id;
	int64_t		ttl_ms;			/* what a renewal buys */
	int64_t		deadline;		/* until then the lease is surely ours */
	int64_t		next_renewal;
	GuardTimes	times;			/* what the guard was told */
	sigset_t	old_mask;
	struct sigaction old_pipe;
	int			signals;		/* signalfd */
	int			timer;
	int			quit;			/* the signal that ends us while there is no COMMAND yet */
	int64_t		quit_at;

	int			guard;			/* socket; -1: it is gone */
	pid_t		guard_pid;
	pid_t		command;		/* and its process group; 0: not started yet */
	int			terminal;		/* -1: none */
	bool		paused;			/* COMMAND is stopped because we were */
	bool		given;			/* COMMAND's group has had the terminal */
	bool		lost;
	bool		cut;			/* lost before COMMAND had ended */
	bool		over;			/* lost, and the server said so */
	bool		ended;			/* COMMAND has */
	bool		done;			/* nothing of it is left */
	int			run_error;		/* errno that kept COMMAND from running, */
	int			start_error;	/* or us from trying */
	int			wait_status;
	int			denied;			/* processes that cannot be signalled */
	pid_t		denied_pid;
	char	   *last_error;		/* of the renewals that failed since the last good one */
	GrpcCode	last_status;
} Hold;

static inline int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- cli_hold.c ---- */

/* Act upon the signals that have come; upon those, and what the guard says; or wait for either, until `when` at most. */
extern void hold_take_signals(Hold *hold);
extern void hold_take_events(Hold *hold);
extern void hold_wait(Hold *hold, int64_t when);

extern void hold_tell(const Hold *hold, GuardWord word, int number);

/* A renewal has come through: a COMMAND that was stopped with us may go on. */
extern void hold_go_on(Hold *hold);

/* The lease is not ours any more.  A COMMAND that had ended already was under it to its end. */
extern void hold_lose(Hold *hold);

/* ---- cli_hold_lease.c ---- */

/* An exit code; CLI_OK: the lease is ours. */
extern int	hold_take(Hold *hold);

extern void hold_renew(Hold *hold);

/* Asked while a renewal waits: not for the answer when it matters no more. */
extern bool hold_give_up_renewal(void *arg);

/*
 * End the lease.  False when it had ended before COMMAND did, so that COMMAND
 * did not run under it to the end.
 */
extern bool hold_release(Hold *hold);

#endif							/* GT_CLI_HOLD_H */
