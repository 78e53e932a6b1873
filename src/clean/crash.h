/*-------------------------------------------------------------------------
 *
 * crash.h
 *	  Runs that were interrupted are judged.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CRASH_H
#define GT_CRASH_H

#include "clean/clean.h"

/* Judges one crashed run, if there is one: in a transaction of its own. Returns whether there was. */
extern bool gt_clean_sweep(GtCleaner *c);
extern void gt_clean_disown(GtCleaner *c);	/* of such a run: it can not be judged, and waits for whoever can */

#endif
