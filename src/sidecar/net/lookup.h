/*
 * lookup.h
 *		The addresses of the database's hosts, looked up beside the loop.
 *
 * libpq looks names up where it begins to connect, and waits: with a name server
 * that does not answer the whole process would.  So a thread does it, one at a
 * time for all connections, and libpq is given addresses.
 */
#ifndef GT_LOOKUP_H
#define GT_LOOKUP_H

/* For libpq: lists of the same length, port as it was given where that is one. */
typedef struct LookedUp
{
	char	   *host;
	char	   *hostaddr;
	char	   *port;
} LookedUp;

typedef enum LookupState
{
	LOOKUP_NOT_NEEDED,			/* no host is a name */
	LOOKUP_RUNS,				/* `done` is called, from the loop, never before this returns */
	LOOKUP_FAILED
} LookupState;

/* One that runs already serves this caller, too.  found NULL: `problem` says why. */
extern LookupState lookup_start(const char *conninfo, void (*done) (const LookedUp *found, const char *problem));

#endif							/* GT_LOOKUP_H */
