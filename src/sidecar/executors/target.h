/*
 * target.h
 *		Templates of targets, filled in with what leases say.
 */
#ifndef GT_EXECUTORS_TARGET_H
#define GT_EXECUTORS_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "executors/util.h"

/* What a target is, which tells how its placeholders are encoded. */
typedef enum TargetForm
{
	TARGET_URL,					/* '/' in a value becomes %2F */
	TARGET_BLOB_URL,			/* '/' in a value stays */
	TARGET_NAME,				/* scheme://container/name, as it is */
	TARGET_REDIS,				/* redis://host:port/DB/KEY, as it is */
	TARGET_FILE					/* a path, as it is */
} TargetForm;

typedef struct TargetValues
{
	const char *object_id;
	const char *object_type;
	const char *lease_id;
	const char *service_id;
	const Pair *payload;		/* scalars of the payload, by key */
	int			payload_count;
} TargetValues;

typedef struct Target
{
	Buffer		text;
	bool		lease_host;		/* the host comes from a lease */
} Target;

/*
 * Fill in a template.  False, with a reason in `error`, when a placeholder is
 * unknown, has no value, or has one that its place can not hold.  No I/O.
 */
extern bool target_expand(const char *template, TargetForm form,
						  const TargetValues *values, Target *target,
						  char *error, size_t error_size);
extern void target_free(Target *target);

/*
 * Write as much of what a template says, with the values as they are, as has
 * the host in it; all of it, where that cannot be told.
 */
extern void target_head(const char *template, const TargetValues *values, Buffer *head);

/*
 * Has the path of the URL a "." or ".." segment?  Servers and proxies resolve
 * those: a value must not climb by them.
 */
extern bool target_climbs(const char *url);

#endif							/* GT_EXECUTORS_TARGET_H */
