/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Claiming.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CLAIM_H
#define GT_CLAIM_H

#include "handler/handler.h"

/* claim.c: starts that were reserved and not made */
extern void gt_claim_give_back(const GtHandler *h, int n);

#endif
