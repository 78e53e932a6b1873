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
/* What a call has learnt of handlers, in the memory context in which that is kept. */
typedef struct GtKnown
{
	MemoryContext context;
	List	   *list;
} GtKnown;

/* The handler of this row, if the caller may claim it, else NULL. */
extern const GtHandler *gt_claim_handler_of(const GtRow *row, GtKnown *known);

/* Garbage to be locked in its turn. */
typedef struct GtToken
{
	int64		cleanup_id;
	int			attempt;
	GtKnown    *known;
	bool		judged;			/* while it is being locked */
	const GtHandler *h;
	GtRow		row;
} GtToken;

/* false: there is no such garbage for the caller */
extern bool gt_fetch_token(GtTable *objects, int64 cleanup_id, int attempt, GtKnown *known, GtToken *token);
extern bool gt_lock_token(GtTable *objects, GtToken *token);	/* likewise, and nothing is locked */

/* Of many, as much as is needed to lock them in the order of their objects. */
typedef struct GtTokenKey
{
	int64		cleanup_id;
	int			attempt;
	char	   *object_type;	/* shared with the one added before, where that is the same */
	char	   *object_id;
} GtTokenKey;

typedef struct GtTokenKeys
{
	MemoryContext context;
	GtTokenKey *v;
	int			n;
	int			room;
} GtTokenKeys;

extern void gt_token_keys_init(GtTokenKeys *keys);	/* in the current memory context */
extern void gt_token_keys_add(GtTokenKeys *keys, const GtRow *row, int attempt);
extern void gt_token_keys_sort(GtTokenKeys *keys);

#endif
