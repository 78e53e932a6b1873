/*-------------------------------------------------------------------------
 *
 * cleaner.h
 *	  The state of a chain of runs, for the files that make it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLEANER_H
#define GT_CLEANER_H

#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "storage/lock.h"

#include "base/workers.h"
#include "clean/clean.h"
#include "clean/optimistic.h"
#include "shared/rows_due.h"

#define GT_MAX_PARTS		32	/* more than 2 x log2 of GT_MAX_ITEMS */
#define GT_BUSY_FIRST		(20 * 1000) /* us at least until an object that was locked is tried again */
#define GT_MAX_FAILURE		1024	/* bytes of an error's text, and the null */

/* An object that others had locked when it was to be run. */
typedef struct GtBusy
{
	int64		id;				/* first, for gt_by_id() */
	TimestampTz since;
	TimestampTz until;			/* it is passed over */
} GtBusy;

struct GtCleaner
{
	bool		unrecorded;		/* inside a transaction block: no run outlives it */
	bool		own_only;		/* then too: nothing but the caller's own */
	MemoryContext run_context;	/* of one step */
	int64		serial;			/* gt__run.worker */
	LOCKTAG		tag;			/* its lock tells that we live */
	bool		locked;
	bool		durable;		/* a run is on record and committed */
	bool		begun;			/* it has begun in the transaction in progress */
	char		failure[GT_MAX_FAILURE];	/* why that transaction failed; empty: none has */

	/* the chosen run */
	int			handler;
	bool		optimistic;		/* it is a pass over leases, see optimistic.c; of no items */
	bool		alone;			/* its object was in a crashed run */
	int			nitems;
	int64		items[GT_MAX_ITEMS];
	ItemPointerData tids[GT_MAX_ITEMS]; /* where they were; invalid: not known */
	uint64		changes;		/* gt_table_changes then: a table that was rewritten since has them elsewhere */

	/* or: */
	int			rows;			/* it is of so many rows of the table of row TTL `handler`, and items[0] stands for them; 0: it is of items */
	GtRowsSeen	seen;			/* what that came to, until it is committed */
	List	   *looked_at;		/* of a session: row TTLs of which nothing more is due in this call */
	TimestampTz rows_low;		/* of a session: where to go on in the table of this one; 0: at the first */
	int			rows_low_of;

	/* what is left of a failed batch, in parts; the last is next */
	int			nparts;
	int			part_start[GT_MAX_PARTS];
	int			part_n[GT_MAX_PARTS];
	int			current_part;	/* start of the chosen run among these items; -1: it is no part */
	int64		part_items[GT_MAX_ITEMS];

	/* objects that others had locked, sorted */
	uint64		busy_ends;		/* GtDatabase.prepared_ends, and one, when that was begun */
	int			nbusy;
	GtBusy		busy[GT_MAX_ITEMS];
	int			busy_handler;	/* of which more were locked than there is room for; 0: none */
	TimestampTz busy_handler_until; /* all of it is passed over */

	/* of passes that end leases and clean their objects in one, see optimistic.c */
	int			proposed;		/* a handler whose leases were left for one; 0: none */
	bool		in_turn;		/* this step has made one */
	bool		declined;		/* there was to be none: the next expiry pass leaves nothing */
	bool		attended;		/* as many others as may be are at the leases that were left */
	const GtChoosing *choosing; /* how the pass on record chooses; NULL: it is not to be made now */

	TimestampTz alone_from;		/* when objects that were in a crash may start */

	TimestampTz until;			/* what is due up to here; 0: up to now */
};

#endif
