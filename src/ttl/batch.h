/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Some rows, locked, deleted and made garbage of in one subtransaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_BATCH_H
#define GT_BATCH_H

#include "storage/itemptr.h"
#include "utils/jsonb.h"

#include "handler/handler.h"
#include "ttl/scan.h"
#include "ttl/ttl.h"

typedef struct GtVictim
{
	Oid			leaf;			/* the table that it is in */
	ItemPointerData tid;
	TimestampTz deadline;
	Datum		id;				/* text; 0: not asked for, as these */
	Datum		payload;
	Datum		metadata;
	Datum	   *key;			/* values of its primary key, where it must be seen whether it is gone; valid within the body */
} GtVictim;

typedef enum
{
	GT_BATCH_CHOOSE,			/* the oldest, at most `limit` */
	GT_BATCH_THESE,				/* what is left of victims[first .. first + n - 1] */
	GT_BATCH_BY_KEY				/* the one with `key` */
} GtBatchWhich;

typedef struct GtBatch
{
	const GtTtl *ttl;
	GtHandler  *cleaner;		/* that the rows are garbage of; NULL: of none */
	MemoryContext context;		/* of what is kept of them, also when it is undone */
	TimestampTz not_before;		/* as in GtRowsRun */
	bool		keep;			/* they are only locked and named */
	int64		may_last;		/* us that their deletion may take, or (by_row) that of the first; 0: as long as a run */
	bool		by_row;			/* they are deleted one by one, so that it is known which is to blame, */
	bool		suspect;		/* and none may last for much longer than those before it */
	bool		only_chosen;	/* they are not deleted yet */

	GtBatchWhich which;
	TimestampTz low;
	int			limit;
	int			first;
	Jsonb	   *key;
	const char *id;				/* of the object that stands for it, and is no obstacle */

	/* the rows: chosen, or the caller's */
	int			n;
	GtVictim   *victims;

	bool		verify;			/* it is to be seen whether they are gone: a trigger may bring them back */

	/* what was found */
	int			at;				/* in hand when it failed; -1: that is not known */
	int			over;			/* of the last so many nothing was tried: the time was over */
	const char *why;			/* nothing can be done: something is missing; NULL: it is not */
	bool		locked_out;		/* nothing can be done: somebody has the table, or changes what is declared */
	int			busy;			/* rows that others have locked, or have just changed */
	int			waiting;		/* rows that stay because of an object of their name */
	bool		awake;			/* the table tells of rows that come */
	bool		full;			/* there may be more */
	TimestampTz left_from;		/* the first deadline of one that was left, put-aside ones not counted; GT_NEVER */
	TimestampTz next;			/* the first deadline that is yet to come, with the grace; GT_NEVER */
} GtBatch;

extern void gt_batch_run(void *batch);	/* the body of gt_run_body() */
extern int64 gt_row_lag(const GtTtl *ttl, const GtVictim *v, TimestampTz now);	/* us since it could first be deleted */
extern TimestampTz gt_rows_bound(const GtTtl *ttl, TimestampTz not_before, TimestampTz *wait);	/* what is over up to there, now */

#endif
