/*
 * serve.h
 *		The command `serve`: start, reload, drain.
 */
#ifndef GT_SERVE_H
#define GT_SERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "executors/executors.h"
#include "options.h"

/* Run `garbagetruck serve ARGS`; the word serve is not among them. */
extern int	serve_main(int argc, char **argv);

/* Shutting down: nothing that waits goes on. */
extern bool serve_draining(void);

/* From the signal on, by --shutdown-delay before that: /readyz says 503. */
extern bool serve_stopping(void);

/* When the service started, and its executors (NULL: none). */
extern struct timespec serve_started(void);
extern Executors *serve_executors(void);

/* --expect-identity, or NULL. */
extern const char *serve_expect_identity(void);

/* What leases may name as targets. */
extern const AllowList *serve_allow_list(void);

#endif							/* GT_SERVE_H */
