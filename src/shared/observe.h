/*-------------------------------------------------------------------------
 *
 * observe.h
 *	  What is known of handlers and databases, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OBSERVE_H
#define GT_OBSERVE_H

#include "datatype/timestamp.h"

#include "shared/counters.h"
#include "shared/observe_lock.h"

extern void gt_handler_remember(int handler, Oid owner, Oid role);	/* for that, where there is room */
extern void gt_observe_init(void);	/* from _PG_init: its shared memory */

/* upper bounds in seconds of the histograms' buckets; the last bucket has none */
#define GT_NBOUNDS 14

typedef struct GtHistogram
{
	uint64		bucket[GT_NBOUNDS + 1]; /* not cumulative */
	uint64		count;
	double		sum;			/* s */
} GtHistogram;

#define GT_MAX_HANDLERS	2048	/* of all databases, that were used lately: what is known of them */
#define GT_RATE_SLICE	(50 * INT64CONST(1000)) /* us */
#define GT_RATE_SLICES	21		/* a second and one, since the oldest is partly over */

/* Starts of the last second, for rate_limit: see rates.c. */
typedef struct GtRate
{
	int64		newest;			/* number of its slice since the epoch */
	int			starts[GT_RATE_SLICES]; /* by number modulo the size */
} GtRate;

/* Who starts something of a handler: each for itself may do so at the handler's rate. */
typedef enum
{
	GT_RUNS,					/* workers, and sessions in gt_reclaim() */
	GT_CLAIMS,					/* consumers, by gt_claim() */
	GT_NSTARTERS
} GtStarter;

typedef struct GtHandlerKey
{
	Oid			database;
	int			handler;
} GtHandlerKey;

/* How a handler did lately: its last run. */
typedef enum
{
	GT_SPEED_UNKNOWN,			/* there was none that we know of */
	GT_SPEED_QUICK,
	GT_SPEED_SLOW				/* it took over a second, timed out or crashed */
} GtSpeed;

/* What is known of one handler. In shared memory, or of this session alone without preload. */
typedef struct GtHandlerEntry
{
	GtHandlerKey key;			/* first, for the hash */
	Oid			owner;			/* for its share of the entries */
	TimestampTz used_at;
	uint64		cleaned;
	uint64		failed;
	GtHistogram took;
	GtRate		rates[GT_NSTARTERS];
	int			pending;		/* claims made by transactions that are open */
	TimestampTz claimed_at;		/* last gt_claim() that asked for it */

	/* of the workers, see slots.c */
	GtSpeed		speed;
	Oid			role;			/* gt_handler_role() when it was read for a choice last; InvalidOid: not known */
	TimestampTz served_at;		/* when a run of it was chosen last */
	int			batch;			/* objects that one run of kind sql_batch may have, or rows; 0: any number */
	TimestampTz row_due;		/* of a row TTL, see rows_due.c: when a row of its table is due; 0: nobody has looked */
	TimestampTz row_low;		/* before that deadline there is no row to be deleted, as far as is known; 0: nothing is */
	TimestampTz row_told;		/* the earliest that was told of since somebody went to look */
	TimestampTz row_looked_at;	/* when all of it was looked at last */
	TimestampTz row_vain_since; /* nothing could be done since then, for all that was due; 0: something could */
	int64		row_patience;	/* us that the deletion of one may last before it goes by itself, */
	TimestampTz row_lasted_at;	/* since one did for longer then */
	bool		row_failed;		/* one could not be deleted in the last run */
	bool		row_waits;		/* rows stay for as long as there is an object of their name */
	bool		reliable;		/* its last run went well, see optimistic.c */
	TimestampTz rest_until;		/* until then its leases and objects go the ordinary way */
} GtHandlerEntry;

/* What a transaction has done to one, which counts when it has committed. */
typedef struct GtCounted
{
	int64		leases;			/* to the gauges */
	int64		garbage;
	int64		dead;
	uint64		n[GT_NCOUNTERS];
	GtHistogram lag;
	GtHistogram row_lag;
} GtCounted;

/* Known of one database; the same number as in GtShared.databases. */
typedef struct GtDatabaseEntry
{
	Oid			database;
	Oid			extension;		/* whose gauges have had their start; another one: dropped and created again */
	TimestampTz counted_at;		/* on a standby they are counted again and again */
	int64		count_took;		/* how long that took, us */
	int64		leases;
	int64		garbage;
	int64		dead;
	TimestampTz progress_at;	/* something was cleaned or had ended */
	GtHistogram lag;
	GtHistogram row_lag;		/* of rows: from their deadline to their end */
} GtDatabaseEntry;

/*
 * Locked, they are valid until gt_observe_unlock().  gt_handler_entry() makes one
 * where there is none; NULL: its owner has too many in use, nothing is known.
 */
extern GtHandlerEntry *gt_handler_entry(int handler, Oid owner);
/* May it be held by an open transaction? One role's may not be without number. */
extern bool gt_handler_may_be_held(const GtHandlerEntry *entry);
extern GtHandlerEntry *gt_handler_known(int handler);	/* NULL: there is none */
extern GtDatabaseEntry *gt_database_entry(void);	/* NULL: not preloaded */
extern void gt_handler_forget(int handler); /* of this database; it was dropped */
extern void gt_handlers_stir(TimestampTz when);	/* of this database: rows are looked for then at the latest */
extern void gt_handlers_forget(Oid database);	/* see gt_observe_forget() */
extern void gt_observe_recount(void);	/* a commit is in no number: the gauges have their start again */

#endif
