/*-------------------------------------------------------------------------
 *
 * quota.h
 *	  How many leases a role has for a service, where that is limited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_QUOTA_H
#define GT_QUOTA_H

#include "datatype/timestamp.h"

typedef struct GtQuotaKey
{
	Oid			database;
	Oid			owner;
	uint64		service;		/* hash of the name */
} GtQuotaKey;

/* What was asked for. */
typedef struct GtQuota
{
	GtQuotaKey	key;
	int64		n;				/* leases, with what this transaction has created and ended */
	TimestampTz since;			/* when it began to be counted, */
	TimestampTz made_at;		/* what there was then: 0: nothing, */
	int64		added;			/* and what had been added to it */
} GtQuota;

extern void gt_quota_init(void);	/* from _PG_init: its shared memory */
/* false: it is to be counted in the table, and gt_quota_counted() is told; `more`: there are more than that. */
extern bool gt_quota_known(GtQuota *quota, Oid owner, Datum service, int64 limit);
extern void gt_quota_counted(GtQuota *quota, int64 n, bool more);
/* The role has one more for the service, or one less, if this (sub)transaction commits. */
extern void gt_quota_note(Oid owner, Datum service, int n);
extern void gt_quota_forget(Oid database);	/* it was dropped, or the extension in it */

#endif
