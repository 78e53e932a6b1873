/*
 * cli_tree.h
 *		The processes that descend from this one, by /proc.
 */
#ifndef GT_CLI_TREE_H
#define GT_CLI_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct TreeCount
{
	int			signalled;
	int			denied;			/* run as somebody else, whom we may not signal */
	pid_t		denied_pid;		/* one of them */
} TreeCount;

/* Does /proc show this process, so that its descendants can be found?  Asked before the rest. */
extern bool tree_usable(void);

/* Get ready in the process whose descendants are looked for; false: /proc cannot be opened. */
extern bool tree_open(void);

/*
 * Send a signal to every descendant that lives; 0 only counts them.  Members of
 * the process group `except` are left out, if it is not 0.  Of those who fork
 * all the time some may be missed, and of very many those who are not found
 * within so long.
 */
extern TreeCount tree_signal(int signo, pid_t except, int64_t most_ms);

/*
 * Kill every descendant, and again as long as there are new ones, for a moment;
 * `reap` fetches those that have ended, and is false when nobody is left.  The
 * process group `group` is ours alone.  The count is the last round's: who was
 * killed counts until it is reaped.
 */
extern TreeCount tree_kill(pid_t group, bool (*reap) (void *arg), void *arg);

#endif							/* GT_CLI_TREE_H */
