/*
 * file.c
 *		Handlers of kind file: a path beneath --file-root.
 *
 * Removing is done by a thread of its own, one file at a time, because a file
 * system may hang and nothing can call a thread back from it; its call is then
 * never timed out but its claim extended, as the removal may still happen.
 * The thread owns no call: it gets a path and gives an error back.
 *
 * The path is walked one component at a time with O_NOFOLLOW, each relative to
 * the directory before it, so that neither ".." nor a symbolic link, nor one
 * put there meanwhile, leads out of the root.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exec.h"

/* One job at a time; state is guarded by lock. */
struct FileThread
{
	pthread_t	thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	CURLM	   *multi;			/* to wake the executors */
	char	   *root;
	struct stat root_info;		/* as it was at the start */
	enum
	{
		JOB_NONE, JOB_GIVEN, JOB_TAKEN, JOB_DONE
	}			state;
	bool		stop;
	char	   *path;
	Call	   *call;			/* of the executors' thread; only kept here */
	bool		removed;
	char		error[EXEC_ERROR_SIZE];
};

/* Remove `name` in the directory. */
static bool
remove_entry(int directory, const char *name, char *error, size_t error_size)
{
	struct stat info;

	if (fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode))
	{
		snprintf(error, error_size, "\"%.200s\" is a directory", name);
		return false;
	}
	/* without AT_REMOVEDIR this never removes a directory */
	if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
		return true;
	snprintf(error, error_size, "could not remove \"%.200s\": %s", name, strerror(errno));
	return false;
}

/* The path below the root; NULL when it is elsewhere. */
static const char *
relative_path(const char *root, const char *path)
{
	size_t		len = strlen(root);

	if (path[0] != '/')
		return path;
	while (len > 0 && root[len - 1] == '/')
		len--;
	if (strncmp(path, root, len) != 0 || path[len] != '/')
		return NULL;
	return path + len;
}

/* Walk down to the last component; *rest is moved to it. */
static int
open_parent(const char *root, char **rest, char *error, size_t error_size)
{
	char	   *component = *rest + strspn(*rest, "/");
	int			directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0)
		snprintf(error, error_size, "could not open --file-root \"%.200s\": %s", root, strerror(errno));
	while (directory >= 0)
	{
		size_t		len = strcspn(component, "/");
		char	   *next = component + len + strspn(component + len, "/");
		int			opened;

		if (*next == '\0')
			break;
		component[len] = '\0';
		opened = openat(directory, component, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (opened < 0 && errno == ENOENT)
			snprintf(error, error_size, "the directory \"%.200s\" in the path is not there: is something not mounted?", component);
		else if (opened < 0)
			snprintf(error, error_size, "\"%.200s\" in the path is no directory, or a symbolic link: %s",
					 component, strerror(errno));
		close(directory);
		directory = opened;
		component = next;
	}
	*rest = component;
	return directory;
}

static bool
has_dot_component(const char *path)
{
	while (*path != '\0')
	{
		size_t		len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if ((len == 1 && path[0] == '.') || (len == 2 && path[0] == '.' && path[1] == '.'))
			return true;
		path += len;
	}
	return false;
}

bool
file_remove(const char *root, const char *path, char *error, size_t error_size)
{
	const char *relative = relative_path(root, path);
	char	   *copy;
	char	   *name;
	int			directory;
	bool		removed = false;

	if (relative == NULL)
	{
		snprintf(error, error_size, "\"%.200s\" is not beneath --file-root", path);
		return false;
	}
	if (has_dot_component(relative) || relative[strspn(relative, "/")] == '\0' ||
		relative[strlen(relative) - 1] == '/')
	{
		snprintf(error, error_size, "\"%.200s\" is no plain path of a file: it has \".\" or \"..\", or ends in \"/\"", path);
		return false;
	}
	copy = exec_strdup(relative);
	name = copy;
	snprintf(error, error_size, "%s", "");
	directory = open_parent(root, &name, error, error_size);
	if (directory >= 0)
	{
		removed = remove_entry(directory, name, error, error_size);
		close(directory);
	}
	free(copy);
	return removed;
}

/*
 * Does the path lie on a /tmp or /var/tmp that only this process sees?  Under
 * systemd's PrivateTmp= it is empty, and everything in it would seem removed.
 * The source of its mount tells.
 */
static bool
is_private_tmp(const char *path)
{
	char		line[4096];
	FILE	   *mounts;
	bool		is_private = false;

	if (strncmp(path, "/tmp", 4) != 0 && strncmp(path, "/var/tmp", 8) != 0)
		return false;
	mounts = fopen("/proc/self/mountinfo", "re");
	while (mounts != NULL && !is_private && fgets(line, sizeof(line), mounts) != NULL)
		is_private = strstr(line, "/systemd-private-") != NULL;
	if (mounts != NULL)
		fclose(mounts);
	return is_private;
}

const char *
file_lacks(const Settings *settings, const char *command)
{
	if (settings->file_root == NULL)
		return "start the sidecar with --file-root DIR";
	if (is_private_tmp(settings->file_root))
		return "--file-root is in a /tmp that only the sidecar sees (PrivateTmp= of its unit): give it another directory";
	return NULL;
}

bool
file_prepare(Context *context, Call *call)
{
	if (context->settings.file_root == NULL)
	{
		snprintf(call->error, sizeof(call->error), "the sidecar was started without --file-root");
		return false;
	}
	call->host_name = exec_strdup("file");
	return call_expand(call, call->command, TARGET_FILE);
}

/* Another directory of that name has none of the files: nothing would be removed, and all of it would seem done. */
static bool
is_same_root(const FileThread *files, char *error, size_t error_size)
{
	struct stat info;

	if (stat(files->root, &info) == 0 &&
		info.st_dev == files->root_info.st_dev && info.st_ino == files->root_info.st_ino)
		return true;
	snprintf(error, error_size, "--file-root \"%.200s\" is not the directory that it was when the sidecar started: is something mounted there, or no longer?",
			 files->root);
	return false;
}

static void *
file_thread(void *arg)
{
	FileThread *files = arg;

	pthread_mutex_lock(&files->lock);
	while (!files->stop)
	{
		char	   *path;
		char		error[EXEC_ERROR_SIZE];
		bool		removed;

		if (files->state != JOB_GIVEN)
		{
			pthread_cond_wait(&files->changed, &files->lock);
			continue;
		}
		files->state = JOB_TAKEN;
		path = files->path;
		files->path = NULL;
		pthread_mutex_unlock(&files->lock);
		removed = is_same_root(files, error, sizeof(error)) &&
			file_remove(files->root, path, error, sizeof(error));
		free(path);
		pthread_mutex_lock(&files->lock);
		files->removed = removed;
		memcpy(files->error, error, sizeof(error));
		files->state = JOB_DONE;
		if (!files->stop)
			curl_multi_wakeup(files->multi);
	}
	pthread_mutex_unlock(&files->lock);
	return NULL;
}

FileThread *
file_thread_start(Context *context)
{
	FileThread *files;

	if (context->settings.file_root == NULL)
		return NULL;
	files = exec_alloc(sizeof(*files));
	files->root = exec_strdup(context->settings.file_root);
	if (stat(files->root, &files->root_info) != 0)
		memset(&files->root_info, 0, sizeof(files->root_info)); /* none is the same */
	files->multi = context->multi;
	pthread_mutex_init(&files->lock, NULL);
	pthread_cond_init(&files->changed, NULL);
	if (pthread_create(&files->thread, NULL, file_thread, files) == 0)
		return files;
	free(files->root);
	free(files);
	return NULL;
}

void
file_thread_stop(FileThread *files)
{
	bool		busy;

	if (files == NULL)
		return;
	pthread_mutex_lock(&files->lock);
	files->stop = true;
	busy = files->state == JOB_TAKEN;
	pthread_cond_signal(&files->changed);
	pthread_mutex_unlock(&files->lock);

	/* a thread that hangs in the file system is left to the process' end */
	if (busy)
	{
		pthread_detach(files->thread);
		return;
	}
	pthread_join(files->thread, NULL);
	free(files->path);
	free(files->root);
	free(files);
}

bool
file_start(Context *context, Call *call)
{
	FileThread *files = context->files;

	pthread_mutex_lock(&files->lock);
	files->path = exec_strdup(call->target.text.data);
	files->call = call;
	files->state = JOB_GIVEN;
	pthread_cond_signal(&files->changed);
	pthread_mutex_unlock(&files->lock);
	return true;
}

void
file_collect(Context *context)
{
	FileThread *files = context->files;
	Call	   *call = NULL;
	bool		removed = false;

	if (files == NULL)
		return;
	pthread_mutex_lock(&files->lock);
	if (files->state == JOB_DONE)
	{
		call = files->call;
		removed = files->removed;
		memcpy(call->error, files->error, sizeof(call->error));
		files->call = NULL;
		files->state = JOB_NONE;
	}
	pthread_mutex_unlock(&files->lock);
	if (call == NULL)
		return;
	if (removed)
		call_succeed(context, call);
	else
		call_fail(context, call, false);
}
