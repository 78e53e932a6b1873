/*-------------------------------------------------------------------------
 *
 * objects.h
 *	  How an object becomes garbage, and is taken back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OBJECTS_H
#define GT_OBJECTS_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "table/table.h"

typedef enum
{
	GT_END_EXPIRED, GT_END_RELEASED, GT_END_KEPT
} GtEndReason;

/* The last lease (NULL: not known) has ended (in row, not yet written): makes it garbage, forgets or keeps; writes it. See gt_end(). */
extern void gt_garbage_make(GtTable *objects, GtRow *row, const pg_uuid_t *last_lease, GtEndReason reason, TimestampTz ended_at);
/* The same of an object that is held (not kept), in memory: `row` is what the garbage would be, once that has a number. */
extern void gt_garbage_take(GtRow *row, const pg_uuid_t *last_lease, TimestampTz ended_at);
/* All of these want the row locked, and write it. */
extern void gt_garbage_put_aside(GtTable *objects, GtRow *row); /* dead: its handler is missing */
/* An object that nobody has leased is garbage: what it is born with. */
typedef struct GtBirth
{
	Datum		type;			/* text, as id */
	Datum		id;
	Oid			owner;
	int			handler;
	TimestampTz due_at;
	Datum		payload;		/* jsonb, as metadata; 0: NULL */
	Datum		metadata;
	const char *error;			/* of an attempt that was made: one; NULL: none was */
	int			max_attempts;	/* 0: the handler's */
	bool		alone;			/* it runs by itself */
} GtBirth;

extern bool gt_garbage_born(GtTable *objects, const GtBirth *birth);	/* false: there is an object of this name */
extern int64 gt_back_off(int64 retry_delay, int failures);	/* us to wait after so many failures */
extern void (*gt_object_gone) (const GtRow *row);	/* for who waits for that: this object is going; or NULL */
extern void gt_garbage_forget(GtTable *objects, GtRow *row);	/* nobody is told */
extern void gt_object_init(GtRow *row, Datum object_type, Datum object_id);	/* held by one lease; owner and fence are to be set */
extern void gt_garbage_revive(GtRow *row);	/* in memory only: create takes it back; the caller writes */

#endif
