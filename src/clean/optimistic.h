/*-------------------------------------------------------------------------
 *
 * optimistic.h
 *	  Leases are ended and their objects cleaned in one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_OPTIMISTIC_H
#define GT_OPTIMISTIC_H

#include "clean/clean.h"
#include "lease/expiry.h"

/* For a worker's expiry pass: leaves leases that a pass of the other sort can end, where this process may make that next. */
extern void gt_optimistic_division(GtCleaner *c, GtDivision *division);

/* How such a pass chooses leases: as gt_expire_pass(). */
struct GtChoosing
{
	int			limit;
	void		(*hand_on) (GtExpiry *chosen);	/* as soon as they are chosen and locked, whether or not there is more */
	GtExpiry   *expiry;
};

/* In gt_clean_step(): the pass that is on record. */
extern void gt_optimistic_pass(GtCleaner *c, GtPass *pass);
/* gt_clean_choose() has had its choice. */
extern void gt_optimistic_choose(GtCleaner *c, GtPass *pass);

#endif
