/*-------------------------------------------------------------------------
 *
 * failures.c
 *	  The log of runs that failed: not more of it than helps.
 *
 * gt_history has each attempt.  What may still be written is kept in this process for
 * a handler, and in shared memory for a role.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/timeout.h"

#include "handler/failures.h"
#include "handler/run.h"
#include "handler/turns.h"
#include "shared/clock.h"

#define LOG_BURST		10		/* failures of a handler that are logged at once; then one a second */

/*
 * May this failure be logged?  A handler that fails all the time must not fill
 * the log, nor may many of one role, in turn: gt_history has each attempt.  *left_out:
 * how many since the last line.
 */
static bool
may_log(int handler, Oid role, int *left_out)
{
	static struct LogRoom
	{
		int			handler;
		int			lines;		/* that may still be written */
		int			left_out;	/* failures since the last one */
		TimestampTz at;
	}			logs[16];
	struct LogRoom *log = &logs[handler % (int) lengthof(logs)];
	TimestampTz now = gt_now();

	if (log->handler != handler)
	{
		memset(log, 0, sizeof(*log));
		log->handler = handler;
	}
	if (now - log->at >= USECS_PER_SEC)
	{
		log->lines = Min(log->lines + (int) Min((now - log->at) / USECS_PER_SEC, LOG_BURST), LOG_BURST);
		log->at = now;
	}
	*left_out = log->left_out;
	if (log->lines == 0 || !gt_role_may_log(role))
	{
		log->left_out++;
		return false;
	}
	log->lines--;
	log->left_out = 0;
	return true;
}

void
gt_run_log_failure(const GtHandler *h, const GtItem *items, int n)
{
	const GtItem *item = &items[0];
	char	   *type = TextDatumGetCString(item->row.v[O_OBJECT_TYPE]);
	char	   *id = TextDatumGetCString(item->row.v[O_OBJECT_ID]);
	int			left_out;

	if (!may_log(h->id, h->run_as, &left_out))
		return;
	ereport(LOG,
			(n == 1 ?
			 errmsg("handler \"%s\" %s on %s \"%s\", attempt %d: %s", h->name,
					item->excused ? "did not run" : "failed", type, id, item->attempt, item->error) :
			 errmsg("handler \"%s\" %s on a batch of %d objects, the first %s \"%s\": %s", h->name,
					item->excused ? "did not run" : "failed", n, type, id, item->error),
			 left_out > 0 ? errdetail("%d failures of it were not logged.", left_out) : 0,
			 errhidestmt(true), errhidecontext(true)));
}
