/*-------------------------------------------------------------------------
 *
 * translate.h
 *	  In a copy: other OIDs for the same roles.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TRANSLATE_H
#define GT_TRANSLATE_H

#include "nodes/pg_list.h"

extern List *gt_translate_rows(void);	/* for gt_roles_translate(): OIDs of all who own something here */

#endif
