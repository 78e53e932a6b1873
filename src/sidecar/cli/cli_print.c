/*
 * cli_print.c
 *		How the command line writes a result or an error.
 *
 * Runs in the command line's process.  A command names its fields once, and
 * they come out as "name: value" lines for people or as one line of JSON for
 * programs.  Owns the little state that takes: the form, and whether a comma
 * is due.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/cli.h"

#define NAME_WIDTH 16

static bool as_json;
static bool comma_due;

/* Text from elsewhere must not move the terminal's cursor or end our line. */
static void
write_plain(FILE *file, const char *text)
{
	const unsigned char *p;

	for (p = (const unsigned char *) text; *p != '\0'; p++)
		fputc(*p < 0x20 || *p == 0x7f ? ' ' : *p, file);
}

void
cli_format_time(int64_t seconds, int32_t nanos, char *buffer)
{
	time_t		t = (time_t) seconds;
	struct tm	utc;

	if (gmtime_r(&t, &utc) == NULL ||
		strftime(buffer, 24, "%Y-%m-%dT%H:%M:%S", &utc) == 0)
		strcpy(buffer, "?");
	else
		sprintf(buffer + strlen(buffer), ".%03dZ", (nanos / 1000000) % 1000);
}

/* How far away a time is, roughly, in words. */
static void
print_distance(int64_t seconds)
{
	int64_t		away = seconds - (int64_t) time(NULL);
	int64_t		n = away < 0 ? -away : away;
	const char *unit = "s";

	if (n >= 2 * 86400)
		n /= 86400, unit = "d";
	else if (n >= 2 * 3600)
		n /= 3600, unit = "h";
	else if (n >= 2 * 60)
		n /= 60, unit = "min";
	if (away < 0)
		printf("  (%" PRId64 " %s ago)", n, unit);
	else
		printf("  (in %" PRId64 " %s)", n, unit);
}

void
out_begin(bool json)
{
	as_json = json;
	comma_due = false;
	if (json)
		putchar('{');
}

void
out_end(void)
{
	if (as_json)
		puts("}");
	fflush(stdout);
}

/* The part of a field before its value. */
static void
out_name(const char *name)
{
	if (as_json)
	{
		printf("%s\"%s\":", comma_due ? "," : "", name);
		comma_due = true;
	}
	else
		printf("%s:%*s", name, strlen(name) < NAME_WIDTH ? (int) (NAME_WIDTH - strlen(name)) : 1, "");
}

static void
out_line_end(void)
{
	if (!as_json)
		putchar('\n');
}

void
out_text(const char *name, const char *value)
{
	out_name(name);
	if (as_json)
		json_write_string(stdout, value);
	else
		write_plain(stdout, value);
	out_line_end();
}

void
out_text_or_null(const char *name, const char *value)
{
	if (value[0] != '\0')
		out_text(name, value);
	else if (as_json)
		out_json(name, "");
}

void
out_bool(const char *name, bool value)
{
	out_name(name);
	fputs(as_json ? (value ? "true" : "false") : (value ? "yes" : "no"), stdout);
	out_line_end();
}

void
out_integer(const char *name, int64_t value)
{
	out_name(name);
	printf("%" PRId64, value);
	out_line_end();
}

void
out_seconds(const char *name, int64_t seconds, int32_t nanos)
{
	out_name(name);
	printf("%" PRId64, seconds);
	if (nanos / 1000000 != 0)
		printf(".%03d", nanos / 1000000);
	out_line_end();
}

void
out_time(const char *name, int64_t seconds, int32_t nanos)
{
	char		text[32];

	cli_format_time(seconds, nanos, text);
	out_name(name);
	if (as_json)
		printf("\"%s\"", text);
	else
	{
		fputs(text, stdout);
		print_distance(seconds);
	}
	out_line_end();
}

void
out_json(const char *name, const char *text)
{
	if (text[0] == '\0' && !as_json)
		return;
	out_name(name);
	write_plain(stdout, text[0] != '\0' ? text : "null");
	out_line_end();
}

void
out_open_array(const char *name)
{
	printf("%s\"%s\":[", comma_due ? "," : "", name);
	comma_due = false;
}

void
out_open_object(void)
{
	fputs(comma_due ? ",{" : "{", stdout);
	comma_due = false;
}

void
out_close_object(void)
{
	putchar('}');
	comma_due = true;
}

void
out_close_array(void)
{
	putchar(']');
	comma_due = true;
}

/* ---- errors ---- */

static bool never_wait;

void
cli_error_never_waits(void)
{
	never_wait = true;
}

/*
 * Write to stderr what it takes at once.  A pipe or a terminal is opened anew
 * for that, as O_NONBLOCK on the descriptor itself would be everybody's who
 * shares it.
 */
static void
write_at_once(const char *text, size_t len)
{
	struct stat info;
	struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t		ignored = 0;
	int			fd = -1;

	if (fstat(STDERR_FILENO, &info) != 0)
		return;
	if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode))
		fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
	{
		ignored = write(fd, text, len);
		close(fd);
	}
	else if (S_ISSOCK(info.st_mode))
		ignored = send(STDERR_FILENO, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	else if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT) != 0)
		ignored = write(STDERR_FILENO, text, len < PIPE_BUF ? len : PIPE_BUF);
	(void) ignored;
}

static void
write_error(const char *text, size_t len)
{
	if (never_wait)
	{
		write_at_once(text, len);
		return;
	}
	while (len > 0)
	{
		ssize_t		n = write(STDERR_FILENO, text, len);

		if (n < 0 && errno != EINTR)
			return;
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t) n : 0;
	}
}

void
cli_error(bool json, const char *code, const char *format,...)
{
	static const char short_of_memory[] = "garbagetruck: out of memory\n";
	va_list		args;
	char	   *text = NULL;
	char	   *line = NULL;
	size_t		len = 0;
	FILE	   *out;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);

	fflush(stdout);
	out = open_memstream(&line, &len);
	if (out != NULL && json)
	{
		fprintf(out, "{\"error\":{\"code\":\"%s\",\"message\":", code);
		json_write_string(out, text ? text : "out of memory");
		fputs("}}\n", out);
	}
	else if (out != NULL)
	{
		fputs("garbagetruck: ", out);
		write_plain(out, text ? text : "out of memory");
		fputc('\n', out);
	}
	/* One write: lines of several processes do not mix. */
	if (out != NULL && fclose(out) == 0 && line != NULL)
		write_error(line, len);
	else
		write_error(short_of_memory, sizeof(short_of_memory) - 1);
	free(line);
	free(text);
}
