/*-------------------------------------------------------------------------
 *
 * marks.c
 *	  Marks: files that tell what has become of a run on record whose process is gone.
 *
 * A process that leaves a run on record, and knows why, leaves a file
 * garbagetruck.KIND.DATABASE.SERIAL in the data directory: evicted (it was terminated
 * while the run was on its way) or undone (nobody's doing, or the error in it).  It can
 * do so where no transaction can be, also in a signal handler.  crash.c reads it, and
 * removes what belongs to no record.  A mark that is lost leaves a crash.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/array.h"

#include "clean/cleaner.h"
#include "clean/marks.h"
#include "shared/parts.h"
#include "table/table.h"

#define MARK_PREFIX	"garbagetruck."

/* what the signals' handler makes, and whether there may be a record that it is for */
static char mark_at_signal[MAXPGPATH];
static volatile sig_atomic_t may_have_record = false;

static struct sigaction quit_before;
static struct sigaction abort_before;

void
gt_mark_path(char *path, const char *kind, int64 serial)
{
	snprintf(path, MAXPGPATH, MARK_PREFIX "%s.%u." INT64_FORMAT, kind, MyDatabaseId, serial);
}

bool
gt_clean_has_failed(GtCleaner *c)
{
	return c->failure[0] != '\0';
}

void
gt_mark_arm(int64 serial)
{
	gt_mark_path(mark_at_signal, "undone", serial);
	may_have_record = true;
}

void
gt_mark_disarm(void)
{
	may_have_record = false;
}

/* Leaves one for the record that there may be. */
static void
leave_mark(GtCleaner *c, const char *kind, const char *text)
{
	char		path[MAXPGPATH];
	int			fd;

	if (c->serial == 0)
		return;
	gt_mark_path(path, kind, c->serial);
	fd = open(path, O_CREAT | O_WRONLY | PG_BINARY, pg_file_create_mode);
	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
		return;
	}
	/* what does not fit on a full disk is left out: the file is the mark */
	if (text != NULL && write(fd, text, strlen(text)) < 0)
		errno = 0;
	close(fd);
}

/* What had not begun did not happen, and that is all. */
void
gt_clean_evicted(GtCleaner *c)
{
	if (c->begun)
		leave_mark(c, "evicted", NULL);
	else
		gt_clean_undone(c, NULL);
}

void
gt_clean_undone(GtCleaner *c, const char *error)
{
	if (gt_clean_has_failed(c))
		error = c->failure;
	else if (!c->begun)
		error = NULL;
	leave_mark(c, "undone", error);
}

/* Other transactions than the run's own leave the run on record as it is: it comes next. */
void
gt_clean_failed(GtCleaner *c, const char *error)
{
	if (c->durable && c->begun)
		strlcpy(c->failure, error, pg_mbcliplen(error, strlen(error), GT_MAX_FAILURE - 1) + 1);
}

/* The abort has released the lock; while a run is on record our slot stands for it. */
void
gt_clean_restart(GtCleaner *c)
{
	c->locked = false;
	if (c->durable && !c->begun)
		return;
	c->begun = false;
	c->nitems = 0;
	c->optimistic = false;
	c->proposed = 0;
	c->nparts = 0;
	c->nbusy = 0;
}

/*
 * Another process went first (SIGQUIT), or this one panics: not the handler's
 * doing.  What the signal meant before happens next.
 */
static void
mark_and_go(int signo)
{
	int			save_errno = errno;

	if (may_have_record && (signo == SIGQUIT || CritSectionCount > 0))
	{
		int			fd = open(mark_at_signal, O_CREAT | O_WRONLY, pg_file_create_mode);

		if (fd >= 0)
			close(fd);
	}
	sigaction(signo, signo == SIGQUIT ? &quit_before : &abort_before, NULL);
	errno = save_errno;
	raise(signo);				/* blocked until we return */
}

void
gt_clean_watch(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = mark_and_go;
	sigemptyset(&action.sa_mask);
	sigaction(SIGQUIT, &action, &quit_before);
	sigaction(SIGABRT, &action, &abort_before);
}

void
gt_clean_unwatch(void)
{
	may_have_record = false;
	sigaction(SIGQUIT, &quit_before, NULL);
	sigaction(SIGABRT, &abort_before, NULL);
}

/* Removes marks of a database (InvalidOid: of all) whose record is not among `runs` (NULL: all of them). */
void
gt_marks_remove(Oid database, GtTable *runs)
{
	DIR		   *dir = AllocateDir(".");
	struct dirent *entry;

	while ((entry = ReadDirExtended(dir, ".", LOG)) != NULL)
	{
		unsigned int of;
		long long	serial;
		Datum		key;
		GtRow		row;

		if (sscanf(entry->d_name, MARK_PREFIX "evicted.%u.%lld", &of, &serial) != 2 &&
			sscanf(entry->d_name, MARK_PREFIX "undone.%u.%lld", &of, &serial) != 2)
			continue;
		key = Int64GetDatum(serial);
		if ((OidIsValid(database) && of != database) ||
			(runs != NULL && gt_fetch(runs, GT__RUN_PKEY, 1, &key, &row)))
			continue;
		(void) unlink(entry->d_name);
	}
	FreeDir(dir);
}

void
gt_clean_forget_marks(Oid database)
{
	gt_marks_remove(database, NULL);
}

/* Postmaster: what a standby has of marks means nothing; its promotion begins another timeline, and undoes what is marked here. */
static void
start(bool first)
{
	if (first && access("standby.signal", F_OK) == 0)
		gt_marks_remove(InvalidOid, NULL);
}

void
gt_clean_init(void)
{
	gt_shmem_part(0, start);
}

char *
gt_mark_read(const char *path)
{
	char		text[GT_MAX_FAILURE];
	int			fd = open(path, O_RDONLY | PG_BINARY, 0);
	ssize_t		n;

	if (fd < 0)
		return NULL;
	n = read(fd, text, sizeof(text));
	close(fd);
	return n > 0 ? pnstrdup(text, n) : NULL;
}
