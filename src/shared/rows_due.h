/*-------------------------------------------------------------------------
 *
 * rows_due.h
 *	  When rows of a table with deadlines are due.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ROWS_DUE_H
#define GT_ROWS_DUE_H

#include "datatype/timestamp.h"

/* What a look at a table has come to. */
typedef struct GtRowsSeen
{
	int			ttl;			/* 0: nothing */
	TimestampTz taken;			/* see gt_rows_take() */
	TimestampTz next;			/* when to look again: the next row is due; GT_NEVER */
	TimestampTz low;			/* no row to be deleted has an earlier deadline; 0: that is not known */
	bool		complete;		/* it was of all of the table */
	bool		waits;			/* rows stay for as long as there is an object of their name */
	bool		in_vain;		/* it has done nothing, for all that was due: others have it locked, or it failed */
} GtRowsSeen;

extern TimestampTz gt_rows_due(int ttl);	/* when to look; 0: at once, nobody has */
/* Whoever goes to look: if nothing more is heard of us, others look at `until`. *low: where to begin; 0: at the first. */
extern void gt_rows_take(int ttl, Oid owner, TimestampTz until, TimestampTz *low);
extern TimestampTz gt_rows_seen(const GtRowsSeen *seen);	/* and what was done then is committed; returns when to look again */
/* When to look again at what has been left since then: after a quarter of that time, and `most` us. */
extern TimestampTz gt_rows_again(TimestampTz since, TimestampTz now, int64 most);
extern void gt_rows_put_off(int ttl, Oid owner, TimestampTz until);	/* nothing can be done before */
/* A row with this deadline has come, to be deleted at `due`, once this transaction has committed. */
extern void gt_rows_due_after_commit(int ttl, TimestampTz deadline, TimestampTz due);
extern bool gt_rows_wait(int ttl);	/* for objects to go */
/* Has one failed in the last run, or lasted lately? Then *patience is how long one may last that is deleted with others, us; 0: none has lasted. */
extern bool gt_rows_wary(int ttl, int64 *patience);
extern void gt_rows_failed(int ttl, bool failed);	/* one has, or none */
/* lasted: one has, and this is to be the patience; else one has not, for all that it took, and this is the least that it is to be. */
extern void gt_rows_set_patience(int ttl, int64 patience, bool lasted);
/* Once this transaction has committed, something may have changed that tables were waiting for: look at them then. */
extern void gt_rows_stir(TimestampTz when);

#endif
