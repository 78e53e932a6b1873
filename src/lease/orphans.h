/*-------------------------------------------------------------------------
 *
 * orphans.h
 *	  Children of leases that have ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ORPHANS_H
#define GT_ORPHANS_H

#include "lease/expiry.h"

extern void gt_end_orphans(int limit, bool own, GtExpiry *result);	/* up to so many, of all roles in turn */

#endif
