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

/*
 * Is there an entry in an index, of whatever row, for each of many keys?  In the
 * order of the index each costs no more than a comparison where the index has nothing
 * between it and the one before.
 */
typedef struct GtMeeter GtMeeter;
extern GtMeeter *gt_meeter_begin(GtTable *t, GtIndexId index, int nkeys);
extern bool gt_meets(GtMeeter *meeter, const Datum *keys);	/* which have to last until the next call */
extern void gt_meeter_end(GtMeeter *meeter);

#endif
