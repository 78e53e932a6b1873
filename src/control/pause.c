/*-------------------------------------------------------------------------
 *
 * pause.c
 *	  gt_pause() and gt_resume(): of one handler, or of the whole database.
 *
 * Sessions run these in the caller's transaction: what they switch counts when that
 * commits.  One handler's row is locked; the whole database is paused by a row of
 * gt__paused, of which several may be written at once and one is enough.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/arguments.h"
#include "base/text.h"
#include "control/adopt.h"
#include "handler/use.h"
#include "rights/may.h"
#include "rights/place.h"
#include "rights/writing.h"
#include "shared/after_commit.h"
#include "table/records.h"
#include "table/versions.h"

PG_FUNCTION_INFO_V1(gt_pause);
PG_FUNCTION_INFO_V1(gt_resume);

/* The switch of one handler. Pausing what is paused keeps its reason. */
static void
switch_handler(const char *name, bool pause)
{
	GtTable		t;
	GtRow		row;
	GtHandler	h;

	gt_open(&t, GT__HANDLER, RowExclusiveLock);
	if (!gt_lock_handler(&t, name, LockTupleNoKeyExclusive, gt_must_claim_handler, pause ? "pause" : "resume",
						 &row, &h))
		gt_no_such_handler(name);
	if (h.paused != pause)
	{
		GT_SET(&row, HANDLER_PAUSED, BoolGetDatum(pause));
		if (pause)
			GT_SET(&row, HANDLER_PAUSED_REASON,
				   CStringGetTextDatum(psprintf("paused by %s", GetUserNameFromId(GetUserId(), false))));
		else
		{
			GT_SET_NULL(&row, HANDLER_PAUSED_REASON);
			GT_SET(&row, HANDLER_CRASHES, Int32GetDatum(0));
			GT_SET(&row, HANDLER_RESUMED_AT, TimestampTzGetDatum(gt_now()));
		}
		gt_update(&t, &row);
	}
	gt_close(&t);
}

static void
must_be_admin(const char *function)
{
	if (!gt_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s without a handler: \"%s\" is no administrator of garbagetruck",
						function, GetUserNameFromId(GetUserId(), false)),
				 errhint("Name a handler, or ask an administrator for gt_allow(role, 'admin').")));
}

/* Who else is about to pause it adds a row of his own; one of them is enough. */
static void
pause_database(void)
{
	Name		name = palloc0(sizeof(NameData));
	GtTable		t;
	GtRow		row;

	gt_open(&t, GT__PAUSED, RowExclusiveLock);
	if (!gt_fetch_any(&t, &row))
	{
		namestrcpy(name, GetUserNameFromId(GetUserId(), false));
		gt_row_init(&row);
		GT_SET(&row, PAUSED_AT, TimestampTzGetDatum(gt_now()));
		GT_SET(&row, PAUSED_ROLE, NameGetDatum(name));
		GT_SET(&row, PAUSED_ID, gt_random_id());
		gt_insert(&t, &row);
	}
	gt_close(&t);
}

/* Every handler starts slowly after a pause of the whole database, but for those that somebody is changing. */
static void
ramp_up(void)
{
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, GT__HANDLER, RowExclusiveLock);
	scan = gt_scan_begin(&t, GT__HANDLER_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		if (gt_lock(&t, &row, LockTupleNoKeyExclusive, true) != GT_LOCKED)
			continue;
		GT_SET(&row, HANDLER_RESUMED_AT, TimestampTzGetDatum(gt_now()));
		gt_update(&t, &row);
	}
	gt_scan_end(scan);
	gt_close(&t);
}

static void
resume_database(bool adopt)
{
	bool		was_paused = false;
	char	   *why = NULL;
	GtTable		t;
	GtRow		row;

	if (gt_place(&why) == GT_PLACE_COPY)
	{
		if (!adopt)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is a copy and stays paused"),
					 errdetail("%s", why),
					 errhint("If it shall act on its objects from here on: SELECT gt_resume(adopt => true);")));
		gt_place_adopt();
		was_paused = true;
	}
	gt_open(&t, GT__PAUSED, RowExclusiveLock);
	while (gt_fetch_any(&t, &row))
	{
		if (gt_lock(&t, &row, LockTupleExclusive, false) == GT_LOCKED)
			gt_delete(&t, &row);
		was_paused = true;
	}
	gt_close(&t);
	if (was_paused)
		ramp_up();
}

/* gt_pause(handler DEFAULT NULL) */
Datum
gt_pause(PG_FUNCTION_ARGS)
{
	gt_mark_write("gt_pause");
	if (!PG_ARGISNULL(0))
		switch_handler(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	else
	{
		must_be_admin("gt_pause");
		pause_database();
	}
	gt_due_after_commit(gt_now());
	PG_RETURN_VOID();
}

/* gt_resume(handler DEFAULT NULL, adopt DEFAULT false) */
Datum
gt_resume(PG_FUNCTION_ARGS)
{
	bool		adopt;

	gt_must_not_be_null(fcinfo, 1, "adopt");
	adopt = PG_GETARG_BOOL(1);
	gt_mark_write("gt_resume");
	if (!PG_ARGISNULL(0) && adopt)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("adopt concerns the whole database, not handler \"%s\"",
						gt_shown(text_to_cstring(PG_GETARG_TEXT_PP(0))))));
	if (!PG_ARGISNULL(0))
		switch_handler(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
	else
	{
		must_be_admin("gt_resume");
		resume_database(adopt);
	}
	gt_due_after_commit(gt_now());
	PG_RETURN_VOID();
}
