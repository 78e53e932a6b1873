/*-------------------------------------------------------------------------
 *
 * consistency.h
 *	  What contradicts itself in our tables: found, and mended where it is met.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CONSISTENCY_H
#define GT_CONSISTENCY_H

#include "garbagetruck.h"

typedef struct GtFinding
{
	int			kind;
	const char *name;			/* of the kind */
	char	   *object_type;	/* NULL: of no object */
	char	   *object_id;
	char	   *detail;
	char	   *key;			/* a lease's id, or NULL */
} GtFinding;

/* Of GtFinding *, in the current memory context; limit: of each kind, 0: none; sample: by a few blocks of large tables. */
extern List *gt_find_contradictions(bool sample, int limit);
/*
 * There are leases on an object that has no row (somebody deleted it): makes it of
 * them, locked.  false: there are none any more, or it has come meanwhile.
 */
extern bool gt_object_rebuild(GtTable *objects, GtTable *leases, const char *object_type, const char *object_id,
							  GtRow *row);
/* How many leases the object has, which is locked; *newest: that with the greatest fence. */
extern int	gt_count_leases(GtTable *leases, Datum type, Datum id, GtRow *newest);
/* mend.c; key: of the finding, a lease id. false: not now */
extern bool gt_mend_lease_without_object(Datum key, const GtFinding *f);
extern bool gt_mend_count(Datum key, const GtFinding *f);
extern bool gt_mend_handler(Datum key, const GtFinding *f);
extern bool gt_mend_spec(Datum key, const GtFinding *f);
extern bool gt_mend_child(Datum key, const GtFinding *f);
extern bool gt_mend_orphan(Datum key, const GtFinding *f);
extern bool gt_mend_check_at(Datum key, const GtFinding *f);
extern bool gt_mend_by_statement(Datum key, const GtFinding *f);
extern PGDLLEXPORT void gt_check_main(Datum arg);

#endif
