/*
 * check.h
 *		Whether a target can be called at all.
 */
#ifndef GT_EXECUTORS_CHECK_H
#define GT_EXECUTORS_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "executors/context.h"
#include "executors/executors.h"

/*
 * Is this a target that calls of the kind can be made to, whatever leases fill
 * in?  Judged by what prepares the calls, so that both are of one mind.
 */
extern bool target_is_possible(Context *context, ExecutorKind kind, const char *command,
							   char *error, size_t error_size);

#endif							/* GT_EXECUTORS_CHECK_H */
