/*
 * file.h
 *		Files, by a thread of their own.
 */
#ifndef GT_EXECUTORS_FILE_H
#define GT_EXECUTORS_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "executors/context.h"
#include "executors/util.h"

extern FileThread *file_thread_start(Context *context);
extern void file_thread_stop(FileThread *files);

/*
 * Remove one file beneath root.  True: it is gone, or was not there, while the
 * directory that it would be in is; else `error` says why not.  What is mounted
 * on the way is noted in `mounts`, and must be mounted from then on.
 */
extern bool file_remove(const char *root, Buffer *mounts, const char *path,
						char *error, size_t error_size);

#endif							/* GT_EXECUTORS_FILE_H */
