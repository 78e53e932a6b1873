/*-------------------------------------------------------------------------
 *
 * named.h
 *	  What a row is called as an object, and what its handler is given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_NAMED_H
#define GT_NAMED_H

#include "executor/tuptable.h"

#include "ttl/target.h"

/* Between these two the settings are such that a value has one text, wherever it is asked. */
extern int	gt_names_begin(void);
extern void gt_names_end(int level);

extern Datum gt_row_id(const GtLeaf *leaf, TupleTableSlot *row);	/* text: its key, as an object_id */
extern Datum gt_row_key(const GtLeaf *leaf, TupleTableSlot *row);	/* jsonb: the columns of its key */
/* jsonb: to_jsonb(row); *metadata: names the columns that were left out for their size, or is NULL. */
extern Datum gt_row_payload(const GtLeaf *leaf, TupleTableSlot *row, Datum *metadata);

#endif
