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

/* Files that the thread is given at once. */
#define FILE_JOBS 128

extern bool file_prepare(Context *context, Call *call);
extern bool file_lacks(Context *context, const char *command, char *why, size_t why_size);
extern FileThread *file_thread_start(Context *context);
extern void file_thread_stop(FileThread *files);
extern bool file_start(Context *context, Call *call);
extern void file_collect(Context *context);

/* Take back what the thread has not begun; false: it has it in hand. */
extern bool file_withdraw(Context *context, const Call *call);

/*
 * Remove one file beneath root.  True: it is gone, or was not there, while the
 * directory that it would be in is; else `error` says why not.  What is mounted
 * on the way is noted in `mounts`, and must be mounted from then on.
 */
extern bool file_remove(const char *root, Buffer *mounts, const char *path,
						char *error, size_t error_size);

#endif							/* GT_EXECUTORS_FILE_H */
