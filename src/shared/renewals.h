/*-------------------------------------------------------------------------
 *
 * renewals.h
 *	  The table of renewals in shared memory; for who judges or writes a lease: renewed.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_RENEWALS_H
#define GT_RENEWALS_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#define GT_RENEWALS_PARTS		128
#define GT_RENEWAL_CLOSED		PG_INT64_MIN	/* no bound: the row must be looked at */

typedef struct GtRenewal
{
	Oid			database;		/* InvalidOid: free */
	pg_uuid_t	lease;
	uint32		next;			/* of the same bucket, or free: its number from 1 on; 0: none */
	Oid			owner;
	Oid			file;			/* of the table of leases, in which the row was seen: another one after TRUNCATE */
	TimestampTz deadline;		/* acknowledged last; */
	TimestampTz renewed_at;		/* when that was */
	TimestampTz bound;			/* what may be acknowledged by this entry alone */
	int64		duration;		/* of the row, us */
	int64		regrant_delay;	/* of the row, us; -1: the setting */
	int64		renewals;		/* since the lease was created */
	uint64		service;		/* hash of the name */
} GtRenewal;

extern void gt_renewals_init(void); /* from _PG_init */
extern bool gt_renewals_kept(void); /* there is a table; else none of those that lock it may be called */

/* The part that a lease is in is its hash modulo GT_RENEWALS_PARTS. */
extern uint64 gt_renewal_hash(const pg_uuid_t *id);
extern void gt_renewals_lock(uint64 hash);	/* that part, exclusively; nothing below raises */
extern void gt_renewals_unlock(uint64 hash);
extern GtRenewal *gt_renewal_find(uint64 hash, const pg_uuid_t *id);	/* NULL: there is none */
extern GtRenewal *gt_renewal_add(uint64 hash, const pg_uuid_t *id, Oid owner, TimestampTz now);	/* else zeroed; NULL: there is no room for that role */

/* Does it (or NULL) count for a row of this run that was renewed then? */
extern bool gt_renewal_counts(const GtRenewal *renewal, TimestampTz renewed_at);

extern void gt_renewals_forget(Oid database);	/* it was dropped, or the extension in it */
extern int	gt_renewals_count(Oid database);	/* that keep a lease of it alive now */
/* Of the whole cluster: entries that there is room for, those in use, and when one was missed last (0: never). */
extern void gt_renewals_state(int *room, int *used, TimestampTz *missed_at);

#endif
