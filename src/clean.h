/*-------------------------------------------------------------------------
 *
 * clean.h
 *	  What clean.c, crash.c and reclaim.c know of a chain of runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLEAN_H
#define GT_CLEAN_H

#include "storage/lock.h"

#include "garbagetruck.h"

#define GT_MAX_SQL_ITEMS	60	/* of kind sql in one transaction: 64 subtransactions are cached per process */
#define GT_MAX_PARTS		32	/* more than 2 x log2 of GT_MAX_ITEMS */
#define GT_BUSY_FIRST		(20 * 1000) /* us at least until an object that was locked is tried again */
#define GT_MAX_FAILURE		1024	/* bytes of an error's text, and the null */
#define GT_LOWS				64	/* handlers for which the low end of the queue is remembered */

/* From where on there was any garbage of a handler: see collect(). */
typedef struct GtLow
{
	int			handler;
	TimestampTz low;
	TimestampTz looked_at_all;
	int64		cost;			/* of that look, us */
	uint64		changes;		/* gt_table_changes then */
} GtLow;

#define GT_LOOK_AT_ALL (10 * USECS_PER_SEC)	/* all of a queue is looked at as often */
extern GtLow *gt_low_of(GtLow *lows, int handler);	/* choose.c: of GT_LOWS, that of this handler, or an unused one */

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
	bool		alone;			/* its object was in a crashed run */
	int			nitems;
	int64		items[GT_MAX_ITEMS];
	ItemPointerData tids[GT_MAX_ITEMS]; /* where they were; invalid: not known */
	uint64		changes;		/* gt_table_changes then: a table that was rewritten since has them elsewhere */

	/* what is left of a failed batch, in parts; the last is next */
	int			nparts;
	int			part_start[GT_MAX_PARTS];
	int			part_n[GT_MAX_PARTS];
	int			current_part;	/* start of the chosen run among these items; -1: it is no part */
	int64		part_items[GT_MAX_ITEMS];

	/* objects that others had locked, sorted */
	int			nbusy;
	GtBusy		busy[GT_MAX_ITEMS];
	int			busy_handler;	/* of which more were locked than there is room for; 0: none */
	TimestampTz busy_handler_until; /* all of it is passed over */

	TimestampTz alone_from;		/* when objects that were in a crash may start */

	TimestampTz until;			/* what is due up to here; 0: up to now */
	GtLow		lows[GT_LOWS];
};

extern TimestampTz gt_busy_until(const GtCleaner *c, int handler, int64 id);	/* of one that others had locked; else 0 */
extern void gt_busy_note(GtCleaner *c, const int64 *tried, int ntried, const int64 *ids, int n);	/* busy.c: these are */
extern void gt_clean_choose(GtCleaner *c, int max_items, GtPass *pass);
extern void gt_clean_write_record(GtCleaner *c);
/* marks.c, for record.c and crash.c */
extern void gt_mark_arm(int64 serial);	/* from now on a signal leaves a mark for this record */
extern void gt_mark_disarm(void);
extern void gt_mark_path(char *path, const char *kind, int64 serial);
extern char *gt_mark_read(const char *path);	/* the text in a mark, NULL where there is none */
/* Those of a database (InvalidOid: of all) whose record is not among `runs` (NULL: all of them). */
extern void gt_marks_remove(Oid database, GtTable *runs);

/* record.c, for crash.c */
extern bool gt_record_has_writer(int64 serial); /* it lives; takes and gives back its lock */
extern int	gt_record_items(const GtRow *record, int64 *items);

/* Adds what is on record of others, where some of that can not be judged yet; sorted. */
extern void gt_clean_add_unjudged(GtCleaner *c, int64 **items, int *nitems);

#endif
