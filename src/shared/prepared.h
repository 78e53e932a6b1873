/*-------------------------------------------------------------------------
 *
 * prepared.h
 *	  Transactions that are prepared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PREPARED_H
#define GT_PREPARED_H

#include "access/transam.h"

#include "shared/observe.h"

#define GT_PREPARED_HANDLERS	8	/* of one transaction; of more than these nothing is counted */

typedef struct GtPreparedHandler
{
	int			handler;
	int			claims;			/* that are in GtHandlerEntry.pending until it ends */
	uint64		cleaned;
	uint64		failed;
	GtHistogram took;
} GtPreparedHandler;

/* What one will have done, if it commits. */
typedef struct GtPrepared
{
	Oid			database;		/* InvalidOid: free. Written under GtShared.lock */
	FullTransactionId xid;
	GtCounted	counted;
	int			nhandlers;
	GtPreparedHandler handlers[GT_PREPARED_HANDLERS];
} GtPrepared;

extern void gt_prepared_init(void); /* from _PG_init: its shared memory */
/* At XACT_EVENT_PREPARE: that of the transaction that is prepared, made now; NULL: not preloaded, or no room. */
extern GtPrepared *gt_prepared_mine(void);
extern GtPreparedHandler *gt_prepared_handler(GtPrepared *mine, int handler);	/* NULL: there are too many */
extern bool gt_prepared_claims(int handler, int n); /* keeps so many claims of it; false: it can not */
extern bool gt_prepared_any(void);	/* is any known of this database? It may have ended */
/* Takes out one of this database that has ended; false: there is none. */
extern bool gt_prepared_take(GtPrepared *ended, bool *committed);
extern void gt_prepared_forget(Oid database);	/* it was dropped */

#endif
