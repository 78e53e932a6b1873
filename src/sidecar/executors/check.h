/*
 * check.h
 *		Whether a target can be called at all.
 */
#ifndef GT_EXECUTORS_CHECK_H
#define GT_EXECUTORS_CHECK_H

#include <libpq-fe.h>
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

/* Hosts that a look at what is due has met, by the beginning of targets as leases spell it. */
#define TARGETS_MET 512
typedef struct TargetMet
{
	char	   *head;
	Host	   *host;
} TargetMet;
typedef struct TargetsMet
{
	TargetMet	places[TARGETS_MET];
} TargetsMet;

extern void targets_met_free(TargetsMet *met);

/*
 * Append to a look (of gt_garbage AS g) all columns that the target of a handler
 * may be made of, at most so much of each that its host is in it; how many those
 * are; and is there room where a row would wait?
 */
extern void target_columns(PGconn *conn, const char *command, Buffer *sql);
extern int	target_column_count(const char *command);
extern bool target_has_room(Context *context, ExecutorKind kind, const char *command, PGresult *result, int row, TargetsMet *met);

#endif							/* GT_EXECUTORS_CHECK_H */
