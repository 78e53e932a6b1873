/*
 * http2_internal.h
 *		What the files http2*.c share.
 *
 * http2_session.c begins and ends sessions; http2_receive.c takes frames;
 * http2_stream.c keeps the streams and sends.
 */
#ifndef GT_HTTP2_INTERNAL_H
#define GT_HTTP2_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "base/metrics.h"
#include "http2/http2.h"

#define MAX_HEADER_BYTES (16 * 1024)
#define RESET_IDS 32
#define FRAME_HEADER 9
#define PREFACE 24

/* Before each of a request's header fields; its name and value follow, with a NUL behind each. */
typedef struct FieldLengths
{
	uint16_t	name;
	uint16_t	value;
} FieldLengths;

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
	char	   *headers;		/* FieldLengths, name, NUL, value, NUL, ... */
	size_t		headers_len,
				headers_size;
	uint8_t    *out;
	size_t		out_start,
				out_len,
				out_size;
	char	   *trailers;		/* name, NUL, value, NUL, ... */
	size_t		trailers_len;
	Party	   *party;			/* for whom; NULL: not known yet */
	size_t		charged;		/* bytes reckoned for it */
	bool		common;			/* it counts in --max-calls */
	int64_t		finished_us;	/* when all of the answer was given; 0: not yet */
	bool		early;			/* the request is being handed over, and more will come */
	LoopTimer	early_end;		/* runs while the end of an early answer waits for that */
	bool		over;			/* answered, and the client has not ended it */
	LoopTimer	stop;			/* until it is told to send no more */
	void	   *data;
	char		first_headers[512]; /* enough for most requests */
};

struct Http2
{
	Conn	   *conn;
	nghttp2_session *nghttp2;
	Http2Stream *streams;
	int			stream_count;
	int			over_count;		/* of these, answered, and to be ended by the client */
	LoopTask	flush;
	LoopTimer	timer;			/* preface, then keepalive */
	LoopTimer	age;			/* max age, then its grace */
	LoopTimer	drain;
	int64_t		last_received_us;
	int64_t		last_ping_us;	/* of the client's pings; 0: any is welcome */
	int			ping_strikes;
	bool		heard;			/* something of the client's came */
	bool		started;		/* the client's SETTINGS came */
	bool		settings_sent;
	bool		ping_sent;		/* our keepalive ping waits for its answer */
	size_t		skip;			/* bytes until the next frame's header */
	uint8_t		header[FRAME_HEADER];	/* of a frame, as far as it came */
	unsigned	header_len;
	size_t		block_bytes;	/* of the header block that comes, as far as it came */
	bool		ending;			/* close once all is sent */
	int32_t		reset_ids[RESET_IDS];	/* streams that we reset last */
	unsigned	reset_count;
	Party	   *peer;
	size_t		charged;		/* for it: what the connection holds besides its streams */
	bool		named;			/* somebody known calls over it */
	bool		unchecked;		/* nghttp2 does not look at the fields */
	LoopTimer	reap;			/* runs while answers wait to be taken */
	LoopTimer	stalled;		/* runs while nothing is read, as the client reads nothing */
	int			drain_step;		/* 0: no, 1: notice sent, 2: last GOAWAY sent */
};

/* Options that the others read; see http2_options. */
extern int64_t http2_max_streams;
extern int64_t http2_max_calls;
extern int64_t http2_keepalive_min_us;

extern Metric http2_streams_open;
extern Metric http2_streams_refused;
extern Metric http2_too_many_pings;

extern const Http2Handlers *http2_handlers;

/* ---- http2_stream.c ---- */

extern Http2Stream *stream_add(Http2 *session, int32_t id);
extern void stream_remove(Http2Stream *stream, bool completely);

/* An early answer need not wait any longer. */
extern void stream_end_early(void *stream);

/* Its answer has ended before the request. */
extern void stream_stop_later(Http2Stream *stream);

/* Has the client as many streams as it may? */
extern bool session_is_full(const Http2 *session);


/* Streams of all sessions. */
extern int64_t stream_total(void);

/*
 * What nghttp2 said to something that was given to it to send.  When it had no
 * memory for that the client would wait for it forever: the connection ends.
 */
extern void session_submitted(Http2 *session, int result);

/* Frame and write what is to be sent, at the end of the turn. */
extern void session_send_soon(Http2 *session);

/*
 * Reckon what the connection holds, and read no more from a client that does
 * not take what it makes us send.
 */
extern void session_weigh(Http2 *session);

/* ---- http2_receive.c ---- */

extern void receive_callbacks(nghttp2_session_callbacks *callbacks);
extern void receive_bytes(Conn *conn, const uint8_t *data, size_t len);

/* ---- http2_session.c ---- */

/* Our ping of these eight bytes was answered. */
extern void session_ping_answered(Http2 *session, const uint8_t *ping);

#endif							/* GT_HTTP2_INTERNAL_H */
