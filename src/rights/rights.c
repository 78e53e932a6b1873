/*-------------------------------------------------------------------------
 *
 * rights.c
 *	  Who may what: the questions that the rest asks, and gt_share.
 *
 * Every process that serves SQL runs this.  Our functions are not SECURITY
 * DEFINER: they ask here about the effective current_user, and only then
 * write our tables, which no role but the extension's owner can.
 *
 * Roles are remembered by OID.  In a copy of this database in another cluster
 * an OID may be somebody else's: gt__role keeps the name that each role had
 * when it first owned something, in a copy only a role of that name counts, and
 * gt_roles_translate() gives the rows the OIDs of this cluster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/arguments.h"
#include "base/caller.h"
#include "base/fail.h"
#include "base/text.h"
#include "rights/place.h"
#include "rights/rights.h"
#include "rights/roles.h"
#include "rights/translate.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "table/records.h"
#include "table/table.h"

PG_FUNCTION_INFO_V1(gt_share);
PG_FUNCTION_INFO_V1(gt_unshare);
PG_FUNCTION_INFO_V1(gt__acts_for);
PG_FUNCTION_INFO_V1(gt__role_name);

/* Roles whose rows mean them: their entry in gt__role has committed, and names them where that matters. */
static Oid	noted[32];
static int	n_noted = 0;
static Oid	noted_in;			/* the table: there may be another extension of our name by now */

/* ---------------------------------------------------------------- the questions of others */

/* Is the role with this OID called by this name? */
bool
gt_role_is_named(Oid role, const char *name)
{
	char	   *now = GetUserNameFromId(role, true);
	bool		same = now != NULL && strcmp(now, name) == 0;

	if (now != NULL)
		pfree(now);
	return same;
}

static void
forget_roles(Datum arg, int cacheid, uint32 hashvalue)
{
	n_noted = 0;
}

static bool
is_noted(Oid role)
{
	int			i;

	if (noted_in != gt_relid(GT__ROLE))
		n_noted = 0;
	for (i = 0; i < n_noted; i++)
		if (noted[i] == role)
			return true;
	return false;
}

static void
remember_role(Oid role)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(AUTHOID, forget_roles, (Datum) 0);
		registered = true;
	}
	if (is_noted(role))
		return;
	if (n_noted == (int) lengthof(noted))
		n_noted = 0;
	noted[n_noted++] = role;
	noted_in = gt_relid(GT__ROLE);
}

/*
 * The newest row of a role in gt__role; false: none.  *older: those that it is
 * in the place of, where that is not NULL.
 */
static bool
fetch_role(GtTable *t, Oid role, GtRow *row, List **older)
{
	Datum		key = ObjectIdGetDatum(role);
	GtScan	   *scan = gt_scan_begin(t, GT__ROLE_PKEY, 1, &key);
	bool		found = false;
	GtRow		next;

	while (gt_scan_next(scan, &next))
	{
		if (found && older != NULL)
			*older = lappend(*older, memcpy(palloc(sizeof(GtRow)), row, sizeof(GtRow)));
		*row = next;
		found = true;
	}
	gt_scan_end(scan);
	return found;
}

/* In a copy: is this role the one that owned the rows with its OID? */
static bool
is_the_same_here(Oid role)
{
	GtTable		t;
	GtRow		row;
	bool		found;

	gt_open(&t, GT__ROLE, AccessShareLock);
	found = fetch_role(&t, role, &row, NULL);
	gt_close(&t);
	return found && gt_role_is_named(role, NameStr(*DatumGetName(row.v[ROLE_NAME])));
}

bool
gt_acts_for(Oid role)
{
	Oid			user = GetUserId();

	if (!has_privs_of_role(user, role))
		return false;
	if (is_noted(role) || superuser_arg(user))
		return true;
	return gt_place(NULL) != GT_PLACE_COPY || is_the_same_here(role);
}

bool
gt_caller_covers(const char *service)
{
	size_t		len = strlen(gt_caller);

	return len == 0 || (strncmp(service, gt_caller, len) == 0 && (service[len] == '\0' || service[len] == '/'));
}

bool
gt_acts_for_object(const GtRow *object)
{
	if (!gt_acts_for(GT_OID(object, O_OWNER)))
		return false;
	return gt_caller[0] == '\0' ||
		(!object->isnull[O_CALLER] && gt_caller_covers(TextDatumGetCString(object->v[O_CALLER])));
}

/* Has owner shared objects of this type with user, or with a role that user is a member of? */
bool
gt_shared_with(Oid owner, const char *object_type, Oid user)
{
	bool		found = false;
	Datum		key = ObjectIdGetDatum(owner);
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, GT__SHARE, AccessShareLock);
	scan = gt_scan_begin(&t, GT__SHARE_PKEY, 1, &key);
	while (!found && gt_scan_next(scan, &row))
	{
		char	   *type = TextDatumGetCString(row.v[SHARE_OBJECT_TYPE]);

		if ((type[0] == '\0' || strcmp(type, object_type) == 0) &&
			has_privs_of_role(user, GT_OID(&row, SHARE_ROLE)) &&
			(gt_place(NULL) != GT_PLACE_COPY ||
			 (gt_role_is_named(owner, NameStr(*DatumGetName(row.v[SHARE_OWNER_NAME]))) &&
			  gt_role_is_named(GT_OID(&row, SHARE_ROLE), NameStr(*DatumGetName(row.v[SHARE_ROLE_NAME]))))))
			found = true;
	}
	gt_scan_end(scan);
	gt_close(&t);
	return found;
}

/* A key for gt__role that is greater than the one before, and no other transaction's. */
static Datum
role_row_id(int64 before)
{
	return Int64GetDatum(Max(gt_now() << 12, before + 1) + (int64) (pg_prng_uint64(&pg_global_prng_state) & 0xfff));
}

/*
 * Keeps the name of a role that comes to own something here.  Another name
 * there is the role's former one; but in a copy it is another role's, whose rows
 * are first given to that.  Others may do the same at the same time: each writes
 * a row of its own, and nobody waits.  Older rows go, where nobody else is at it.
 */
void
gt_note_role(Oid role)
{
	List	   *older = NIL;
	ListCell   *lc;
	GtTable		t;
	GtRow		row;
	bool		found;
	int64		newest = 0;
	NameData	name;

	if (is_noted(role))
		return;
	namestrcpy(&name, GetUserNameFromId(role, false));

	gt_open(&t, GT__ROLE, RowExclusiveLock);
	found = fetch_role(&t, role, &row, &older);
	if (found)
		newest = GT_INT64(&row, ROLE_ID);
	if (found && strcmp(NameStr(name), NameStr(*DatumGetName(row.v[ROLE_NAME]))) != 0)
	{
		if (gt_place(NULL) == GT_PLACE_COPY)
		{
			gt_roles_translate();
			older = NIL;
		}
		else
			older = lappend(older, memcpy(palloc(sizeof(GtRow)), &row, sizeof(GtRow)));
		found = false;
	}
	if (!found)
	{
		gt_row_init(&row);
		GT_SET(&row, ROLE_ROLE, ObjectIdGetDatum(role));
		GT_SET(&row, ROLE_NAME, NameGetDatum(&name));
		GT_SET(&row, ROLE_ID, role_row_id(newest));
		gt_insert(&t, &row);
	}
	/* remembered once it has committed: a rollback must not leave us believing */
	else if (!TransactionIdIsCurrentTransactionId(row.xmin))
		remember_role(role);
	foreach(lc, older)
		(void) gt_try_delete(&t, lfirst(lc));
	gt_close(&t);
}

/* For people: the role's name, or what is left of it. */
const char *
gt_role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name != NULL ? name : psprintf("unknown (OID %u)", role);
}

/* ---------------------------------------------------------------- in a copy */

/*
 * Gives every row of a role the OID that the role's name has in this cluster.
 * Where there is no such role, leases and objects come to belong to OID 0, which
 * is nobody, and shares and grants go.  So do the OIDs of handlers' roles: those
 * stay suspended until their owners register them anew.  No row is changed where
 * all names agree.
 */
void
gt_roles_translate(void)
{
	ListCell   *lc;

	n_noted = 0;
	/* who owns something here is known by the name that it has here */
	foreach(lc, gt_translate_rows())
		if (GetUserNameFromId(lfirst_oid(lc), true) != NULL)
			gt_note_role(lfirst_oid(lc));
	n_noted = 0;
}

/* ---------------------------------------------------------------- SQL functions */

/* object_type of gt_share and gt_unshare; NULL, for all types, is kept as ''. */
static Datum
type_argument(FunctionCallInfo fcinfo)
{
	char	   *type;
	GtFail		f;

	if (PG_ARGISNULL(1))
		return CStringGetTextDatum("");
	type = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!gt_check_name("object_type", type, 255, &f))
		gt_raise(&f);
	return CStringGetTextDatum(type);
}

/* gt_share(role, object_type): role may lease the objects of current_user. */
Datum
gt_share(PG_FUNCTION_ARGS)
{
	Oid			role = gt_role_argument(fcinfo, 0, "role");
	Datum		type = type_argument(fcinfo);
	NameData	owner_name;
	NameData	role_name;
	GtTable		t;
	GtRow		row;

	gt_mark_write("gt_share");
	namestrcpy(&owner_name, GetUserNameFromId(GetUserId(), false));
	namestrcpy(&role_name, GetUserNameFromId(role, false));
	gt_note_role(GetUserId());

	gt_open(&t, GT__SHARE, RowExclusiveLock);
	gt_row_init(&row);
	GT_SET(&row, SHARE_OWNER, ObjectIdGetDatum(GetUserId()));
	GT_SET(&row, SHARE_ROLE, ObjectIdGetDatum(role));
	GT_SET(&row, SHARE_OBJECT_TYPE, type);
	GT_SET(&row, SHARE_OWNER_NAME, NameGetDatum(&owner_name));
	GT_SET(&row, SHARE_ROLE_NAME, NameGetDatum(&role_name));
	(void) gt_insert_unique(&t, &row, GT__SHARE_PKEY);	/* shared already: fine */
	gt_close(&t);
	PG_RETURN_VOID();
}

/* gt_unshare(role, object_type): takes back the share with exactly these arguments. */
Datum
gt_unshare(PG_FUNCTION_ARGS)
{
	Datum		keys[3];
	GtTable		t;
	GtRow		row;

	keys[0] = ObjectIdGetDatum(GetUserId());
	keys[1] = ObjectIdGetDatum(gt_role_argument(fcinfo, 0, "role"));
	keys[2] = type_argument(fcinfo);
	gt_mark_write("gt_unshare");

	gt_open(&t, GT__SHARE, RowExclusiveLock);
	if (gt_fetch_lock(&t, GT__SHARE_PKEY, 3, keys, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&t, &row);
	gt_close(&t);
	PG_RETURN_VOID();
}

/* gt__role_name(role): for the views; in a copy the name that the role had where the row comes from. */
Datum
gt__role_name(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *now = GetUserNameFromId(role, true);
	Name		name = palloc(sizeof(NameData));
	GtTable		t;
	GtRow		row;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	namestrcpy(name, now != NULL ? now : gt_role_name(role));
	if (now == NULL || !is_noted(role))
	{
		gt_open(&t, GT__ROLE, AccessShareLock);
		if ((now == NULL || gt_place(NULL) == GT_PLACE_COPY) && fetch_role(&t, role, &row, NULL))
			*name = *DatumGetName(row.v[ROLE_NAME]);
		gt_close(&t);
	}
	PG_RETURN_NAME(name);
}

/* gt__acts_for(role): for the views. */
Datum
gt__acts_for(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(gt_acts_for(PG_GETARG_OID(0)));
}
