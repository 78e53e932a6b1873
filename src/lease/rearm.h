/*-------------------------------------------------------------------------
 *
 * rearm.h
 *	  Times that a clock wrote that was ahead.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_REARM_H
#define GT_REARM_H

/* One step of the round that is made once in a server run, over about so many rows; true: to be called again at once. */
extern bool gt_rearm(int limit);

#endif
