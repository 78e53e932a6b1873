/*-------------------------------------------------------------------------
 *
 * adopt.h
 *	  A copy becomes an original.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_ADOPT_H
#define GT_ADOPT_H

extern void gt_place_adopt(void);
extern void gt_place_advance_sequences(void);	/* beyond all ids that are known */

#endif
