/*-------------------------------------------------------------------------
 *
 * translate.c
 *	  In a copy: other OIDs for the same roles.
 *
 * The session that adopts a copy runs this, or the first create of a role there
 * whose OID was another's where the rows come from.  All of it is one
 * transaction: a crash leaves the copy as it was.  Rows are locked as they are
 * come by; whoever has one locked is waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "rights/translate.h"
#include "shared/renewed.h"
#include "table/records.h"
#include "table/table.h"

/* a role that is named here, and the OID that its name has in this cluster */
typedef struct Moved
{
	Oid			old;			/* key of the hash */
	Oid			now;			/* InvalidOid: there is no such role */
	NameData	name;
} Moved;

/* where roles stand that are no part of a key */
typedef struct Place
{
	GtTableId	table;
	GtIndexId	index;
	int			columns[2];		/* -1: none */
	bool		suspend;		/* to nobody: a handler's role is not ours to choose */
} Place;

static const Place places[] = {
	{GT_OBJECT, GT_OBJECT_PKEY, {O_OWNER, -1}, false},
	{GT_LEASE, GT_LEASE_PKEY, {L_OWNER, -1}, false},
	{GT__HISTORY, GT__HISTORY_PKEY, {HISTORY_OWNER, -1}, false},
	{GT__HANDLER, GT__HANDLER_PKEY, {HANDLER_OWNER, HANDLER_RUN_AS}, true},
};

static HTAB *
hash_of_oids(Size entrysize)
{
	HASHCTL		info;

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = entrysize;
	info.hcxt = CurrentMemoryContext;
	return hash_create("garbagetruck roles", 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static Moved *
find_moved(HTAB *moved, Oid role)
{
	return hash_search(moved, &role, HASH_FIND, NULL);
}

/* Reads the names that a table has for roles; what it says last of a role counts, and what an earlier table said does not. */
static void
read_names(HTAB *roles, GtTableId table, GtIndexId index, int role_column, int name_column)
{
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, table, AccessShareLock);
	scan = gt_scan_begin(&t, index, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		Oid			role = GT_OID(&row, role_column);
		Moved	   *m = hash_search(roles, &role, HASH_ENTER, NULL);

		m->name = *DatumGetName(row.v[name_column]);
	}
	gt_scan_end(scan);
	gt_close(&t);
}

/* The roles that have another OID here, or none. */
static HTAB *
find_moved_roles(void)
{
	HTAB	   *roles = hash_of_oids(sizeof(Moved));
	HASH_SEQ_STATUS status;
	Moved	   *m;

	read_names(roles, GT__SHARE, GT__SHARE_PKEY, SHARE_ROLE, SHARE_ROLE_NAME);
	read_names(roles, GT__HANDLER_RIGHT, GT__HANDLER_RIGHT_PKEY, HANDLER_RIGHT_ROLE, HANDLER_RIGHT_ROLE_NAME);
	read_names(roles, GT__ROLE, GT__ROLE_PKEY, ROLE_ROLE, ROLE_NAME);	/* by id: the newest last */
	hash_seq_init(&status, roles);
	while ((m = hash_seq_search(&status)) != NULL)
	{
		m->now = get_role_oid(NameStr(m->name), true);
		if (m->now == m->old)
			(void) hash_search(roles, &m->old, HASH_REMOVE, NULL);
	}
	return roles;
}

/* What gt__role has of them. */
static void
forget_names(HTAB *moved)
{
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, GT__ROLE, RowExclusiveLock);
	scan = gt_scan_begin(&t, GT__ROLE_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
		if (find_moved(moved, GT_OID(&row, ROLE_ROLE)) != NULL &&
			gt_lock(&t, &row, LockTupleExclusive, false) == GT_LOCKED)
			gt_delete(&t, &row);
	gt_scan_end(scan);
	gt_close(&t);
}

/* In memory. Returns whether the row names a moved role. */
static bool
translate_row(HTAB *moved, const Place *place, GtRow *row)
{
	bool		changed = false;
	int			i;

	for (i = 0; i < (int) lengthof(place->columns); i++)
	{
		int			column = place->columns[i];
		Moved	   *m = column < 0 || row->isnull[column] ? NULL : find_moved(moved, GT_OID(row, column));

		if (m == NULL)
			continue;
		GT_SET(row, column, ObjectIdGetDatum(place->suspend ? InvalidOid : m->now));
		changed = true;
	}
	/* its key is one of the role that it had: two may have become nobody's */
	if (changed && place->table == GT_LEASE)
		GT_SET_NULL(row, L_REQUEST_KEY);
	return changed;
}

/* Translates the rows of a table. owners: who owns something then, if it is one of objects or leases. */
static void
translate_rows(HTAB *moved, const Place *place, HTAB *owners)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "garbagetruck rows", ALLOCSET_DEFAULT_SIZES);
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, place->table, RowExclusiveLock);
	scan = gt_scan_begin(&t, place->index, 0, NULL);
	while (MemoryContextSwitchTo(context), gt_scan_next(scan, &row))
	{
		GtRow		probe = row;
		Oid			owner;

		CHECK_FOR_INTERRUPTS();
		if (translate_row(moved, place, &probe) &&
			gt_lock(&t, &row, LockTupleExclusive, false) == GT_LOCKED &&
			translate_row(moved, place, &row))
		{
			if (place->table == GT_LEASE)
				(void) gt_renewal_changed(DatumGetUUIDP(row.v[L_ID]));
			MemoryContextSwitchTo(old); /* where the table keeps what it needs for writing */
			gt_update(&t, &row);
		}
		owner = GT_OID(&probe, place->columns[0]);
		if (place->table == GT_OBJECT || place->table == GT_LEASE)
			(void) hash_search(owners, &owner, HASH_ENTER, NULL);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	gt_scan_end(scan);
	gt_close(&t);
	MemoryContextDelete(context);
}

/*
 * The same for a table whose key the roles are part of: its rows are taken out
 * before any goes in again, since two roles may have changed places.  What is of
 * a role that is not here goes.
 */
static void
translate_keys(HTAB *moved, GtTableId table, GtIndexId index, int column, int other)
{
	List	   *rows = NIL;
	ListCell   *cell;
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, table, RowExclusiveLock);
	scan = gt_scan_begin(&t, index, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		Moved	   *m = find_moved(moved, GT_OID(&row, column));
		Moved	   *o = find_moved(moved, GT_OID(&row, other));

		if ((m == NULL && o == NULL) || gt_lock(&t, &row, LockTupleExclusive, false) != GT_LOCKED)
			continue;
		gt_delete(&t, &row);
		if (m != NULL)
			GT_SET(&row, column, ObjectIdGetDatum(m->now));
		if (o != NULL)
			GT_SET(&row, other, ObjectIdGetDatum(o->now));
		if (OidIsValid(GT_OID(&row, column)) && OidIsValid(GT_OID(&row, other)))
			rows = lappend(rows, memcpy(palloc(sizeof(row)), &row, sizeof(row)));
	}
	gt_scan_end(scan);
	foreach(cell, rows)
		(void) gt_insert_unique(&t, lfirst(cell), index);
	gt_close(&t);
}

/* The roles that own something here, as a list of OIDs. */
static List *
list_owners(HTAB *owners)
{
	List	   *result = NIL;
	HASH_SEQ_STATUS status;
	Oid		   *owner;

	hash_seq_init(&status, owners);
	while ((owner = hash_seq_search(&status)) != NULL)
		result = lappend_oid(result, *owner);
	return result;
}

List *
gt_translate_rows(void)
{
	HTAB	   *moved = find_moved_roles();
	HTAB	   *owners = hash_of_oids(sizeof(Oid));
	List	   *result;
	int			i;

	for (i = 0; i < (int) lengthof(places); i++)
		translate_rows(moved, &places[i], owners);
	translate_keys(moved, GT__SHARE, GT__SHARE_PKEY, SHARE_OWNER, SHARE_ROLE);
	translate_keys(moved, GT__HANDLER_RIGHT, GT__HANDLER_RIGHT_PKEY, HANDLER_RIGHT_ROLE, HANDLER_RIGHT_ROLE);
	forget_names(moved);
	result = list_owners(owners);
	hash_destroy(moved);
	hash_destroy(owners);
	return result;
}
