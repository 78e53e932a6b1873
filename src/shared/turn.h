/*-------------------------------------------------------------------------
 *
 * turn.h
 *	  What is remembered of a role's turns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TURN_H
#define GT_TURN_H

#include "datatype/timestamp.h"

#define GT_TURNS	256			/* roles whose last turn is remembered at a time */

/* When a role of a database was served last. Under GtShared.lock. See handler/turns.c */
typedef struct GtTurn
{
	Oid			database;		/* InvalidOid: free */
	Oid			role;			/* InvalidOid: what is of no role */
	TimestampTz at;
	TimestampTz tried_at;		/* when a run of it was last let try whether it is slow, while others waited */
	int			workers;		/* out of gt_slot_turns(): of others that serve it */
	int			lines;			/* that its failures may still write into the log, as of: */
	TimestampTz logged_at;
} GtTurn;

#endif
