/*-------------------------------------------------------------------------
 *
 * numbers.h
 *	  Many numbers of a sequence at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_NUMBERS_H
#define GT_NUMBERS_H

#include "table/schema.h"

extern void gt_draw_numbers(GtSequenceId id, int64 *numbers, int n);	/* ascending; as nextval() for each */

#endif
