/*
 * ephemeral.h
 *		serve --ephemeral: a private PostgreSQL for development.
 */
#ifndef GT_EPHEMERAL_H
#define GT_EPHEMERAL_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct Ephemeral
{
	char		directory[256];
	char		conninfo[384];	/* what --db would be */
	pid_t		keeper;			/* the process that will tidy up */
	int			lifeline;		/* the keeper waits for this pipe to close */
} Ephemeral;

/*
 * Start a server in a new temporary directory, with the extension preloaded
 * and created.  Call it before there are threads.  `bindir` holds PostgreSQL's
 * programs; NULL: those of the newest installed server that has the extension,
 * else of what PATH finds.  As root the server runs as the user
 * postgres.  False when it does not come up: *error (static) says why, and
 * nothing is left behind.
 */
extern bool ephemeral_start(Ephemeral *server, const char *bindir, const char **error);

/*
 * Stop it and remove the directory; waits for both.  When this process dies
 * without having called it, the same happens.
 */
extern void ephemeral_stop(Ephemeral *server);

#endif							/* GT_EPHEMERAL_H */
