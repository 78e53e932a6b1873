/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Some rows, locked, deleted and made garbage of in one subtransaction.
 *
 * The body of a run (run.c), as the table's owner: see ttl.c for the locks and their
 * order.  What is found of rows is kept in the caller's memory as it goes, the row in
 * question last: so that when something of it raises an error, the caller knows which
 * row is to blame, or of which rows one is.
 *
 * Fault points: rows_locked, rows_deleted, rows_made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/point.h"
#include "garbage/garbage.h"
#include "garbage/objects.h"
#include "handler/use.h"
#include "shared/clock.h"
#include "table/scan.h"
#include "table/versions.h"
#include "ttl/batch.h"
#include "ttl/delete.h"
#include "ttl/named.h"
#include "ttl/passed.h"
#include "ttl/wake.h"

#define MAX_BYTES	(16 * 1024 * 1024)	/* of payloads that are in memory at a time */
#define MAX_LAG		(10 * 365 * USECS_PER_DAY)

/* What one body knows. */
typedef struct Look
{
	GtBatch    *b;
	GtTarget	target;
	GtDeadlines *rows;
	GtTable		objects;
	TimestampTz bound;
	bool		ask;			/* there may be objects that stand for rows: each is asked for */
	bool		keyed;			/* any may have to be put aside: their keys are */
	bool		named;			/* ids are wanted, */
	bool		described;		/* and payloads */
	size_t		bytes;
	MemoryContext per_row;		/* of what it takes to see that it is to be left, */
	GtLeft		why;			/* and why the last one was */
} Look;

TimestampTz
gt_rows_bound(const GtTtl *ttl, TimestampTz not_before, TimestampTz *wait)
{
	TimestampTz now = gt_now();
	int64		grace = ttl->h.grace;

	*wait = grace > 0 && not_before != 0 && now < not_before + grace ? not_before + grace : 0;
	return now - grace;
}

int64
gt_row_lag(const GtTtl *ttl, const GtVictim *v, TimestampTz now)
{
	return v->deadline < now - MAX_LAG ? MAX_LAG : Max(now - v->deadline - ttl->h.grace, 0);
}

/* The handler that the rows are garbage of, held to the end of the transaction; false: that can not be. */
static bool
hold_cleaner(GtBatch *b)
{
	LOCKTAG		tag;
	GtHandler  *h;

	if (b->ttl->cleanup == 0)
		return true;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, gt_relid(GT__HANDLER), (uint32) b->ttl->cleanup, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		b->locked_out = true;
		return false;
	}
	h = MemoryContextAlloc(b->context, sizeof(GtHandler));
	if (!gt_handler_by_id(b->ttl->cleanup, h))
		b->why = "its handler is missing";
	else if (!gt_handler_may_use(h))
		b->why = MemoryContextStrdup(b->context, psprintf("role \"%s\" may not use handler \"%s\"",
														  GetUserNameFromId(GetUserId(), false), h->name));
	b->cleaner = h;
	return b->why == NULL;
}

/* Is there anything that may be named like a row? What somebody makes meanwhile is found when the garbage is made. */
static bool
may_have_objects(GtTable *objects, const GtTtl *ttl)
{
	Datum		type = CStringGetTextDatum(ttl->type);
	GtTable		leases;
	GtScan	   *scan;
	GtRow		row;
	bool		found;

	scan = gt_scan_begin(objects, GT_OBJECT_CLEANUP, 0, NULL);
	found = gt_scan_next_brief(scan, &row);
	gt_scan_end(scan);
	if (found)
		return true;
	gt_open(&leases, GT_LEASE, AccessShareLock);
	found = gt_is_there(&leases, GT_LEASE_OBJECT, 1, &type);
	gt_close(&leases);
	return found;
}

static Datum
keep_datum(GtBatch *b, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(b->context);

	if (value != (Datum) 0)
		value = datumCopy(value, false, -1);
	MemoryContextSwitchTo(old);
	return value;
}

static void
left(GtBatch *b, TimestampTz deadline)
{
	b->left_from = Min(b->left_from, deadline);
}

/* Has somebody a lease on the object of this name, or is about to? */
static bool
is_leased(Datum type, Datum id)
{
	Datum		key[2] = {type, id};
	GtTable		leases;
	bool		found;

	gt_open(&leases, GT_LEASE, AccessShareLock);
	found = gt_is_there(&leases, GT_LEASE_OBJECT, 2, key);
	gt_close(&leases);
	return found;
}

/* What is there by the name of a row? */
static GtLeft
standing_for(Look *look, const GtVictim *v)
{
	GtBatch    *b = look->b;
	Datum		key[2];
	GtRow		row;

	if (!look->ask || (b->id != NULL && strcmp(b->id, TextDatumGetCString(v->id)) == 0))
		return GT_NOT_LEFT;
	key[0] = v->id;
	key[1] = CStringGetTextDatum(b->ttl->type);
	if (!gt_fetch(&look->objects, GT_OBJECT_PKEY, 2, key, &row))
		return look->objects.met && gt_is_there(&look->objects, GT_OBJECT_PKEY, 2, key) ? GT_LEFT_WAITING : GT_NOT_LEFT;
	if (!row.isnull[O_HANDLER] && GT_INT32(&row, O_HANDLER) == b->ttl->id)
		return GT_LEFT_ASIDE;
	return GT_CHAR(&row, O_STATE) == GT_STATE_FORGOTTEN && !is_leased(key[1], key[0]) ? GT_NOT_LEFT : GT_LEFT_WAITING;
}

/* In the memory of the body. */
static Datum *
key_of(const GtLeaf *leaf, TupleTableSlot *row)
{
	Datum	   *key = palloc(leaf->nkeys * sizeof(Datum));
	int			i;

	for (i = 0; i < leaf->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(row->tts_tupleDescriptor, leaf->keys[i] - 1);
		bool		isnull;

		key[i] = datumCopy(slot_getattr(row, leaf->keys[i], &isnull), att->attbyval, att->attlen);
	}
	return key;
}

/* It is left, for this. */
static bool
leave(Look *look, int leaf, TupleTableSlot *row, GtLeft why)
{
	GtBatch    *b = look->b;

	look->why = why;
	b->waiting += why == GT_LEFT_WAITING;
	b->busy += why == GT_LEFT_BUSY;
	if (why != GT_LEFT_ASIDE)
		left(b, b->which == GT_BATCH_CHOOSE ? gt_deadline_by_index(look->rows, leaf) : gt_deadline_of(look->rows, leaf, row));
	return false;
}

/* Names it; false: an object of that name keeps it. There may be any number of those, of which nothing is kept. */
static bool
is_free(Look *look, int leaf, TupleTableSlot *row, GtVictim *v)
{
	MemoryContext old = MemoryContextSwitchTo(look->per_row);
	GtLeft		why = GT_NOT_LEFT;

	if (look->named)
	{
		v->id = keep_datum(look->b, gt_row_id(&look->target.leaves[leaf], row));
		why = standing_for(look, v);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(look->per_row);
	return why == GT_NOT_LEFT || leave(look, leaf, row, why);
}

/* Locks it and notes what is wanted of it; false: it is to be left. */
static bool
take(Look *look, int leaf, TupleTableSlot *row, GtVictim *v)
{
	GtBatch    *b = look->b;
	const GtLeaf *of = &look->target.leaves[leaf];

	look->why = GT_NOT_LEFT;
	/* first: should anything of it raise an error, it is known which row that is */
	if (!is_free(look, leaf, row, v))
		return false;
	if (look->keyed)
		v->payload = keep_datum(b, gt_row_key(of, row));
	v->deadline = gt_deadline_of(look->rows, leaf, row);
	if (v->deadline == GT_NEVER || v->deadline > look->bound)
		return false;
	if (gt_row_lock(look->rows, leaf, row) != GT_ROW_LOCKED)
		return leave(look, leaf, row, GT_LEFT_BUSY);
	if (b->verify)
		v->key = key_of(of, row);
	if (look->described)
	{
		Datum		metadata;

		v->payload = keep_datum(b, gt_row_payload(of, row, &metadata));
		v->metadata = keep_datum(b, metadata);
		look->bytes += VARSIZE_ANY(DatumGetPointer(v->payload));
	}
	return true;
}

/* The next victim, whatever becomes of it, is in its place. */
static GtVictim *
begin_victim(Look *look, int leaf, TupleTableSlot *row)
{
	GtBatch    *b = look->b;
	GtVictim   *v = &b->victims[b->n++];

	b->at = b->n - 1;
	memset(v, 0, sizeof(GtVictim));
	v->leaf = RelationGetRelid(look->target.leaves[leaf].rel);
	v->tid = row->tts_tid;
	return v;
}

/* It is none. */
static void
forget_victim(GtBatch *b)
{
	GtVictim   *v = &b->victims[--b->n];

	if (v->id != (Datum) 0)
		pfree(DatumGetPointer(v->id));
	if (v->payload != (Datum) 0)
		pfree(DatumGetPointer(v->payload));
	v->id = v->payload = (Datum) 0;
}

static void
choose(Look *look)
{
	GtBatch    *b = look->b;
	TupleTableSlot *row;
	int			leaf;

	b->n = 0;
	gt_passed_begin();
	gt_deadlines_scan(look->rows, b->low != 0 ? b->low : DT_NOBEGIN, look->bound);
	while (b->n < b->limit && look->bytes < MAX_BYTES && (row = gt_deadlines_next(look->rows, &leaf)) != NULL)
	{
		Relation	rel = look->target.leaves[leaf].rel;
		ItemPointerData tid = row->tts_tid;
		GtLeft		why = gt_passed_over(rel, &tid);

		if (why != GT_NOT_LEFT)
			(void) leave(look, leaf, row, why);
		else
		{
			if (!take(look, leaf, row, begin_victim(look, leaf, row)))
				forget_victim(b);
			gt_passed_note(rel, &tid, look->why);
		}
	}
	b->full = b->n == b->limit || look->bytes >= MAX_BYTES;
	if (!b->full)
	{
		TimestampTz first = gt_deadlines_after(look->rows, look->bound);

		b->next = first >= GT_NEVER - b->ttl->h.grace ? GT_NEVER : first + b->ttl->h.grace;
	}
}

/* What is left of these: they are at the beginning of the part then. */
static void
take_these(Look *look)
{
	GtBatch    *b = look->b;
	int			n = b->n;
	int			i;

	b->n = 0;
	for (i = 0; i < n; i++)
	{
		GtVictim	before = b->victims[i];
		TupleTableSlot *row = NULL;
		int			leaf;

		for (leaf = 0; leaf < look->target.nleaves; leaf++)
			if (RelationGetRelid(look->target.leaves[leaf].rel) == before.leaf)
				break;
		if (leaf < look->target.nleaves)
			row = gt_deadlines_fetch(look->rows, leaf, &before.tid);
		if (row != NULL && !take(look, leaf, row, begin_victim(look, leaf, row)))
			forget_victim(b);
	}
}

/* The values of the key that an object was put aside with. */
static int
read_key(Look *look, const char **names, Datum *values)
{
	GtLeaf	   *leaf = &look->target.leaves[0];
	Oid			types[2] = {JSONBOID, TEXTARRAYOID};
	Datum		columns[INDEX_MAX_KEYS];
	Datum		args[2];
	int			i;

	for (i = 0; i < leaf->nkeys; i++)
	{
		names[i] = NameStr(TupleDescAttr(RelationGetDescr(leaf->rel), leaf->keys[i] - 1)->attname);
		columns[i] = CStringGetTextDatum(names[i]);
	}
	args[0] = JsonbPGetDatum(look->b->key);
	args[1] = PointerGetDatum(construct_array(columns, leaf->nkeys, TEXTOID, -1, false, TYPALIGN_INT));
	/* of its other columns nothing is wanted: their types may have changed */
	if (SPI_execute_with_args(psprintf("SELECT r.* FROM (SELECT pg_catalog.jsonb_object_agg(key, value) AS key FROM pg_catalog.jsonb_each($1)"
									   " WHERE key OPERATOR(pg_catalog.=) ANY ($2)) k, pg_catalog.jsonb_populate_record(NULL::%s, k.key) r",
									   gt_ttl_type(RelationGetRelid(leaf->rel))),
							  2, types, args, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the key of a row");
	for (i = 0; i < leaf->nkeys; i++)
	{
		bool		isnull;

		values[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, SPI_fnumber(SPI_tuptable->tupdesc, names[i]), &isnull);
		if (isnull)
			return 0;
	}
	return leaf->nkeys;
}

static void
take_by_key(Look *look)
{
	GtBatch    *b = look->b;
	const char *names[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	TupleTableSlot *row;
	int			leaf;

	b->n = 0;
	if (look->target.nleaves == 0 || read_key(look, names, values) == 0)
		return;
	row = gt_deadlines_find(look->rows, names, values, &leaf);
	if (row != NULL && !take(look, leaf, row, begin_victim(look, leaf, row)))
		b->n--;
}

/* ---------------------------------------------------------------- what is done with them */

static void
make_garbage(Look *look)
{
	GtBatch    *b = look->b;
	TimestampTz due_at = gt_now() + b->cleaner->grace;
	int			i;

	for (i = 0; i < b->n; i++)
	{
		GtVictim   *v = &b->victims[i];
		GtBirth		birth = {CStringGetTextDatum(b->ttl->type), v->id, b->ttl->h.owner, b->cleaner->id, due_at,
		v->payload, v->metadata, NULL, 0, false};

		if (!gt_garbage_born(&look->objects, &birth))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("there is an object of that name since a moment ago")));
	}
	if (b->n > 0)
		gt_garbage_due(b->cleaner, due_at);
}

/* Locks them and finds out what is wanted. */
static void
look_at_rows(Look *look)
{
	GtBatch    *b = look->b;
	TimestampTz wait;
	int			level = 0;

	look->bound = gt_rows_bound(b->ttl, b->not_before, &wait);
	if (wait != 0)
	{
		b->n = 0;
		b->next = wait;
		return;
	}
	b->verify = !b->keep && gt_batch_has_triggers(&look->target);
	look->ask = may_have_objects(&look->objects, b->ttl);
	look->described = b->cleaner != NULL || b->keep || (b->by_row && (b->which == GT_BATCH_CHOOSE ? b->limit : b->n) == 1);
	look->keyed = b->by_row && (b->suspect || look->described);
	look->named = look->described || look->keyed || look->ask;
	if (look->named)
		level = gt_names_begin();
	look->per_row = AllocSetContextCreate(CurrentMemoryContext, "garbagetruck row", ALLOCSET_DEFAULT_SIZES);
	PushActiveSnapshot(GetLatestSnapshot());
	look->rows = gt_deadlines_begin(&look->target);
	if (b->which == GT_BATCH_CHOOSE)
		choose(look);
	else if (b->which == GT_BATCH_THESE)
		take_these(look);
	else
		take_by_key(look);
	b->at = -1;
	gt_deadlines_end(look->rows);
	PopActiveSnapshot();
	if (look->named)
		gt_names_end(level);
}

void
gt_batch_run(void *batch)
{
	GtBatch    *b = batch;
	const char *why;
	const char *remedy;
	Look		look;

	memset(&look, 0, sizeof(look));
	look.b = b;
	if (!gt_ttl_lock(b->ttl->relation, false, false))
		b->locked_out = true;
	if (b->locked_out || !hold_cleaner(b))
		return;
	if (!gt_target_open(&look.target, b->ttl->relation, b->ttl->expression, RowExclusiveLock, &why, &remedy))
	{
		b->locked_out = why == NULL;
		if (why != NULL)
			b->why = MemoryContextStrdup(b->context, why);
		return;
	}
	b->awake = gt_wake_is_set(look.target.rel);
	gt_open(&look.objects, GT_OBJECT, RowExclusiveLock);
	look_at_rows(&look);
	GT_POINT("rows_locked");
	if (b->n > 0 && !b->keep && !b->only_chosen)
	{
		gt_batch_delete(b, &look.target, look.bound);
		GT_POINT("rows_deleted");
		if (b->cleaner != NULL && b->which != GT_BATCH_BY_KEY)
			make_garbage(&look);	/* else its object is there already */
		GT_POINT("rows_made");
	}
	gt_close(&look.objects);
	gt_target_close(&look.target);
}
