/*-------------------------------------------------------------------------
 *
 * point.c
 *	  Fault points, in builds with -DGT_FAULT_POINTS only: places where a test makes
 *	  a process wait, fail or die.
 *
 * See point.h for how a test asks for it.  Any process may come by one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "base/point.h"

#ifdef GT_FAULT_POINTS
/* Called with the data directory as the current one, as all server processes are. */
void
gt_point_at(const char *name)
{
	char		path[MAXPGPATH];
	char		waiting[MAXPGPATH];
	char		action[16] = "";
	struct stat st;
	FILE	   *file;

	snprintf(path, sizeof(path), "gt_point.%s", name);
	if (stat(path, &st) != 0 || (file = AllocateFile(path, "r")) == NULL)
		return;
	if (fscanf(file, "%15s", action) != 1)
		action[0] = '\0';
	FreeFile(file);

	if (strcmp(action, "wait") == 0)
	{
		snprintf(waiting, sizeof(waiting), "%s.waiting", path);
		if ((file = AllocateFile(waiting, "w")) != NULL)
			FreeFile(file);
		while (stat(path, &st) == 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		(void) unlink(waiting);
		return;
	}
	if (unlink(path) != 0)
		return;					/* another process was first */
	if (strcmp(action, "error") == 0)
		ereport(ERROR, (errmsg("fault point \"%s\"", name)));
	if (strcmp(action, "fatal") == 0)
		ereport(FATAL, (errmsg("fault point \"%s\"", name)));
	if (strcmp(action, "crash") == 0)
		kill(MyProcPid, SIGKILL);
}
#endif
