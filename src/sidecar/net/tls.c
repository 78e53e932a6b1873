/*
 * tls.c
 *		TLS for the ports: contexts from files that can be read again, the one
 *		protocol that is spoken, the name in a client's certificate.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/memory.h"
#include "net/tls.h"

#define MAX_ROUNDS 100			/* of a handshake with ourselves */

struct Tls
{
	TlsFiles	files;
	SSL_CTX    *context;
	unsigned char alpn[64];		/* in wire form: ours, then HTTP/1.1, which is answered that it is the wrong one */
	unsigned int alpn_len;		/* of ours */
};

static const unsigned char http1[] = "\010http/1.1";
#define HTTP1_LEN (sizeof(http1) - 1)

const char *
tls_error(char *buffer, size_t size)
{
	unsigned long code = ERR_peek_last_error();

	if (code == 0)
		snprintf(buffer, size, "unknown error");
	else
		ERR_error_string_n(code, buffer, size);
	ERR_clear_error();
	return buffer;
}

static int
select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
			const unsigned char *in, unsigned int in_len, void *arg)
{
	const Tls  *tls = arg;
	unsigned char *chosen;

	if (SSL_select_next_proto(&chosen, out_len, tls->alpn, tls->alpn_len + HTTP1_LEN, in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static bool
readable(const char *path, char *error, size_t error_size)
{
	FILE	   *file = fopen(path, "re");

	if (file == NULL)
	{
		snprintf(error, error_size, "%s: %s", path, strerror(errno));
		return false;
	}
	fclose(file);
	return true;
}

/* Say what OpenSSL has against a file.  Its first reason is the one that tells something. */
static void
say_unfit(const char *path, const char *expected, char *error, size_t error_size)
{
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	snprintf(error, error_size, "%s: %s: it should hold %s in PEM", path, reason != NULL ? reason : "unfit", expected);
	ERR_clear_error();
}

/*
 * Was all of it understood?  What OpenSSL had no memory for it takes for
 * invalid, or for not there, as long as it has the certificate.
 */
static bool
is_complete(X509 *cert)
{
	EVP_PKEY   *key = X509_get0_pubkey(cert);
	uint32_t	flags;

	if (key == NULL || EVP_PKEY_get_security_bits(key) <= 0 || X509_check_purpose(cert, -1, 0) != 1)
		return false;
	/* signed by itself, and not known as that? */
	flags = X509_get_extension_flags(cert);
	return (flags & EXFLAG_SI) == 0 || (flags & EXFLAG_SS) != 0 || X509_verify(cert, key) != 1;
}

/* Whom clients' certificates may come from. */
static bool
take_authorities(SSL_CTX *context, const char *path)
{
	STACK_OF(X509_OBJECT) *objects;
	int			i;

	if (SSL_CTX_load_verify_locations(context, path, NULL) != 1)
		return false;
	objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context));
	for (i = 0; i < sk_X509_OBJECT_num(objects); i++)
	{
		X509	   *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));

		if (cert != NULL && (!is_complete(cert) || SSL_CTX_add_client_CA(context, cert) != 1))
			return false;
	}
	return true;
}

/* One side does what it can now. */
static bool
go_on(SSL *ssl)
{
	int			result;

	ERR_clear_error();
	result = SSL_do_handshake(ssl);
	return result == 1 || SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ ||
		SSL_get_error(ssl, result) == SSL_ERROR_WANT_WRITE;
}

static bool
shake_hands(SSL *server, SSL *client)
{
	BIO		   *near;
	BIO		   *far;
	int			rounds = 0;

	if (BIO_new_bio_pair(&near, 0, &far, 0) != 1)
		return false;
	SSL_set_bio(server, near, near);
	SSL_set_bio(client, far, far);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	while (!SSL_is_init_finished(client) || !SSL_is_init_finished(server))
	{
		if (++rounds > MAX_ROUNDS || !go_on(client) || !go_on(server))
			return false;
	}
	return true;
}

/*
 * A handshake with ourselves.  OpenSSL looks its algorithms up when they are
 * first used, and takes one for absent, for good, when there is no memory for
 * that: better now, before anything is served, than with the first client.
 */
static bool
rehearse(Tls *tls, SSL_CTX *context)
{
	SSL_CTX    *other = SSL_CTX_new(TLS_client_method());
	SSL		   *client = other != NULL ? SSL_new(other) : NULL;
	SSL		   *server = SSL_new(context);
	bool		done = client != NULL && server != NULL;

	if (done)
		SSL_set_verify(server, SSL_VERIFY_NONE, NULL);
	if (done && tls->files.alpn != NULL)
		done = SSL_set_alpn_protos(client, tls->alpn, tls->alpn_len) == 0;
	done = done && shake_hands(server, client);
	SSL_free(client);
	SSL_free(server);
	SSL_CTX_free(other);
	return done;
}

static SSL_CTX *
read_files(Tls *tls, char *error, size_t error_size)
{
	const TlsFiles *files = &tls->files;
	SSL_CTX    *context = SSL_CTX_new(TLS_server_method());
	bool		fit = false;

	ERR_clear_error();
	/* HTTP/2 forbids CBC suites. */
	if (context == NULL || SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
	{
		snprintf(error, error_size, "could not set up TLS");
		SSL_CTX_free(context);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_id_context(context, (const unsigned char *) "garbagetruck", 12);
	if (!readable(files->cert, error, error_size) || !readable(files->key, error, error_size) ||
		(files->client_ca != NULL && !readable(files->client_ca, error, error_size)))
		;
	else if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1)
		say_unfit(files->cert, "the server's certificate and its chain", error, error_size);
	else if (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1 ||
			 SSL_CTX_check_private_key(context) != 1)
		say_unfit(files->key, "the key of the server's certificate", error, error_size);
	else if (files->client_ca != NULL && !take_authorities(context, files->client_ca))
		say_unfit(files->client_ca, "certificates of authorities", error, error_size);
	else
		fit = true;
	if (!fit)
	{
		SSL_CTX_free(context);
		return NULL;
	}
	if (files->client_ca != NULL)
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER |
						   (files->client_cert_optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
	if (files->alpn != NULL)
		SSL_CTX_set_alpn_select_cb(context, select_alpn, tls);
	if (!rehearse(tls, context))
	{
		char		reason[256];

		snprintf(error, error_size, "TLS does not work with %s: %s", files->cert, tls_error(reason, sizeof(reason)));
		SSL_CTX_free(context);
		return NULL;
	}
	return context;
}

Tls *
tls_open(const TlsFiles *files, char *error, size_t error_size)
{
	Tls		   *tls = calloc(1, sizeof(Tls));

	if (tls == NULL)
	{
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	tls->files = *files;
	if (files->alpn != NULL)
	{
		tls->alpn_len = (unsigned int) strlen(files->alpn) + 1;
		tls->alpn[0] = (unsigned char) (tls->alpn_len - 1);
		memcpy(tls->alpn + 1, files->alpn, tls->alpn_len - 1);
		memcpy(tls->alpn + tls->alpn_len, http1, HTTP1_LEN);
	}
	tls->context = read_files(tls, error, error_size);
	if (tls->context == NULL)
	{
		free(tls);
		return NULL;
	}
	return tls;
}

bool
tls_reload(Tls *tls, char *error, size_t error_size)
{
	SSL_CTX    *context = read_files(tls, error, error_size);

	if (context == NULL)
		return false;
	/* Sessions hold the context that they were made from. */
	SSL_CTX_free(tls->context);
	tls->context = context;
	return true;
}

SSL *
tls_session(Tls *tls, int fd)
{
	SSL		   *ssl = SSL_new(tls->context);

	if (ssl != NULL && SSL_set_fd(ssl, fd) != 1)
	{
		SSL_free(ssl);
		return NULL;
	}
	if (ssl != NULL)
		SSL_set_accept_state(ssl);
	return ssl;
}

bool
tls_protocol_fits(const Tls *tls, SSL *ssl)
{
	const unsigned char *chosen;
	unsigned int len;

	if (tls->files.alpn == NULL)
		return true;
	SSL_get0_alpn_selected(ssl, &chosen, &len);
	return len == tls->alpn_len - 1 && memcmp(chosen, tls->alpn + 1, len) == 0;
}

/* A string without NUL inside, or NULL. */
static char *
copy_asn1(const ASN1_STRING *string)
{
	const char *data = (const char *) ASN1_STRING_get0_data(string);
	size_t		len = (size_t) ASN1_STRING_length(string);

	if (len == 0 || memchr(data, '\0', len) != NULL)
		return NULL;
	return needed(strndup(data, len));
}

bool
tls_peer_name(SSL *ssl, char **name)
{
	X509	   *cert = SSL_get1_peer_certificate(ssl);
	GENERAL_NAMES *names;
	int			found;
	int			i;

	*name = NULL;
	if (cert == NULL)
		return true;
	names = X509_get_ext_d2i(cert, NID_subject_alt_name, &found, NULL);
	for (i = 0; *name == NULL && names != NULL && i < sk_GENERAL_NAME_num(names); i++)
	{
		const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);

		if (entry->type == GEN_DNS || entry->type == GEN_URI)
			*name = copy_asn1(entry->type == GEN_DNS ? entry->d.dNSName : entry->d.uniformResourceIdentifier);
	}
	/* Names that are there but could not be read must not make it somebody else. */
	if (*name == NULL && (names != NULL || found == -1))
	{
		X509_NAME  *subject = X509_get_subject_name(cert);
		int			at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

		if (at >= 0)
			*name = copy_asn1(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	}
	X509_free(cert);
	if (names == NULL && found != -1)
		return false;
	GENERAL_NAMES_free(names);
	return true;
}

bool
tls_peer_trusted(const Tls *tls, SSL *ssl)
{
	X509	   *cert = SSL_get1_peer_certificate(ssl);
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	bool		trusted = cert == NULL;

	if (cert != NULL && check != NULL &&
		X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(tls->context), cert, SSL_get_peer_cert_chain(ssl)) == 1 &&
		X509_STORE_CTX_set_default(check, "ssl_client") == 1)
		trusted = X509_verify_cert(check) == 1;
	ERR_clear_error();
	X509_STORE_CTX_free(check);
	X509_free(cert);
	return trusted;
}
