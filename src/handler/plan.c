/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  The commands of SQL handlers: prepared, and given their parameters.
 *
 * Workers and gt_reclaim() run this, always as the handler's role; it owns no
 * table.  Plans are kept for the session, one per handler, until the handler's row
 * changes or goes, something that its command uses changes (then the types of its
 * parameters may have, too: command.c), or too many others have been used since:
 * they take many times the memory of their commands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "handler/command.h"
#include "handler/plan.h"
#include "handler/run.h"
#include "shared/clock.h"

#define MAX_PLANS		64		/* that are kept, */
#define MAX_PLAN_BYTES	(512 * 1024)	/* of so much text of commands in all */

/* How a value of a natural type becomes one of the type that the statement wants. */
typedef struct Conversion
{
	Oid			type;			/* wanted */
	bool		needed;			/* else the value is passed as it is */
	bool		snapshot;		/* its input function may be anybody's, and read tables */
	FmgrInfo	out;
	FmgrInfo	in;
	Oid			in_param;
} Conversion;

/* A prepared command, in its place of the table. */
struct GtPlan
{
	int			id;				/* of the handler; 0: free */
	uint64		used;			/* grows with each use of any of them */
	size_t		bytes;			/* of its command */
	int			version;
	TransactionId xmin;
	SPIPlanPtr	plan;			/* NULL: not prepared */
	Conversion	conversion[GT_NPARAMS];	/* of kind sql */
	MemoryContext context;		/* of the conversions */
};

static GtPlan plans[MAX_PLANS];

/* ---------------------------------------------------------------- plans */

void
gt_plan_forget(GtPlan *plan)
{
	if (plan->plan != NULL)
		SPI_freeplan(plan->plan);
	plan->plan = NULL;
	if (plan->context != NULL)
		MemoryContextDelete(plan->context);
	plan->context = NULL;
}

static void
drop_plan(GtPlan *plan)
{
	gt_plan_forget(plan);
	memset(plan, 0, sizeof(GtPlan));
}

/* A free place with room for so much text; those that were not used for longest go. */
static GtPlan *
make_room(size_t bytes)
{
	for (;;)
	{
		GtPlan	   *unused = NULL;
		GtPlan	   *oldest = NULL;
		size_t		total = bytes;
		int			i;

		for (i = 0; i < MAX_PLANS; i++)
		{
			total += plans[i].bytes;
			if (plans[i].id == 0)
				unused = &plans[i];
			else if (oldest == NULL || plans[i].used < oldest->used)
				oldest = &plans[i];
		}
		if (oldest == NULL || (unused != NULL && total <= MAX_PLAN_BYTES))
			return unused;
		drop_plan(oldest);
	}
}

GtPlan *
gt_plan_find(const GtHandler *h)
{
	static uint64 uses = 0;
	GtPlan	   *plan = NULL;
	int			i;

	for (i = 0; i < MAX_PLANS && plan == NULL; i++)
		if (plans[i].id == h->id)
			plan = &plans[i];
	if (plan != NULL && (plan->version != h->version || !TransactionIdEquals(plan->xmin, h->xmin)))
	{
		drop_plan(plan);
		plan = NULL;
	}
	if (plan == NULL)
		plan = make_room(strlen(h->command));
	plan->id = h->id;
	plan->bytes = strlen(h->command);
	plan->version = h->version;
	plan->xmin = h->xmin;
	plan->used = ++uses;
	return plan;
}

void
gt_plans_keep(void)
{
	static TimestampTz looked_at = 0;
	TimestampTz now = gt_now();
	int			i;

	if (now < looked_at + USECS_PER_SEC)
		return;
	looked_at = now;
	for (i = 0; i < MAX_PLANS; i++)
	{
		GtHandler	h;

		if (plans[i].id != 0 && (!gt_handler_by_id(plans[i].id, &h) || h.version != plans[i].version ||
								 !TransactionIdEquals(h.xmin, plans[i].xmin)))
			drop_plan(&plans[i]);
	}
}

static void
prepare_conversions(GtPlan *plan, const Oid *types)
{
	int			i;

	plan->context = AllocSetContextCreate(CacheMemoryContext, "garbagetruck conversions", ALLOCSET_SMALL_SIZES);
	for (i = 0; i < GT_NPARAMS; i++)
	{
		Conversion *c = &plan->conversion[i];
		Oid			function;
		bool		is_varlena;

		c->type = types[i];
		c->needed = types[i] != gt_natural_types[i];
		c->snapshot = types[i] >= FirstNormalObjectId;
		if (!c->needed)
			continue;
		getTypeOutputInfo(gt_natural_types[i], &function, &is_varlena);
		fmgr_info_cxt(function, &c->out, plan->context);
		getTypeInputInfo(types[i], &function, &c->in_param);
		fmgr_info_cxt(function, &c->in, plan->context);
	}
}

/* In the run's subtransaction, connected to the SPI. */
void
gt_plan_prepare(GtPlan *plan, const GtHandler *h)
{
	Oid			types[GT_NPARAMS];

	/* what it uses has changed: its parameters may be of other types now */
	AcceptInvalidationMessages();
	if (plan->plan != NULL && SPI_plan_is_valid(plan->plan))
		return;
	gt_plan_forget(plan);
	PushActiveSnapshot(GetTransactionSnapshot());
	gt_command_types(h, types);
	prepare_conversions(plan, types);
	plan->plan = SPI_prepare(h->command, GT_NPARAMS, types);
	if (plan->plan == NULL)
		elog(ERROR, "could not prepare the command of handler \"%s\": %s", h->name,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan->plan) != 0)
		elog(ERROR, "could not keep the plan of handler \"%s\"", h->name);
	PopActiveSnapshot();
}

/* ---------------------------------------------------------------- parameters */

/* $1 to $9 of one item, in their natural types, each so many places behind the one before. */
static void
natural_values(const GtItem *item, Datum *values, bool *isnull, int step)
{
	static const int attributes[7] = {
		O_OBJECT_ID, O_OBJECT_TYPE, O_PAYLOAD, O_METADATA, O_LEASE_ID, O_SERVICE_ID, O_FENCE
	};
	int			i;

	for (i = 0; i < 7; i++)
	{
		values[i * step] = item->row.v[attributes[i]];
		isnull[i * step] = item->row.isnull[attributes[i]];
	}
	values[7 * step] = Int32GetDatum(item->attempt);
	values[8 * step] = Int64GetDatum(item->cleanup_id);
	isnull[7 * step] = isnull[8 * step] = false;
}

static ParamListInfo
params_of_item(GtPlan *plan, const GtItem *item)
{
	ParamListInfo params = makeParamList(GT_NPARAMS);
	Datum		values[GT_NPARAMS];
	bool		isnull[GT_NPARAMS];
	int			i;

	natural_values(item, values, isnull, 1);
	for (i = 0; i < GT_NPARAMS; i++)
	{
		Conversion *c = &plan->conversion[i];
		ParamExternData *param = &params->params[i];

		param->ptype = c->type;
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = isnull[i];
		param->value = values[i];
		if (!c->needed)
			continue;
		if (c->snapshot)
			PushActiveSnapshot(GetTransactionSnapshot());
		/* NULL too: a domain may not allow it */
		param->value = InputFunctionCall(&c->in, isnull[i] ? NULL : OutputFunctionCall(&c->out, values[i]),
										 c->in_param, -1);
		if (c->snapshot)
			PopActiveSnapshot();
	}
	return params;
}

/* The arrays, of those that the command names: nobody sees the others. */
static ParamListInfo
params_of_set(const GtHandler *h, const GtItem *items, int n)
{
	ParamListInfo params = makeParamList(GT_NPARAMS);
	uint32		mentions = gt_command_mentions(h->command);
	Datum	   *values = palloc(GT_NPARAMS * n * sizeof(Datum));
	bool	   *isnull = palloc(GT_NPARAMS * n * sizeof(bool));
	int			lower = 1;
	int			i;
	int			p;

	for (i = 0; i < n; i++)
		natural_values(&items[i], &values[i], &isnull[i], n);
	for (p = 0; p < GT_NPARAMS; p++)
	{
		ParamExternData *param = &params->params[p];
		int16		length;
		bool		by_value;
		char		align;

		param->ptype = gt_batch_types[p];
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = (mentions & GT_MENTIONS(p + 1)) == 0;
		if (param->isnull)
			continue;
		get_typlenbyvalalign(gt_natural_types[p], &length, &by_value, &align);
		param->value = PointerGetDatum(construct_md_array(&values[p * n], &isnull[p * n], 1, &n, &lower,
														  gt_natural_types[p], length, by_value, align));
	}
	return params;
}

ParamListInfo
gt_plan_params(GtPlan *plan, const GtHandler *h, const GtItem *items, int n)
{
	return h->kind == GT_KIND_SQL_BATCH ? params_of_set(h, items, n) : params_of_item(plan, items);
}

SPIPlanPtr
gt_plan_spi(GtPlan *plan)
{
	return plan->plan;
}
