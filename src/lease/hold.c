/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  Objects and parents of a batch of grants are held: found, judged, locked.
 *
 * See grant.c for the order of locks, of which these are the second and the fourth.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "base/caller.h"
#include "base/check.h"
#include "base/garbagetruck.h"
#include "base/point.h"
#include "base/text.h"
#include "garbage/order.h"
#include "lease/ending.h"
#include "lease/hold.h"
#include "lease/lease.h"
#include "rights/rights.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "table/find.h"
#include "ttl/ttl.h"

/* May the caller give this lease children? Neither answer changes while the row is there. */
static bool
may_be_parent(const GtRow *lease, GtFail *f)
{
	pg_uuid_t  *id = DatumGetUUIDP(lease->v[L_ID]);

	if (!gt_acts_for(GT_OID(lease, L_OWNER)))
		return gt_fail_other_role(id, f);
	if (!gt_caller_covers(TextDatumGetCString(lease->v[L_SERVICE_ID])))
		return gt_fail_not_found(id, f);
	if (!lease->isnull[L_PARENT])
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "lease %s has a parent itself and can not be one", gt_uuid_cstring(id));
	return true;
}

/*
 * The parent that a request names, once for a batch.  It is held later; what is
 * raised then leaves no lock, so who raises needs no look at it before.
 */
GtHeldParent *
gt_parent_find(GtGranter *g, const pg_uuid_t *id)
{
	Datum		key = UUIDPGetDatum(id);
	GtHeldParent *held;
	ListCell   *cell;
	GtRow		row;

	foreach(cell, g->parents)
	{
		held = lfirst(cell);
		if (memcmp(&held->id, id, sizeof(pg_uuid_t)) == 0)
			return held;
	}
	held = palloc0(sizeof(GtHeldParent));
	held->id = *id;
	held->ok = g->all_or_none ||
		(gt_fetch(&g->leases, GT_LEASE_PKEY, 1, &key, &row) ?
		 may_be_parent(&row, &held->fail) : gt_fail_not_found(id, &held->fail));
	g->parents = lappend(g->parents, held);
	return held;
}

typedef struct MayLease
{
	const GtRequest *request;
	GtFail	   *fail;
} MayLease;

/* Objects that stand for the rows of a table are its owner's. */
static bool
may_name(const GtRequest *r, GtFail *f)
{
	Oid			owner = gt_ttl_owner_of_type(r->object_type);

	if (!OidIsValid(owner) || has_privs_of_role(GetUserId(), owner))
		return true;
	gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for objects of type \"%s\"", gt_shown(r->object_type));
	f->detail = pstrdup("They stand for the rows of that table, and are its owner's.");
	return false;
}

/* May the caller lease this object so? */
static bool
may_lease(const GtRow *object, void *arg)
{
	const GtRequest *r = ((MayLease *) arg)->request;
	GtFail	   *f = ((MayLease *) arg)->fail;
	Oid			owner = GT_OID(object, O_OWNER);

	if (GT_CHAR(object, O_STATE) == GT_STATE_FORGOTTEN || gt_acts_for_object(object))
		return true;
	if (gt_acts_for(owner))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for object \"%s\" of type \"%s\"",
				gt_shown(r->object_id), gt_shown(r->object_type));
		f->detail = pstrdup("It belongs to another caller.");
		return false;
	}
	if (!gt_shared_with(owner, r->object_type, GetUserId()))
	{
		gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for object \"%s\" of type \"%s\"",
				gt_shown(r->object_id), gt_shown(r->object_type));
		f->detail = pstrdup("It belongs to another role.");
		f->hint = psprintf("Its owner can share it: SELECT gt_share(%s).",
						   quote_literal_cstr(GetUserNameFromId(GetUserId(), false)));
		return false;
	}
	if (r->cleanup == NULL)
		return true;
	gt_fail(f, ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for the cleanup of object \"%s\" of type \"%s\"",
			gt_shown(r->object_id), gt_shown(r->object_type));
	f->detail = pstrdup("It belongs to another role, which shares it: what is lent is the object, not its cleanup.");
	f->hint = pstrdup("Leave out cleanup: the object is cleaned as its owner has said.");
	return false;
}

/* The same by the row as it is read: of a request for which another object may be locked before its own. */
static bool
may_lease_as_read(GtGranter *g, GtGrant *e)
{
	MayLease	may = {&e->request, &e->fail};
	GtRow		row;

	return !gt_fetch(&g->objects, GT_OBJECT_PKEY, 2, e->request.key, &row) || may_lease(&row, &may);
}

/* What the handler will be given comes from the newest lease of the owning role that names a cleanup. */
void
gt_object_set_cleanup(GtRow *object, const GtGrant *e)
{
	GT_SET(object, O_HANDLER, Int32GetDatum(e->handler->h.id));
	GT_SET(object, O_SPEC_LEASE, UUIDPGetDatum(&e->granted.id));
	GT_SET(object, O_KEEP, BoolGetDatum(false));
}

/* Of its first lease: the role's, and of those who share that the caller's, or else whom the role says that it is for. */
void
gt_object_set_owner(GtRow *object, const GtRequest *r)
{
	GT_SET(object, O_OWNER, ObjectIdGetDatum(GetUserId()));
	GT_SET(object, O_CALLER, gt_caller[0] != '\0' ? CStringGetTextDatum(gt_caller) : r->service);
}

/*
 * The row of a new object, with its first lease counted, to be inserted at once.
 * While we were on our way another may have made the object, leased it and forgotten
 * it: then the fence is not good, see ids.c.  Returns what that is to be told by.
 */
static uint64
draw_object(const GtGrant *e, GtHeldObject *object)
{
	const Datum *key = e->request.key;
	uint64		deletions = gt_deletions(key[0]);

	gt_object_init(&object->row, key[1], key[0]);
	gt_object_set_owner(&object->row, &e->request);
	if (e->handler != NULL)
		gt_object_set_cleanup(&object->row, e);
	GT_SET(&object->row, O_FENCE, Int64GetDatum(gt_unique_us()));
	return deletions;
}

static void
object_is_made(GtHeldObject *object, const GtGrant *e, uint64 deletions)
{
	object->is_new = true;
	object->maker = gt_deletions(object->row.v[O_OBJECT_ID]) == deletions ? e : NULL;
}

/*
 * Inserts it, after a look for it; false: there is one.  Who raises what is refused
 * leaves nothing, so it may be inserted in the cheaper way.
 */
static bool
make_object(GtGranter *g, const GtGrant *e, GtHeldObject *object)
{
	bool		unmet = g->all_or_none && !g->objects.met;
	uint64		deletions;
	bool		made;

	if (unmet)
		GT_POINT("object_unmet");
	deletions = draw_object(e, object);
	made = unmet ? gt_insert_unmet(&g->objects, &object->row, GT_OBJECT_PKEY) :
		gt_insert_unique(&g->objects, &object->row, GT_OBJECT_PKEY);
	if (made)
		object_is_made(object, e, deletions);
	return made;
}

/* Does a transaction that has checked a fence of the object keep this lease from it, and others that are there, too? */
static bool
is_fenced(GtGranter *g, const GtGrant *e, GtRow *object, GtFail *f)
{
	List	   *expired = NIL;
	GtRow		lease;
	Datum		id;

	if (!gt_is_share_locked(&g->objects, object))
		return false;
	if (e->request.request_key != NULL && gt_request_fetch(g, e, &lease) && gt_lease_running(&g->leases, &lease, gt_now()))
		return false;			/* which is the answer */
	if (!gt_way_of_leases(g, &e->request, object, &expired, f))
		return true;
	if (expired == NIL)
		return false;
	id = UUIDPGetDatum(&((GtLeaseKey *) linitial(expired))->id);
	return gt_fetch(&g->leases, GT_LEASE_PKEY, 1, &id, &lease) &&
		!gt_leased_already(&e->request, TextDatumGetCString(lease.v[L_SERVICE_ID]), 0, 0, f);
}

/*
 * Locks the object of a request, or makes it; false: no right, or its lease is
 * in use by a transaction that has checked its fence.  Such a transaction lasts
 * for as long as its client likes, or is stopped: so nobody waits for it who could
 * not have the object beside that lease anyway.
 */
static bool
hold_object(GtGranter *g, GtGrant *e, GtHeldObject *object)
{
	MayLease	may = {&e->request, &e->fail};
	const Datum *key = e->request.key;

	if (!may_name(&e->request, &e->fail))
		return false;
	for (;;)
	{
		GtLockResult result = gt_fetch_lock_if(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row,
											   LockTupleNoKeyExclusive, true, may_lease, &may);

		if (result == GT_BUSY && is_fenced(g, e, &object->row, &e->fail))
			return false;
		if (result == GT_BUSY)
			result = gt_fetch_lock_if(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row,
									  LockTupleNoKeyExclusive, false, may_lease, &may);
		if (result == GT_LOCKED)
			return true;
		if (result == GT_REFUSED)
			return false;
		if (make_object(g, e, object))
			return true;
		CHECK_FOR_INTERRUPTS(); /* somebody else's has just been committed */
	}
}

/* An object to be locked: of a request, or of an expired lease that used its request_key. */
typedef struct Wanted
{
	const char *type;
	const char *id;
	GtGrant    *grant;
	bool		of_old;			/* it is that of such a lease */
} Wanted;

static int
by_object(const void *a, const void *b)
{
	const Wanted *x = a;
	const Wanted *y = b;

	return gt_object_order(x->type, x->id, y->type, y->id);
}

/* One object for all requests that name it: n of them, at w. */
static void
hold_for(GtGranter *g, const Wanted *w, int n)
{
	GtHeldObject *object = palloc0(sizeof(GtHeldObject));
	bool		held = false;
	bool		wanted = false;	/* for an expired lease of a request that is not refused */
	int			i;

	for (i = 0; i < n; i++)
	{
		GtGrant    *e = w[i].grant;
		MayLease	may;

		if (w[i].of_old)
			continue;
		gt_grant_set_at(g, e);
		may.request = &e->request;
		may.fail = &e->fail;
		if (held ? may_lease(&object->row, &may) : hold_object(g, e, object))
		{
			held = true;
			e->object = object;
		}
		else
			gt_grant_refuse(g, e);
	}
	for (i = 0; i < n && !wanted; i++)
	{
		wanted = w[i].of_old && w[i].grant->open;
		if (wanted)
			gt_grant_set_at(g, w[i].grant);
	}
	if (wanted && !held)
	{
		Datum		key[2];

		key[0] = CStringGetTextDatum(w->id);
		key[1] = CStringGetTextDatum(w->type);
		(void) gt_fetch_lock(&g->objects, GT_OBJECT_PKEY, 2, key, &object->row, LockTupleNoKeyExclusive, false);
	}
}

/* Objects that nobody has, each for one request: they are made together. */
typedef struct Unmet
{
	const Wanted *wanted[GT_MANY];
	GtMeeter   *meeter;			/* looks for them in the index */
	int			n;
} Unmet;

/* Makes them in their order: from the first on that somebody has made meanwhile, one after the other. */
static void
make_objects(GtGranter *g, Unmet *unmet)
{
	GtHeldObject *objects = gt_alloc_array(unmet->n, sizeof(GtHeldObject));
	GtRow	   *rows[GT_MANY];
	uint64		deletions[GT_MANY];
	int			made;
	int			i;

	GT_POINT("object_unmet");
	for (i = 0; i < unmet->n; i++)
	{
		deletions[i] = draw_object(unmet->wanted[i]->grant, &objects[i]);
		rows[i] = &objects[i].row;
	}
	made = gt_insert_many_unmet(&g->objects, rows, unmet->n, GT_OBJECT_PKEY);
	for (i = 0; i < made; i++)
	{
		unmet->wanted[i]->grant->object = &objects[i];
		object_is_made(&objects[i], unmet->wanted[i]->grant, deletions[i]);
	}
	for (; i < unmet->n; i++)
		hold_for(g, unmet->wanted[i], 1);
	unmet->n = 0;
}

/* Is it an object that is to be made with others? */
static bool
is_unmet(GtGranter *g, const Wanted *w, Unmet *unmet)
{
	const GtRequest *r = &w->grant->request;

	if (w->of_old || !may_name(r, &w->grant->fail))
		return false;
	if (unmet->meeter == NULL)
		unmet->meeter = gt_meeter_begin(&g->objects, GT_OBJECT_PKEY, 2);
	return !gt_meets(unmet->meeter, r->key);
}

/* In their order, of which those that nobody has are made as far as the next that somebody has. */
static void
hold_all(GtGranter *g, const Wanted *wanted, int n)
{
	Unmet		unmet = {{NULL}, NULL, 0};
	int			first;
	int			i;

	for (first = 0; first < n; first = i)
	{
		CHECK_FOR_INTERRUPTS();
		for (i = first + 1; i < n && by_object(&wanted[i], &wanted[first]) == 0; i++)
			;
		if (g->all_or_none && n > 1 && i == first + 1 && is_unmet(g, &wanted[first], &unmet))
		{
			unmet.wanted[unmet.n++] = &wanted[first];
			if (unmet.n == GT_MANY)
				make_objects(g, &unmet);
			continue;
		}
		if (unmet.n > 0)
			make_objects(g, &unmet);
		hold_for(g, &wanted[first], i - first);
	}
	if (unmet.n > 0)
		make_objects(g, &unmet);
	if (unmet.meeter != NULL)
		gt_meeter_end(unmet.meeter);
}

void
gt_hold_objects(GtGranter *g, GtGrant **grants, int n)
{
	Wanted	   *wanted = gt_alloc_array(n, 2 * sizeof(Wanted));
	int			nwanted = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		GtGrant    *e = grants[i];

		if (!e->open)
			continue;
		if (e->old != NULL && !may_lease_as_read(g, e))
		{
			gt_grant_refuse(g, e);
			continue;
		}
		wanted[nwanted++] = (Wanted) {e->request.object_type, e->request.object_id, e, false};
		if (e->old != NULL)
			wanted[nwanted++] = (Wanted) {e->old->object_type, e->old->object_id, e, true};
	}
	qsort(wanted, nwanted, sizeof(Wanted), by_object);
	hold_all(g, wanted, nwanted);
	pfree(wanted);
}

/* The row as it is after leases on it were ended. */
void
gt_object_read_again(GtGranter *g, const GtGrant *e)
{
	GtHeldObject *object = e->object;

	if (!object->stale)
		return;
	object->stale = false;
	if (!gt_fetch(&g->objects, GT_OBJECT_PKEY, 2, e->request.key, &object->row))
	{
		/* forgotten by the end of its last lease */
		if (!make_object(g, e, object))
			elog(ERROR, "object \"%s\" is there and is not", e->request.object_id);
	}
}

typedef struct MayHold
{
	GtFail	   *fail;
	bool		over;			/* as it was read */
} MayHold;

static bool
may_hold(const GtRow *lease, void *arg)
{
	MayHold    *may = arg;

	may->over = false;
	if (!may_be_parent(lease, may->fail))
		return false;
	may->over = gt_lease_is_over(lease);
	return !may->over;
}

/* Locks the parent so that it can not end before our commit. */
static bool
hold_parent(GtGranter *g, GtHeldParent *parent)
{
	Datum		id = UUIDPGetDatum(&parent->id);
	MayHold		may = {&parent->fail, false};
	GtRow		row;
	TimestampTz over_at;
	bool		expired;

	for (;;)
	{
		switch (gt_fetch_lock_if(&g->leases, GT_LEASE_PKEY, 1, &id, &row, LockTupleKeyShare, false, may_hold, &may))
		{
			case GT_LOCKED:
				parent->expires_at = gt_lease_shown_until(&g->leases, &row);
				return true;
			case GT_REFUSED:
				if (!may.over)
					return false;
				/* unless a renewal is on its way */
				if (gt_parent_is_over(&g->leases, &parent->id, true, false, &over_at, &expired))
					return gt_fail(&parent->fail, ERRCODE_GT_EXPIRED, "lease %s has expired", gt_uuid_cstring(&parent->id));
				break;
			default:
				return gt_fail_not_found(&parent->id, &parent->fail);
		}
	}
}

static int
by_id(const ListCell *a, const ListCell *b)
{
	return memcmp(&((GtHeldParent *) lfirst(a))->id, &((GtHeldParent *) lfirst(b))->id, sizeof(pg_uuid_t));
}

void
gt_hold_parents(GtGranter *g, GtGrant **grants, int n)
{
	ListCell   *cell;
	int			i;

	if (g->parents == NIL)
		return;
	for (i = 0; i < n; i++)
		if (grants[i]->open && grants[i]->parent != NULL)
			grants[i]->parent->wanted = true;
	list_sort(g->parents, by_id);
	foreach(cell, g->parents)
	{
		GtHeldParent *parent = lfirst(cell);

		if (!parent->ok || !parent->wanted)
			continue;
		for (i = 0; i < n && !(grants[i]->open && grants[i]->parent == parent); i++)
			;
		gt_grant_set_at(g, grants[i]);
		parent->ok = hold_parent(g, parent);
	}
	for (i = 0; i < n; i++)
		if (grants[i]->open && grants[i]->parent != NULL && !grants[i]->parent->ok)
		{
			grants[i]->fail = grants[i]->parent->fail;
			gt_grant_refuse(g, grants[i]);
		}
}

void
gt_object_take_back(GtRow *object)
{
	gt_garbage_revive(object);
	gt_ttl_let_go(object);
}
