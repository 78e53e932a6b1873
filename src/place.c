/*-------------------------------------------------------------------------
 *
 * place.c
 *	  Where this database lives: copies do nothing (invariant I9).
 *
 * gt__place has a row that names the cluster (garbagetruck.identity, else the
 * system identifier) and the database (its OID) in which the objects live.
 * Whoever finds objects and a row that names another place is in a copy: nothing
 * is ended, cleaned or claimed until gt_resume(adopt => true) writes a new row.
 * Without objects nothing can be harmed, and the first create writes the row.  A
 * worker never does: pg_restore loads the rows of gt__place before the objects.
 *
 * A cluster that came up by archive recovery without being a standby has the
 * same names as the original.  Two things tell, and a place that was written
 * before has not both of them in `restored`.  The postmaster, if the library is
 * loaded there, sees recovery.signal when it starts, draws a number and keeps it
 * in the file garbagetruck.restored.  And the server writes into the history of
 * its timelines where it left the one before and why: if a recovery target was
 * reached, that is what nobody but a restore does.  Without a target, to the end
 * of the archive, the same is written as by the promotion of a standby, and no
 * other trace is left: such a restore is seen only by a library that was loaded.
 *
 * Sessions and workers run this, in their own transactions; the row is locked
 * only by who writes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_subscription_rel.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "garbagetruck.h"

#define RESTORED_FILE	"garbagetruck.restored"
#define NO_TARGET		"no recovery target"	/* so begins the reason where there was none */

/* what this transaction found */
static bool known = false;
static GtPlace known_place;
static char known_why[512];

static bool adopting = false;	/* this transaction has made a copy an original */
static Oid	stamped = InvalidOid;	/* gt__place of the database that is known to be stamped */

/* ---------------------------------------------------------------- archive recovery */

static int64
read_restored(void)
{
	FILE	   *file = AllocateFile(RESTORED_FILE, "r");
	long long	token = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%lld", &token) != 1)
		token = 0;
	FreeFile(file);
	return token;
}

/* Postmaster: is this the start of an archive recovery that is no standby's? Then it gets a number. */
int64
gt_note_restore(void)
{
	struct stat st;
	int64		token;
	FILE	   *file;

	if (stat("recovery.signal", &st) != 0 || stat("standby.signal", &st) == 0)
		return read_restored();
	if (!pg_strong_random(&token, sizeof(token)))
		token = GetCurrentTimestamp();
	token = (token & PG_INT64_MAX) | 1;
	file = AllocateFile(RESTORED_FILE ".tmp", "w");
	if (file == NULL || fprintf(file, INT64_FORMAT "\n", token) < 0 || FreeFile(file) != 0 ||
		durable_rename(RESTORED_FILE ".tmp", RESTORED_FILE, LOG) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", RESTORED_FILE)));
	return token;
}

/* Appends where the last timeline that was left for a recovery target ended; nothing if there is none. */
static void
append_target(StringInfo name)
{
	char		path[MAXPGPATH];
	char		line[MAXPGPATH];
	char		last[64] = "";
	FILE	   *file;

	TLHistoryFilePath(path, GetWALInsertionTimeLine());
	file = AllocateFile(path, "r");
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		uint32		timeline;
		uint32		high;
		uint32		low;
		int			reason = 0;

		if (sscanf(line, "%u\t%X/%X\t%n", &timeline, &high, &low, &reason) == 3 && reason > 0 &&
			strncmp(line + reason, NO_TARGET, strlen(NO_TARGET)) != 0)
			snprintf(last, sizeof(last), " %u@%X/%X", timeline, high, low);
	}
	FreeFile(file);
	appendStringInfoString(name, last);
}

/* What gt__place.restored must say; empty: nothing was restored. */
static const char *
restored_name(void)
{
	static char result[128];
	static bool is_final = false;
	StringInfoData name;
	int64		token;

	if (is_final)
		return result;
	is_final = !RecoveryInProgress();
	token = gt_shared != NULL ? gt_shared->restored : read_restored();
	initStringInfo(&name);
	if (token != 0)
		appendStringInfo(&name, INT64_FORMAT, token);
	if (is_final)
		append_target(&name);
	strlcpy(result, name.data, sizeof(result));
	pfree(name.data);
	return result;
}

/* ---------------------------------------------------------------- the place */

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	GtDatabase *db;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	known = false;
	if (adopting && event == XACT_EVENT_COMMIT && (db = gt_my_database()) != NULL)
	{
		LWLockAcquire(gt_shared->lock, LW_EXCLUSIVE);
		db->place = GT_PLACE_OURS;
		db->retry_at = 0;
		db->warned = false;
		LWLockRelease(gt_shared->lock);
		gt_due_at(db, gt_now());
	}
	adopting = false;
}

static void
want_callback(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(at_end_of_transaction, NULL);
	registered = true;
}

/* The name of this cluster; palloc'd. */
static char *
identity(void)
{
	if (gt_identity != NULL && gt_identity[0] != '\0')
		return pstrdup(gt_identity);
	return psprintf(UINT64_FORMAT, GetSystemIdentifier());
}

static bool
has_objects(void)
{
	GtTable		objects;
	GtRow		row;
	bool		found;

	gt_open(&objects, GT_OBJECT, AccessShareLock);
	found = gt_fetch_any(&objects, &row);
	gt_close(&objects);
	return found;
}

/* Does a subscription write our tables? */
static bool
is_subscribed(void)
{
	static const GtTableId tables[] = {GT_OBJECT, GT_LEASE};
	Relation	rel;
	bool		found = false;
	int			i;

	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	for (i = 0; i < (int) lengthof(tables) && !found; i++)
	{
		ScanKeyData key;
		SysScanDesc scan;

		ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(gt_relid(tables[i])));
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
	return found;
}

/* What is said against this row being ours; NULL: nothing. */
static char *
objection(const GtRow *row)
{
	char	   *here = identity();
	char	   *there = TextDatumGetCString(row->v[PL_IDENTITY]);
	const char *restored = restored_name();

	if (strcmp(here, there) != 0 || GT_OID(row, PL_DATABASE) != MyDatabaseId)
		return psprintf("Its objects live in database %u of \"%s\", and this is database %u of \"%s\".",
						GT_OID(row, PL_DATABASE), there, MyDatabaseId, here);
	if (restored[0] != '\0' && (row->isnull[PL_RESTORED] ||
								strcmp(TextDatumGetCString(row->v[PL_RESTORED]), restored) != 0))
		return psprintf("The server came up by archive recovery: the original may still run as database %u of \"%s\".",
						MyDatabaseId, here);
	if (!GT_BOOL(row, PL_SUBSCRIBED) && is_subscribed())
		return psprintf("A subscription of database %u of \"%s\" replicates the objects of another one.",
						MyDatabaseId, here);
	return NULL;
}

/* Reads all rows of gt__place. Returns how many; *why: what is said against one of them, or NULL. */
static int
read_places(char **why, bool *committed)
{
	GtTable		places;
	TableScanDesc scan;
	GtRow		row;
	bool		isnull;
	int			n = 0;
	int			i;

	*why = NULL;
	*committed = true;
	gt_open(&places, GT__PLACE, AccessShareLock);
	PushActiveSnapshot(gt_newest_snapshot());
	scan = table_beginscan(places.rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, places.slot))
	{
		slot_getallattrs(places.slot);
		for (i = 0; i < PL_NATTS; i++)
		{
			row.v[i] = places.slot->tts_values[i];
			row.isnull[i] = places.slot->tts_isnull[i];
		}
		if (*why == NULL)
			*why = objection(&row);
		if (TransactionIdIsCurrentTransactionId(
				DatumGetTransactionId(slot_getsysattr(places.slot, MinTransactionIdAttributeNumber, &isnull))))
			*committed = false;
		n++;
	}
	table_endscan(scan);
	PopActiveSnapshot();
	gt_close(&places);
	return n;
}

/* See garbagetruck.h. One look in a transaction is enough. */
GtPlace
gt_place(char **why)
{
	char	   *objections;
	bool		committed;

	if (!known)
	{
		int			n = read_places(&objections, &committed);

		if (n == 0)
			objections = "Nothing tells where its objects live.";
		if (objections == NULL)
			known_place = GT_PLACE_OURS;
		else
			known_place = has_objects() ? GT_PLACE_COPY : GT_PLACE_NONE;
		strlcpy(known_why, objections != NULL ? objections : "", sizeof(known_why));
		stamped = known_place == GT_PLACE_OURS && committed ? gt_relid(GT__PLACE) : InvalidOid;
		want_callback();
		known = true;
	}
	if (why != NULL && known_place == GT_PLACE_COPY)
		*why = pstrdup(known_why);
	return known_place;
}

/* One row, which says that we live here. */
static void
stamp(bool adopted)
{
	GtTable		places;
	GtRow		row;
	const char *restored = restored_name();

	gt_open(&places, GT__PLACE, ShareRowExclusiveLock);
	while (gt_fetch_any(&places, &row) && gt_lock(&places, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&places, &row);
	gt_row_init(&row);
	GT_SET(&row, PL_IDENTITY, CStringGetTextDatum(identity()));
	GT_SET(&row, PL_DATABASE, ObjectIdGetDatum(MyDatabaseId));
	if (adopted)
		GT_SET(&row, PL_ADOPTED_AT, TimestampTzGetDatum(gt_now()));
	GT_SET(&row, PL_SUBSCRIBED, BoolGetDatum(is_subscribed()));
	GT_SET(&row, PL_ID, gt_random_id());
	if (restored[0] != '\0')
		GT_SET(&row, PL_RESTORED, CStringGetTextDatum(restored));
	gt_insert(&places, &row);
	gt_close(&places);
	known = false;
	stamped = InvalidOid;
}

/* See garbagetruck.h. */
void
gt_place_ensure(void)
{
	if (OidIsValid(stamped) && stamped == gt_relid(GT__PLACE))
		return;
	if (gt_place(NULL) == GT_PLACE_NONE)
		stamp(false);
}

/* Claims that were made at the original: their consumers know nothing of us. */
static void
end_claims(void)
{
	GtTable		objects;
	ListCell   *cell;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	foreach(cell, gt_handler_list())
	{
		GtHandler  *h = lfirst(cell);
		Datum		key = Int32GetDatum(h->id);
		GtScan	   *scan;
		GtRow		row;

		if (!GT_KIND_IS_CLAIMABLE(h->kind))
			continue;
		scan = gt_scan_begin(&objects, GT_OBJECT_DUE, 1, &key);
		while (gt_scan_next(scan, &row))
		{
			if (GT_CHAR(&row, O_STATE) != 'c' ||
				gt_lock(&objects, &row, LockTupleNoKeyExclusive, false) != GT_LOCKED ||
				GT_CHAR(&row, O_STATE) != 'c')
				continue;
			if (gt_garbage_lapsed(&objects, &row, h))
				gt_garbage_wait(&row, h, gt_now());
			GT_SET_NULL(&row, O_CLAIMED_UNTIL);
			GT_SET_NULL(&row, O_FLIGHT_UNTIL);
			GT_SET_NULL(&row, O_FLIGHT_BEFORE);
			gt_update(&objects, &row);
		}
		gt_scan_end(scan);
	}
	gt_close(&objects);
}

/* What was running at the original did not run here. */
static void
forget_runs(void)
{
	GtTable		runs;
	GtRow		row;
	GtScan	   *scan;

	gt_open(&runs, GT__RUN, RowExclusiveLock);
	scan = gt_scan_begin(&runs, GT__RUN_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
		if (gt_lock(&runs, &row, LockTupleExclusive, false) == GT_LOCKED)
			gt_delete(&runs, &row);
	gt_scan_end(scan);
	gt_close(&runs);
}

/* See garbagetruck.h. The caller has the rights. */
void
gt_place_adopt(void)
{
	gt_roles_translate();
	stamp(true);
	end_claims();
	forget_runs();
	gt_start_adopt();
	want_callback();
	adopting = true;
}
