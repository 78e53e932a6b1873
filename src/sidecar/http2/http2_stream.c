/*
 * http2_stream.c
 *		Streams of HTTP/2 sessions: their buffers, and sending.
 */
#include <stdlib.h>
#include <string.h>

#include "http2/http2_internal.h"

#define MAX_TRAILERS 8
#define EARLY_US 1000000
#define SEND_MARK (256 * 1024)	/* no more is framed while so much waits */

#define REAP_US 1000000
#define STRANGE_US 1500000		/* for those without a name to take an answer */
#define UNTAKEN_US 60000000		/* for the others */
#define STRANGERS 4000			/* streams of those who need no name */
#define STREAM_BYTES 3072		/* that a stream holds here, in nghttp2 and as a call */
#define FRAME_BYTES 400			/* that a frame holds until it leaves */
#define SESSION_BYTES (8 * 1024)
#define FRAMES_MARK 2000		/* unsent ones, over which nothing is read */
#define STALLED_US 30000000
#define KEEP_OUT (64 * 1024)	/* no larger buffer is kept for later */

static int64_t stream_total_count;
static int64_t common_count;
static int64_t strange_count;

int64_t
stream_total(void)
{
	return stream_total_count;
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

const char *
http2_header(const Http2Stream *stream, const char *name)
{
	size_t		len = strlen(name);
	size_t		at = 0;

	while (at < stream->headers_len)
	{
		FieldLengths lengths;

		memcpy(&lengths, stream->headers + at, sizeof(lengths));
		at += sizeof(lengths);
		if (lengths.name == len && memcmp(stream->headers + at, name, len) == 0)
			return stream->headers + at + len + 1;
		at += (size_t) lengths.name + lengths.value + 2;
	}
	return NULL;
}

Party *
http2_party(const Http2Stream *stream)
{
	return stream->party;
}

Party *
http2_peer(const Http2Stream *stream)
{
	return stream->session->peer;
}

bool
http2_charge(Http2Stream *stream, size_t bytes)
{
	if (!party_charge(stream->party, bytes))
		return false;
	if (stream->party != NULL)
		stream->charged += bytes;
	return true;
}

void
http2_give_back(Http2Stream *stream, size_t bytes)
{
	party_give_back(stream->party, bytes);
	if (stream->party != NULL)
		stream->charged -= bytes;
}

bool
http2_admit(Http2Stream *stream, Party *party, bool common, bool named)
{
	bool		room = party != NULL &&
		(common ? party_may_take(party->streams, common_count, http2_max_calls) :
		 party_may_take(party->strange, strange_count, STRANGERS));

	if (!room || !party_charge(party, STREAM_BYTES + stream->headers_size + stream->out_size))
	{
		metric_add(&http2_streams_refused, 1);
		http2_reset(stream, NGHTTP2_REFUSED_STREAM);
		return false;
	}
	stream->party = party_hold(party);
	stream->charged = STREAM_BYTES + stream->headers_size + stream->out_size;
	stream->common = common;
	*(common ? &common_count : &strange_count) += 1;
	*(common ? &party->streams : &party->strange) += 1;
	if (named)
		stream->session->named = true;
	return true;
}

/* It no longer counts. */
static void
dismiss(Http2Stream *stream)
{
	Party	   *party = stream->party;

	if (party == NULL)
		return;
	*(stream->common ? &common_count : &strange_count) -= 1;
	*(stream->common ? &party->streams : &party->strange) -= 1;
	party_give_back(party, stream->charged);
	party_release(party);
	stream->party = NULL;
}

/* Answers that nobody takes do not stay. */
static void
reap(void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;
	bool		more = false;

	for (stream = session->streams; stream != NULL; stream = stream->next)
	{
		if (stream->finished_us == 0)
			continue;
		more = true;
		if (loop_now() - stream->finished_us > (stream->common ? UNTAKEN_US : STRANGE_US))
		{
			http2_reset(stream, NGHTTP2_CANCEL);
			stream->finished_us = 0;
		}
	}
	if (more)
		timer_start_patient(&session->reap, REAP_US, reap, session);
}

static void
note_finished(Http2Stream *stream)
{
	stream->finished = true;
	stream->finished_us = loop_now();
	if (!timer_running(&stream->session->reap))
		timer_start_patient(&stream->session->reap, REAP_US, reap, stream->session);
}

void
http2_each_stream(Conn *conn, void (*visit) (Http2Stream *stream, void *arg), void *arg)
{
	const Http2 *session = conn_data(conn);
	Http2Stream *stream;
	Http2Stream *next;

	for (stream = session != NULL ? session->streams : NULL; stream != NULL; stream = next)
	{
		next = stream->next;
		if (stream->told)
			visit(stream, arg);
	}
}

int
http2_spare(const Conn *conn)
{
	const Http2 *session = conn_data(conn);

	if (session == NULL)
		return conn_certificate_name(conn) == NULL ? 2 : 0;
	if (session->named || session->drain_step > 0)
		return 0;
	return session->stream_count == 0 ? 2 : 1;
}

static void
give_up(void *arg)
{
	Http2	   *session = arg;

	conn_close(session->conn);
}

void
session_weigh(Http2 *session)
{
	size_t		frames = nghttp2_session_get_outbound_queue_size(session->nghttp2);

	if (!party_recharge(session->peer, &session->charged, SESSION_BYTES + frames * FRAME_BYTES + conn_pending(session->conn)))
	{
		conn_close(session->conn);
		return;
	}
	if (frames > FRAMES_MARK && !timer_running(&session->stalled))
	{
		conn_pause(session->conn, true);
		timer_start_patient(&session->stalled, STALLED_US, give_up, session);
	}
	else if (frames < FRAMES_MARK / 2 && timer_running(&session->stalled))
	{
		timer_stop(&session->stalled);
		conn_pause(session->conn, false);
	}
}

Http2Stream *
stream_add(Http2 *session, int32_t id)
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
	stream_total_count++;
	metric_set(&http2_streams_open, (uint64_t) stream_total_count);
	return stream;
}

void
stream_remove(Http2Stream *stream, bool completely)
{
	Http2	   *session = stream->session;

	if (stream->told)
		http2_handlers->closed(stream, completely);
	if (stream->prev != NULL)
		stream->prev->next = stream->next;
	else
		session->streams = stream->next;
	if (stream->next != NULL)
		stream->next->prev = stream->prev;
	timer_stop(&stream->early_end);
	if (stream->over)
		session->over_count--;
	timer_stop(&stream->stop);
	dismiss(stream);
	session->stream_count--;
	stream_total_count--;
	metric_set(&http2_streams_open, (uint64_t) stream_total_count);
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
			frame[at + 2] = (uint8_t) (http2_max_streams >> 24);
			frame[at + 3] = (uint8_t) (http2_max_streams >> 16);
			frame[at + 4] = (uint8_t) (http2_max_streams >> 8);
			frame[at + 5] = (uint8_t) http2_max_streams;
		}
	}
}

static void
session_send(void *arg)
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
	session_weigh(session);
	if (session->ending ||
		(!nghttp2_session_want_read(session->nghttp2) && !nghttp2_session_want_write(session->nghttp2)))
		conn_finish(session->conn);
}

void
session_send_soon(Http2 *session)
{
	task_defer(&session->flush, session_send, session);
}

void
session_submitted(Http2 *session, int result)
{
	if (nghttp2_is_fatal(result))
		conn_close(session->conn);
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
	stream->responded = true;
	note_finished(stream);
	make_fields(nva, fields, count);
	if (nghttp2_submit_response(stream->session->nghttp2, stream->id, nva, (size_t) count, NULL) != 0)
		http2_reset(stream, NGHTTP2_INTERNAL_ERROR);
	session_send_soon(stream->session);
}

/* The stored trailers go out right after the last of the data. */
static int
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
	return nghttp2_submit_trailer(stream->session->nghttp2, stream->id, nva, (size_t) count);
}

static void
drop_out(Http2Stream *stream)
{
	free(stream->out);
	stream->out = NULL;
	http2_give_back(stream, stream->out_size);
	stream->out_size = 0;
}

static ssize_t
read_data(nghttp2_session *nghttp2, int32_t id, uint8_t *buffer, size_t length,
		  uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	Http2Stream *stream = source->ptr;
	size_t		n = http2_unsent(stream);

	if (n == 0 && (!stream->finished || timer_running(&stream->early_end)))
		return NGHTTP2_ERR_DEFERRED;
	if (n > length)
		n = length;
	if (n > 0)
		memcpy(buffer, stream->out + stream->out_start, n);
	stream->out_start += n;
	if (stream->finished_us != 0 && n > 0)
		stream->finished_us = loop_now();
	if (stream->out_start == stream->out_len)
	{
		stream->out_start = stream->out_len = 0;
		if (stream->out_size > KEEP_OUT)
			drop_out(stream);
		if (stream->finished)
		{
			*flags |= NGHTTP2_DATA_FLAG_EOF;
			if (stream->trailers_len > 0)
			{
				*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
				if (submit_trailers(stream) != 0)
					return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
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
	session_send_soon(stream->session);
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
		grown = http2_charge(stream, size - stream->out_size) ? realloc(stream->out, size) : NULL;
		if (grown == NULL)
		{
			http2_reset(stream, NGHTTP2_ENHANCE_YOUR_CALM);
			return;
		}
		stream->out = grown;
		stream->out_size = size;
	}
	memcpy(stream->out + stream->out_len, data, len);
	stream->out_len += len;
	session_submitted(stream->session, nghttp2_session_resume_data(stream->session->nghttp2, stream->id));
	session_send_soon(stream->session);
}

bool
http2_is_early(const Http2Stream *stream)
{
	return stream->early;
}

void
stream_end_early(void *arg)
{
	Http2Stream *stream = arg;

	timer_stop(&stream->early_end);
	if (!stream->finished)
		return;
	session_submitted(stream->session, nghttp2_session_resume_data(stream->session->nghttp2, stream->id));
	session_send_soon(stream->session);
}

static void
stop_client(void *arg)
{
	http2_reset(arg, NGHTTP2_NO_ERROR);
}

/*
 * Answered before the client had sent all.  It ends the stream by itself as a
 * rule, when it has read the answer.  Told at once to stop, HAProxy would cancel
 * its own client's stream, some of which then forget the answer.  Others count
 * the stream no more, and open another one: nor do we.
 */
void
stream_stop_later(Http2Stream *stream)
{
	stream->over = true;
	stream->session->over_count++;
	timer_start(&stream->stop, EARLY_US, stop_client, stream);
}

bool
session_is_full(const Http2 *session)
{
	int64_t		over = session->over_count < http2_max_streams ? session->over_count : http2_max_streams;

	return session->stream_count - over >= http2_max_streams;
}

/*
 * An answer may end before anything came but the request's headers.  libcurl
 * forgets such an answer when it is about to send the rest, so the end waits
 * for that, though not for long.
 */
void
http2_send_trailers(Http2Stream *stream, const Http2Field *fields, int count)
{
	size_t		len = 0;
	char	   *at;
	int			i;

	if (stream->finished)
		return;
	note_finished(stream);
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
	if (stream->early)
		timer_start(&stream->early_end, EARLY_US, stream_end_early, stream);
	session_submitted(stream->session, nghttp2_session_resume_data(stream->session->nghttp2, stream->id));
	session_send_soon(stream->session);
}

void
http2_reset(Http2Stream *stream, uint32_t code)
{
	session_submitted(stream->session, nghttp2_submit_rst_stream(stream->session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, code));
	session_send_soon(stream->session);
}

