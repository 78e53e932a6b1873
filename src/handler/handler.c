/*-------------------------------------------------------------------------
 *
 * handler.c
 *	  Handlers as registered: look-ups, who may, grants.
 *
 * Every process that serves SQL runs this; it owns gt__handler and
 * gt__handler_right.  Whoever looks a handler up sees the latest committed
 * row, so that a replacement or a pause counts from the next attempt.
 *
 * A create that names a handler takes a share lock on (gt__handler, id) to the
 * end of its transaction (gt_handler_hold); dropping the handler or changing
 * its kind takes it exclusively before it counts who uses the handler.  Row
 * locks would do the same, but cost each create a write.
 *
 * Roles are kept by name and OID.  Where the two disagree the handler is
 * suspended: nothing runs until they agree again, or until the owner registers
 * it anew.  The owner is then the role with the OID (it was renamed); in a copy,
 * where OIDs mean nothing, the name has to fit as well; and an OID of 0 (see
 * gt_roles_translate) leaves it to the name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "base/arguments.h"
#include "base/compat.h"
#include "base/garbagetruck.h"
#include "base/text.h"
#include "handler/handler.h"
#include "handler/path.h"
#include "handler/use.h"
#include "rights/may.h"
#include "rights/place.h"
#include "rights/roles.h"
#include "rights/writing.h"
#include "shared/clock.h"
#include "shared/rows_due.h"
#include "table/records.h"
#include "table/relations.h"
#include "table/tampered.h"
#include "table/versions.h"

PG_FUNCTION_INFO_V1(gt_handler_grant);
PG_FUNCTION_INFO_V1(gt_handler_revoke);

const char *const gt_kind_names[GT_NKINDS] = {
	"sql", "sql_batch", "notify", "notify_only", "queue",
	"http", "grpc", "s3", "azure_blob", "file", "redis"
};

/* ---------------------------------------------------------------- looking up */

static char *
name_of(const GtRow *row, int attribute)
{
	return pstrdup(NameStr(*DatumGetName(row->v[attribute])));
}

static char *
kinds_in_words(void)
{
	StringInfoData words;
	int			i;

	initStringInfo(&words);
	for (i = 0; i < GT_NKINDS; i++)
		appendStringInfo(&words, "%s%s", i == 0 ? "" : i < GT_NKINDS - 1 ? ", " : " and ", gt_kind_names[i]);
	return words.data;
}

/* The kind of this name, else 22023. */
GtKind
gt_kind_of(const char *name)
{
	int			i;

	for (i = 0; i < GT_NKINDS; i++)
		if (strcmp(gt_kind_names[i], name) == 0)
			return (GtKind) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown kind of handler \"%s\"", gt_shown(name)),
			 errhint("The kinds are %s.", kinds_in_words())));
	return GT_NKINDS;			/* keep compiler quiet */
}

/* Fills in h, in the current memory context. */
void
gt_handler_from_row(const GtRow *row, GtHandler *h)
{
	memset(h, 0, sizeof(GtHandler));
	h->id = GT_INT32(row, HANDLER_ID);
	h->name = TextDatumGetCString(row->v[HANDLER_NAME]);
	h->kind = gt_kind_of(TextDatumGetCString(row->v[HANDLER_KIND]));
	if (!row->isnull[HANDLER_COMMAND])
		h->command = TextDatumGetCString(row->v[HANDLER_COMMAND]);
	h->owner = GT_OID(row, HANDLER_OWNER);
	h->owner_name = name_of(row, HANDLER_OWNER_NAME);
	h->run_as = row->isnull[HANDLER_RUN_AS] ? h->owner : GT_OID(row, HANDLER_RUN_AS);
	h->run_as_name = row->isnull[HANDLER_RUN_AS] ? h->owner_name : name_of(row, HANDLER_RUN_AS_NAME);
	h->search_path = row->isnull[HANDLER_SEARCH_PATH] ? "pg_catalog, pg_temp" :
		TextDatumGetCString(row->v[HANDLER_SEARCH_PATH]);
	h->max_attempts = GT_INT32(row, HANDLER_MAX_ATTEMPTS);
	h->retry_delay = GT_INT64(row, HANDLER_RETRY_DELAY);
	h->timeout = GT_INT64(row, HANDLER_TIMEOUT);
	h->grace = GT_INT64(row, HANDLER_GRACE);
	h->concurrency = row->isnull[HANDLER_CONCURRENCY] ? 0 : GT_INT32(row, HANDLER_CONCURRENCY);
	h->rate_limit = row->isnull[HANDLER_RATE_LIMIT] ? 0 : GT_INT32(row, HANDLER_RATE_LIMIT);
	h->paused = GT_BOOL(row, HANDLER_PAUSED);
	if (!row->isnull[HANDLER_PAUSED_REASON])
		h->paused_reason = TextDatumGetCString(row->v[HANDLER_PAUSED_REASON]);
	h->builtin = GT_BOOL(row, HANDLER_BUILTIN);
	if (h->builtin && OidIsValid(gt_extension()))
	{
		h->owner = h->run_as = gt_owner();
		h->owner_name = h->run_as_name = pstrdup(gt_role_name(h->owner));
	}
	h->version = GT_INT32(row, HANDLER_VERSION);
	h->crashes = GT_INT32(row, HANDLER_CRASHES);
	h->resumed_at = row->isnull[HANDLER_RESUMED_AT] ? 0 : GT_TIME(row, HANDLER_RESUMED_AT);
	if (h->resumed_at > gt_now())
		h->resumed_at = 0;		/* by a clock that was ahead, in an earlier run: that is over */
	h->must_affect = GT_BOOL(row, HANDLER_MUST_AFFECT);
	h->xmin = row->xmin;
}

static bool
fetch_handler(GtIndexId index, Datum key, GtHandler *h)
{
	GtTable		t;
	GtRow		row;
	bool		found;

	gt_open(&t, GT__HANDLER, AccessShareLock);
	found = gt_fetch(&t, index, 1, &key, &row);
	if (found)
		gt_handler_from_row(&row, h);
	gt_close(&t);
	return found;
}

bool
gt_handler_by_name(const char *name, GtHandler *h)
{
	return fetch_handler(GT__HANDLER_NAME, CStringGetTextDatum(name), h);
}

bool
gt_handler_by_id(int id, GtHandler *h)
{
	return fetch_handler(GT__HANDLER_PKEY, Int32GetDatum(id), h);
}

/* Nobody owns it, and nobody runs it: its garbage can be discarded. */
void
gt_handler_missing(int id, GtHandler *h)
{
	memset(h, 0, sizeof(GtHandler));
	h->id = id;
	h->name = psprintf("(missing: %d)", id);
	h->kind = GT_KIND_QUEUE;
	h->owner_name = "";
	h->max_attempts = 1;
	h->missing = true;
}

/*
 * The id is remembered from the last call, so that as a
 * rule the lock is taken before the first look; else the handler is looked at
 * again after it.  It is that of this very name: whoever drops another handler
 * is not to be waited for.
 */
bool
gt_handler_hold(const char *name, GtHandler *h)
{
	static Oid	relid = InvalidOid;
	static char last[256];
	static int	id = 0;
	int			held = 0;

	if (relid != gt_relid(GT__HANDLER) || strcmp(last, name) != 0)
	{
		relid = gt_relid(GT__HANDLER);
		strlcpy(last, name, sizeof(last));
		id = 0;
	}
	for (;;)
	{
		if (id != 0 && id != held)
		{
			if (held != 0)
				UnlockDatabaseObject(relid, (Oid) held, 0, AccessShareLock);
			LockDatabaseObject(relid, (Oid) id, 0, AccessShareLock);
			held = id;
		}
		if (!gt_handler_by_name(name, h))
		{
			if (held != 0)
				UnlockDatabaseObject(relid, (Oid) held, 0, AccessShareLock);
			return false;
		}
		if (h->id == held)
			return true;
		id = h->id;
	}
}

/* An earlier call of the transaction may hold it, too: that is counted. */
void
gt_handler_let_go(const GtHandler *h)
{
	UnlockDatabaseObject(gt_relid(GT__HANDLER), (Oid) h->id, 0, AccessShareLock);
}

/* All handlers, by id, in the current memory context. */
List *
gt_handler_list(void)
{
	List	   *list = NIL;
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, GT__HANDLER, AccessShareLock);
	scan = gt_scan_begin(&t, GT__HANDLER_PKEY, 0, NULL);
	while (gt_scan_next(scan, &row))
	{
		GtHandler  *h = palloc(sizeof(GtHandler));

		gt_handler_from_row(&row, h);
		list = lappend(list, h);
	}
	gt_scan_end(scan);
	gt_close(&t);
	return list;
}

bool
gt_database_paused(void)
{
	GtTable		t;
	GtRow		row;
	bool		found;

	gt_open(&t, GT__PAUSED, AccessShareLock);
	found = gt_fetch_any(&t, &row);
	gt_close(&t);
	return found;
}

/* ---------------------------------------------------------------- who may */

/* The role that owns h here and now, or InvalidOid; see the top of the file. */
Oid
gt_handler_owner(const GtHandler *h)
{
	if (h->owner == GetUserId() && gt_role_is_named(h->owner, h->owner_name))
		return h->owner;
	if (!OidIsValid(h->owner) || (gt_place(NULL) == GT_PLACE_COPY && !gt_role_is_named(h->owner, h->owner_name)))
		return get_role_oid(h->owner_name, true);
	return h->owner;
}

bool
gt_handler_is_own(const GtHandler *h)
{
	Oid			owner = gt_handler_owner(h);

	return superuser() || (OidIsValid(owner) && has_privs_of_role(GetUserId(), owner));
}

/* Has current_user, or a role that it is a member of, been granted this? */
static bool
was_granted(const GtHandler *h, const char *privilege)
{
	bool		found = false;
	Datum		key = Int32GetDatum(h->id);
	GtTable		t;
	GtScan	   *scan;
	GtRow		row;

	gt_open(&t, GT__HANDLER_RIGHT, AccessShareLock);
	scan = gt_scan_begin(&t, GT__HANDLER_RIGHT_PKEY, 1, &key);
	while (!found && gt_scan_next(scan, &row))
		found = strcmp(TextDatumGetCString(row.v[HANDLER_RIGHT_PRIVILEGE]), privilege) == 0 &&
			has_privs_of_role(GetUserId(), GT_OID(&row, HANDLER_RIGHT_ROLE)) &&
			(gt_place(NULL) != GT_PLACE_COPY ||
			 gt_role_is_named(GT_OID(&row, HANDLER_RIGHT_ROLE), NameStr(*DatumGetName(row.v[HANDLER_RIGHT_ROLE_NAME]))));
	gt_scan_end(scan);
	gt_close(&t);
	return found;
}

/*
 * May current_user name h in a create?  What runs as a superuser is for
 * superusers, until it is granted: members of a superuser's role are not meant.
 * What is there from the start is for every role that may lease.
 */
bool
gt_handler_may_use(const GtHandler *h)
{
	if (superuser() || (h->builtin && gt_has_right(GT_RIGHT_LEASE)))
		return true;
	if (gt_handler_is_own(h) && !(GT_KIND_IS_SQL(h->kind) && h->run_as == h->owner && superuser_arg(h->owner)))
		return true;
	return was_granted(h, "use");
}

/* May current_user serve its queue: claim, acknowledge, redrive, pause; and see its garbage? */
bool
gt_handler_may_claim(const GtHandler *h)
{
	return gt_handler_is_own(h) || was_granted(h, "claim");
}

static const char *
role_disagrees(const char *what, Oid role, const char *name)
{
	char	   *now = GetUserNameFromId(role, true);

	if (now == NULL)
		return psprintf("%s \"%s\" (OID %u) does not exist", what, name, role);
	if (strcmp(now, name) != 0)
		return psprintf("%s \"%s\" (OID %u) is now called \"%s\"", what, name, role, now);
	pfree(now);
	return NULL;
}

const char *
gt_handler_suspended(const GtHandler *h)
{
	const char *why;

	if (h->builtin)
		return NULL;
	why = role_disagrees("owner", h->owner, h->owner_name);
	if (why == NULL && h->run_as != h->owner)
		why = role_disagrees("role", h->run_as, h->run_as_name);
	if (why == NULL && GT_KIND_IS_SQL(h->kind))
		why = gt_tables_tampered();
	if (why != NULL || !GT_KIND_IS_SQL(h->kind))
		return why;
	if (h->run_as != h->owner && !superuser_arg(h->owner) && !member_can_set_role(h->owner, h->run_as))
		return psprintf("its owner \"%s\" can not SET ROLE \"%s\" any more, as which it runs",
						h->owner_name, h->run_as_name);
	return gt_path_open(h);
}

/* For people: whom it belongs to. A role of that name may have been made since. */
static char *
owner_in_words(const GtHandler *h)
{
	Oid			owner = gt_handler_owner(h);
	bool		gone = !OidIsValid(owner) || GetUserNameFromId(owner, true) == NULL;

	return psprintf(gone ? "a role \"%s\" that is gone" : "role \"%s\"",
					gone ? h->owner_name : GetUserNameFromId(owner, false));
}

char *
gt_handler_grant_hint(const GtHandler *h, const char *privilege)
{
	Oid			owner = gt_handler_owner(h);

	if (!OidIsValid(owner) || GetUserNameFromId(owner, true) == NULL)
		return psprintf("It belongs to %s: a superuser can register it anew.", owner_in_words(h));
	return psprintf("Its owner can grant it: SELECT gt_handler_grant(%s, %s, %s);", quote_literal_cstr(h->name),
					quote_literal_cstr(gt_role_name(GetUserId())), quote_literal_cstr(privilege));
}

void
gt_must_own_handler(const GtHandler *h, const char *verb)
{
	if (!gt_handler_is_own(h))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s handler \"%s\"", verb, h->name),
				 errdetail("It belongs to %s.", owner_in_words(h))));
}

void
gt_must_claim_handler(const GtHandler *h, const char *verb)
{
	if (!gt_handler_may_claim(h))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 verb == NULL ? errmsg("permission denied for handler \"%s\"", h->name) :
				 errmsg("permission denied to %s handler \"%s\"", verb, h->name),
				 errdetail("Its queue is for its owner and roles that were granted \"claim\"."),
				 errhint("%s", gt_handler_grant_hint(h, "claim"))));
}

void
gt_no_such_handler(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_GT_NO_HANDLER),
			 errmsg("handler \"%s\" does not exist", gt_shown(name))));
}

/* ---------------------------------------------------------------- what SQL functions share */

/* Who asks for the row of a handler, and what he would do with it. */
typedef struct Asking
{
	GtHandlerJudge must;
	const char *verb;
	GtHandler  *h;
} Asking;

static bool
judge_handler(const GtRow *row, void *arg)
{
	Asking	   *asking = arg;

	gt_handler_from_row(row, asking->h);
	asking->must(asking->h, asking->verb);
	return true;
}

/* Locks the row of a handler for whoever may (see handler.h); false: there is none. */
bool
gt_lock_handler(GtTable *t, const char *name, LockTupleMode mode, GtHandlerJudge must, const char *verb,
				GtRow *row, GtHandler *h)
{
	Datum		key = CStringGetTextDatum(name);
	Asking		asking = {must, verb, h};

	return gt_fetch_lock_if(t, GT__HANDLER_NAME, 1, &key, row, mode, false, judge_handler, &asking) == GT_LOCKED;
}

/* ---------------------------------------------------------------- grant, revoke */

/* The arguments of both, checked, as the key of gt__handler_right. */
static void
right_arguments(FunctionCallInfo fcinfo, const char *verb, Datum keys[3])
{
	char	   *name;
	char	   *privilege;
	GtHandler	h;

	gt_must_not_be_null(fcinfo, 0, "name");
	gt_must_not_be_null(fcinfo, 2, "privilege");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	privilege = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (strcmp(privilege, "use") != 0 && strcmp(privilege, "claim") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown privilege \"%s\"", gt_shown(privilege)),
				 errhint("The privileges on a handler are use and claim.")));
	keys[1] = ObjectIdGetDatum(gt_role_argument(fcinfo, 1, "role"));
	if (!gt_handler_by_name(name, &h))
		gt_no_such_handler(name);
	gt_must_own_handler(&h, verb);
	if (!gt_handler_hold(name, &h))
		gt_no_such_handler(name);
	gt_must_own_handler(&h, verb);	/* it may be another one of this name now */
	keys[0] = Int32GetDatum(h.id);
	keys[2] = CStringGetTextDatum(privilege);
}

/* gt_handler_grant(name, role, privilege) */
Datum
gt_handler_grant(PG_FUNCTION_ARGS)
{
	Datum		keys[3];
	GtTable		t;
	GtRow		row;

	gt_mark_write("gt_handler_grant");
	right_arguments(fcinfo, "grant", keys);
	gt_row_init(&row);
	GT_SET(&row, HANDLER_RIGHT_HANDLER, keys[0]);
	GT_SET(&row, HANDLER_RIGHT_ROLE, keys[1]);
	GT_SET(&row, HANDLER_RIGHT_ROLE_NAME, NameGetDatum(PG_GETARG_NAME(1)));
	GT_SET(&row, HANDLER_RIGHT_PRIVILEGE, keys[2]);

	gt_open(&t, GT__HANDLER_RIGHT, RowExclusiveLock);
	(void) gt_insert_unique(&t, &row, GT__HANDLER_RIGHT_PKEY);	/* granted already: fine */
	gt_close(&t);
	gt_rows_stir(gt_now());		/* rows may have waited for that */
	PG_RETURN_VOID();
}

/* gt_handler_revoke(name, role, privilege) */
Datum
gt_handler_revoke(PG_FUNCTION_ARGS)
{
	Datum		keys[3];
	GtTable		t;
	GtRow		row;

	gt_mark_write("gt_handler_revoke");
	right_arguments(fcinfo, "revoke rights on", keys);
	gt_open(&t, GT__HANDLER_RIGHT, RowExclusiveLock);
	if (gt_fetch_lock(&t, GT__HANDLER_RIGHT_PKEY, 3, keys, &row, LockTupleExclusive, false) == GT_LOCKED)
		gt_delete(&t, &row);
	gt_close(&t);
	PG_RETURN_VOID();
}
