/*
 * database_turns.c
 *		The queue of a connection: callers take turns.
 *
 * What one party has waiting is in order; of those that wait each gives one
 * call in turn.  So who comes with one call goes before the thousands that
 * another one has waiting, not behind them.  And where several share a
 * connection, none fills a batch: the next one waits for the end of what is in
 * flight, however well he is placed behind it.
 */
#include <stdlib.h>

#include "base/memory.h"
#include "db/database_internal.h"

#define SHARED_US 1000000		/* so long after the turn went to another party */
#define SHARED_PART 4			/* of a batch, for one party */

struct DbTurn
{
	DbTurn	   *prev,
			   *next;			/* of the same connection; the first one's turn it is */
	const Party *party;			/* NULL: the server's own calls */
	DbCall	   *first,
			   *last;
	int			taken;			/* into the batch that is gathered */
};

static void
link_last(DbConn *conn, DbTurn *turn)
{
	turn->next = NULL;
	turn->prev = conn->last_turn;
	*(conn->last_turn != NULL ? &conn->last_turn->next : &conn->turns) = turn;
	conn->last_turn = turn;
}

static void
unlink_turn(DbConn *conn, DbTurn *turn)
{
	*(turn->prev != NULL ? &turn->prev->next : &conn->turns) = turn->next;
	*(turn->next != NULL ? &turn->next->prev : &conn->last_turn) = turn->prev;
}

static DbTurn *
turn_of(DbConn *conn, const Party *party)
{
	DbTurn	   *turn;

	for (turn = conn->turns; turn != NULL; turn = turn->next)
	{
		if (turn->party == party)
			return turn;
	}
	turn = needed(calloc(1, sizeof(DbTurn)));
	turn->party = party;
	link_last(conn, turn);
	return turn;
}

void
turns_add(DbConn *conn, DbCall *call)
{
	DbTurn	   *turn = turn_of(conn, call->party);

	call->turn = turn;
	call->next = NULL;
	call->prev = turn->last;
	*(turn->last != NULL ? &turn->last->next : &turn->first) = call;
	turn->last = call;
	conn->queued++;
}

void
turns_remove(DbConn *conn, DbCall *call)
{
	DbTurn	   *turn = call->turn;

	*(call->prev != NULL ? &call->prev->next : &turn->first) = call->next;
	*(call->next != NULL ? &call->next->prev : &turn->last) = call->prev;
	call->next = call->prev = NULL;
	call->turn = NULL;
	conn->queued--;
	if (turn->first != NULL)
		return;
	unlink_turn(conn, turn);
	free(turn);
}

/* The call is taken out; others have their turns first. */
static DbCall *
take(DbConn *conn, DbTurn *turn, DbCall *call)
{
	bool		more = turn->first != turn->last;

	turns_remove(conn, call);
	if (more)
	{
		unlink_turn(conn, turn);
		link_last(conn, turn);
	}
	return call;
}

DbCall *
turns_take_if(DbConn *conn, bool (*may) (const DbCall *call))
{
	DbTurn	   *turn;
	DbCall	   *call;

	for (turn = conn->turns; turn != NULL; turn = turn->next)
	{
		for (call = turn->first; call != NULL; call = call->next)
		{
			if (may == NULL || may(call))
				return take(conn, turn, call);
		}
	}
	return NULL;
}

void
turns_begin_batch(DbConn *conn)
{
	DbTurn	   *turn;

	for (turn = conn->turns; turn != NULL; turn = turn->next)
		turn->taken = 0;
}

/* Does a party have as much of this batch as it may? */
static bool
has_its_part(const DbConn *conn, const DbTurn *turn)
{
	return conn->shared_until_us > loop_now() && turn->taken * SHARED_PART >= db_batch_max;
}

static void
note_turn(DbConn *conn, DbTurn *turn)
{
	turn->taken++;
	if (turn->party == NULL || turn->party == conn->last_party)
		return;
	if (conn->last_party != NULL)
		conn->shared_until_us = loop_now() + SHARED_US;
	conn->last_party = turn->party;
}

DbCall *
turns_take_for_batch(DbConn *conn)
{
	DbTurn	   *turn;

	for (turn = conn->turns; turn != NULL; turn = turn->next)
	{
		if (has_its_part(conn, turn))
			continue;
		note_turn(conn, turn);
		return take(conn, turn, turn->first);
	}
	return NULL;
}
