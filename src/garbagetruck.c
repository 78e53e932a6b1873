/*-------------------------------------------------------------------------
 *
 * garbagetruck.c
 *	  What is done when the library is loaded.
 *
 * Loaded by shared_preload_libraries it has shared memory, a launcher and hooks
 * on commands that concern databases.  Loaded later, by the first call of one of
 * its functions, it has none of these and everything else works.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/library.h"
#include "base/settings.h"
#include "clean/marks.h"
#include "process/commands.h"
#include "process/launcher.h"
#include "shared/ids.h"
#include "shared/margins.h"
#include "shared/observe.h"
#include "shared/parts.h"
#include "shared/prepared.h"
#include "shared/quota.h"
#include "shared/renewals.h"
#include "ttl/ttl.h"

PG_MODULE_MAGIC;

extern void _PG_init(void);

void
_PG_init(void)
{
	/* pg_upgrade moves rows, nothing of ours may act on them meanwhile */
	if (IsBinaryUpgrade)
		return;
	gt_library_init();
	gt_settings_init(process_shared_preload_libraries_in_progress);
	gt_ttl_init();
	if (process_shared_preload_libraries_in_progress)
	{
		gt_shmem_init();
		gt_observe_init();
		gt_prepared_init();
		gt_margins_init();
		gt_renewals_init();
		gt_quota_init();
		gt_ids_init();
		gt_clean_init();
		gt_launcher_init();
		gt_database_init();
	}
}
