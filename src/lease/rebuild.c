/*-------------------------------------------------------------------------
 *
 * rebuild.c
 *	  An object whose row somebody has deleted is made anew of its leases.
 *
 * Whoever meets a lease without an object runs this, in its own transaction; see
 * consistency.c for who looks for such things.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "garbage/objects.h"
#include "lease/rebuild.h"
#include "table/table.h"

int
gt_count_leases(GtTable *leases, Datum type, Datum id, GtRow *newest)
{
	Datum		key[2];
	GtScan	   *scan;
	GtRow		row;
	int			n = 0;

	key[0] = type;
	key[1] = id;
	scan = gt_scan_begin(leases, GT_LEASE_OBJECT, 2, key);
	while (gt_scan_next(scan, &row))
	{
		CHECK_FOR_INTERRUPTS();
		if (n++ == 0 || GT_INT64(&row, L_FENCE) > GT_INT64(newest, L_FENCE))
			*newest = row;
	}
	gt_scan_end(scan);
	return n;
}

/*
 * The object belongs to who has its newest lease, and is
 * cleaned as that wants; what earlier leases had named went with the row.
 */
bool
gt_object_rebuild(GtTable *objects, GtTable *leases, const char *object_type, const char *object_id, GtRow *row)
{
	GtRow		newest;
	int			n;

	gt_object_init(row, CStringGetTextDatum(object_type), CStringGetTextDatum(object_id));
	GT_SET(row, O_OWNER, ObjectIdGetDatum(InvalidOid));
	if (!gt_insert_if_free(objects, row, GT_OBJECT_PKEY))
		return false;
	/* from here on the row is ours, and no lease of it comes or goes */
	n = gt_count_leases(leases, row->v[O_OBJECT_TYPE], row->v[O_OBJECT_ID], &newest);
	if (n == 0)
	{
		gt_delete(objects, row);
		return false;
	}
	GT_SET(row, O_OWNER, newest.v[L_OWNER]);
	GT_SET(row, O_LEASES, Int32GetDatum(n));
	GT_SET(row, O_FENCE, newest.v[L_FENCE]);
	if (!newest.isnull[L_HANDLER])
	{
		GT_SET(row, O_HANDLER, newest.v[L_HANDLER]);
		GT_SET(row, O_SPEC_LEASE, newest.v[L_ID]);
	}
	gt_update(objects, row);
	ereport(LOG,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("garbagetruck: object \"%s\" of type \"%s\" has %d leases and was missing: it is made anew of them",
					object_id, object_type, n)));
	return true;
}
