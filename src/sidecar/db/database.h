/*
 * database.h
 *		Asynchronous calls of SQL statements, on the loop.
 *
 * A few connections, each in pipeline mode.  Calls wait in the queue of their
 * connection; when it is free all that wait (up to a cap) go as one batch, one
 * implicit transaction, one commit.  A call is answered after the commit was
 * acknowledged, never before.  When a batch fails the culprit gets its error
 * and the others run again, so that every call sees only its own outcome.
 */
#ifndef GT_DATABASE_H
#define GT_DATABASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "base/options.h"
#include "net/party.h"

typedef enum DbFlags
{
	DB_REPEATABLE = 1,			/* running it twice is as good as once: repeated when
								 * a connection is lost while it is in flight */
	DB_BINARY = 2,				/* results in binary form; else text */
	DB_ALONE = 4,				/* a transaction of its own, on the slow lane */
	DB_NEWEST = 8				/* gt_lease_list() shows the newest first */
} DbFlags;

/*
 * A statement, prepared on each connection when first used there.  A static
 * variable; parameters are text, NULL is NULL.  garbagetruck's functions need
 * no schema: search_path is that of the extension.
 */
typedef struct DbStatement
{
	const char *name;			/* unique */
	const char *sql;
	int			params;
	unsigned	flags;
	int			number;			/* filled on first use; start with 0 */
} DbStatement;

/* What became of a call. */
typedef struct DbOutcome
{
	PGresult   *result;			/* rows; valid during the callback; NULL: failed */

	/* of a failure: never NULL but detail and hint */
	char		sqlstate[6];	/* "08006" when the database is away */
	const char *message;
	const char *detail;
	const char *hint;
	bool		unknown;		/* it may have happened all the same */
} DbOutcome;

typedef void (*DbDone) (void *arg, const DbOutcome *outcome);

typedef struct DbCall DbCall;

/* How a call differs from the usual; zeros are the usual. */
typedef struct DbHow
{
	uint64_t	route;			/* calls with the same one go over the same connection,
								 * in order; 0: over any.  See db_route() */
	int64_t		deadline_us;	/* of loop_clock(): not started after it; 0: none */
	bool		repeatable;		/* as DB_REPEATABLE, for this call */
	bool		no_wait;		/* fail (55P03) where a lock does not come in --db-lock-wait */
	bool		large;			/* its result may have megabytes */
	Party	   *party;			/* whose part of the queue, and whose memory it takes; NULL: nobody's */
	const char *caller;			/* for whom, see callers.h: judges objects in SQL, and is never freed; NULL: for nobody */
} DbHow;

/*
 * Call a statement.  The parameters are copied.  `done` is called once, from
 * the loop, never before this returns.
 */
extern DbCall *db_call(DbStatement *statement, const char *const *params,
					   const DbHow *how, DbDone done, void *arg);

/*
 * The caller no longer waits: `done` will not be called.  What was not sent is
 * not sent any more.
 */
extern void db_forget(DbCall *call);

/* A route of some bytes, never 0. */
extern uint64_t db_route(const void *data, size_t len);

/* Microseconds since 1970 by the database's clock, as far as that is known. */
extern int64_t db_clock(void);

/*
 * Does the database answer (and is the extension there)?  Does it take what
 * writes, too, as a standby does not?  Else why not.
 */
extern bool db_up(void);
extern bool db_serves(void);
extern const char *db_problem(void);

/* Called whenever db_serves() changes. */
extern void db_watch(void (*changed) (bool serves));

/* Does nobody know what the database's text is (SQL_ASCII)? */
extern bool db_text_is_bytes(void);

extern const Option database_options[];

/* --db, for those who make connections of their own. */
extern const char *db_conninfo(void);

/* Before db_start(): connect there, whatever --db says. */
extern void db_set_conninfo(const char *conninfo);

extern bool db_start(char *error, size_t error_size);

/* Let what is queued finish; then close. */
extern void db_stop(void);
extern bool db_idle(void);

#endif							/* GT_DATABASE_H */
