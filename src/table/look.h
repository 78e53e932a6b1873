/*-------------------------------------------------------------------------
 *
 * look.h
 *	  Who has a row, for who would like to update it and locks nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOOK_H
#define GT_LOOK_H

#include "table/table.h"

/* A lock or an update of a transaction that has ended is none. */
typedef enum
{
	GT_FREE,					/* nobody has it: it is committed, and the newest */
	GT_HELD,					/* another transaction that is in progress; it may lock or update it, */
	GT_ENDING,					/* or delete it */
	GT_REPLACED					/* there is a newer one, or none */
} GtLook;

/* The version that a row was read from, as it was at a look. */
typedef struct GtVersion
{
	bool		own;			/* written by this very transaction */
	TransactionId xmin;			/* else who wrote it; InvalidTransactionId: long ago */
	TransactionId xmax;			/* what its header says of locks and updates */
	uint16		infomask;
	uint16		infomask2;
} GtVersion;

/* The page is pinned from here to the next use of the table. */
extern GtLook gt_look_at(GtTable *t, GtRow *row, GtVersion *version);
/* Is it as it was then? Under any lock of ours: waits for nobody but for the page. */
extern bool gt_is_unchanged(GtTable *t, const GtVersion *version);
extern void gt_flush_commit_of(const GtVersion *version);	/* no crash can take it any more, and no failover for which we wait */
extern void gt_wait_for_holders(GtTable *t, GtRow *row);	/* of a row that is held; it may have others then */

#endif
