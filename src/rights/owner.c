/*-------------------------------------------------------------------------
 *
 * owner.c
 *	  Being the extension's owner for a while: for SQL on our tables, and for grants.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "rights/owner.h"
#include "table/relations.h"

/* Until gt_become_user(), or the end of the (sub)transaction, whatever runs is the owner's doing. */
void
gt_become_owner(GtSwitch *save)
{
	Oid			owner = gt_owner();

	GetUserIdAndSecContext(&save->user, &save->sec_context);
	save->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, save->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
gt_become_user(GtSwitch *save)
{
	AtEOXact_GUC(false, save->guc_level);
	SetUserIdAndSecContext(save->user, save->sec_context);
}

/* One GRANT or REVOKE, as the extension's owner. */
void
gt_execute_as_owner(const char *sql)
{
	GtSwitch	save;

	gt_become_owner(&save);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to the SPI");
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", sql);
	SPI_finish();
	gt_become_user(&save);
}
