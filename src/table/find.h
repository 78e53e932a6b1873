/*-------------------------------------------------------------------------
 *
 * find.h
 *	  Rows are looked up one after the other, by the keys of one index.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_FIND_H
#define GT_FIND_H

#include "table/table.h"

typedef struct GtFinder GtFinder;
/* Finds what has committed when it begins. Its context is the current one, which has to last. */
extern GtFinder *gt_finder_begin(GtTable *t, GtIndexId index, int nkeys);
/* *untouched: it is the newest version, and nobody has locked it; else it may be either. */
extern bool gt_find(GtFinder *finder, const Datum *keys, GtRow *row, bool *untouched);
extern void gt_finder_end(GtFinder *finder);

#endif
