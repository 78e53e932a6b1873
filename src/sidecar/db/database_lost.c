/*
 * database_lost.c
 *		What becomes of the calls of a connection that is gone, or does not answer.
 *
 * Those that may run twice, and those that were rolled back for sure, run
 * again; of the others nobody knows the outcome, and their callers are told so.
 */
#include <stdio.h>
#include <stdlib.h>

#include "db/database_internal.h"

void
segment_free(Segment *segment)
{
	PQclear(segment->error);
	free(segment);
}

/*
 * A call of a segment that was cut off.  When the server had reported an error
 * in that segment, its transaction did not commit; otherwise nobody knows.
 */
static void
sort_lost_call(DbCall *call, bool rolled_back, const char *why)
{
	char		message[600];

	call->in_flight = false;
	PQclear(call->result);
	call->result = NULL;
	if (call->done != NULL && (rolled_back || call->repeatable || (call->statement->flags & DB_REPEATABLE)) &&
		++call->attempts < MAX_ATTEMPTS)
	{
		metric_add(&db_retries_metric, 1);
		dbcall_queue(call);
		return;
	}
	snprintf(message, sizeof(message), "the connection to PostgreSQL was lost while the call was in flight; it may have succeeded%s%.400s",
			 why[0] != '\0' ? ": " : "", why);
	dbcall_fail(call, "08007", message, !rolled_back);
}

/* What was to be sent again was rolled back before. */
static void
sort_unsent(DbConn *conn, const char *why)
{
	Segment    *again = conn->again;
	Segment    *segment;
	int			i;

	conn->again = NULL;
	while ((segment = again) != NULL)
	{
		again = segment->next;
		for (i = 0; i < segment->count; i++)
			sort_lost_call(segment->calls[i], true, why);
		segment_free(segment);
	}
}

void
batch_give_up(DbConn *conn, const char *why)
{
	char		message[200];
	Segment    *segment;
	int			i;

	snprintf(message, sizeof(message), "%s; the call may have succeeded", why);
	for (segment = conn->in_flight; segment != NULL; segment = segment->next)
	{
		for (i = 0; i < segment->count; i++)
			dbcall_give_up(segment->calls[i], "08007", message);
	}
	sort_unsent(conn, why);
}

void
batch_lost(DbConn *conn, const char *why)
{
	Segment    *segment;
	Segment    *flying = conn->in_flight;
	int			i;

	conn->in_flight = NULL;
	conn->in_flight_end = &conn->in_flight;
	while ((segment = flying) != NULL)
	{
		flying = segment->next;
		for (i = 0; i < segment->count; i++)
			sort_lost_call(segment->calls[i], segment->error != NULL, why);
		segment_free(segment);
	}
	sort_unsent(conn, why);
}
