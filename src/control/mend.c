/*-------------------------------------------------------------------------
 *
 * mend.c
 *	  gt_check(): one contradiction is mended, a row each.
 *
 * The worker of consistency.c runs this.  Each locks the rows that it writes, passing
 * over what others have locked, and judges again; false: not now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "control/adopt.h"
#include "control/consistency.h"
#include "control/mend.h"
#include "handler/handler.h"
#include "lease/ending.h"
#include "lease/rebuild.h"
#include "rights/owner.h"
#include "shared/after_commit.h"

/* The object of the finding, locked; false: it is not there, or others have it. */
static bool
lock_object(GtTable *objects, const GtFinding *f, GtRow *row)
{
	Datum		key[2];

	key[0] = CStringGetTextDatum(f->object_id);
	key[1] = CStringGetTextDatum(f->object_type);
	return gt_fetch_lock(objects, GT_OBJECT_PKEY, 2, key, row, LockTupleNoKeyExclusive, true) == GT_LOCKED;
}

bool
gt_mend_lease_without_object(Datum key, const GtFinding *f)
{
	GtTable		objects;
	GtTable		leases;
	GtRow		row;
	bool		done;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	done = gt_object_rebuild(&objects, &leases, f->object_type, f->object_id, &row);
	gt_close(&leases);
	gt_close(&objects);
	return done;
}

/* As if the last of the leases had ended now, that nobody knows anything of. */
static void
end_last(GtTable *objects, GtRow *row)
{
	GT_SET_NULL(row, O_SPEC_LEASE);
	gt_garbage_make(objects, row, NULL, GT_END_EXPIRED, gt_now());
}

bool
gt_mend_count(Datum key, const GtFinding *f)
{
	GtTable		objects;
	GtTable		leases;
	GtRow		row;
	GtRow		newest;
	bool		done = false;
	int			n;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	if (lock_object(&objects, f, &row))
	{
		n = gt_count_leases(&leases, row.v[O_OBJECT_TYPE], row.v[O_OBJECT_ID], &newest);
		done = n != GT_INT32(&row, O_LEASES);
		GT_SET(&row, O_LEASES, Int32GetDatum(n));
		if (done && n == 0)
			end_last(&objects, &row);
		else if (done)
		{
			if (GT_CHAR(&row, O_STATE) != GT_STATE_HELD)
				gt_garbage_revive(&row);
			gt_update(&objects, &row);
		}
	}
	gt_close(&leases);
	gt_close(&objects);
	return done;
}

/* Garbage is put aside as dead; what is held will be when its last lease ends. */
bool
gt_mend_handler(Datum key, const GtFinding *f)
{
	GtTable		objects;
	GtRow		row;
	GtHandler	h;
	bool		done = false;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	if (lock_object(&objects, f, &row) && !row.isnull[O_HANDLER] &&
		(GT_CHAR(&row, O_STATE) == GT_STATE_WAITING || GT_CHAR(&row, O_STATE) == GT_STATE_CLAIMED) &&
		!gt_handler_by_id(GT_INT32(&row, O_HANDLER), &h))
	{
		gt_garbage_put_aside(&objects, &row);
		done = true;
	}
	gt_close(&objects);
	return done;
}

bool
gt_mend_spec(Datum key, const GtFinding *f)
{
	GtTable		objects;
	GtTable		leases;
	GtRow		row;
	GtRow		lease;
	bool		done = false;

	gt_open(&objects, GT_OBJECT, RowExclusiveLock);
	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	if (lock_object(&objects, f, &row) && !row.isnull[O_SPEC_LEASE] &&
		!gt_fetch(&leases, GT_LEASE_PKEY, 1, &row.v[O_SPEC_LEASE], &lease))
	{
		GT_SET_NULL(&row, O_SPEC_LEASE);
		gt_update(&objects, &row);
		done = true;
	}
	gt_close(&leases);
	gt_close(&objects);
	return done;
}

/* The children of a parent that is not there end as those of one that has expired. */
bool
gt_mend_child(Datum key, const GtFinding *f)
{
	GtTable		leases;
	GtRow		row;
	bool		done;

	gt_open(&leases, GT_LEASE, AccessShareLock);
	done = !gt_fetch(&leases, GT_LEASE_PKEY, 1, &key, &row) && gt_fetch(&leases, GT_LEASE_PARENT, 1, &key, &row);
	if (done)
		gt_orphan_add(key, GT_OID(&row, L_OWNER), true, gt_now());
	gt_close(&leases);
	return done;
}

bool
gt_mend_orphan(Datum key, const GtFinding *f)
{
	GtTable		leases;
	GtTable		orphans;
	GtRow		lease;
	GtRow		row;
	bool		done;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	gt_open(&orphans, GT__ORPHAN, RowExclusiveLock);
	done = gt_fetch_lock(&leases, GT_LEASE_PKEY, 1, &key, &lease, LockTupleKeyShare, true) == GT_LOCKED &&
		gt_fetch_lock(&orphans, GT__ORPHAN_PKEY, 1, &key, &row, LockTupleExclusive, true) == GT_LOCKED;
	if (done)
		gt_delete(&orphans, &row);
	gt_close(&orphans);
	gt_close(&leases);
	return done;
}

bool
gt_mend_check_at(Datum key, const GtFinding *f)
{
	GtTable		leases;
	GtRow		row;
	bool		done;

	gt_open(&leases, GT_LEASE, RowExclusiveLock);
	done = gt_fetch_lock(&leases, GT_LEASE_PKEY, 1, &key, &row, LockTupleNoKeyExclusive, true) == GT_LOCKED &&
		row.isnull[L_PARENT] &&
		(row.isnull[L_CHECK_AT] || row.isnull[L_DEADLINE] || GT_TIME(&row, L_CHECK_AT) > GT_TIME(&row, L_DEADLINE));
	if (done)
	{
		if (row.isnull[L_DEADLINE])
			GT_SET(&row, L_DEADLINE, TimestampTzGetDatum(gt_now()));
		GT_SET(&row, L_CHECK_AT, row.v[L_DEADLINE]);
		gt_update(&leases, &row);
		gt_due_after_commit(GT_TIME(&row, L_CHECK_AT));
	}
	gt_close(&leases);
	return done;
}

/* All of it at once, but for what others have locked. */
bool
gt_mend_by_statement(Datum key, const GtFinding *f)
{
	gt_execute_as_owner("DELETE FROM _garbagetruck.gt__tally WHERE (handler, slot) IN (SELECT t.handler, t.slot FROM _garbagetruck.gt__tally t"
						" WHERE NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = t.handler)"
						" AND NOT EXISTS (SELECT FROM _garbagetruck.gt__ttl w WHERE w.id = t.handler) FOR UPDATE OF t SKIP LOCKED)");
	gt_execute_as_owner("DELETE FROM _garbagetruck.gt__handler_right WHERE (handler, role, privilege) IN"
						" (SELECT t.handler, t.role, t.privilege FROM _garbagetruck.gt__handler_right t"
						" WHERE NOT EXISTS (SELECT FROM _garbagetruck.gt__handler h WHERE h.id = t.handler) FOR UPDATE OF t SKIP LOCKED)");
	gt_place_advance_sequences();
	return true;
}
