/*-------------------------------------------------------------------------
 *
 * named.c
 *	  What a row is called as an object, and what its handler is given.
 *
 * Run as the table's owner: the output functions and casts of types may be anybody's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/check.h"
#include "base/settings.h"
#include "base/text.h"
#include "handler/role.h"
#include "ttl/named.h"

#define MAX_OBJECT_ID	1024	/* bytes */

int
gt_names_begin(void)
{
	int			level = NewGUCNestLevel();

	gt_set_for_runs("DateStyle", "ISO, MDY");
	gt_set_for_runs("IntervalStyle", "postgres");
	gt_set_for_runs("TimeZone", "UTC");
	gt_set_for_runs("bytea_output", "hex");
	gt_set_for_runs("extra_float_digits", "1");
	return level;
}

void
gt_names_end(int level)
{
	AtEOXact_GUC(false, level);
}

/* to_jsonb(), which goes by the type of its argument. */
static Jsonb *
row_json(Oid type, Datum value)
{
	FuncExpr   *call = makeNode(FuncExpr);
	FmgrInfo	function;

	call->args = list_make1(makeNullConst(type, -1, InvalidOid));
	fmgr_info(F_TO_JSONB, &function);
	fmgr_info_set_expr((Node *) call, &function);
	return DatumGetJsonbP(FunctionCall1(&function, value));
}

/* The text of a value as JSON; NULL: it would be longer than `limit`. */
static char *
short_json_text(TupleTableSlot *row, AttrNumber column, Size limit)
{
	bool		isnull;
	Datum		value = slot_getattr(row, column, &isnull);
	Jsonb	   *json;

	if (isnull)
		return "null";
	json = row_json(TupleDescAttr(row->tts_tupleDescriptor, column - 1)->atttypid, value);
	return gt_json_length(json, limit) > limit ? NULL : JsonbToCString(NULL, &json->root, VARSIZE(json));
}

/* The same of a column of the key, of which an index sees to it that it is short. */
static char *
json_text(TupleTableSlot *row, AttrNumber column)
{
	return short_json_text(row, column, MaxAllocSize);
}

static char *
key_text(const GtLeaf *leaf, TupleTableSlot *row)
{
	StringInfoData text;
	int			i;

	if (leaf->nkeys == 1)
	{
		Oid			function;
		bool		is_varlena;
		bool		isnull;
		Datum		value = slot_getattr(row, leaf->keys[0], &isnull);

		getTypeOutputInfo(TupleDescAttr(row->tts_tupleDescriptor, leaf->keys[0] - 1)->atttypid, &function, &is_varlena);
		return OidOutputFunctionCall(function, value);
	}
	initStringInfo(&text);
	for (i = 0; i < leaf->nkeys; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "[", json_text(row, leaf->keys[i]));
	appendStringInfoChar(&text, ']');
	return text.data;
}

Datum
gt_row_id(const GtLeaf *leaf, TupleTableSlot *row)
{
	char	   *id = key_text(leaf, row);
	GtFail		f;

	if (!gt_check_name("object_id", id, MAX_OBJECT_ID, &f))
		id = psprintf("md5:%s", TextDatumGetCString(DirectFunctionCall1(md5_text, CStringGetTextDatum(id))));
	return CStringGetTextDatum(id);
}

static Datum
json_of(const char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

static void
append_column(StringInfo object, TupleTableSlot *row, AttrNumber column, const char *json)
{
	appendStringInfoString(object, object->len > 1 ? ", " : "");
	escape_json(object, NameStr(TupleDescAttr(row->tts_tupleDescriptor, column - 1)->attname));
	appendStringInfo(object, ": %s", json);
}

Datum
gt_row_key(const GtLeaf *leaf, TupleTableSlot *row)
{
	StringInfoData object;
	int			i;

	initStringInfo(&object);
	appendStringInfoChar(&object, '{');
	for (i = 0; i < leaf->nkeys; i++)
		append_column(&object, row, leaf->keys[i], json_text(row, leaf->keys[i]));
	appendStringInfoChar(&object, '}');
	return json_of(object.data);
}

static bool
is_key(const GtLeaf *leaf, AttrNumber column)
{
	int			i;

	for (i = 0; i < leaf->nkeys; i++)
		if (leaf->keys[i] == column)
			return true;
	return false;
}

/* Would it pass the limit alone, so that it need not be made into text? */
static bool
is_large(TupleTableSlot *row, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(row, column, &isnull);

	return !isnull && TupleDescAttr(row->tts_tupleDescriptor, column - 1)->attlen == -1 &&
		toast_raw_datum_size(value) > (Size) gt_max_payload + VARHDRSZ;
}

/* Column by column, the key first: what would pass the limit is left out. */
static Datum
truncated_payload(const GtLeaf *leaf, TupleTableSlot *row, Datum *metadata)
{
	TupleDesc	desc = row->tts_tupleDescriptor;
	StringInfoData object;
	StringInfoData names;
	int			pass;
	int			i;

	initStringInfo(&object);
	initStringInfo(&names);
	appendStringInfoChar(&object, '{');
	appendStringInfoString(&names, "{\"truncated\": [");
	for (pass = 0; pass < 2; pass++)
		for (i = 1; i <= desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i - 1);
			char	   *json;

			if (att->attisdropped || is_key(leaf, i) != (pass == 0))
				continue;
			json = is_large(row, i) ? NULL : pass == 0 ? json_text(row, i) : short_json_text(row, i, gt_max_payload);
			if (json != NULL && object.len + names.len + strlen(json) + NAMEDATALEN <= (Size) gt_max_payload)
				append_column(&object, row, i, json);
			else if (pass == 0)
				append_column(&object, row, i, json != NULL ? json : "null");	/* the row is found by it */
			else
			{
				appendStringInfoString(&names, names.data[names.len - 1] == '[' ? "" : ", ");
				escape_json(&names, NameStr(att->attname));
			}
		}
	appendStringInfoChar(&object, '}');
	appendStringInfoString(&names, "]}");
	*metadata = json_of(names.data);
	return json_of(object.data);
}

Datum
gt_row_payload(const GtLeaf *leaf, TupleTableSlot *row, Datum *metadata)
{
	bool		large = false;
	Jsonb	   *payload;
	int			i;

	*metadata = (Datum) 0;
	slot_getallattrs(row);
	for (i = 1; i <= row->tts_tupleDescriptor->natts; i++)
		large = large || (!TupleDescAttr(row->tts_tupleDescriptor, i - 1)->attisdropped && is_large(row, i));
	if (!large)
	{
		payload = row_json(leaf->rel->rd_rel->reltype, ExecFetchSlotHeapTupleDatum(row));
		if (gt_json_length(payload, gt_max_payload) <= (size_t) gt_max_payload)
			return JsonbPGetDatum(payload);
	}
	return truncated_payload(leaf, row, metadata);
}
