/*-------------------------------------------------------------------------
 *
 * consistency.h
 *	  What contradicts itself in our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CONSISTENCY_H
#define GT_CONSISTENCY_H

#include "nodes/pg_list.h"

typedef struct GtFinding
{
	int			kind;
	const char *name;			/* of the kind */
	char	   *object_type;	/* NULL: of no object */
	char	   *object_id;
	char	   *detail;
	char	   *key;			/* a lease's id, or NULL */
	const char *otherwise;		/* what helps, where mending does not; NULL: it does */
} GtFinding;

/* Of GtFinding *, in the current memory context; limit: of each kind, 0: none; sample: by a few blocks of large tables. */
extern List *gt_find_contradictions(bool sample, int limit);
extern PGDLLEXPORT void gt_check_main(Datum arg);

#endif
