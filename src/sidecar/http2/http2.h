/*
 * http2.h
 *		HTTP/2 server sessions, by nghttp2, on connections of net.h.
 *
 * A session lists its streams.  Bodies may come and go in any pieces.  Nothing
 * here knows of gRPC but the policies that its clients expect of a server
 * (keepalive, two-step shutdown, refused streams).
 */
#ifndef GT_HTTP2_H
#define GT_HTTP2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/options.h"
#include "net/net.h"
#include "net/party.h"

typedef struct Http2 Http2;
typedef struct Http2Stream Http2Stream;

/* What the layer above does with a stream. */
typedef struct Http2Handlers
{
	void		(*request) (Http2Stream *stream);	/* headers are complete */
	void		(*data) (Http2Stream *stream, const uint8_t *data, size_t len);
	void		(*ended) (Http2Stream *stream); /* the client sent all */

	/* The last callback: sent completely, reset, or the connection is gone. */
	void		(*closed) (Http2Stream *stream, bool completely);

	/*
	 * The session is being drained: finish a stream that does not end by
	 * itself.
	 */
	void		(*draining) (Http2Stream *stream);
} Http2Handlers;

/* A header field to send; both NUL-terminated. */
typedef struct Http2Field
{
	const char *name;
	const char *value;
} Http2Field;

extern void http2_set_handlers(const Http2Handlers *handlers);

/* For net_listen(). */
extern const ConnHandlers http2_conn_handlers;

extern const Option http2_options[];
extern void http2_register_metrics(void);

/* Of the request: ":method", ":path", "grpc-timeout", ...; NULL: absent. */
extern const char *http2_header(const Http2Stream *stream, const char *name);

/* Headers alone, which end the stream. */
extern void http2_respond_only(Http2Stream *stream, const Http2Field *fields, int count);

/* Headers, to be followed by data and trailers; without any, the data ends it. */
extern void http2_respond(Http2Stream *stream, const Http2Field *fields, int count);
extern void http2_send_data(Http2Stream *stream, const uint8_t *data, size_t len);
extern void http2_send_trailers(Http2Stream *stream, const Http2Field *fields, int count);

/* Bytes of data that wait for the client's window. */
extern size_t http2_unsent(const Http2Stream *stream);

/*
 * Is the request being handed over, and the client has more to say?  An answer
 * that is given now should not be http2_respond_only().
 */
extern bool http2_is_early(const Http2Stream *stream);

extern void http2_reset(Http2Stream *stream, uint32_t code);

/*
 * Let the stream in, for that party: in the pot of --max-calls, or of those who
 * need no name.  False: it has been refused, as there are too many.  `named`:
 * the connection is somebody's who is known.
 */
extern bool http2_admit(Http2Stream *stream, Party *party, bool common, bool named);
extern Party *http2_party(const Http2Stream *stream);

/* The other end of its connection. */
extern Party *http2_peer(const Http2Stream *stream);

/* Reckon more bytes for the stream's party, to its end or until they are given back; false: too many. */
extern bool http2_charge(Http2Stream *stream, size_t bytes);
extern void http2_give_back(Http2Stream *stream, size_t bytes);

/* For ListenOptions.spare, where callers have names. */
extern int	http2_spare(const Conn *conn);

extern void *http2_data(const Http2Stream *stream);
extern void http2_set_data(Http2Stream *stream, void *data);
extern Conn *http2_conn(const Http2Stream *stream);

/* Visit the streams of a connection; `visit` may answer or reset them. */
extern void http2_each_stream(Conn *conn, void (*visit) (Http2Stream *stream, void *arg), void *arg);

/* GOAWAY in two steps, then close when the last stream has ended. */
extern void http2_drain(Http2 *session);
static inline void
http2_drain_conn(Conn *conn, void *arg)
{
	if (conn_data(conn) != NULL)
		http2_drain(conn_data(conn));
}

#endif							/* GT_HTTP2_H */
