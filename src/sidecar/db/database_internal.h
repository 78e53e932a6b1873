/*
 * database_internal.h
 *		What the files database*.c share.
 *
 * database.c has the calls, and what their callers are told; database_queue.c
 * decides over which connection they go, database_turns.c in which order;
 * database_batch.c sends what waits and sorts out what comes back,
 * database_lost.c what never will; database_conn.c keeps the connections up,
 * and database_up.c knows whether they are.
 */
#ifndef GT_DATABASE_INTERNAL_H
#define GT_DATABASE_INTERNAL_H

#include "base/metrics.h"
#include "db/database.h"
#include "net/loop.h"

#define MAX_STATEMENTS 96
#define MAX_ATTEMPTS 5			/* of a call, at most */
#define MAX_CONNECTIONS 64
#define WAITING_CONNECTIONS 2

typedef struct DbConn DbConn;
typedef struct DbTurn DbTurn;

struct DbCall
{
	DbCall	   *next,
			   *prev;			/* of its party, in the queue of its connection */
	DbTurn	   *turn;			/* there */
	DbConn	   *conn;			/* where it is queued or in flight */
	DbStatement *statement;
	DbDone		done;			/* NULL: forgotten */
	void	   *arg;
	uint64_t	route;
	int64_t		deadline_us;
	int64_t		queued_us;
	Party	   *party;
	size_t		charged;		/* bytes reckoned for it */
	const char *caller;
	bool		large;
	bool		no_wait;
	int64_t		pause_us;		/* of a large one */
	bool		repeatable;
	bool		in_flight;
	bool		has_settings;	/* in its segment: settings are made before it */
	bool		waited;			/* has been put on the waiting lane */
	int64_t		waits_since_us;	/* that was then */
	int			attempts;		/* after 40001, 40P01, a lost connection */
	LoopTimer	again;			/* runs between attempts */
	size_t		bytes;
	PGresult   *result;			/* until the sync */
	const char *params[];		/* followed by their text */
};

/* Calls, or the preparation of a statement, up to one sync. */
typedef struct Segment
{
	struct Segment *next;
	DbStatement *prepare;		/* NULL: calls */
	int			position;		/* of the result that comes next */
	int			failed;			/* position of the culprit; -1: none */
	PGresult   *error;			/* its result */
	bool		telling;		/* the result that comes next is of settings, and then that of the position */
	int			count;
	DbCall	   *calls[];
} Segment;

typedef enum DbLane
{
	LANE_CALLS,					/* everything, in batches; lock waits are short */
	LANE_WAITING,				/* calls that met a lock, one at a time */
	LANE_CONTROL				/* DB_ALONE: may be slow, delays no other call */
} DbLane;

typedef enum DbConnState
{
	DBC_DOWN,					/* no connection; the timer tells when to try */
	DBC_CONNECTING,
	DBC_SETTING_UP,				/* db_session_sql (database_conn.c) runs */
	DBC_IDLE,
	DBC_BUSY
} DbConnState;

struct DbConn
{
	DbLane		lane;
	int			number;
	DbConnState state;
	PGconn	   *pg;
	int			fd;
	LoopFd	   *watch;
	uint32_t	events;
	bool		write_blocked;
	bool		looks_up;		/* waits for lookup.c while connecting */
	int			setup_step;
	LoopTimer	timer;			/* to connect again; the limit of connecting */
	LoopTask	pump;
	int64_t		sent_us;		/* of the batch in flight */
	int64_t		heard_us;		/* when it was sent, or the last result of it came */
	bool		stuck;			/* none came for too long: no call goes here until one comes */
	bool		waits;			/* on the waiting lane: with a call of this route and party */
	uint64_t	wait_route;
	const Party *wait_party;	/* compared, never looked into */
	int			failures;		/* attempts in a row to connect that failed */
	DbTurn	   *turns,
			   *last_turn;		/* queue; see database_turns.c */
	int			queued;
	const Party *last_party;	/* of the last call that was taken for a batch; compared, never looked into */
	int64_t		shared_until_us;	/* several parties take turns */
	Segment    *again;			/* to be sent before the queue */
	Segment    *in_flight;
	Segment   **in_flight_end;
	bool		prepared[MAX_STATEMENTS];
	int			generation[MAX_STATEMENTS];
	char		prepare_sqlstate[6];
	char		prepare_message[512];
};

extern int64_t db_batch_max;
extern int64_t db_lock_wait_us;
extern int64_t db_call_limit_us;

/* ---- database.c ---- */

/* The call failed; it is freed. */
extern void dbcall_fail(DbCall *call, const char *sqlstate, const char *message, bool unknown);

/* The same while the server still has it: it is freed when it is answered. */
extern void dbcall_give_up(DbCall *call, const char *sqlstate, const char *message);

/* It is answered by a result, good or bad, which is not freed; the call is. */
extern void dbcall_answer(DbCall *call, PGresult *result);

/* Put it into the queue of a connection, chosen anew. */
extern void dbcall_queue(DbCall *call);

/* Its result would be too much beside what its party has not taken: again after a while. */
extern bool dbcall_postpone_large(DbCall *call);

/* Again after a while: a serialisation failure or deadlock. */
extern void dbcall_retry(DbCall *call);

/* It met a lock: wait for that where nobody else has to. */
extern void dbcall_wait_for_lock(DbCall *call);


/* ---- database_queue.c ---- */

/* So many connections for calls, and those for what waits or may be slow; false: no memory. */
extern bool db_lanes_make(int connections);
extern int	db_conn_count(void);
extern DbConn *db_conn_at(int i);
extern bool dbconn_is_up(const DbConn *conn);

/* Is a connection for calls up? */
extern bool db_lane_is_up(void);

/* A usable connection on the lane; NULL: none. */
extern DbConn *db_usable_conn(DbLane lane, uint64_t route);

/* The calls that wait for a connection, whichever. */
extern int	db_queued(void);
extern void dbcall_queue_on(DbCall *call, DbConn *conn);
extern void queue_remove(DbCall *call);

/* What the connection's next batch takes next, of each caller in turn, and of those who wait for locks who may; NULL: none. */
extern DbCall *queue_pop(DbConn *conn);

/* The first of its queue, for another one; NULL: none. */
extern DbCall *queue_pop_any(DbConn *conn);

/* The connection waits with this call, or (NULL) no longer. */
extern void dbconn_waits(DbConn *conn, const DbCall *call);
extern bool db_somebody_waits(void);

/* ---- database_turns.c ---- */

extern void turns_add(DbConn *conn, DbCall *call);
extern void turns_remove(DbConn *conn, DbCall *call);

/* The first call that may be taken (NULL: any), of those whose turn it is first; NULL: none. */
extern DbCall *turns_take_if(DbConn *conn, bool (*may) (const DbCall *call));

/* A batch is gathered: the next call for it; NULL: it has enough of whom there is. */
extern void turns_begin_batch(DbConn *conn);
extern DbCall *turns_take_for_batch(DbConn *conn);

/* ---- database_up.c ---- */

extern void db_up_start(void);
extern void db_up_stop(void);

/* A connection came up or went down, and why. */
extern void conn_state_changed(DbConn *conn, const char *problem);

extern void db_note_encoding(bool bytes);
extern void db_note_standby(bool standby);

/* ---- database_conn.c ---- */

extern void dbconn_start(DbConn *conn);

/* Watch for what the state needs. */
extern void dbconn_watch(DbConn *conn);

/* It is broken: close it, decide about its calls, connect again. */
extern void dbconn_lost(DbConn *conn, const char *why);

/* PostgreSQL is back: connect at once, not when its time comes. */
extern void dbconn_hurry(DbConn *conn);

/* See whether the server still answers the batch in flight. */
extern void dbconn_check(DbConn *conn);

/* Its session is of no use: what dbconn_lost() does, if it is up. */
extern void dbconn_renew(DbConn *conn);
extern void dbconn_close(DbConn *conn);

/* ---- database_batch.c ---- */

extern void pump_soon(DbConn *conn);

/* Results came. */
extern void batch_receive(DbConn *conn);

/* ---- database_lost.c ---- */

/* The server does not answer: the calls in flight fail, though it may still carry them out. */
extern void batch_give_up(DbConn *conn, const char *why);

/* The connection is gone: sort the calls that were in flight. */
extern void batch_lost(DbConn *conn, const char *why);

extern void segment_free(Segment *segment);

extern Metric db_calls_metric;
extern Metric db_batches_metric;
extern Metric db_reruns_metric;
extern Metric db_retries_metric;
extern Metric db_connects_metric;
extern Metric db_lock_waits_metric;
extern Metric db_batch_seconds;

#endif							/* GT_DATABASE_INTERNAL_H */
