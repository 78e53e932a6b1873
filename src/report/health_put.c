/*-------------------------------------------------------------------------
 *
 * health_put.c
 *	  What the checks of gt_health() share: how a row is put, and what the caller sees.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "handler/use.h"
#include "report/health.h"
#include "report/health_put.h"
#include "rights/rights.h"
#include "table/relations.h"

void
gt_health_put(GtHealth *health, bool ok, const char *detail, const char *remedy)
{
	MemoryContext old = MemoryContextSwitchTo(health->context);
	GtHealthRow *row = palloc0(sizeof(GtHealthRow));

	row->check = health->check;
	row->ok = ok;
	row->detail = pstrdup(detail);
	row->remedy = ok || remedy == NULL ? NULL : pstrdup(remedy);
	health->rows = lappend(health->rows, row);
	MemoryContextSwitchTo(old);
}

void
gt_health_put_setting(GtHealth *health, const char *detail, const char *alter, bool restart)
{
	gt_health_put(health, false, detail, alter);
	gt_health_put(health, false, "and then", restart ? "-- restart the server" : "SELECT pg_catalog.pg_reload_conf();");
}

void
gt_health_put_error(GtHealth *health, const char *detail, int sqlstate, const char *otherwise)
{
	if (sqlstate == ERRCODE_DISK_FULL)
		gt_health_put(health, false, detail, "-- make room on the disk: the workers go on by themselves");
	else if (sqlstate == ERRCODE_DATA_CORRUPTED || sqlstate == ERRCODE_INDEX_CORRUPTED)
	{
		gt_health_put(health, false, detail, "REINDEX TABLE CONCURRENTLY _garbagetruck.gt_object;");
		gt_health_put(health, false, "and if it is not that table", "REINDEX TABLE CONCURRENTLY _garbagetruck.gt_lease;");
	}
	else
		gt_health_put(health, false, detail, otherwise);
}

const char *
gt_health_our(const char *name)
{
	if (list_member_oid(fetch_search_path(true), gt_schema()))
		return name;
	return psprintf("%s.%s", quote_identifier(get_namespace_name(gt_schema())), name);
}

static bool
knows_handler(const GtHandler *h)
{
	return gt_handler_may_use(h) || gt_handler_may_claim(h);
}

bool
gt_health_sees(const GtHealth *health, const GtRow *row, bool may_claim)
{
	return health->all || may_claim || gt_acts_for(GT_OID(row, O_OWNER));
}

const char *
gt_health_seconds(int64 us)
{
	return psprintf("%.1f s", (double) us / USECS_PER_SEC);
}

List *
gt_health_handlers(const GtHealth *health)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, gt_handler_list())
		if (health->all || knows_handler(lfirst(lc)))
			result = lappend(result, lfirst(lc));
	return result;
}

void
gt_health_put_more(GtHealth *health, int n, const char *what)
{
	if (n > GT_HEALTH_ROWS)
		gt_health_put(health, false, psprintf("and %d more %s", n - GT_HEALTH_ROWS, what),
					  psprintf("SELECT * FROM %s;", gt_health_our(strcmp(what, "tables") == 0 ? "gt_ttls" : "gt_handlers")));
}
