/*
 * tls.h
 *		What net.c needs of OpenSSL beside SSL_read() and SSL_write().
 */
#ifndef GT_TLS_H
#define GT_TLS_H

#include <openssl/ssl.h>

#include "net/net.h"

/* A server's side of a session on `fd`, with the files as last read. */
extern SSL *tls_session(Tls *tls, int fd);

/* After the handshake: was the one protocol agreed upon? */
extern bool tls_protocol_fits(const Tls *tls, SSL *ssl);

/* See conn_certificate_name(); allocated.  False: the certificate's names could not be read. */
extern bool tls_peer_name(SSL *ssl, char **name);

/* Would the peer's certificate be taken by the files as they are now?  True where it has none. */
extern bool tls_peer_trusted(const Tls *tls, SSL *ssl);

/* OpenSSL's last error, and forget it. */
extern const char *tls_error(char *buffer, size_t size);

#endif							/* GT_TLS_H */
