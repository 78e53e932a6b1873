/*-------------------------------------------------------------------------
 *
 * passes.h
 *	  Passes of expiry, of one worker beside others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PASSES_H
#define GT_PASSES_H

#include "clean/clean.h"
#include "lease/expiry.h"

/* An expiry pass of ours, or what came of a step of cleaning, which may be one, too. */
typedef struct GtWorkerPass
{
	GtExpiry	expiry;			/* first, for gt_pass_hand_on() */
	bool		others;			/* are in one, too */
	bool		handed_on;		/* the token, to who is next */
	GtPass		clean;
} GtWorkerPass;

/* Takes the token; false: another worker is choosing, and, where we do not insist, somebody will look again. */
extern bool gt_pass_begin(GtWorkerPass *pass, bool insist);
/* The same for the pass on record: who chooses is done in a moment; if not, two choose at once, which only takes longer. */
extern void gt_pass_insist(GtWorkerPass *pass);
/* In a pass, its expiry: what is due beyond these may be ended by another worker. The first: and there is such, at once. */
extern void gt_pass_hand_on(GtExpiry *chosen);
extern void gt_pass_let_go(GtExpiry *chosen);
extern bool gt_pass_end(void);	/* it is committed. Returns whether to look again */

#endif
