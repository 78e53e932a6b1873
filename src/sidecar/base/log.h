/*
 * log.h
 *		Messages of the server, on stderr.
 *
 * Any thread may log.  Under systemd ($JOURNAL_STREAM) lines get the journal's
 * level prefix; with --log-format json each line is one JSON object.
 */
#ifndef GT_LOG_H
#define GT_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LogLevel
{
	LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG
} LogLevel;

/* "error", "warning", "info" or "debug"; format "text" or "json". */
extern bool log_configure(const char *level, const char *format);

extern bool log_enabled(LogLevel level);

/* One line, without a line end. */
extern void log_line(LogLevel level, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/*
 * A message that a peer can cause: at most one a second for each `site`, which
 * is static and starts as zeros; what was left out is counted and told.
 */
typedef struct LogSite
{
	int64_t		last_us;
	unsigned	suppressed;
} LogSite;

extern void log_limited(LogSite *site, LogLevel level, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* Lines that could not be written. */
extern uint64_t log_dropped(void);

#endif							/* GT_LOG_H */
