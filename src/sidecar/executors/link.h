/*
 * link.h
 *		The connection to the database.
 */
#ifndef GT_EXECUTORS_LINK_H
#define GT_EXECUTORS_LINK_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#include "executors/context.h"

extern Database *database_create(Context *context);
extern void database_free(Database *database);

/* Go on: connect, read answers, send what is due. */
extern void database_step(Context *context);
extern int64_t database_next_time(const Context *context);
extern bool database_wants_poll(const Context *context, struct curl_waitfd *fd);

/* Everything told to the database that there was to tell. */
extern bool database_settled(const Context *context);

#endif							/* GT_EXECUTORS_LINK_H */
