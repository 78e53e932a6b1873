/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  What claim.c, queue.c and redrive.c share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_QUEUE_H
#define GT_QUEUE_H

#include "fmgr.h"
#include "utils/array.h"

#include "handler/handler.h"

extern int64 gt_visibility_argument(FunctionCallInfo fcinfo, int arg);	/* us */
/*
 * Of GtHandler *: those named (GT007, 22023 where nobody can claim its kind,
 * 42501), or with NULL those of current_user's own that have garbage.
 */
extern List *gt_claimable_handlers(ArrayType *names);

/* The handler with this name: GT007, 42501. */
extern GtHandler *gt_claim_handler(const char *name);
/* The handler of this row, if the caller may claim it, else NULL; known: what the call has learnt of handlers. */
extern const GtHandler *gt_claim_handler_of(const GtRow *row, List **known);

/* Garbage to be locked in its turn. */
typedef struct GtToken
{
	int64		cleanup_id;
	int			attempt;
	List	  **known;
	bool		judged;			/* while it is being locked */
	const GtHandler *h;
	GtRow		row;
} GtToken;

/* false: there is no such garbage for the caller */
extern bool gt_fetch_token(GtTable *objects, int64 cleanup_id, int attempt, List **known, GtToken *token);
extern bool gt_lock_token(GtTable *objects, GtToken *token);	/* likewise, and nothing is locked */
extern int	gt_token_order(const void *a, const void *b);	/* for qsort of GtToken *: as objects are locked */

#endif
