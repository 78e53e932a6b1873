/*
 * http2_receive.c
 *		Frames that clients send: requests, data, pings.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "http2/http2_internal.h"

#define MAX_PING_STRIKES 2
#define MOST_HEADER_BYTES (4 * MAX_HEADER_BYTES)	/* are looked at in one block */

/* ---- receiving ---- */

static int
on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;

	session->block_bytes = 0;
	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	/* What our last GOAWAY leaves out is not carried out: the client does that elsewhere. */
	if (session->drain_step == 2 || session->ending || session_is_full(session) || (stream = stream_add(session, frame->hd.stream_id)) == NULL)
	{
		metric_add(&http2_streams_refused, 1);
		session_submitted(session, nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM));
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

/* There is room for it. */
static void
add_field(Http2Stream *stream, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len)
{
	FieldLengths lengths = {(uint16_t) name_len, (uint16_t) value_len};
	char	   *at = stream->headers + stream->headers_len;

	memcpy(at, &lengths, sizeof(lengths));
	at = mempcpy(at + sizeof(lengths), name, name_len);
	*at++ = '\0';
	at = mempcpy(at, value, value_len);
	*at++ = '\0';
	stream->headers_len = (size_t) (at - stream->headers);
}

/*
 * A byte of a header block may stand for thousands, which were sent once and
 * are in the table: what is too large for an answer that says so is not looked
 * at to its end.  The stream is reset, and nghttp2 skips the rest.
 */
static int
on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		  const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, frame->hd.stream_id);
	size_t		needed = name_len + value_len + 2 + sizeof(FieldLengths);

	session->block_bytes += needed;
	if (session->block_bytes > MOST_HEADER_BYTES)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	/* Trailers of a request say nothing in gRPC. */
	if (stream == NULL || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	needed += stream->headers_len;
	/* Read as text, it would end at a NUL. */
	if (needed > MAX_HEADER_BYTES ||
		(session->unchecked && (memchr(name, '\0', name_len) != NULL || memchr(value, '\0', value_len) != NULL)))
	{
		stream->too_large = true;
		return 0;
	}
	if (needed > stream->headers_size && !grow_headers(stream, needed))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	add_field(stream, name, name_len, value, value_len);
	return 0;
}

static int
on_data_chunk(nghttp2_session *nghttp2, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, id);

	if (stream != NULL && stream->told)
		http2_handlers->data(stream, data, len);
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
	stream->early = !stream->remote_ended;
	http2_handlers->request(stream);
	stream->early = false;
}

/* More pings than agreed: the third one too many ends the connection. */
static void
judge_ping(Http2 *session)
{
	bool		early = session->last_ping_us != 0 &&
		loop_now() - session->last_ping_us < http2_keepalive_min_us - http2_keepalive_min_us / 20;

	session->last_ping_us = loop_now();
	if (!early || ++session->ping_strikes <= MAX_PING_STRIKES)
		return;
	metric_add(&http2_too_many_pings, 1);
	nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
						  nghttp2_session_get_last_proc_stream_id(session->nghttp2),
						  NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *) "too_many_pings", 14);
	session->ending = true;
}

static int
on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;

	if (frame->hd.type == NGHTTP2_PING)
	{
		if (frame->hd.flags & NGHTTP2_FLAG_ACK)
			session_ping_answered(session, frame->ping.opaque_data);
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
	if (stream->remote_ended || frame->hd.type == NGHTTP2_DATA)
		stream_end_early(stream);
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		begin_request(stream);
	if (stream->told && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		http2_handlers->ended(stream);
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
	if (!stream->remote_ended)
		stream_stop_later(stream);
	return 0;
}

static int
on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t code, void *arg)
{
	Http2Stream *stream = nghttp2_session_get_stream_user_data(nghttp2, id);

	if (stream != NULL)
	{
		nghttp2_session_set_stream_user_data(nghttp2, id, NULL);
		stream_remove(stream, stream->sent_end);
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

/* How an HTTP/1 request begins; HTTP/2 does with "PRI". */
static bool
is_http1(const uint8_t *data, size_t len)
{
	static const char *const methods[] = {"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "};
	size_t		i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
	{
		if (len >= strlen(methods[i]) && memcmp(data, methods[i], strlen(methods[i])) == 0)
			return true;
	}
	return false;
}

/* In its own words, which it shows to somebody. */
static void
answer_http1(Http2 *session)
{
	static LogSite site;
	static const char answer[] =
		"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\nContent-Type: text/plain\r\n"
		"Content-Length: 78\r\n\r\n"
		"This is a gRPC server, which speaks HTTP/2 only; the admin port has HTTP/1.1.\n";

	log_limited(&site, LOG_INFO, "%s speaks HTTP/1 to the gRPC port", conn_peer(session->conn));
	conn_write(session->conn, answer, sizeof(answer) - 1);
	session->ending = true;
	conn_finish(session->conn);
}

/*
 * Follows the frames' lengths, and judges DATA and HEADERS before nghttp2 sees
 * them.  A header that comes in two pieces is not judged.
 */
void
receive_bytes(Conn *conn, const uint8_t *data, size_t len)
{
	Http2	   *session = conn_data(conn);
	size_t		fed = 0;
	size_t		at = 0;

	/* who was silent for long has been told of in HTTP/2 already */
	if (!session->heard && !session->settings_sent && is_http1(data, len))
		answer_http1(session);
	else if (conn_is_foreign(conn) && !session->ending)
		conn_close(conn);
	session->heard = true;
	session->last_received_us = loop_now();
	if (session->ending || conn_is_foreign(conn))
		return;
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
	session_weigh(session);
	session_send_soon(session);
}

void
receive_callbacks(nghttp2_session_callbacks *callbacks)
{
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
