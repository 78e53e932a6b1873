/*-------------------------------------------------------------------------
 *
 * turns.h
 *	  Whose SQL a worker runs, and whose turn it is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TURNS_H
#define GT_TURNS_H

#include "handler/handler.h"
#include "shared/turn.h"

#define GT_TURN (200 * INT64CONST(1000))	/* us: of a role, while another waits; some ten times what a new process costs */

extern Oid	gt_handler_role(const GtHandler *h);	/* whose SQL it runs; InvalidOid: none */
extern Oid	gt_handler_whose(const GtHandler *h);	/* whose turn a run of it takes */
extern bool gt_slot_is_for(Oid role);	/* may this process run SQL of this role? */
extern GtTurn *gt_turn_of(Oid role);	/* when it was served last here; made where there is none. Lock held */
extern void gt_slot_turns(int n, const Oid *roles, GtTurn *turns);	/* of each of these roles */
extern bool gt_role_may_log(Oid role);	/* a failure of its SQL: all processes share so many lines */
/* A worker: SQL of this role is due, which another one has to run; InvalidOid: by a look begun then there was no such role. */
extern void gt_role_waits(Oid role, TimestampTz looked_at);
extern bool gt_slot_take_look(void);	/* has another worker told us so? */
extern bool gt_slot_is_wanted(void);	/* does another role or database wait for a slot? Without the lock a hint */
extern bool gt_slot_work_waits(void);	/* or something here that is due for anybody to look at it, while all are in runs? Likewise */
extern bool gt_slot_turn_over(void);	/* has our role had its turn, while somebody needs the slot? */

#endif
