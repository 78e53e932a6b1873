/*-------------------------------------------------------------------------
 *
 * rights.h
 *	  For whom current_user acts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RIGHTS_H
#define GT_RIGHTS_H

#include "table/table.h"

extern bool gt_caller_covers(const char *service);
extern bool gt_acts_for_object(const GtRow *object);	/* both for the role and for the caller */
extern bool gt_acts_for(Oid role);	/* current_user has the rights of role, which is whom the row means also in a copy */
extern bool gt_shared_with(Oid owner, const char *object_type, Oid user);	/* gt_share; members counted */

#endif
