/*-------------------------------------------------------------------------
 *
 * place.c
 *	  Where this database lives: copies do nothing (promise I9).
 *
 * gt__place has a row that names the cluster (garbagetruck.identity, else the
 * system identifier) and the database (its OID) in which the objects live.
 * Whoever finds objects and a row that names another place is in a copy: nothing
 * is ended, cleaned or claimed until gt_resume(adopt => true) writes a new row.
 * Without objects nothing can be harmed, and the first create writes the row.  A
 * worker never does: pg_restore loads the rows of gt__place before the objects.
 * Several first creates may do so at once, and none waits for another: each
 * writes a row of its own, any that commits will do, and a row that does not fit
 * is named by the one that was written in its place.
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
 * Sessions and workers run this, in their own transactions; nothing is locked,
 * and a crash leaves what has committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "base/transaction.h"
#include "rights/place.h"
#include "shared/shmem.h"
#include "table/records.h"
#include "table/versions.h"

#define RESTORED_FILE	"garbagetruck.restored"
#define NO_TARGET		"no recovery target"	/* so begins the reason where there was none */

/* what this transaction found, good for as long as gt_epoch() is what it was, and gt__place: the extension can be made anew */
static uint64 known_at = 0;
static Oid	known_in;
static GtPlace known_place;
static char *known_why = NULL;

static Oid	stamped = InvalidOid;	/* gt__place of the database that is known to be stamped, by who has committed */

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

/* The name of this cluster; palloc'd. */
static char *
identity(void)
{
	if (gt_identity != NULL && gt_identity[0] != '\0')
		return pstrdup(gt_identity);
	return psprintf(UINT64_FORMAT, GetSystemIdentifier());
}

/* Leases make their objects anew where only those are missing, and no row of another database's is to be deleted either. */
static bool
has_objects(Snapshot snapshot)
{
	static const GtTableId tables[] = {GT_OBJECT, GT_LEASE, GT__TTL};
	bool		found = false;
	int			i;

	for (i = 0; i < (int) lengthof(tables) && !found; i++)
	{
		GtTable		t;
		GtRow	   *row;

		gt_open(&t, tables[i], AccessShareLock);
		found = gt_fetch_some(&t, snapshot, 1, &row) > 0;
		gt_close(&t);
	}
	return found;
}

/* Does a subscription write our tables? */
static bool
is_subscribed(void)
{
	static const GtTableId tables[] = {GT_OBJECT, GT_LEASE, GT__TTL};
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
	char	   *there = TextDatumGetCString(row->v[PLACE_IDENTITY]);
	const char *restored = restored_name();

	if (strcmp(here, there) != 0 || GT_OID(row, PLACE_DATABASE) != MyDatabaseId)
		return psprintf("Its objects live in database %u of \"%s\", and this is database %u of \"%s\".",
						GT_OID(row, PLACE_DATABASE), there, MyDatabaseId, here);
	if (restored[0] != '\0' && (row->isnull[PLACE_RESTORED] ||
								strcmp(TextDatumGetCString(row->v[PLACE_RESTORED]), restored) != 0))
		return psprintf("The server came up by archive recovery: the original may still run as database %u of \"%s\".",
						MyDatabaseId, here);
	if (!GT_BOOL(row, PLACE_SUBSCRIBED) && is_subscribed())
		return psprintf("A subscription of database %u of \"%s\" replicates the objects of another one.",
						MyDatabaseId, here);
	return NULL;
}

/* Is this row among those that the other one was written in place of? */
static bool
replaces(const GtRow *row, const GtRow *other)
{
	Datum	   *ids;
	int			n;
	int			i;

	if (row->isnull[PLACE_REPLACES])
		return false;
	deconstruct_array(DatumGetArrayTypeP(row->v[PLACE_REPLACES]), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &ids, NULL, &n);
	for (i = 0; i < n; i++)
		if (DatumGetInt64(ids[i]) == GT_INT64(other, PLACE_ID))
			return true;
	return false;
}

/*
 * What is said against this being the place of the objects; NULL: nothing.  A
 * row that a good one replaces says nothing any more: who wrote that could not
 * delete it, or has not committed yet that he did.
 */
static char *
objection_of(const GtRow *rows, int n)
{
	char	  **objections = palloc(Max(n, 1) * sizeof(char *));
	int			i;
	int			j;

	for (i = 0; i < n; i++)
		objections[i] = objection(&rows[i]);
	for (i = 0; i < n; i++)
	{
		bool		replaced = false;

		for (j = 0; j < n && objections[i] != NULL; j++)
			replaced = replaced || (objections[j] == NULL && replaces(&rows[j], &rows[i]));
		if (objections[i] != NULL && !replaced)
			return objections[i];
	}
	return n > 0 ? NULL : "Nothing tells where its objects live.";
}

static int
read_places(Snapshot snapshot, GtRow **rows)
{
	GtTable		places;
	int			n;

	gt_open(&places, GT__PLACE, AccessShareLock);
	n = gt_fetch_some(&places, snapshot, PG_INT32_MAX, rows);
	gt_close(&places);
	return n;
}

/* Has one of these been committed by somebody else? */
static bool
any_committed(const GtRow *rows, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		if (!TransactionIdIsCurrentTransactionId(rows[i].xmin))
			return true;
	return false;
}

/* Both tables are looked at with one snapshot: the first lease and the row that it writes here commit together. */
static void
look(void)
{
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	GtRow	   *rows;
	int			n = read_places(snapshot, &rows);
	char	   *why = objection_of(rows, n);

	if (why == NULL)
		known_place = GT_PLACE_OURS;
	else
		known_place = has_objects(snapshot) ? GT_PLACE_COPY : GT_PLACE_NONE;
	UnregisterSnapshot(snapshot);
	if (known_why != NULL)
		pfree(known_why);
	known_why = NULL;
	known_why = MemoryContextStrdup(TopMemoryContext, why != NULL ? why : "");
	stamped = why == NULL && any_committed(rows, n) ? gt_relid(GT__PLACE) : InvalidOid;
	known_at = gt_epoch();
	known_in = gt_relid(GT__PLACE);
}

/* One look in a transaction is enough, unless part of it is undone. */
GtPlace
gt_place(char **why)
{
	if (known_at != gt_epoch() || known_in != gt_relid(GT__PLACE))
		look();
	if (why != NULL && known_place == GT_PLACE_COPY)
		*why = pstrdup(known_why);
	return known_place;
}

/* The ids of these rows, as bigint[]. */
static Datum
ids_of(const GtRow *rows, int n)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	int			i;

	for (i = 0; i < n; i++)
		ids[i] = rows[i].v[PLACE_ID];
	return PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * Writes that we live here.  Nobody is waited for: others may do the same at
 * the same time, and any row of those that commit will do.  What was there goes,
 * or is replaced by what the new row says, should another be deleting it too and
 * roll back.
 */
void
gt_place_stamp(bool adopted)
{
	const char *restored = restored_name();
	Snapshot	snapshot = RegisterSnapshot(gt_newest_snapshot());
	GtTable		places;
	GtRow	   *old;
	GtRow		row;
	int			n = read_places(snapshot, &old);
	int			i;

	UnregisterSnapshot(snapshot);
	gt_open(&places, GT__PLACE, RowExclusiveLock);
	gt_row_init(&row);
	GT_SET(&row, PLACE_ID, gt_random_id());
	GT_SET(&row, PLACE_IDENTITY, CStringGetTextDatum(identity()));
	GT_SET(&row, PLACE_DATABASE, ObjectIdGetDatum(MyDatabaseId));
	if (adopted)
		GT_SET(&row, PLACE_ADOPTED_AT, TimestampTzGetDatum(gt_now()));
	GT_SET(&row, PLACE_SUBSCRIBED, BoolGetDatum(is_subscribed()));
	GT_SET(&row, PLACE_ID, gt_random_id());
	if (restored[0] != '\0')
		GT_SET(&row, PLACE_RESTORED, CStringGetTextDatum(restored));
	if (n > 0)
		GT_SET(&row, PLACE_REPLACES, ids_of(old, n));
	gt_insert(&places, &row);
	for (i = 0; i < n; i++)
		(void) gt_try_delete(&places, &old[i]);
	gt_close(&places);
	known_at = 0;
	stamped = InvalidOid;
}

void
gt_place_ensure(void)
{
	if (OidIsValid(stamped) && stamped == gt_relid(GT__PLACE))
		return;
	if (gt_place(NULL) == GT_PLACE_NONE)
		gt_place_stamp(false);
}
