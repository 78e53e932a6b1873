/*-------------------------------------------------------------------------
 *
 * library.c
 *	  The library that is loaded: its version, and what has become of it on disk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "base/garbagetruck.h"
#include "base/library.h"

PG_FUNCTION_INFO_V1(gt__needs_library);

/* The library as it was when this process, or the postmaster for it, has loaded it. */
static struct stat loaded;

static bool
stat_library(struct stat *st)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/garbagetruck%s", pkglib_path, DLSUFFIX);
	return stat(path, st) == 0;
}

char *
gt_library_changed(void)
{
	struct stat now;

	if (loaded.st_ino == 0)
		return NULL;			/* it was loaded from elsewhere */
	if (!stat_library(&now))
		return "the library is not on disk any more: new sessions can not load it";
	if (now.st_ino != loaded.st_ino || now.st_mtime != loaded.st_mtime || now.st_size != loaded.st_size)
		return "the library on disk is another one than the server has loaded";
	return NULL;
}

bool
gt_version_is_newer(const char *a, const char *b)
{
	int			major[2] = {0, 0};
	int			minor[2] = {0, 0};

	if (sscanf(a, "%d.%d", &major[0], &minor[0]) < 1 || sscanf(b, "%d.%d", &major[1], &minor[1]) < 1)
		return false;
	return major[0] != major[1] ? major[0] > major[1] : minor[0] > minor[1];
}

/* gt__needs_library(version): first thing in an update script whose SQL a library before that version can not serve. */
Datum
gt__needs_library(PG_FUNCTION_ARGS)
{
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (gt_version_is_newer(version, GT_VERSION))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("version %s of garbagetruck needs a newer library than %s, which is loaded", version, GT_VERSION),
				 errhint("Install it, and restart the server if the library is preloaded.")));
	PG_RETURN_VOID();
}

void
gt_library_init(void)
{
	if (!stat_library(&loaded))
		memset(&loaded, 0, sizeof(loaded));
}
