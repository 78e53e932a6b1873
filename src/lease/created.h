/*-------------------------------------------------------------------------
 *
 * created.h
 *	  The leases that the transaction in progress has created.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CREATED_H
#define GT_CREATED_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Was this lease created by the current transaction? Then it is not over before the commit. */
extern bool gt_created_here(const pg_uuid_t *id);
/* The commit of this transaction is flushed here, whatever synchronous_commit says then. */
extern void gt_commit_flushed(void);

extern void gt_lease_restarted(const pg_uuid_t *id, TimestampTz now, int64 duration);	/* it has been given this duration, from now on */
/* This transaction has created a lease; now: GT_NEVER for a child, which has no deadline */
extern void gt_lease_created(const pg_uuid_t *id, TimestampTz now, int64 duration);

#endif
