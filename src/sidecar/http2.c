/*
 * http2.c
 *		HTTP/2 server sessions.
 *
 * nghttp2 does the protocol; here are the streams' buffers and what servers
 * must decide: how often a client may ping, how many streams it may open, how
 * long a connection lives, and how it ends without losing a call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "http2.h"
#include "log.h"
#include "metrics.h"

#define MAX_HEADER_BYTES (16 * 1024)
#define MAX_TRAILERS 8
#define SEND_MARK (256 * 1024)	/* no more is framed while so much waits */
#define STREAM_WINDOW (256 * 1024)
#define SESSION_WINDOW (4 * 1024 * 1024)
#define DRAIN_PING_US 1000000
#define PREFACE_US 10000000
#define MAX_PING_STRIKES 2
#define RESET_IDS 32
#define FRAME_HEADER 9
#define PREFACE 24

struct Http2Stream
{
	Http2	   *session;
	Http2Stream *next,
			   *prev;
	int32_t		id;
	bool		remote_ended;
	bool		told;			/* the handlers know of it */
	bool		responded;
	bool		finished;		/* trailers are given: data ends with what is in out */
	bool		sent_end;
	bool		too_large;
	char	   *headers;		/* name, NUL, value, NUL, ... */
	size_t		headers_len,
				headers_size;
	uint8_t    *out;
	size_t		out_start,
				out_len,
				out_size;
	char	   *trailers;		/* like headers */
	size_t		trailers_len;
	void	   *data;
	char		first_headers[512]; /* enough for most requests */
};

struct Http2
{
	Conn	   *conn;
	nghttp2_session *nghttp2;
	Http2Stream *streams;
	int			stream_count;
	LoopTask	flush;
	LoopTimer	timer;			/* preface, then keepalive */
	LoopTimer	age;			/* max age, then its grace */
	LoopTimer	drain;
	int64_t		last_received_us;
	int64_t		last_ping_us;	/* of the client's pings; 0: any is welcome */
	int			ping_strikes;
	bool		started;		/* the client's SETTINGS came */
	bool		settings_sent;
	bool		ping_sent;		/* our keepalive ping waits for its answer */
	size_t		skip;			/* bytes until the next frame's header */
	uint8_t		header[FRAME_HEADER];	/* of a frame, as far as it came */
	unsigned	header_len;
	bool		ending;			/* close once all is sent */
	int32_t		reset_ids[RESET_IDS];	/* streams that we reset last */
	unsigned	reset_count;
	int			drain_step;		/* 0: no, 1: notice sent, 2: last GOAWAY sent */
};

static int64_t max_streams;
static int64_t max_calls;
static int64_t keepalive_min_us;
static int64_t keepalive_time_us;
static int64_t keepalive_timeout_us;
static int64_t max_age_us;
static int64_t max_age_grace_us;

const Option http2_options[] =
{
	{"max-streams", OPTION_NUMBER, &max_streams, "1000", "N", "calls at once over one connection; more are refused, which clients repeat", 1, 1000000},
	{"max-calls", OPTION_NUMBER, &max_calls, "20000", "N", "calls at once over all connections; more are refused, which clients repeat", 1, 10000000},
	{"keepalive-min", OPTION_DURATION, &keepalive_min_us, "10s", "D", "clients that ping more often are told to calm down, and disconnected", 0, INT64_MAX},
	{"keepalive-time", OPTION_DURATION, &keepalive_time_us, "2h", "D", "ping a client that has been silent for so long", 1000, INT64_MAX},
	{"keepalive-timeout", OPTION_DURATION, &keepalive_timeout_us, "20s", "D", "disconnect it when it does not answer that in time", 1000, INT64_MAX},
	{"max-connection-age", OPTION_DURATION, &max_age_us, "0", "D", "have clients connect anew after so long, give or take a tenth; 0: never", 0, INT64_MAX},
	{"max-connection-age-grace", OPTION_DURATION, &max_age_grace_us, "1m", "D", "how long calls may go on after that", 0, INT64_MAX},
	OPTION_END
};

static Metric sessions_opened = {"connections_total", METRIC_COUNTER, "gRPC connections accepted."};
static Metric sessions_open = {"connections", METRIC_GAUGE, "gRPC connections open now."};
static Metric streams_open = {"streams", METRIC_GAUGE, "gRPC calls in progress."};
static Metric streams_refused = {"refused_streams_total", METRIC_COUNTER, "Calls refused because there were too many."};
static Metric too_many_pings = {"too_many_pings_total", METRIC_COUNTER, "Connections closed because the client pinged too often."};

static const Http2Handlers *handlers;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *session_option;
static int64_t total_streams;

void
http2_register_metrics(void)
{
	metric_register(&sessions_opened);
	metric_register(&sessions_open);
	metric_register(&streams_open);
	metric_register(&streams_refused);
	metric_register(&too_many_pings);
}

/* ---- streams ---- */

void *
http2_data(const Http2Stream *stream)
{
	return stream->data;
}

void
http2_set_data(Http2Stream *stream, void *data)
{
	stream->data = data;
}

Conn *
http2_conn(const Http2Stream *stream)
{
	return stream->session->conn;
}

size_t
http2_unsent(const Http2Stream *stream)
{
	return stream->out_len - stream->out_start;
}

void
http2_each_header(const Http2Stream *stream, void (*visit) (const char *, const char *, void *), void *arg)
{
	const char *at = stream->headers;
	const char *end = stream->headers + stream->headers_len;

	while (at < end)
	{
		const char *value = at + strlen(at) + 1;

		if (at[0] != ':')
			visit(at, value, arg);
		at = value + strlen(value) + 1;
	}
}

const char *
http2_header(const Http2Stream *stream, const char *name)
{
	const char *at = stream->headers;
	const char *end = stream->headers + stream->headers_len;

	while (at < end)
	{
		size_t		len = strlen(at);

		if (strcmp(at, name) == 0)
			return at + len + 1;
		at += len + 1;
		at += strlen(at) + 1;
	}
	return NULL;
}

static Http2Stream *
add_stream(Http2 *session, int32_t id)
{
	Http2Stream *stream = malloc(sizeof(Http2Stream));

	if (stream == NULL)
		return NULL;
	memset(stream, 0, offsetof(Http2Stream, first_headers));
	stream->session = session;
	stream->id = id;
	stream->headers = stream->first_headers;
	stream->headers_size = sizeof(stream->first_headers);
	stream->next = session->streams;
	if (stream->next != NULL)
		stream->next->prev = stream;
	session->streams = stream;
	session->stream_count++;
	total_streams++;
	metric_set(&streams_open, (uint64_t) total_streams);
	return stream;
}

static void
remove_stream(Http2Stream *stream, bool completely)
{
	Http2	   *session = stream->session;

	if (stream->told)
		handlers->closed(stream, completely);
	if (stream->prev != NULL)
		stream->prev->next = stream->next;
	else
		session->streams = stream->next;
	if (stream->next != NULL)
		stream->next->prev = stream->prev;
	session->stream_count--;
	total_streams--;
	metric_set(&streams_open, (uint64_t) total_streams);
	if (stream->headers != stream->first_headers)
		free(stream->headers);
	free(stream->out);
	free(stream->trailers);
	free(stream);
}

/* ---- sending ---- */

/*
 * nghttp2 treats a stream over the advertised limit as an error of the whole
 * connection, once the limit was acknowledged.  Clients deserve a refused
 * stream, which they repeat.  So it is told no limit, and the limit is put
 * into the SETTINGS frame, the first that we send, on its way out.
 */
static void
advertise_limit(uint8_t *frame, size_t len)
{
	size_t		at;

	for (at = 9; at + 6 <= len; at += 6)
	{
		if (frame[at] == 0 && frame[at + 1] == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
		{
			frame[at + 2] = (uint8_t) (max_streams >> 24);
			frame[at + 3] = (uint8_t) (max_streams >> 16);
			frame[at + 4] = (uint8_t) (max_streams >> 8);
			frame[at + 5] = (uint8_t) max_streams;
		}
	}
}

static void
flush_session(void *arg)
{
	Http2	   *session = arg;

	while (conn_pending(session->conn) < SEND_MARK)
	{
		const uint8_t *data;
		ssize_t		n = nghttp2_session_mem_send(session->nghttp2, &data);

		if (n < 0)
		{
			conn_close(session->conn);
			return;
		}
		if (n == 0)
			break;
		if (!session->settings_sent)
		{
			uint8_t		frame[128];

			session->settings_sent = true;
			if ((size_t) n <= sizeof(frame))
			{
				memcpy(frame, data, (size_t) n);
				advertise_limit(frame, (size_t) n);
				conn_write(session->conn, frame, (size_t) n);
				continue;
			}
		}
		conn_write(session->conn, data, (size_t) n);
	}
	if (session->ending ||
		(!nghttp2_session_want_read(session->nghttp2) && !nghttp2_session_want_write(session->nghttp2)))
		conn_finish(session->conn);
}

static void
send_soon(Http2 *session)
{
	task_defer(&session->flush, flush_session, session);
}

static int
make_fields(nghttp2_nv *nva, const Http2Field *fields, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		nva[i].name = (uint8_t *) fields[i].name;
		nva[i].namelen = strlen(fields[i].name);
		nva[i].value = (uint8_t *) fields[i].value;
		nva[i].valuelen = strlen(fields[i].value);
		nva[i].flags = NGHTTP2_NV_FLAG_NONE;
	}
	return count;
}

void
http2_respond_only(Http2Stream *stream, const Http2Field *fields, int count)
{
	nghttp2_nv	nva[MAX_TRAILERS * 2];

	if (stream->responded)
		return;
	stream->responded = stream->finished = true;
	make_fields(nva, fields, count);
	if (nghttp2_submit_response(stream->session->nghttp2, stream->id, nva, (size_t) count, NULL) != 0)
		http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
	send_soon(stream->session);
}

/* The stored trailers go out right after the last of the data. */
static void
submit_trailers(Http2Stream *stream)
{
	nghttp2_nv	nva[MAX_TRAILERS];
	Http2Field	fields[MAX_TRAILERS];
	int			count = 0;
	const char *at = stream->trailers;

	while (at < stream->trailers + stream->trailers_len && count < MAX_TRAILERS)
	{
		fields[count].name = at;
		at += strlen(at) + 1;
		fields[count++].value = at;
		at += strlen(at) + 1;
	}
	make_fields(nva, fields, count);
	nghttp2_submit_trailer(stream->session->nghttp2, stream->id, nva, (size_t) count);
}

static ssize_t
read_data(nghttp2_session *nghttp2, int32_t id, uint8_t *buffer, size_t length,
		  uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	Http2Stream *stream = source->ptr;
	size_t		n = http2_unsent(stream);

	if (n == 0 && !stream->finished)
		return NGHTTP2_ERR_DEFERRED;
	if (n > length)
		n = length;
	if (n > 0)
		memcpy(buffer, stream->out + stream->out_start, n);
	stream->out_start += n;
	if (stream->out_start == stream->out_len)
	{
		stream->out_start = stream->out_len = 0;
		if (stream->finished)
		{
			*flags |= NGHTTP2_DATA_FLAG_EOF;
			if (stream->trailers_len > 0)
			{
				*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
				submit_trailers(stream);
			}
		}
	}
	return (ssize_t) n;
}

void
http2_respond(Http2Stream *stream, const Http2Field *fields, int count)
{
	nghttp2_nv	nva[MAX_TRAILERS * 2];
	nghttp2_data_provider provider = {.read_callback = read_data};

	if (stream->responded)
		return;
	stream->responded = true;
	provider.source.ptr = stream;
	make_fields(nva, fields, count);
	if (nghttp2_submit_response(stream->session->nghttp2, stream->id, nva, (size_t) count, &provider) != 0)
		http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
	send_soon(stream->session);
}

void
http2_send_data(Http2Stream *stream, const uint8_t *data, size_t len)
{
	if (stream->finished)
		return;
	if (stream->out_len + len > stream->out_size)
	{
		size_t		size = stream->out_size == 0 ? 256 : stream->out_size;
		uint8_t    *grown;

		if (stream->out_start > 0)
		{
			memmove(stream->out, stream->out + stream->out_start, stream->out_len - stream->out_start);
			stream->out_len -= stream->out_start;
			stream->out_start = 0;
		}
		while (size < stream->out_len + len)
			size *= 2;
		grown = realloc(stream->out, size);
		if (grown == NULL)
		{
			http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
			return;
		}
		stream->out = grown;
		stream->out_size = size;
	}
	memcpy(stream->out + stream->out_len, data, len);
	stream->out_len += len;
	nghttp2_session_resume_data(stream->session->nghttp2, stream->id);
	send_soon(stream->session);
}

void
http2_send_trailers(Http2Stream *stream, const Http2Field *fields, int count)
{
	size_t		len = 0;
	char	   *at;
	int			i;

	if (stream->finished)
		return;
	stream->finished = true;
	for (i = 0; i < count; i++)
		len += strlen(fields[i].name) + strlen(fields[i].value) + 2;
	stream->trailers = at = malloc(len + 1);
	if (at == NULL)
	{
		http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
		return;
	}
	for (i = 0; i < count; i++)
	{
		at = stpcpy(at, fields[i].name) + 1;
		at = stpcpy(at, fields[i].value) + 1;
	}
	stream->trailers_len = len;
	nghttp2_session_resume_data(stream->session->nghttp2, stream->id);
	send_soon(stream->session);
}

void
http2_reset(Http2Stream *stream, uint32_t code)
{
	nghttp2_submit_rst_stream(stream->session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, code);
	send_soon(stream->session);
}

/* ---- receiving ---- */

static int
on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	if (session->stream_count >= max_streams || total_streams >= max_calls ||
		(stream = add_stream(session, frame->hd.stream_id)) == NULL)
	{
		metric_add(&streams_refused, 1);
		nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
		return 0;
	}
	nghttp2_session_set_stream_user_data(nghttp2, frame->hd.stream_id, stream);
	return 0;
}

static bool
grow_headers(Http2Stream *stream, size_t needed)
{
	size_t		size = stream->headers_size;
	char	   *grown;

	while (size < needed)
		size *= 2;
	grown = malloc(size);
	if (grown == NULL)
		return false;
	memcpy(grown, stream->headers, stream->headers_len);
	if (stream->headers != stream->first_headers)
		free(stream->headers);
	stream->headers = grown;
	stream->headers_size = size;
	return true;
}

static int
on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		  const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, frame->hd.stream_id);
	size_t		needed = name_len + value_len + 2;

	/* Trailers of a request say nothing in gRPC. */
	if (stream == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	needed += stream->headers_len;
	if (needed > MAX_HEADER_BYTES)
	{
		stream->too_large = true;
		return 0;
	}
	if (needed > stream->headers_size && !grow_headers(stream, needed))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	memcpy(stream->headers + stream->headers_len, name, name_len);
	stream->headers_len += name_len;
	stream->headers[stream->headers_len++] = '\0';
	memcpy(stream->headers + stream->headers_len, value, value_len);
	stream->headers_len += value_len;
	stream->headers[stream->headers_len++] = '\0';
	return 0;
}

static int
on_data_chunk(nghttp2_session *nghttp2, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, id);

	if (stream != NULL && stream->told)
		handlers->data(stream, data, len);
	return 0;
}

static void
begin_request(Http2Stream *stream)
{
	Http2Field	too_large = {":status", "431"};

	if (stream->too_large)
	{
		http2_respond_only(stream, &too_large, 1);
		return;
	}
	stream->told = true;
	handlers->request(stream);
}

/* More pings than agreed: the third one too many ends the connection. */
static void
judge_ping(Http2 *session)
{
	bool		early = session->last_ping_us != 0 &&
		loop_now() - session->last_ping_us < keepalive_min_us - keepalive_min_us / 20;

	session->last_ping_us = loop_now();
	if (!early || ++session->ping_strikes <= MAX_PING_STRIKES)
		return;
	metric_add(&too_many_pings, 1);
	nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
						  nghttp2_session_get_last_proc_stream_id(session->nghttp2),
						  NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *) "too_many_pings", 14);
	session->ending = true;
}

static void finish_draining(void *arg);

static void
answered_ping(Http2 *session)
{
	session->ping_sent = false;
	if (session->drain_step == 1)
		finish_draining(session);
}

static int
on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;

	if (frame->hd.type == NGHTTP2_PING)
	{
		if (frame->hd.flags & NGHTTP2_FLAG_ACK)
			answered_ping(session);
		else
			judge_ping(session);
		return 0;
	}
	if (frame->hd.type == NGHTTP2_SETTINGS)
		session->started = true;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	stream = nghttp2_session_get_stream_user_data(nghttp2, frame->hd.stream_id);
	if (stream == NULL)
		return 0;
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		stream->remote_ended = true;
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		begin_request(stream);
	if (stream->told && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		handlers->ended(stream);
	return 0;
}

static int
on_frame_send(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;

	if (frame->hd.type == NGHTTP2_RST_STREAM)
		session->reset_ids[session->reset_count++ % RESET_IDS] = frame->hd.stream_id;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	/* Answers are a reason for a client to ping (it measures the link). */
	session->last_ping_us = 0;
	session->ping_strikes = 0;
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	stream = nghttp2_session_get_stream_user_data(nghttp2, frame->hd.stream_id);
	if (stream == NULL)
		return 0;
	stream->sent_end = true;
	/* Answered before the client had sent all: tell it to stop. */
	if (!stream->remote_ended)
		nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
	return 0;
}

static int
on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t code, void *arg)
{
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, id);

	if (stream != NULL)
	{
		nghttp2_session_set_stream_user_data(nghttp2, id, NULL);
		remove_stream(stream, stream->sent_end);
	}
	return 0;
}

/*
 * nghttp2 is told not to keep closed streams, which would take memory on every
 * connection for as long as it lasts, and so does not see that a frame is for
 * one.  What we have reset may still get frames that were on their way;
 * anything else is an error.
 */
static void
judge_frame(Http2 *session, const uint8_t *header)
{
	uint8_t		type = header[3];
	int32_t		id = (int32_t) ((uint32_t) (header[5] & 0x7F) << 24 | (uint32_t) header[6] << 16 |
								(uint32_t) header[7] << 8 | header[8]);
	unsigned	i;

	if (id % 2 == 0 || id > nghttp2_session_get_last_proc_stream_id(session->nghttp2) ||
		nghttp2_session_find_stream(session->nghttp2, id) != NULL)
		return;
	for (i = 0; i < RESET_IDS; i++)
	{
		if (session->reset_ids[i] == id)
			return;
	}
	if (type == NGHTTP2_DATA)
		nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, id, NGHTTP2_STREAM_CLOSED);
	else
		nghttp2_session_terminate_session(session->nghttp2, NGHTTP2_STREAM_CLOSED);
}

static void
feed(Http2 *session, const uint8_t *data, size_t len)
{
	static LogSite site;
	ssize_t		n = session->ending ? 0 : nghttp2_session_mem_recv(session->nghttp2, data, len);

	if (n >= 0)
		return;
	log_limited(&site, LOG_INFO, "%s does not speak HTTP/2 properly: %s", conn_peer(session->conn), nghttp2_strerror((int) n));
	/* A GOAWAY that says why is on its way, if there is one. */
	session->ending = true;
}

/*
 * Follows the frames' lengths, and judges DATA and HEADERS before nghttp2 sees
 * them.  A header that comes in two pieces is not judged.
 */
static void
received(Conn *conn, const uint8_t *data, size_t len)
{
	Http2	   *session = conn_data(conn);
	size_t		fed = 0;
	size_t		at = 0;

	session->last_received_us = loop_now();
	while (at < len)
	{
		size_t		n = session->skip < len - at ? session->skip : len - at;

		/* The preface, the rest of a frame or of its header. */
		session->skip -= n;
		at += n;
		if (session->skip > 0 || at == len)
			break;
		if (session->header_len == 0 && len - at >= FRAME_HEADER &&
			(data[at + 3] == NGHTTP2_DATA || data[at + 3] == NGHTTP2_HEADERS))
		{
			feed(session, data + fed, at - fed);
			fed = at;
			judge_frame(session, data + at);
		}
		while (at < len && session->header_len < FRAME_HEADER)
			session->header[session->header_len++] = data[at++];
		if (session->header_len < FRAME_HEADER)
			break;
		session->header_len = 0;
		session->skip = (size_t) session->header[0] << 16 | (size_t) session->header[1] << 8 | session->header[2];
	}
	feed(session, data + fed, len - fed);
	send_soon(session);
}

/* ---- the life of a session ---- */

static void
keep_alive(void *arg)
{
	Http2	   *session = arg;
	int64_t		silent = loop_now() - session->last_received_us;

	if (!session->started || (session->ping_sent && silent >= keepalive_timeout_us))
	{
		conn_close(session->conn);
		return;
	}
	if (!session->ping_sent && silent >= keepalive_time_us)
	{
		session->ping_sent = true;
		nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, (const uint8_t *) "keepaliv");
		send_soon(session);
		timer_start(&session->timer, keepalive_timeout_us, keep_alive, session);
		return;
	}
	session->ping_sent = false;
	timer_start(&session->timer, keepalive_time_us - silent, keep_alive, session);
}

static void
close_session(void *arg)
{
	Http2	   *session = arg;

	conn_close(session->conn);
}

/* Second step: by now the client knows, and opens no more streams. */
static void
finish_draining(void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;
	Http2Stream *next;

	timer_stop(&session->drain);
	session->drain_step = 2;
	nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
						  nghttp2_session_get_last_proc_stream_id(session->nghttp2), NGHTTP2_NO_ERROR, NULL, 0);
	for (stream = session->streams; stream != NULL; stream = next)
	{
		next = stream->next;
		if (stream->told)
			handlers->draining(stream);
	}
	send_soon(session);
}

void
http2_drain(Http2 *session)
{
	if (session->drain_step > 0)
		return;
	session->drain_step = 1;
	nghttp2_submit_shutdown_notice(session->nghttp2);
	nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, (const uint8_t *) "goneaway");
	timer_start(&session->drain, DRAIN_PING_US, finish_draining, session);
	send_soon(session);
}

static void
reached_max_age(void *arg)
{
	Http2	   *session = arg;

	http2_drain(session);
	timer_start(&session->age, max_age_grace_us, close_session, session);
}

static bool
init_nghttp2(void)
{
	if (callbacks != NULL)
		return true;
	if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&session_option) != 0)
		return false;
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	/* The standard limit (33 a second) ends honest clients that cancel a lot. */
	nghttp2_option_set_stream_reset_rate_limit(session_option, 10000, 1000);
	nghttp2_option_set_no_closed_streams(session_option, 1);
	return true;
}

static void
opened(Conn *conn)
{
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, INT32_MAX},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES}
	};
	Http2	   *session = calloc(1, sizeof(Http2));

	if (session == NULL || !init_nghttp2() ||
		nghttp2_session_server_new2(&session->nghttp2, callbacks, session, session_option) != 0)
	{
		free(session);
		conn_close(conn);
		return;
	}
	session->conn = conn;
	session->skip = PREFACE;
	session->last_received_us = loop_now();
	conn_set_data(conn, session);
	nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0]));
	nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, 0, SESSION_WINDOW);
	timer_start(&session->timer, PREFACE_US, keep_alive, session);
	if (max_age_us > 0)
		timer_start(&session->age, max_age_us - max_age_us / 10 + random() % (max_age_us / 5 + 1), reached_max_age, session);
	metric_add(&sessions_opened, 1);
	metric_add(&sessions_open, 1);
	send_soon(session);
}

static void
drained(Conn *conn)
{
	if (conn_data(conn) != NULL)
		send_soon(conn_data(conn));
}

static void
closed(Conn *conn)
{
	Http2	   *session = conn_data(conn);

	if (session == NULL)
		return;
	while (session->streams != NULL)
		remove_stream(session->streams, false);
	timer_stop(&session->timer);
	timer_stop(&session->age);
	timer_stop(&session->drain);
	task_cancel(&session->flush);
	nghttp2_session_del(session->nghttp2);
	metric_add(&sessions_open, -1);
	free(session);
}

const ConnHandlers http2_conn_handlers = {opened, received, drained, NULL, closed};

void
http2_set_handlers(const Http2Handlers *given)
{
	handlers = given;
}
