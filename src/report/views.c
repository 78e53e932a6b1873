/*-------------------------------------------------------------------------
 *
 * views.c
 *	  The functions behind the views: who runs what, who may see what.
 *
 * Any role's session runs these, as itself: a view reads the tables as the
 * extension's owner, but its functions see current_user.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/text.h"
#include "handler/use.h"
#include "report/overdue.h"
#include "rights/may.h"
#include "shared/shmem.h"

PG_FUNCTION_INFO_V1(gt__workers);
PG_FUNCTION_INFO_V1(gt__running_items);
PG_FUNCTION_INFO_V1(gt__handler_may);
PG_FUNCTION_INFO_V1(gt__handler_suspended);

static const char *const state_names[] = {"free", "starting", "idle", "expiring", "cleaning"};

/* A name of another database, which may be in another encoding. */
static const char *
legible(const char *name)
{
	return pg_verify_mbstr(GetDatabaseEncoding(), name, strlen(name), true) ? name : gt_in_ascii(name);
}

static void
put_worker(ReturnSetInfo *rsinfo, pid_t pid, const char *role, Oid database, const char *state,
		   const char *handler, TimestampTz since, TimestampTz next_due, int crashes)
{
	char	   *name = OidIsValid(database) ? get_database_name(database) : NULL;
	Datum		v[8];
	bool		nulls[8];
	NameData	namedata;

	memset(nulls, 0, sizeof(nulls));
	v[0] = Int32GetDatum(pid);
	v[1] = CStringGetTextDatum(role);
	nulls[2] = (name == NULL);
	if (name != NULL)
	{
		namestrcpy(&namedata, name);
		v[2] = NameGetDatum(&namedata);
	}
	v[3] = CStringGetTextDatum(state);
	nulls[4] = (handler == NULL || handler[0] == '\0');
	if (!nulls[4])
		v[4] = CStringGetTextDatum(legible(handler));
	nulls[5] = (since == 0);
	v[5] = TimestampTzGetDatum(since);
	nulls[6] = (next_due == GT_NEVER);
	v[6] = TimestampTzGetDatum(next_due);
	v[7] = Int32GetDatum(crashes);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
}

/* Behind the view gt_workers: the processes of the whole cluster. */
Datum
gt__workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz next_due = GT_NEVER;
	GtSlot	   *slots;
	pid_t		launcher;
	int			i;

	gt_check_monitor("gt_workers");
	InitMaterializedSRF(fcinfo, 0);
	slots = palloc(sizeof(gt_shared->slots));
	LWLockAcquire(gt_shared->lock, LW_SHARED);
	memcpy(slots, gt_shared->slots, sizeof(gt_shared->slots));
	launcher = gt_shared->launcher_procno >= 0 ? gt_shared->launcher_pid : 0;
	LWLockRelease(gt_shared->lock);

	for (i = 0; i < GT_MAX_DATABASES; i++)
		if (OidIsValid(gt_shared->databases[i].oid))
			next_due = Min(next_due, (TimestampTz) pg_atomic_read_u64(&gt_shared->databases[i].next_due));
	if (launcher != 0)
		put_worker(rsinfo, launcher, "launcher", InvalidOid, "waiting", NULL, 0, next_due, 0);
	for (i = 0; i < GT_MAX_WORKERS; i++)
	{
		GtSlot	   *slot = &slots[i];
		GtDatabase *db;

		if (slot->state == GT_SLOT_FREE || slot->pid == 0)
			continue;
		db = gt_database(slot->database, false);
		put_worker(rsinfo, slot->pid, "worker", slot->database, state_names[slot->state],
				   slot->handler != 0 ? slot->handler_name : NULL, slot->since,
				   db != NULL ? (TimestampTz) pg_atomic_read_u64(&db->next_due) : GT_NEVER, slot->crashes);
	}
	return (Datum) 0;
}

/* Cleanup ids of garbage of this database that is being run now. */
Datum
gt__running_items(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64	   *items;
	int			n;
	int			i;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (gt_shared == NULL)
		return (Datum) 0;
	n = gt_running_items(&items);
	for (i = 0; i < n; i++)
	{
		Datum		v = Int64GetDatum(items[i]);
		bool		null = false;

		if (i == 0 || items[i] != items[i - 1])
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &v, &null);
	}
	return (Datum) 0;
}

/* May the caller use, or claim, this handler? false: there is none. */
Datum
gt__handler_may(PG_FUNCTION_ARGS)
{
	GtHandler	h;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || !gt_handler_by_id(PG_GETARG_INT32(0), &h))
		PG_RETURN_BOOL(false);
	if (strcmp(text_to_cstring(PG_GETARG_TEXT_PP(1)), "use") == 0)
		PG_RETURN_BOOL(gt_handler_may_use(&h));
	PG_RETURN_BOOL(gt_handler_may_claim(&h));
}

/* Why this handler is suspended; NULL: it is not, or the caller may not know of it. */
Datum
gt__handler_suspended(PG_FUNCTION_ARGS)
{
	GtHandler	h;
	const char *why;

	if (PG_ARGISNULL(0) || !gt_handler_by_id(PG_GETARG_INT32(0), &h) ||
		!(gt_handler_may_use(&h) || gt_handler_may_claim(&h) || gt_is_monitor()))
		PG_RETURN_NULL();
	why = gt_handler_suspended(&h);
	if (why == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(why));
}
