/*
 * object_types.h
 *		The types of objects that have a number on the wire: ObjectType of
 *		distributed_gc, from 1 on.  All others are CUSTOM there, which comes after
 *		them.
 */
#ifndef GT_OBJECT_TYPES_H
#define GT_OBJECT_TYPES_H

#include <string.h>

/* Their names in SQL, and as distributed_gc spells them, in the order of their numbers. */
#define FOR_OBJECT_TYPES(X) \
	X(database_row, DatabaseRow) \
	X(blob_storage, BlobStorage) \
	X(temporary_file, TemporaryFile) \
	X(websocket_session, WebsocketSession) \
	X(cache_entry, CacheEntry)

#define OBJECT_TYPE_NAME(name, spelling) #name,

static const char *const object_type_names[] = {"custom", FOR_OBJECT_TYPES(OBJECT_TYPE_NAME) "custom"};

enum
{
	OBJECT_TYPES = sizeof(object_type_names) / sizeof(object_type_names[0]),
	OBJECT_TYPE_CUSTOM = OBJECT_TYPES - 1
};

static inline int
object_type_number(const char *name)
{
	int			i;

	for (i = 1; i < OBJECT_TYPE_CUSTOM && strcmp(object_type_names[i], name) != 0; i++)
		;
	return i;
}

#endif							/* GT_OBJECT_TYPES_H */
