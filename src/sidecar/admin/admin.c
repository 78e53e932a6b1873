/*
 * admin.c
 *		The admin port's HTTP/1.1: requests in, answers out.
 *
 * Runs on the loop.  Owns the listener and, for each connection, one input
 * buffer and at most one answer in the making; a request that comes while one
 * is being answered waits in the buffer.  An answer whose connection goes away
 * is made to its end and thrown away; while many are, there are no more of those
 * that ask PostgreSQL, or who asks and goes would fill its queue.
 *
 * Only GET and HEAD, only what fits the buffer, no bodies: a browser, curl,
 * Prometheus and a load balancer's probe need no more.
 */
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/status.h"
#include "net/loop.h"
#include "net/net.h"

#define MAX_REQUEST 8192
#define MAX_CONNECTIONS 64
#define MAX_LOST 64				/* answers in the making for which perhaps nobody waits any more */
#define IDLE_US (60 * INT64_C(1000000))
#define REQUEST_US (5 * INT64_C(1000000))	/* for a request, from its first byte, or the connection's begin, to its end */

typedef struct AdminConn
{
	Conn	   *conn;
	AdminAnswer *answer;		/* NULL: waiting for a request */
	LoopTimer	idle;
	LoopTask	again;			/* to look at what waits in the buffer */
	bool		begun;			/* a part of a request has come, and has its time */
	bool		ended;			/* the client will send no more */
	bool		finishing;		/* the last answer is on its way */
	size_t		used;
	char		input[MAX_REQUEST + 1];
} AdminConn;

struct AdminAnswer
{
	AdminConn  *to;				/* NULL: nobody waits for it any more */
	bool		lost;			/* so it is, or perhaps so: the client will send no more */
	FILE	   *body;
	char	   *text;
	size_t		len;
	bool		head_only;
	bool		close_after;
	bool		open_metrics;	/* what the client would rather have */
};

static const char *listen_on;
static bool without_database_metrics;
static Listener *listener;
static int	lost_answers;

const Option admin_options[] =
{
	{"admin", OPTION_TEXT, &listen_on, "127.0.0.1:50052", "ADDR",
	"where /metrics, /livez, /readyz, /healthz and the status page are served, in cleartext; none for nowhere"},
	{"no-database-metrics", OPTION_SWITCH, &without_database_metrics, NULL, NULL,
	"leave what gt_metrics() tells out of /metrics (another sidecar serves it)"},
	OPTION_END
};

bool
admin_database_metrics(void)
{
	return !without_database_metrics;
}

FILE *
admin_body(AdminAnswer *answer)
{
	return answer->body;
}

static const char *
reason_phrase(int status)
{
	switch (status)
	{
		case 200:
			return "OK";
		case 400:
			return "Bad Request";
		case 404:
			return "Not Found";
		case 405:
			return "Method Not Allowed";
		case 431:
			return "Request Header Fields Too Large";
		case 503:
			return "Service Unavailable";
		default:
			return "Internal Server Error";
	}
}

static void next_request(void *arg);

void
admin_finish(AdminAnswer *answer, int status, const char *content_type)
{
	AdminConn  *to = answer->to;
	char		head[640];
	int			len;
	bool		whole = !ferror(answer->body);

	/* Memory was short: half an answer is none. */
	if (fclose(answer->body) != 0 || !whole || answer->text == NULL)
	{
		status = 500;
		answer->len = 0;
		answer->close_after = true;
	}
	lost_answers -= answer->lost;
	if (to != NULL)
	{
		len = snprintf(head, sizeof(head),
					   "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
					   "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
					   "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
					   "%s%s\r\n",
					   status, reason_phrase(status), content_type, answer->len,
					   status == 405 ? "Allow: GET, HEAD\r\n" : "",
					   answer->close_after ? "Connection: close\r\n" : "");
		conn_write(to->conn, head, (size_t) len);
		if (!answer->head_only)
			conn_write(to->conn, answer->text, answer->len);
		to->answer = NULL;
		if (answer->close_after)
		{
			to->finishing = true;
			conn_finish(to->conn);
		}
		else
			task_defer(&to->again, next_request, to);
	}
	free(answer->text);
	free(answer);
}

/*
 * A line of the Prometheus text as OpenMetrics has it: the family of a counter
 * is without _total, and the bounds of buckets are floats.
 */
static void
print_open_metrics(FILE *out, const char *line, size_t len)
{
	const char *end = line + len;
	const char *name = len > 7 && line[0] == '#' ? line + 7 : NULL;
	const char *name_end = name != NULL ? memchr(name, ' ', (size_t) (end - name)) : NULL;
	const char *bound = memmem(line, len, "le=\"", 4);

	if (name_end != NULL && name_end - name > 6 && memcmp(name_end - 6, "_total", 6) == 0)
		fprintf(out, "%.*s%.*s\n", (int) (name_end - 6 - line), line, (int) (end - name_end), name_end);
	else if (name == NULL && bound != NULL && bound[4 + strspn(bound + 4, "0123456789")] == '"')
	{
		bound += 4 + strspn(bound + 4, "0123456789");
		fprintf(out, "%.*s.0%.*s\n", (int) (bound - line), line, (int) (end - bound), bound);
	}
	else
		fprintf(out, "%.*s\n", (int) len, line);
}

void
admin_finish_metrics(AdminAnswer *answer)
{
	FILE	   *out;
	char	   *text = NULL;
	size_t		size = 0;
	const char *line;

	if (!answer->open_metrics || fflush(answer->body) != 0 || (out = open_memstream(&text, &size)) == NULL)
	{
		admin_finish(answer, 200, "text/plain; version=0.0.4; charset=utf-8");
		return;
	}
	for (line = answer->text; line < answer->text + answer->len;)
	{
		size_t		len = strcspn(line, "\n");

		print_open_metrics(out, line, len);
		line += len + 1;
	}
	fputs("# EOF\n", out);
	fclose(out);
	rewind(answer->body);
	fwrite(text, 1, size, answer->body);
	free(text);
	admin_finish(answer, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

static AdminAnswer *
new_answer(AdminConn *to)
{
	AdminAnswer *answer = calloc(1, sizeof(AdminAnswer));

	if (answer == NULL)
		return NULL;
	answer->body = open_memstream(&answer->text, &answer->len);
	if (answer->body == NULL)
	{
		free(answer);
		return NULL;
	}
	answer->to = to;
	to->answer = answer;
	return answer;
}

static void
short_answer(AdminAnswer *answer, int status, const char *text)
{
	fputs(text, answer->body);
	admin_finish(answer, status, "text/plain; charset=utf-8");
}

static void
admin_live(AdminAnswer *answer)
{
	short_answer(answer, 200, "ok\n");
}

static const struct
{
	const char *path;
	void		(*make) (AdminAnswer *answer);
	bool		asks;			/* PostgreSQL */
}			pages[] =
{
	{"/", admin_status, true},
	{"/healthz", admin_health, true},
	{"/livez", admin_live, false},
	{"/metrics", admin_metrics, true},
	{"/readyz", admin_ready, false},
};

static void
make_answer(AdminAnswer *answer, const char *path)
{
	size_t		i;

	for (i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(path, pages[i].path) == 0)
		{
			if (pages[i].asks && lost_answers >= MAX_LOST)
				short_answer(answer, 503, "too many have asked, and not waited for the answer\n");
			else
				pages[i].make(answer);
			return;
		}
	short_answer(answer, 404, "there are /, /healthz, /livez, /metrics and /readyz\n");
}

/* The value of a header, up to the line's end; NULL: there is none. */
static const char *
header_value(const char *head, const char *name)
{
	size_t		len = strlen(name);
	const char *line = head;

	while ((line = strstr(line, "\r\n")) != NULL)
	{
		line += 2;
		if (strncasecmp(line, name, len) == 0 && line[len] == ':')
			return line + len + 1 + strspn(line + len + 1, " \t");
	}
	return NULL;
}

static bool
wants_close(const char *head)
{
	const char *value = header_value(head, "connection");

	return value != NULL && strncasecmp(value, "close", 5) == 0;
}

static bool
wants_open_metrics(const char *head)
{
	static const char name[] = "application/openmetrics-text";
	const char *value = header_value(head, "accept");
	const char *end = value != NULL ? strstr(value, "\r\n") : NULL;

	return end != NULL && memmem(value, (size_t) (end - value), name, sizeof(name) - 1) != NULL;
}

static bool
has_body(const char *head)
{
	const char *length = header_value(head, "content-length");

	return header_value(head, "transfer-encoding") != NULL ||
		(length != NULL && strtoul(length, NULL, 10) != 0);
}

/* `head` is a request's lines, each with its end. */
static void
take_request(AdminAnswer *answer, char *head)
{
	char		method[8];
	char		path[256];
	int			minor;

	if (sscanf(head, "%7[A-Z] %255[^ ?\r\n]%*[^ \r\n] HTTP/1.%d\r\n", method, path, &minor) != 3 &&
		sscanf(head, "%7[A-Z] %255[^ ?\r\n] HTTP/1.%d\r\n", method, path, &minor) != 3)
	{
		answer->close_after = true;
		short_answer(answer, 400, "this is not an HTTP/1.1 request (the gRPC port is another one)\n");
		return;
	}
	answer->head_only = strcmp(method, "HEAD") == 0;
	answer->close_after = minor == 0 || wants_close(head);
	answer->open_metrics = wants_open_metrics(head);
	if (has_body(head))
	{
		/* its end is not looked for */
		answer->close_after = true;
		short_answer(answer, 400, "no request here has a body\n");
	}
	else if (!answer->head_only && strcmp(method, "GET") != 0)
	{
		answer->close_after = true;
		short_answer(answer, 405, "everything here is read with GET\n");
	}
	else
		make_answer(answer, path);
}

static void
went_idle(void *arg)
{
	AdminConn  *admin = arg;

	if (admin->answer == NULL && !admin->finishing)
		conn_close(admin->conn);
	else
		timer_start_patient(&admin->idle, IDLE_US, went_idle, admin);
}

/* It is not known of who sends no more whether he has gone. */
static void
count_lost(AdminAnswer *answer)
{
	lost_answers += !answer->lost;
	answer->lost = true;
}

/* Take the next request out of the buffer, if it is complete. */
static void
next_request(void *arg)
{
	AdminConn  *admin = arg;
	AdminAnswer *answer;
	char	   *end;
	char	   *head;
	size_t		len;

	if (admin->answer != NULL || admin->finishing)
		return;
	admin->input[admin->used] = '\0';
	end = strstr(admin->input, "\r\n\r\n");
	if (end == NULL && admin->ended)
	{
		admin->finishing = true;
		conn_finish(admin->conn);
		return;
	}
	if (end == NULL && admin->used < MAX_REQUEST && strlen(admin->input) == admin->used)
	{
		conn_pause(admin->conn, false);
		/* Who sends a byte now and then does not gain time by it. */
		if (admin->used == 0 || !admin->begun)
			timer_start_patient(&admin->idle, admin->used == 0 ? IDLE_US : REQUEST_US, went_idle, admin);
		admin->begun = admin->used > 0;
		return;
	}
	admin->begun = false;
	len = end != NULL ? (size_t) (end - admin->input) + 2 : 0;
	head = strndup(admin->input, len);
	answer = head != NULL ? new_answer(admin) : NULL;
	if (answer == NULL)
	{
		free(head);
		conn_close(admin->conn);
		return;
	}
	if (admin->ended)
		count_lost(answer);
	if (end == NULL)
	{
		answer->close_after = true;
		short_answer(answer, 431, "the request is too long, or none\n");
	}
	else
	{
		admin->used -= len + 2;
		memmove(admin->input, end + 4, admin->used);
		take_request(answer, head);
	}
	free(head);
}

static void
on_opened(Conn *conn)
{
	AdminConn  *admin = calloc(1, sizeof(AdminConn));

	if (admin == NULL)
	{
		conn_close(conn);
		return;
	}
	admin->conn = conn;
	conn_set_data(conn, admin);
	timer_start_patient(&admin->idle, REQUEST_US, went_idle, admin);
}

static void
on_received(Conn *conn, const uint8_t *data, size_t len)
{
	AdminConn  *admin = conn_data(conn);
	size_t		room;

	if (admin == NULL || admin->finishing)
		return;
	room = MAX_REQUEST - admin->used;
	if (len > room)
		len = room;				/* a full buffer without a request ends in 431 */
	memcpy(admin->input + admin->used, data, len);
	admin->used += len;
	if (admin->used == MAX_REQUEST)
		conn_pause(conn, true);
	next_request(admin);
}

/* It still gets its answers. */
static void
on_ended(Conn *conn)
{
	AdminConn  *admin = conn_data(conn);

	if (admin == NULL)
		return;
	admin->ended = true;
	if (admin->answer != NULL)
		count_lost(admin->answer);
	next_request(admin);
}

static void
on_closed(Conn *conn)
{
	AdminConn  *admin = conn_data(conn);

	if (admin == NULL)
		return;
	timer_stop(&admin->idle);
	task_cancel(&admin->again);
	if (admin->answer != NULL)
	{
		admin->answer->to = NULL;
		count_lost(admin->answer);
	}
	free(admin);
}

static const ConnHandlers handlers =
{
	.opened = on_opened,
	.received = on_received,
	.ended = on_ended,
	.closed = on_closed
};

/* A probe always finds a place: the oldest goes that has nothing to do, or else has not got its answer. */
static int
spare(const Conn *conn)
{
	const AdminConn *admin = conn_data(conn);

	return admin == NULL || (admin->answer == NULL && !admin->finishing) ? 2 : 1;
}

/* `none` can be said in the environment too, where '' is as if unset. */
static bool
is_wanted(void)
{
	return listen_on != NULL && listen_on[0] != '\0' && strcmp(listen_on, "none") != 0;
}

bool
admin_check(bool insecure, char *error, size_t error_size)
{
	if (!is_wanted())
		return true;
	if (!net_is_address(listen_on))
		snprintf(error, error_size, "--admin %s is no address: HOST:PORT, [V6]:PORT, :PORT, unix:/PATH or none is expected", listen_on);
	else if (!insecure && !net_is_loopback(listen_on))
		snprintf(error, error_size, "the admin port has no TLS and is served on loopback only: give --insecure, to listen on %s", listen_on);
	else
		return true;
	return false;
}

bool
admin_start(char *error, size_t error_size)
{
	ListenOptions options = {.handlers = &handlers, .max_connections = MAX_CONNECTIONS, .spare = spare};

	admin_watch_rights();
	if (!is_wanted())
		return true;
	listener = net_listen(listen_on, &options, error, error_size);
	if (listener == NULL)
		return false;
	samples_start();
	return true;
}

const char *
admin_address(void)
{
	return listener != NULL ? listener_address(listener) : NULL;
}

static void
close_one(Conn *conn, void *arg)
{
	conn_close(conn);
}

void
admin_stop(void)
{
	admin_forget_rights();
	if (listener == NULL)
		return;
	samples_stop();
	listener_stop(listener);
	listener_each(listener, close_one, NULL);
}
