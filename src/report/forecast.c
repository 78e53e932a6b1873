/*-------------------------------------------------------------------------
 *
 * forecast.c
 *	  gt_forecast(): which leases end within a while if nobody renews them.
 *
 * Sessions run this, on a standby too; nothing is written.  It reads the leases
 * that can end so soon, in the order in which the workers will look at them, and
 * their children; monitors are told of all, others of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/arguments.h"
#include "handler/handler.h"
#include "lease/deadline.h"
#include "rights/may.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "table/find.h"
#include "table/scan.h"

#define MANY			5000	/* parents, beyond which all leases are gone through */
#define MAX_HORIZON	(INT64CONST(100000) * 360 * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(gt_forecast);

/* One row of the answer. */
typedef struct Ending
{
	struct EndingKey
	{
		TimestampTz minute;
		int			handler;	/* 0: none */
		char		object_type[256];
	}			key;
	int64		leases;
} Ending;

typedef struct Forecast
{
	HTAB	   *endings;		/* of Ending */
	GtTable		leases;
	GtFinder   *children;		/* NULL: there are none */
	TimestampTz now;
	TimestampTz until;
	bool		all;			/* whoever's they are */
} Forecast;

static void
count_lease(HTAB *endings, const GtRow *lease, TimestampTz over_at)
{
	struct EndingKey key;
	Ending	   *ending;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.minute = over_at - over_at % USECS_PER_MINUTE;
	if (key.minute > over_at)
		key.minute -= USECS_PER_MINUTE;
	key.handler = lease->isnull[L_HANDLER] ? 0 : GT_INT32(lease, L_HANDLER);
	text_to_cstring_buffer(DatumGetTextPP(lease->v[L_OBJECT_TYPE]), key.object_type, sizeof(key.object_type));
	ending = hash_search(endings, &key, HASH_ENTER, &found);
	if (!found)
		ending->leases = 0;
	ending->leases++;
}

/* A lease and its children end at the same instant. */
static void
count_family(Forecast *f, const GtRow *lease, TimestampTz over_at)
{
	bool		untouched;
	MemoryContext child_context;
	MemoryContext old;
	GtScan	   *scan;
	GtRow		child;

	if (f->all || gt_acts_for(GT_OID(lease, L_OWNER)))
		count_lease(f->endings, lease, over_at);
	if (f->children == NULL || !gt_find(f->children, &lease->v[L_ID], &child, &untouched))
		return;
	scan = gt_scan_begin(&f->leases, GT_LEASE_PARENT, 1, &lease->v[L_ID]);
	child_context = AllocSetContextCreate(CurrentMemoryContext, "gt_forecast child", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(child_context);
	while (gt_scan_next(scan, &child))
	{
		CHECK_FOR_INTERRUPTS();
		if (f->all || gt_acts_for(GT_OID(&child, L_OWNER)))
			count_lease(f->endings, &child, over_at);
		MemoryContextReset(child_context);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
}

/* What a role has that can end until then. */
static void
count_role(Forecast *f, Oid owner)
{
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "gt_forecast", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Datum		key = ObjectIdGetDatum(owner);
	GtScan	   *scan;
	GtRow		lease;

	scan = gt_scan_begin_bound(&f->leases, GT_LEASE_CHECK, 1, &key, BTLessEqualStrategyNumber, TimestampTzGetDatum(f->until));
	old = MemoryContextSwitchTo(row_context);
	while (gt_scan_next(scan, &lease))
	{
		TimestampTz over_at = gt_effective_deadline(&lease);

		CHECK_FOR_INTERRUPTS();
		/* what is over and has not been ended yet ends now */
		if (over_at <= f->until)
			count_family(f, &lease, Max(over_at, f->now));
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
	MemoryContextDelete(row_context);
}

/* Most databases have no children at all, and else most leases have none. */
static bool
any_children(GtTable *leases)
{
	GtScan	   *scan = gt_scan_begin(leases, GT_LEASE_PARENT, 0, NULL);
	GtRow		child;
	bool		any = gt_scan_next(scan, &child);

	gt_scan_end(scan);
	return any;
}

/*
 * Leases of roles that the caller does not act for which have children, that may be the
 * caller's: he was a member of their role once.  NULL: those are many.
 */
static pg_uuid_t *
parents_of_others(GtTable *leases, int *n)
{
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "gt_forecast", ALLOCSET_DEFAULT_SIZES);
	pg_uuid_t  *found = palloc(MANY * sizeof(pg_uuid_t));
	MemoryContext old = MemoryContextSwitchTo(row_context);
	pg_uuid_t	last = {{0}};
	int			looked;

	*n = 0;
	for (looked = 0; looked < MANY; looked++)
	{
		GtScan	   *scan = gt_scan_begin_bound(leases, GT_LEASE_PARENT, 0, NULL, BTGreaterStrategyNumber, UUIDPGetDatum(&last));
		GtRow		row;
		bool		more = gt_scan_next(scan, &row);

		CHECK_FOR_INTERRUPTS();
		gt_scan_end(scan);
		if (!more)
			break;
		last = *DatumGetUUIDP(row.v[L_PARENT]);
		if (gt_fetch(leases, GT_LEASE_PKEY, 1, &row.v[L_PARENT], &row) && !gt_acts_for(GT_OID(&row, L_OWNER)))
			found[(*n)++] = last;
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_context);
	return looked < MANY ? found : NULL;
}

/* What the caller has that ends with leases of others. */
static void
count_with_others(Forecast *f, const pg_uuid_t *parents, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		Datum		id = UUIDPGetDatum(&parents[i]);
		TimestampTz over_at;
		GtRow		parent;

		if (gt_fetch(&f->leases, GT_LEASE_PKEY, 1, &id, &parent) &&
			(over_at = gt_effective_deadline(&parent)) <= f->until)
			count_family(f, &parent, Max(over_at, f->now));
	}
}

/* Monitors are told of all; of others' leases nobody else looks at more than those that have children. */
static void
count_all(Forecast *f)
{
	bool		any = any_children(&f->leases);
	pg_uuid_t  *parents = NULL;
	int			nparents = 0;
	GtKey	   *keys;
	int			n;
	int			i;

	f->children = any ? gt_finder_begin(&f->leases, GT_LEASE_PARENT, 1) : NULL;
	if (any && !f->all)
		parents = parents_of_others(&f->leases, &nparents);
	keys = gt_scan_keys(&f->leases, GT_LEASE_CHECK, &n);
	for (i = 0; i < n; i++)
		if (keys[i].first <= f->until && (f->all || (any && parents == NULL) || gt_acts_for(keys[i].key)))
			count_role(f, keys[i].key);
	count_with_others(f, parents, nparents);
	if (any)
		gt_finder_end(f->children);
}

static int
ending_order(const void *a, const void *b)
{
	const Ending *x = *(Ending *const *) a;
	const Ending *y = *(Ending *const *) b;

	if (x->key.minute != y->key.minute)
		return x->key.minute < y->key.minute ? -1 : 1;
	if (strcmp(x->key.object_type, y->key.object_type) != 0)
		return strcmp(x->key.object_type, y->key.object_type);
	return x->key.handler - y->key.handler;
}

/* Rows in the order of time. */
static void
put_all(ReturnSetInfo *rsinfo, HTAB *endings)
{
	Ending	  **sorted = palloc(Max(hash_get_num_entries(endings), 1) * sizeof(Ending *));
	Ending	   *ending;
	HASH_SEQ_STATUS status;
	int			n = 0;
	int			i;

	hash_seq_init(&status, endings);
	while ((ending = hash_seq_search(&status)) != NULL)
		sorted[n++] = ending;
	qsort(sorted, n, sizeof(Ending *), ending_order);
	for (i = 0; i < n; i++)
	{
		GtHandler	h;
		Datum		v[4];
		bool		nulls[4] = {false, false, false, false};

		v[0] = TimestampTzGetDatum(sorted[i]->key.minute);
		v[1] = CStringGetTextDatum(sorted[i]->key.object_type);
		nulls[2] = sorted[i]->key.handler == 0 || !gt_handler_by_id(sorted[i]->key.handler, &h);
		v[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(h.name);
		v[3] = Int64GetDatum(sorted[i]->leases);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
	}
}

Datum
gt_forecast(PG_FUNCTION_ARGS)
{
	Forecast	f = {.now = gt_now()};
	HASHCTL		info;
	int64		horizon;

	gt_must_be_allowed("gt_forecast");
	InitMaterializedSRF(fcinfo, 0);
	horizon = gt_interval_argument(fcinfo, 0, "horizon", 0, MAX_HORIZON, "between 0 and 100000 years");
	horizon = Min(horizon, 10 * 365 * USECS_PER_DAY);

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(struct EndingKey);
	info.entrysize = sizeof(Ending);
	info.hcxt = CurrentMemoryContext;
	f.endings = hash_create("gt_forecast", 256, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	f.until = f.now + horizon;
	f.all = gt_is_monitor();
	gt_open(&f.leases, GT_LEASE, AccessShareLock);
	count_all(&f);
	gt_close(&f.leases);
	put_all((ReturnSetInfo *) fcinfo->resultinfo, f.endings);
	return (Datum) 0;
}
