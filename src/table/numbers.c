/*-------------------------------------------------------------------------
 *
 * numbers.c
 *	  Many numbers of a sequence at once.
 *
 * A pass over a thousand leases numbers as many objects, and nextval() looks into
 * the catalog and at the page of the sequence for each.  Here the row of the sequence is
 * moved on by all of them under one lock of that page: whoever draws afterwards,
 * here or by nextval(), gets greater ones.  It is logged as a whole each time, and says
 * that nothing is logged ahead, so that the next nextval() does that anew.
 *
 * Only of a sequence as our script makes them: somebody may have altered its step or its
 * bounds, and where generic records are checked none is made.  Then it is nextval().
 *
 * Locks: that of nextval(), to the end of the transaction, which ALTER SEQUENCE waits
 * for.  What a rollback or a crash leaves is a gap.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_sequence.h"
#include "commands/sequence.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "table/numbers.h"
#include "table/relations.h"
#include "table/table_internal.h"

#define FEW 2					/* that cost no more each by itself */

/* Goes it on by one, without an end? */
static bool
is_plain(Oid sequence)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	bool		plain = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_sequence form = (Form_pg_sequence) GETSTRUCT(tuple);

		plain = form->seqincrement == 1 && form->seqmax == PG_INT64_MAX && form->seqcache == 1;
		ReleaseSysCache(tuple);
	}
	return plain;
}

static Form_pg_sequence_data
sequence_in(Page page)
{
	ItemId		item = PageGetItemId(page, FirstOffsetNumber);

	return (Form_pg_sequence_data) ((char *) PageGetItem(page, item) + ((HeapTupleHeader) PageGetItem(page, item))->t_hoff);
}

/* The first of n in a row; 0: there are not so many left. */
static int64
draw(Oid sequence, int n)
{
	Relation	rel = relation_open(sequence, RowExclusiveLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	int64		first = 0;
	Form_pg_sequence_data data;

	(void) GetTopTransactionId();	/* so that the commit is flushed, and the record with it */
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	data = sequence_in(BufferGetPage(buffer));
	if (data->last_value < PG_INT64_MAX - n)
	{
		GenericXLogState *state = GenericXLogStart(rel);

		first = data->last_value + (data->is_called ? 1 : 0);
		data = sequence_in(GenericXLogRegisterBuffer(state, buffer, GENERIC_XLOG_FULL_IMAGE));
		data->last_value = first + n - 1;
		data->is_called = true;
		data->log_cnt = 0;
		(void) GenericXLogFinish(state);
	}
	UnlockReleaseBuffer(buffer);
	relation_close(rel, NoLock);
	return first;
}

void
gt_draw_numbers(GtSequenceId id, int64 *numbers, int n)
{
	Oid			sequence = gt_sequence(id);
	int64		first = n >= FEW && gt_may_log_pages() && is_plain(sequence) ? draw(sequence, n) : 0;
	int			i;

	for (i = 0; i < n; i++)
		numbers[i] = first > 0 ? first + i : nextval_internal(sequence, false);
}
