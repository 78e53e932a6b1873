/*-------------------------------------------------------------------------
 *
 * choose.h
 *	  Which run is next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CHOOSE_H
#define GT_CHOOSE_H

#include "clean/clean.h"

extern void gt_clean_choose(GtCleaner *c, int max_items, GtPass *pass);

#endif
