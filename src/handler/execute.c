/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  The command of a handler is executed, and it is seen whether it affected anything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/guc.h"

#include "handler/execute.h"
#include "handler/plan.h"

/* Receives the rows of a statement that must affect something: does one say that it did? */
typedef struct Affected
{
	DestReceiver receiver;
	bool		any;
} Affected;

static bool
look_at_row(TupleTableSlot *slot, DestReceiver *self)
{
	Affected   *affected = (Affected *) self;
	TupleDesc	desc = slot->tts_tupleDescriptor;
	int			i;

	slot_getallattrs(slot);
	for (i = 0; i < desc->natts && !affected->any; i++)
		affected->any = !slot->tts_isnull[i] &&
			(desc->natts > 1 || TupleDescAttr(desc, i)->atttypid != BOOLOID || DatumGetBool(slot->tts_values[i]));
	return true;
}

static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
end_rows(DestReceiver *self)
{
}

int64
gt_plan_execute(GtPlan *plan, ParamListInfo params, bool must_affect, bool *affected)
{
	Affected	seen = {{look_at_row, start_rows, end_rows, end_rows, DestTuplestore}, false};	/* DestNone is no SELECT to the SPI */
	SPIExecuteOptions options;
	int			rc;

	memset(&options, 0, sizeof(options));
	options.params = params;
	options.dest = must_affect ? &seen.receiver : None_Receiver;	/* else the rows of a SELECT are nobody's */
	rc = SPI_execute_plan_extended(gt_plan_spi(plan), &options);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not execute the command: %s", SPI_result_code_string(rc))));
	*affected = rc == SPI_OK_SELECT ? seen.any : SPI_processed > 0;
	return rc == SPI_OK_UTILITY || rc == SPI_OK_SELECT ? -1 : (int64) SPI_processed;
}
