/*-------------------------------------------------------------------------
 *
 * take.h
 *	  Leases end, and their objects go with them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TAKE_H
#define GT_TAKE_H

#include "lease/ending.h"

/* What is taken from, and by whom. */
typedef struct GtTaking
{
	GtTable    *objects;
	GtTable    *leases;
	int			handler;
	GtLeaseKey *keys;			/* with their rows */
	int			nkeys;
	int			next;			/* out: so many of them have been judged */
} GtTaking;

extern bool gt_may_take_object(const GtLeaseKey *key);	/* by the row of its lease */
/*
 * Ends leases whose rows are known, as far as they are over, for whoever cleans their
 * objects in this very subtransaction: objects[] gets the garbage that each would be, of
 * this handler, but for its cleanup_id, in the order of keys.  Up to `want` at a time; 0: there
 * are no more.  A lease of which that is not so, or of which somebody has a row, is left
 * to gt_end().  -1: the subtransaction is to be rolled back, and gt_end() to judge all of it.
 * gt_end_finish() does what is still to be done of those that have ended.
 */
extern int	gt_take(GtTaking *taking, GtRow **objects, int want);

#endif
