/*-------------------------------------------------------------------------
 *
 * mend.h
 *	  One contradiction is mended; false: not now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_MEND_H
#define GT_MEND_H

#include "control/consistency.h"

/* key: of the finding, a lease id */
extern bool gt_mend_lease_without_object(Datum key, const GtFinding *f);
extern bool gt_mend_count(Datum key, const GtFinding *f);
extern bool gt_mend_handler(Datum key, const GtFinding *f);
extern bool gt_mend_spec(Datum key, const GtFinding *f);
extern bool gt_mend_child(Datum key, const GtFinding *f);
extern bool gt_mend_orphan(Datum key, const GtFinding *f);
extern bool gt_mend_check_at(Datum key, const GtFinding *f);
extern bool gt_mend_by_statement(Datum key, const GtFinding *f);

#endif
