/*
 * admin.h
 *		The admin port: metrics, health and the status page, over HTTP/1.1.
 *
 * Runs on the loop.  Every answer is made anew for a GET; nothing here changes
 * anything.  It has no TLS and no tokens: it listens on loopback unless --admin
 * says otherwise, and shows no payloads.
 */
#ifndef GT_ADMIN_H
#define GT_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/options.h"

/* --admin, --no-database-metrics */
extern const Option admin_options[];

/* May we listen where --admin says?  False: `error` says why not. */
extern bool admin_check(bool insecure, char *error, size_t error_size);

/*
 * Listen; to be called once the loop and the database have been started.
 * --admin none leaves the port out.  False: `error` says why.
 */
extern bool admin_start(char *error, size_t error_size);

/* "127.0.0.1:50052": where it really listens; NULL: it does not. */
extern const char *admin_address(void);

/* Accept no more, and close what is open. */
extern void admin_stop(void);

/*
 * An answer in the making, shared by the files of the admin port.  Whoever
 * gets one finishes it exactly once, now or in a later turn of the loop.
 */
typedef struct AdminAnswer AdminAnswer;

/* Where its body is written to. */
extern FILE *admin_body(AdminAnswer *answer);
extern void admin_finish(AdminAnswer *answer, int status, const char *content_type);

/* With metrics in the Prometheus text format, which becomes OpenMetrics for who prefers that. */
extern void admin_finish_metrics(AdminAnswer *answer);

/* The makers of answers. */
extern void admin_ready(AdminAnswer *answer);
extern void admin_metrics(AdminAnswer *answer);
extern void admin_health(AdminAnswer *answer);
extern void admin_status(AdminAnswer *answer);

/* Log what our role may not do, once the database answers; or no more. */
extern void admin_watch_rights(void);
extern void admin_forget_rights(void);

/* --no-database-metrics was not given. */
extern bool admin_database_metrics(void);

#endif							/* GT_ADMIN_H */
