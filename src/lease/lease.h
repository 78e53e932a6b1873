/*-------------------------------------------------------------------------
 *
 * lease.h
 *	  When a lease is over, and who may change it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LEASE_H
#define GT_LEASE_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "base/fail.h"
#include "table/table.h"

/* When the lease (or its parent) is over, by rows as they are read; 0, which is no time: a child whose parent has ended. */
extern TimestampTz gt_lease_over_at(GtTable *leases, const GtRow *lease);
extern bool gt_lease_running(GtTable *leases, const GtRow *lease, TimestampTz now);
extern bool gt_lease_is_over(const GtRow *lease);	/* one that is no child, now */
/*
 * Is the parent of a child over, so that it stays so?  Then its row is gone, or
 * locked FOR SHARE.  Waits for a renewal of it that is on its way, or else does
 * not know yet: false; one that runs is not locked.  for_good: for who acts on it;
 * once that commits the parent is over in every later run of the server, too.
 * Out: when it was over, and whether it expired.
 */
extern bool gt_parent_is_over(GtTable *leases, const pg_uuid_t *parent, bool wait, bool for_good, TimestampTz *over_at, bool *expired);
extern TimestampTz gt_lease_shown_until(GtTable *leases, const GtRow *lease);	/* as gt_lease_over_at(), but never GT_NEVER */
extern bool gt_fail_not_found(const pg_uuid_t *id, GtFail *f);	/* GT001 */
extern bool gt_fail_other_role(const pg_uuid_t *id, GtFail *f);	/* 42501 */
extern bool gt_lease_check_rights(const GtRow *lease, const char *service, bool releasing, GtFail *f);	/* 42501, GT003 */

#endif
