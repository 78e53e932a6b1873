/*-------------------------------------------------------------------------
 *
 * renewed.h
 *	  What renewals in memory add to a lease, for who judges or writes its row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RENEWED_H
#define GT_RENEWED_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* The deadline that a row of this run has which was renewed then, or a later one that was acknowledged since. */
extern TimestampTz gt_renewal_deadline(const pg_uuid_t *id, TimestampTz renewed_at, TimestampTz deadline);
/* What to show of it: when it was renewed last, and how often. In, out: as the row has it. */
extern void gt_renewal_shown(const pg_uuid_t *id, TimestampTz *renewed_at, int64 *renewals);

/*
 * The locked lease will be another one, or none, if the transaction commits: from
 * here on nothing is acknowledged without a look at the row.
 */
extern int64 gt_renewal_written(const pg_uuid_t *id, int64 renewals);	/* it is renewed in the table: how often that makes */
extern TimestampTz gt_renewal_changed(const pg_uuid_t *id); /* when: later than all that was acknowledged before */
extern void gt_renewal_ended(const pg_uuid_t *id);	/* it is deleted, and what is kept of it goes when that commits */

#endif
