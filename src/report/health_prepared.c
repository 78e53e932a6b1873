/*-------------------------------------------------------------------------
 *
 * health_prepared.c
 *	  gt_health(): prepared transactions that nobody ends.
 *
 * What one of them holds is told by its locks on our tables: they are there after a
 * restart, too.  Nobody but its users can know whether it is to be committed, so there
 * is a row for either.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "report/health_checks.h"
#include "rights/owner.h"

#define OLD	"FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - interval '5 minutes'"

/*
 * gid as a literal, owner, age, what it has locked, is it the caller's: of the oldest
 * first.  In pg_locks a prepared transaction has no process; which one it is tells the
 * lock on its own id.
 */
static const char *const old_ones =
"WITH l AS MATERIALIZED (SELECT * FROM pg_locks WHERE pid IS NULL AND granted)"
" SELECT quote_literal(p.gid), p.owner, date_trunc('second', clock_timestamp() - p.prepared),"
" string_agg(DISTINCT c.relname, ', ' ORDER BY c.relname), p.owner = $1"
" FROM (SELECT * " OLD ") p"
" JOIN l t ON t.locktype = 'transactionid' AND t.transactionid = p.transaction"
" JOIN l r ON r.locktype = 'relation' AND r.virtualtransaction = t.virtualtransaction"
" AND r.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
" JOIN pg_class c ON c.oid = r.relation AND c.relnamespace = '_garbagetruck'::regnamespace AND c.relkind = 'r'"
" GROUP BY p.gid, p.owner, p.prepared ORDER BY p.prepared";

/* As the extension's owner, connected to the SPI. Returns how many there are. */
static uint64
look_for_old(const char *caller)
{
	Oid			types[1] = {NAMEOID};
	Datum		values[1];

	if (SPI_execute("SELECT 1 " OLD, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for prepared transactions");
	if (SPI_processed == 0)
		return 0;
	values[0] = DirectFunctionCall1(namein, CStringGetDatum(caller));
	if (SPI_execute_with_args(old_ones, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the locks of prepared transactions");
	return SPI_processed;
}

static void
put_old(GtHealth *health, HeapTuple tuple)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	char	   *gid = SPI_getvalue(tuple, desc, 1);

	gt_health_put(health, false, psprintf("transaction %s of %s has been prepared for %s and holds locks (%s): commit it", gid,
										  SPI_getvalue(tuple, desc, 2), SPI_getvalue(tuple, desc, 3),
										  SPI_getvalue(tuple, desc, 4)),
				  psprintf("COMMIT PREPARED %s;", gid));
	gt_health_put(health, false, psprintf("or roll %s back, whichever the others of its distributed transaction did", gid),
				  psprintf("ROLLBACK PREPARED %s;", gid));
}

void
gt_health_prepared(GtHealth *health)
{
	const char *caller = GetUserNameFromId(GetUserId(), false);
	uint64		shown = 0;
	uint64		n;
	uint64		i;
	GtSwitch	save;

	if (max_prepared_xacts == 0 || health->standby)
	{
		gt_health_put(health, true, "no transaction can be prepared here", NULL);
		return;
	}
	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	n = look_for_old(caller);
	for (i = 0; i < n && shown < GT_HEALTH_ROWS; i++)
	{
		bool		isnull;

		if (!health->all && !DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 5, &isnull)))
			continue;
		put_old(health, SPI_tuptable->vals[i]);
		shown++;
	}
	SPI_finish();
	gt_become_user(&save);
	if (n > shown && health->all)
		gt_health_put(health, false, psprintf("and " UINT64_FORMAT " more prepared transactions", n - shown),
					  "SELECT * FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared;");
	else if (n > shown && shown == 0)
		gt_health_put(health, false, "a transaction of somebody else has been prepared for long, and holds locks",
					  "-- monitors are told which");
	else if (n == 0)
		gt_health_put(health, true, "no prepared transaction has held locks for five minutes", NULL);
}
