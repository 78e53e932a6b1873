/*-------------------------------------------------------------------------
 *
 * look.h
 *	  What a worker finds in its database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LOOK_H
#define GT_LOOK_H

#include "catalog/pg_database.h"

extern bool gt_database_is_eligible(Form_pg_database form); /* may workers be there at all? */
/* Is there anything for us here? again: look once more in a while */
extern bool gt_worker_may_work(bool *again);

#endif
