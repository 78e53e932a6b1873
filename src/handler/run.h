/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Runs of handler SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RUN_H
#define GT_RUN_H

#include "handler/handler.h"

#define GT_MAX_SQL_ITEMS 60		/* of kind sql in one transaction: more than 64 subtransactions make snapshots slow */

/* Why a run did not happen. */
typedef enum
{
	GT_EXCUSE_PLAIN,			/* nobody's fault */
	GT_EXCUSE_EVICTED,			/* its worker was terminated, or it was canceled */
	GT_EXCUSE_CONFLICT			/* SQLSTATE 40001 or 40P01 */
} GtExcuse;

typedef struct GtItem			/* one piece of garbage, chosen to be run */
{
	int64		cleanup_id;
	int			attempt;		/* the one to run: attempts + 1 */
	GtRow		row;			/* of gt_object */
	bool		gone;			/* out of a run: it was none when its turn came, and was not run */
	bool		done;			/* it went well */
	bool		excused;		/* the run did not happen: no attempt */
	GtExcuse	excuse;
	bool		cut_short;		/* its run was given back: how long it would have taken is not known */
	bool		timed_out;		/* it failed for having lasted too long */
	bool		conflict;		/* it failed for a conflict with another transaction, excused or not */
	char	   *error;			/* else why not */
	int64		retry_after;	/* us: when excused; < 0: as usual */
	int64		took;			/* us */
	int64		rows;			/* that its statement has affected; < 0: not known */
} GtItem;

/*
 * Runs the SQL of h for items[0..n-1] (kind sql: one after the other, each in
 * its own subtransaction, stopping after 1 s; sql_batch: as one set in one
 * subtransaction) and fills in what became of them. The objects are locked
 * already; `judge` is asked before each run but the first whether that item is
 * still garbage, for a run may have done something to it (else: gone).
 * in_block: within somebody's transaction, whose own affairs are to be left alone.
 * Returns how many items had their turn: the rest has not been tried.
 */
typedef bool (*GtRunJudge) (GtItem *item, void *arg);

extern int	gt_run_sql(const GtHandler *h, GtItem *items, int n, bool in_block, GtRunJudge judge, void *arg);
/*
 * Runs it in one subtransaction for up to n items, all or none: whatever goes wrong
 * rolls all of it back, and nobody is charged.  `take` is called in that
 * subtransaction, right before a run (of kind sql_batch: once for all), for up to
 * `want` items, and says how many there are (0: no more; -1: all is to be undone).  Returns
 * how many were run, in order, or -1: none.  *looked: because it has asked for leases or garbage,
 * of which it can not be shown what is to be seen in a run.
 */
typedef int (*GtTake) (GtItem *items, int want, void *arg);

extern int	gt_run_whole(const GtHandler *h, GtItem *items, int n, GtTake take, void *arg, bool *looked);
/*
 * The same for work of ours that meets other people's code: body() is run once, in
 * its subtransaction, as h's role, connected to the SPI.  What it raises is in the
 * item, and it is undone then; it keeps what it has for the caller in memory that
 * it was given.
 */
extern void gt_run_body(const GtHandler *h, GtItem *item, bool in_block, void (*body) (void *arg), void *arg);
/* Registration: parses and analyses the command as its owner would run it; raises what is wrong with it. */
extern void gt_run_check(const GtHandler *h);

#endif
