/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  The end of a transaction, and subtransactions that catch errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TRANSACTION_H
#define GT_TRANSACTION_H

#include "access/xact.h"

/*
 * Who has to do something at the end of a transaction, in the order in which
 * they are called.  Before the commit only GT_AT_END_CREATED does anything (and
 * GT_AT_END_START of an adopted copy), before PREPARE TRANSACTION only
 * GT_AT_END_WRITING and GT_AT_END_ADOPTED, which refuses it.  Whoever wakes others
 * comes last: they find all else done.
 */
typedef enum
{
	GT_AT_END_EPOCH,			/* what was remembered of it is worth nothing any more */
	GT_AT_END_CREATED,			/* created.c: leases start their life at the commit */
	GT_AT_END_WRITING,			/* writing.c: what is prepared is known by a lock */
	GT_AT_END_START,			/* start.c: this server run is recorded */
	GT_AT_END_CLAIMS,			/* claim.c: starts that were reserved are made, or given back */
	GT_AT_END_COUNTS,			/* counts.c: what is counted */
	GT_AT_END_QUOTA,			/* quota.c: how many leases whose number is limited */
	GT_AT_END_RENEWALS,			/* renewals.c: what it has of leases that have ended */
	GT_AT_END_ROWS,				/* rows_due.c: when rows are due */
	GT_AT_END_ADOPTED,			/* adopt.c: a copy has become an original */
	GT_AT_END_DUE,				/* due.c: who sleeps is told what is due */
	GT_AT_END_KINDS
} GtAtEnd;

/* From now on these are called for it; to call this again changes nothing. of_subtransaction: or NULL. */
extern void gt_at_end(GtAtEnd who, XactCallback of_transaction, SubXactCallback of_subtransaction);

/*
 * What a transaction notes, in TopTransactionContext: room for more of it, where there is no more; NULL: it has
 * noted nothing yet.  *room is changed last: after an error there is as much as before.
 */
extern void *gt_more_notes(void *notes, int *room, Size size);

/*
 * Changes whenever something that this transaction has read or written may be
 * undone: with its end, and with the abort of any subtransaction.  What a
 * process remembers of its transaction is good as long as this is the same.
 */
extern uint64 gt_epoch(void);
/* Runs the body in a subtransaction. What it raises is returned, but for a cancellation, which goes on; NULL: nothing. */
extern ErrorData *gt_try(void (*body) (void *arg), void *arg);

#endif
