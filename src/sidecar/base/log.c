/*
 * log.c
 *		Messages of the server, on stderr: one write for each line, so that the
 *		threads' lines do not mix.
 */
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define LINE_SIZE 2048		/* twice that, with what is put around and before characters, is at most PIPE_BUF */

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int journal_levels[] = {3, 4, 6, 7};

static LogLevel threshold = LOG_INFO;
static bool as_json = false;
static bool for_journal = false;
static pthread_mutex_t site_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t write_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t dropped;

bool
log_configure(const char *level, const char *format)
{
	bool		known = false;
	unsigned	i;

	for (i = 0; i < 4; i++)
	{
		if (strcmp(level, level_names[i]) == 0)
		{
			threshold = (LogLevel) i;
			known = true;
		}
	}
	if (strcmp(format, "text") != 0 && strcmp(format, "json") != 0)
		known = false;
	as_json = strcmp(format, "json") == 0;
	for_journal = getenv("JOURNAL_STREAM") != NULL;
	return known;
}

bool
log_enabled(LogLevel level)
{
	return level <= threshold;
}

/* `text` as a JSON string's inside; what does not fit is left out. */
static size_t
escape_json(const char *text, char *out, size_t size)
{
	size_t		n = 0;

	for (; *text != '\0' && n + 7 < size; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c == '"' || c == '\\')
		{
			out[n++] = '\\';
			out[n++] = (char) c;
		}
		else if (c < 0x20)
			n += (size_t) snprintf(out + n, size - n, "\\u%04x", c);
		else
			out[n++] = (char) c;
	}
	out[n] = '\0';
	return n;
}

/*
 * Nobody waits for who reads the log: what cannot be written now is counted and
 * dropped.  A pipe that is ready takes as much as a line has, whole.
 */
static void
put_line(const char *line, size_t len)
{
	struct pollfd ready = {STDERR_FILENO, POLLOUT, 0};

	if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT) || write(STDERR_FILENO, line, len) < 0)
		atomic_fetch_add(&dropped, 1);
}

uint64_t
log_dropped(void)
{
	return atomic_load(&dropped);
}

static void
write_line(LogLevel level, const char *message)
{
	char		line[LINE_SIZE * 2];
	struct timespec now;
	struct tm	utc;
	char		stamp[32];
	int			n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
	if (as_json)
	{
		char		escaped[LINE_SIZE + 512];

		escape_json(message, escaped, sizeof(escaped));
		n = snprintf(line, sizeof(line), "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":\"%s\"}\n",
					 stamp, now.tv_nsec / 1000000, level_names[level], escaped);
	}
	else if (for_journal)
		n = snprintf(line, sizeof(line), "<%d>%s\n", journal_levels[level], message);
	else
		n = snprintf(line, sizeof(line), "%s.%03ldZ %s: %s\n",
					 stamp, now.tv_nsec / 1000000, level_names[level], message);
	if (n >= (int) sizeof(line))
		n = (int) sizeof(line) - 1;
	pthread_mutex_lock(&write_lock);
	put_line(line, (size_t) n);
	pthread_mutex_unlock(&write_lock);
}

/* Line ends of libraries' messages become spaces. */
static void
flatten(char *message)
{
	size_t		len = strlen(message);

	while (len > 0 && (message[len - 1] == '\n' || message[len - 1] == ' '))
		message[--len] = '\0';
	for (; *message != '\0'; message++)
	{
		if ((unsigned char) *message < 0x20)
			*message = ' ';
	}
}

void
log_line(LogLevel level, const char *format,...)
{
	char		message[LINE_SIZE];
	va_list		args;

	if (!log_enabled(level))
		return;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	flatten(message);
	write_line(level, message);
}

void
log_limited(LogSite *site, LogLevel level, const char *format,...)
{
	char		message[LINE_SIZE];
	struct timespec now;
	int64_t		now_us;
	unsigned	suppressed;
	va_list		args;

	if (!log_enabled(level))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	now_us = (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
	pthread_mutex_lock(&site_lock);
	if (site->last_us != 0 && now_us - site->last_us < 1000000)
	{
		site->suppressed++;
		pthread_mutex_unlock(&site_lock);
		return;
	}
	suppressed = site->suppressed;
	site->suppressed = 0;
	site->last_us = now_us;
	pthread_mutex_unlock(&site_lock);

	va_start(args, format);
	vsnprintf(message, sizeof(message) - 48, format, args);
	va_end(args);
	flatten(message);
	if (suppressed > 0)
		snprintf(message + strlen(message), 48, " (and %u more like it)", suppressed);
	write_line(level, message);
}
