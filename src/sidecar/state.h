/*
 * state.h
 *		What the whole process is up to: set by the command serve, read by
 *		services and pages, from the main thread alone.
 */
#ifndef GT_STATE_H
#define GT_STATE_H

#include <stdbool.h>
#include <time.h>

struct Executors;

typedef struct State
{
	struct timespec started;	/* when the service started */
	const char *expect_identity;	/* --expect-identity, or NULL */
	struct Executors *executors;	/* NULL: none */
	bool		stopping;		/* a signal came: /readyz says 503 */
	bool		draining;		/* and --shutdown-delay has passed: nothing that waits goes on */
} State;

extern State state;

#endif							/* GT_STATE_H */
