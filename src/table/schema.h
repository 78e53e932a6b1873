/*-------------------------------------------------------------------------
 *
 * schema.h
 *	  Our tables, sequences and indexes, and the columns of objects and leases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_SCHEMA_H
#define GT_SCHEMA_H

typedef enum
{
	GT_OBJECT, GT_LEASE, GT__ORPHAN, GT__HANDLER, GT__HANDLER_RIGHT, GT__SHARE, GT__ROLE,
	GT__TALLY, GT__RUN, GT__START, GT__PLACE, GT__PAUSED, GT__HISTORY, GT_NTABLES
} GtTableId;

typedef enum
{
	GT__CLEANUP_ID, GT__HANDLER_ID, GT_NSEQUENCES
} GtSequenceId;

typedef enum
{
	GT_OBJECT_PKEY, GT_OBJECT_DUE, GT_OBJECT_CLEANUP, GT_OBJECT_DEAD,
	GT_LEASE_PKEY, GT_LEASE_CHECK, GT_LEASE_OBJECT, GT_LEASE_SERVICE, GT_LEASE_PARENT, GT_LEASE_REQUEST,
	GT__ORPHAN_PKEY, GT__ORPHAN_DUE, GT__HANDLER_PKEY, GT__HANDLER_NAME, GT__HANDLER_RIGHT_PKEY, GT__SHARE_PKEY,
	GT__ROLE_PKEY, GT__TALLY_PKEY, GT__RUN_PKEY, GT__HISTORY_PKEY, GT_NINDEXES
} GtIndexId;

/* attribute numbers, 0-based, in the order of garbagetruck--1.0.sql */
enum
{
	O_OBJECT_TYPE, O_OBJECT_ID, O_OWNER, O_LEASES, O_FENCE, O_STATE, O_KEEP, O_ALONE, O_EVICTED, O_HANDLER,
	O_SPEC_LEASE, O_REGRANT_AT, O_CLEANUP_ID, O_DUE_AT, O_SINCE, O_ATTEMPTS, O_MAX_ATTEMPTS, O_RETRY_DELAY,
	O_EXTRA_ATTEMPTS, O_LEASE_ID, O_SERVICE_ID, O_PAYLOAD, O_METADATA, O_CLAIMED_UNTIL, O_FLIGHT_UNTIL,
	O_SENDS, O_ERROR, O_FLIGHT_BEFORE, O_STEPS, O_TIMED_AT, O_CONFLICTS, O_CALLER, O_NATTS
};

enum
{
	L_ID, L_OBJECT_TYPE, L_OBJECT_ID, L_OWNER, L_SERVICE_ID, L_CREATED_AT, L_RENEWED_AT, L_DEADLINE, L_CHECK_AT,
	L_DURATION, L_RUN, L_RENEWALS, L_FENCE, L_EXCLUSIVE, L_ATTEMPTS, L_PARENT, L_HANDLER, L_MAX_ATTEMPTS,
	L_RETRY_DELAY, L_REQUEST_KEY, L_PAYLOAD, L_METADATA, L_REQUEST_SERVICE, L_REGRANT_DELAY, L_NATTS
};

/* state of an object, see garbagetruck--1.0.sql */
typedef enum
{
	GT_STATE_HELD = 'h',
	GT_STATE_WAITING = 'w',
	GT_STATE_CLAIMED = 'c',
	GT_STATE_DEAD = 'd',
	GT_STATE_FORGOTTEN = 'f'	/* but for regrant_at */
} GtObjectState;

extern Oid	gt_relid(GtTableId id);

#endif
