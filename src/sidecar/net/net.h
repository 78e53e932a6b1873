/*
 * net.h
 *		Listening, and connections with or without TLS, on the loop.
 *
 * A connection calls back what its listener was given, for any protocol: the
 * gRPC port puts HTTP/2 on it, the admin port HTTP/1.1.
 */
#ifndef GT_NET_H
#define GT_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

typedef struct Conn Conn;
typedef struct Listener Listener;
typedef struct Tls Tls;

typedef struct ConnHandlers
{
	/*
	 * The connection is ready: accepted, and the TLS handshake is done.  The
	 * place for conn_set_data().
	 */
	void		(*opened) (Conn *conn);

	/* Bytes came.  All of them are the callee's to deal with. */
	void		(*received) (Conn *conn, const uint8_t *data, size_t len);

	/*
	 * What was written has left, down to under CONN_LOW_WATER: more may be
	 * written.  NULL: no interest.
	 */
	void		(*drained) (Conn *conn);

	/* The peer sent its end of file.  NULL: the connection is closed then. */
	void		(*ended) (Conn *conn);

	/*
	 * The connection is over, for whatever reason, conn_close() included; it
	 * is freed after this returns.  Called exactly once for each `opened`.
	 */
	void		(*closed) (Conn *conn);
} ConnHandlers;

#define CONN_LOW_WATER (64 * 1024)

typedef struct ListenOptions
{
	const ConnHandlers *handlers;
	Tls		   *tls;			/* NULL: cleartext */
	int			max_connections;	/* more are closed on arrival; 0: no cap */
	int64_t		handshake_us;	/* the longest TLS handshake */

	/*
	 * May this connection (NULL data: its handshake is not done) make room for
	 * a new one when there are too many?  2: gladly, 1: if need be, 0: no.
	 * The oldest goes.  NULL: the new one is refused.
	 */
	int			(*spare) (const Conn *conn);

	bool		shared;			/* of the connections each peer has a share; see party.h */
} ListenOptions;

/*
 * Listen on "host:port", "[v6]:port", ":port" (all interfaces) or
 * "unix:/path".  Port 0 picks a free one.  NULL: `error` says why.
 */
extern Listener *net_listen(const char *address, const ListenOptions *options,
							char *error, size_t error_size);

/* "127.0.0.1:50051": where it listens really. */
extern const char *listener_address(const Listener *listener);
extern int	listener_connections(const Listener *listener);

/* Accept no more than those who have come already; connections go on. */
extern void listener_stop(Listener *listener);

/* Has its listener stopped, perhaps during its TLS handshake? */
extern bool conn_is_late(const Conn *conn);

/* Did it not agree upon the listener's protocol?  Then it may be told so, and nothing else. */
extern bool conn_is_foreign(const Conn *conn);

/* Is it of a form that net_listen() takes? */
extern bool net_is_address(const char *address);

/* Is every address that this text names on this machine only? */
extern bool net_is_loopback(const char *address);

/*
 * Write.  The bytes are copied, and sent at the end of the loop's turn, all
 * that were written in it at once.
 */
extern void conn_write(Conn *conn, const void *data, size_t len);

/* Bytes written that have not left. */
extern size_t conn_pending(const Conn *conn);

/*
 * Close: at once, or once all that was written has left (at most 10 s).  After
 * conn_close() the connection must not be touched by the caller; `closed` is
 * called later in the same turn.
 */
extern void conn_close(Conn *conn);
extern void conn_finish(Conn *conn);

/* Do not read until it is resumed: back-pressure. */
extern void conn_pause(Conn *conn, bool paused);

extern void *conn_data(const Conn *conn);
extern void conn_set_data(Conn *conn, void *data);
extern const char *conn_peer(const Conn *conn); /* "127.0.0.1:4711" */
extern const char *conn_host(const Conn *conn); /* "127.0.0.1"; of IPv6 its network of 64 bits */

/*
 * The name in the verified client certificate: first DNS or URI name, else the
 * CN.  NULL: there is none.
 */
extern const char *conn_certificate_name(const Conn *conn);

/* Would its client certificate, if it has one, be taken after the last tls_reload()? */
extern bool conn_is_trusted(const Conn *conn);

/* Visit every connection of a listener; `visit` may close it. */
extern void listener_each(Listener *listener, void (*visit) (Conn *conn, void *arg), void *arg);

/*
 * TLS of one port.  The files are read now, and again by tls_reload(); when
 * that fails the old ones stay in use.  `alpn` is the one protocol spoken: see
 * conn_is_foreign().
 */
typedef struct TlsFiles
{
	const char *cert;
	const char *key;
	const char *client_ca;		/* NULL: no client certificates asked for */
	const char *alpn;			/* NULL: any */
	bool		client_cert_optional;
} TlsFiles;

extern Tls *tls_open(const TlsFiles *files, char *error, size_t error_size);
extern bool tls_reload(Tls *tls, char *error, size_t error_size);

#endif							/* GT_NET_H */
