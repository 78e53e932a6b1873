/*
 * file.c
 *		Handlers of kind file: a path beneath --file-root.
 *
 * Removing is done by a thread of its own, one file after the other, because a
 * file system may hang and nothing can call a thread back from it; the call of
 * the file that it has in hand is never timed out but its claim extended, as the
 * removal may still happen.  What it has not begun can be taken back.  The thread
 * owns no call: it gets paths and gives errors back.
 *
 * The path is walked one component at a time with O_NOFOLLOW, each relative to
 * the directory before it, so that neither ".." nor a symbolic link, nor one
 * put there meanwhile, leads out of the root.
 *
 * That a file is not there counts as removed, so the place must be the right one:
 * the root that it was at the start, and beneath it a mount wherever there has
 * been one since.  An empty directory on which nothing is mounted any more is not.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executors/calls.h"
#include "executors/context.h"
#include "executors/file.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/util.h"

#define FILE_JOBS 128			/* that the thread is given at once */

/* One file to be removed.  In one of the lists of the thread, which its lock guards. */
typedef struct FileJob
{
	struct FileJob *next;
	Call	   *call;			/* of the executors' thread; only kept here */
	char	   *path;
	bool		removed;
	int			shortage;		/* errno of ours that it failed by; 0: none */
	char		error[EXEC_ERROR_SIZE];
} FileJob;

struct FileThread
{
	pthread_t	thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	CURLM	   *multi;			/* to wake the executors */
	char	   *root;
	struct stat root_info;		/* as it was at the start */
	Buffer		mounts;			/* beneath the root, see is_mounted(); the thread's own once it runs */

	/* guarded by lock */
	FileJob    *given;			/* in their order */
	FileJob   **given_end;
	FileJob    *taken;			/* the one in hand */
	FileJob    *done;
	bool		stop;
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

/* Is "/a/b" one of the mounts that are known?  Each of them is followed by a line end, which can be in none of them. */
static bool
is_known_mount(const Buffer *mounts, const char *path, size_t len)
{
	const char *at = mounts->data;

	while (at != NULL && *at != '\0')
	{
		size_t		line = strcspn(at, "\n");

		if (line == len && memcmp(at, path, len) == 0)
			return true;
		at += line + 1;
	}
	return false;
}

static void
add_mount(Buffer *mounts, const char *path, size_t len)
{
	if (memchr(path, '\n', len) != NULL || is_known_mount(mounts, path, len))
		return;
	buffer_add(mounts, path, len);
	buffer_text(mounts, "\n");
}

/* False: something was mounted on this directory, and is not any more.  What is mounted there is noted. */
static bool
is_mounted(Buffer *mounts, int directory, const Buffer *path)
{
	struct statx info;

	/* a system that can not tell says nothing */
	if (statx(directory, "", AT_EMPTY_PATH, 0, &info) != 0 || (info.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0)
		return true;
	if ((info.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0)
		return !is_known_mount(mounts, path->data, path->len);
	add_mount(mounts, path->data, path->len);
	return true;
}

/* The next directory on the way, whose path from the root is `path`; -1: there is none that we would go to. */
static int
open_component(int parent, const char *component, const Buffer *path, Buffer *mounts, char *error, size_t error_size)
{
	int			opened = openat(parent, component, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (opened >= 0 && is_mounted(mounts, opened, path))
		return opened;
	if (opened >= 0)
		snprintf(error, error_size, "nothing is mounted any more on \"%.200s\" beneath --file-root", path->data);
	else if (errno == ENOENT)
		snprintf(error, error_size, "the directory \"%.200s\" in the path is not there: is something not mounted?", component);
	else
		snprintf(error, error_size, "\"%.200s\" in the path is no directory, or a symbolic link: %s",
				 component, strerror(errno));
	if (opened >= 0)
		close(opened);
	return -1;
}

/* Walk down to the last component; *rest is moved to it. */
static int
open_parent(const char *root, Buffer *mounts, char **rest, char *error, size_t error_size)
{
	char	   *component = *rest + strspn(*rest, "/");
	int			directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	Buffer		path = {NULL, 0, 0};

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
		buffer_printf(&path, "/%s", component);
		opened = open_component(directory, component, &path, mounts, error, error_size);
		close(directory);
		directory = opened;
		component = next;
	}
	buffer_free(&path);
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

/* The path below the root, as it is written; NULL: it is none that we would go. */
static const char *
plain_path(const char *root, const char *path, char *error, size_t error_size)
{
	const char *relative = relative_path(root, path);

	if (relative == NULL)
		snprintf(error, error_size, "\"%.200s\" is not beneath --file-root", path);
	else if (has_dot_component(relative) || relative[strspn(relative, "/")] == '\0' || relative[strlen(relative) - 1] == '/')
		snprintf(error, error_size, "\"%.200s\" is no plain path of a file: it has \".\" or \"..\", or ends in \"/\"", path);
	else
		return relative;
	return NULL;
}

bool
file_remove(const char *root, Buffer *mounts, const char *path, char *error, size_t error_size)
{
	const char *relative = plain_path(root, path, error, error_size);
	char	   *copy;
	char	   *name;
	int			directory;
	bool		removed = false;

	if (relative == NULL)
		return false;
	copy = exec_strdup(relative);
	name = copy;
	snprintf(error, error_size, "%s", "");
	directory = open_parent(root, mounts, &name, error, error_size);
	if (directory >= 0)
	{
		removed = remove_entry(directory, name, error, error_size);
		close(directory);
	}
	free(copy);
	return removed;
}

/* In the table of mounts a blank, a tab, a line end and a backslash are written in octal. */
static void
decode_octal(char *text)
{
	char	   *to = text;

	for (; *text != '\0'; text++)
	{
		if (text[0] == '\\' && strspn(text + 1, "01234567") >= 3)
		{
			*to++ = (char) ((text[1] - '0') * 64 + (text[2] - '0') * 8 + text[3] - '0');
			text += 3;
		}
		else
			*to++ = *text;
	}
	*to = '\0';
}

/* The number of the mount that a directory is on, and its path as the table of mounts would spell it; -1: not to be had. */
static int
mount_of(const char *root, char *real, size_t real_size)
{
	char		line[256];
	char		path[64];
	FILE	   *file;
	ssize_t		len;
	int			directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int			id = -1;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", directory);
	len = readlink(path, real, real_size - 1);
	real[len > 0 ? len : 0] = '\0';
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", directory);
	file = directory >= 0 ? fopen(path, "re") : NULL;
	while (file != NULL && fgets(line, sizeof(line), file) != NULL && sscanf(line, "mnt_id: %d", &id) != 1)
		;
	if (file != NULL)
		fclose(file);
	if (directory >= 0)
		close(directory);
	return id;
}

/*
 * Is it systemd's PrivateTmp=?  "yes" mounts a directory of that name there,
 * "disconnected" one of a new tmpfs, where others would have its root.
 */
static bool
is_private_tmp(const char *line, const char *source, const char *point)
{
	if (strstr(source, "/systemd-private-") != NULL)
		return true;
	return strstr(line, " - tmpfs ") != NULL &&
		((strcmp(point, "/tmp") == 0 && strcmp(source, "/tmp") == 0) ||
		 (strcmp(point, "/var/tmp") == 0 && strcmp(source, "/var-tmp") == 0));
}

/*
 * Read the table of mounts: those beneath the root are noted, and whether the
 * root is on a /tmp or /var/tmp that only this process sees.  That is empty, and
 * everything in it would seem removed.  The mount that it is on tells, not another one.
 */
static void
read_mounts(const char *root, Buffer *mounts, bool *is_private)
{
	char		line[8192];
	char		source[4096];
	char		point[4096];
	char		real[4096];
	int			wanted = mount_of(root, real, sizeof(real));
	size_t		len = strcmp(real, "/") == 0 ? 0 : strlen(real);
	FILE	   *file = wanted >= 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
	int			id;

	*is_private = false;
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
	{
		if (sscanf(line, "%d %*d %*s %4095s %4095s", &id, source, point) != 3)
			continue;
		decode_octal(point);
		if (id == wanted)
			*is_private = is_private_tmp(line, source, point);
		else if (strncmp(point, real, len) == 0 && point[len] == '/' && point[len + 1] != '\0')
			add_mount(mounts, point + len, strlen(point + len));
	}
	if (file != NULL)
		fclose(file);
}

static bool
file_lacks(Context *context, const char *command, char *why, size_t why_size)
{
	if (context->settings.file_root == NULL)
		snprintf(why, why_size, "start the sidecar with --file-root DIR");
	else if (context->settings.private_root)
		snprintf(why, why_size, "--file-root is in a /tmp that only the sidecar sees (PrivateTmp= of its unit): give it another directory");
	return context->settings.file_root == NULL || context->settings.private_root;
}

static bool
file_prepare(Context *context, Call *call)
{
	if (context->settings.file_root == NULL)
	{
		snprintf(call->error, sizeof(call->error), "the sidecar was started without --file-root");
		return false;
	}
	call->host_name = exec_strdup("/");	/* no host's name */
	return call_expand(call, call->command, TARGET_FILE) &&
		plain_path(context->settings.file_root, call->target.text.data, call->error, sizeof(call->error)) != NULL;
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

static void
job_free(FileJob *job)
{
	if (job == NULL)
		return;
	free(job->path);
	free(job);
}

static void
jobs_free(FileJob *job)
{
	while (job != NULL)
	{
		FileJob    *next = job->next;

		job_free(job);
		job = next;
	}
}

static void *
file_thread(void *arg)
{
	FileThread *files = arg;

	pthread_mutex_lock(&files->lock);
	while (!files->stop)
	{
		FileJob    *job = files->given;
		bool		news;

		if (job == NULL)
		{
			pthread_cond_wait(&files->changed, &files->lock);
			continue;
		}
		files->given = job->next;
		if (files->given == NULL)
			files->given_end = &files->given;
		files->taken = job;
		pthread_mutex_unlock(&files->lock);
		errno = 0;
		job->removed = is_same_root(files, job->error, sizeof(job->error)) &&
			file_remove(files->root, &files->mounts, job->path, job->error, sizeof(job->error));
		if (!job->removed && exec_is_shortage(errno))
			job->shortage = errno;
		pthread_mutex_lock(&files->lock);
		files->taken = NULL;
		news = files->done == NULL;
		job->next = files->done;
		files->done = job;
		if (news && !files->stop)
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
	read_mounts(context->settings.file_root, &files->mounts, &context->settings.private_root);
	files->root = exec_strdup(context->settings.file_root);
	if (stat(files->root, &files->root_info) != 0)
		memset(&files->root_info, 0, sizeof(files->root_info)); /* none is the same */
	files->multi = context->multi;
	files->given_end = &files->given;
	pthread_mutex_init(&files->lock, NULL);
	pthread_cond_init(&files->changed, NULL);
	if (pthread_create(&files->thread, NULL, file_thread, files) == 0)
		return files;
	buffer_free(&files->mounts);
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
	busy = files->taken != NULL;
	pthread_cond_signal(&files->changed);
	pthread_mutex_unlock(&files->lock);

	/* a thread that hangs in the file system is left to the process' end */
	if (busy)
	{
		pthread_detach(files->thread);
		return;
	}
	pthread_join(files->thread, NULL);
	jobs_free(files->given);
	jobs_free(files->done);
	buffer_free(&files->mounts);
	free(files->root);
	free(files);
}

static bool
file_start(Context *context, Call *call)
{
	FileThread *files = context->files;
	FileJob    *job = exec_alloc(sizeof(*job));

	job->call = call;
	job->path = exec_strdup(call->target.text.data);
	pthread_mutex_lock(&files->lock);
	*files->given_end = job;
	files->given_end = &job->next;
	pthread_cond_signal(&files->changed);
	pthread_mutex_unlock(&files->lock);
	return true;
}

static bool
file_withdraw(Context *context, const Call *call)
{
	FileThread *files = context->files;
	FileJob    *job;
	FileJob   **link;

	pthread_mutex_lock(&files->lock);
	for (link = &files->given; *link != NULL && (*link)->call != call; link = &(*link)->next)
		;
	job = *link;
	if (job != NULL)
	{
		*link = job->next;
		if (job->next == NULL)
			files->given_end = link;
	}
	pthread_mutex_unlock(&files->lock);
	job_free(job);
	return job != NULL;
}

static void
file_collect(Context *context)
{
	FileThread *files = context->files;
	FileJob    *job;

	if (files == NULL)
		return;
	pthread_mutex_lock(&files->lock);
	job = files->done;
	files->done = NULL;
	pthread_mutex_unlock(&files->lock);
	while (job != NULL)
	{
		FileJob    *next = job->next;
		Call	   *call = job->call;

		host_answered(context, call->host, exec_now() - call->started_at);
		if (job->removed)
			call_succeed(context, call);
		else
		{
			memcpy(call->error, job->error, sizeof(call->error));
			call->ours = job->shortage != 0;
			call_fail(context, call, false);
		}
		job_free(job);
		job = next;
	}
}

const ExecutorOps file_ops = {
	.prepare = file_prepare,
	.start = file_start,
	.lacks = file_lacks,
	.sample = "1",
	.transfer = TRANSFER_NONE,
	.collect = file_collect,
	.withdraw = file_withdraw,
	.at_once = FILE_JOBS,		/* one thread does them, one by one */
};
