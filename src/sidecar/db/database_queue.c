/*
 * database_queue.c
 *		The connections by their lanes, and the queue that each has.
 *
 * What a call waits behind is decided here alone: database.c enters it, and
 * database_batch.c takes it out again when its connection has room.
 */
#include <stdlib.h>

#include "db/database_internal.h"

#define FAILURES_BORNE 3

static DbConn *conns;
static int	conn_count;
static int	queued_total;

bool
db_lanes_make(int connections)
{
	int			i;

	conn_count = connections + WAITING_CONNECTIONS + 1;
	conns = calloc((size_t) conn_count, sizeof(DbConn));
	for (i = 0; conns != NULL && i < conn_count; i++)
	{
		conns[i].number = i;
		conns[i].lane = i < connections ? LANE_CALLS : i < conn_count - 1 ? LANE_WAITING : LANE_CONTROL;
	}
	return conns != NULL;
}

int
db_queued(void)
{
	return queued_total;
}

int
db_conn_count(void)
{
	return conn_count;
}

DbConn *
db_conn_at(int i)
{
	return &conns[i];
}

bool
dbconn_is_up(const DbConn *conn)
{
	return (conn->state == DBC_IDLE || conn->state == DBC_BUSY) && !conn->stuck;
}

bool
db_lane_is_up(void)
{
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		if (conns[i].lane == LANE_CALLS && dbconn_is_up(&conns[i]))
			return true;
	}
	return false;
}

/*
 * Is it up, or will it be in a moment?  Calls on the other lanes can go nowhere
 * else: there an attempt or two to connect may fail while PostgreSQL answers.
 */
static bool
is_usable(const DbConn *conn)
{
	return dbconn_is_up(conn) || conn->failures == 0 ||
		(conn->lane != LANE_CALLS && db_lane_is_up() && !conn->stuck && conn->failures <= FAILURES_BORNE);
}

DbConn *
db_usable_conn(DbLane lane, uint64_t route)
{
	DbConn	   *best = NULL;
	int			of_lane = 0;
	int			nth;
	int			i;

	for (i = 0; i < conn_count; i++)
		of_lane += conns[i].lane == lane;
	nth = route != 0 ? (int) (route % (uint64_t) of_lane) : -1;
	for (i = 0; i < conn_count; i++)
	{
		DbConn	   *conn = &conns[i];

		if (conn->lane != lane)
			continue;
		if (nth-- == 0 && is_usable(conn))
			return conn;
		if (!is_usable(conn))
			continue;
		if (best == NULL || (dbconn_is_up(conn) && !dbconn_is_up(best)) ||
			(dbconn_is_up(conn) == dbconn_is_up(best) && conn->queued + (conn->state == DBC_BUSY) < best->queued + (best->state == DBC_BUSY)))
			best = conn;
	}
	return best;
}

/* It is in no queue any more. */
static DbCall *
taken(DbCall *call)
{
	if (call != NULL)
	{
		call->conn = NULL;
		queued_total--;
	}
	return call;
}

void
queue_remove(DbCall *call)
{
	turns_remove(call->conn, call);
	taken(call);
}

DbCall *
queue_pop_any(DbConn *conn)
{
	return taken(turns_take_if(conn, NULL));
}

/*
 * May it wait for a lock now?  Who waits for the same object would only wait
 * behind that call, and in the way of others.
 */
static bool
may_wait(const DbCall *call)
{
	int			of_party = 0;
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		const DbConn *conn = &conns[i];

		if (conn->lane != LANE_WAITING || !conn->waits)
			continue;
		if (call->route != 0 && conn->wait_route == call->route)
			return false;
		of_party += call->party != NULL && conn->wait_party == call->party;
	}
	return of_party < (call->party != NULL && call->party->named ? WAITING_CONNECTIONS - 1 : WAITING_CONNECTIONS);
}

static DbCall *
pop_waiter(DbConn *conn)
{
	DbCall	   *call;
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		/* Its own queue first, then what the others have no place for. */
		DbConn	   *from = &conns[(conn->number + i) % conn_count];

		if (from->lane == LANE_WAITING && (call = turns_take_if(from, may_wait)) != NULL)
			return call;
	}
	return NULL;
}

DbCall *
queue_pop(DbConn *conn)
{
	return taken(conn->lane == LANE_WAITING ? pop_waiter(conn) : turns_take_for_batch(conn));
}

void
dbconn_waits(DbConn *conn, const DbCall *call)
{
	int			i;

	conn->waits = call != NULL;
	conn->wait_route = call != NULL ? call->route : 0;
	conn->wait_party = call != NULL ? call->party : NULL;
	/* One that did not may go now. */
	for (i = 0; call == NULL && i < conn_count; i++)
	{
		if (conns[i].lane == LANE_WAITING)
			pump_soon(&conns[i]);
	}
}

bool
db_somebody_waits(void)
{
	int			i;

	for (i = 0; i < conn_count; i++)
	{
		if (conns[i].lane == LANE_WAITING && conns[i].turns != NULL)
			return true;
	}
	return false;
}

void
dbcall_queue_on(DbCall *call, DbConn *conn)
{
	call->conn = conn;
	turns_add(conn, call);
	queued_total++;
	pump_soon(conn);
}
