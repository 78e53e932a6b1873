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

#include "memory.h"
#include "tls.h"

struct Tls
{
	TlsFiles	files;
	SSL_CTX    *context;
	unsigned char alpn[64];		/* in wire form */
	unsigned int alpn_len;
};

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

	if (SSL_select_next_proto(&chosen, out_len, tls->alpn, tls->alpn_len, in, in_len) != OPENSSL_NPN_NEGOTIATED)
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

static SSL_CTX *
read_files(Tls *tls, char *error, size_t error_size)
{
	const TlsFiles *files = &tls->files;
	SSL_CTX    *context = SSL_CTX_new(TLS_server_method());
	bool		fit = false;

	ERR_clear_error();
	if (context == NULL)
	{
		snprintf(error, error_size, "could not set up TLS");
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_id_context(context, (const unsigned char *) "garbagetruck", 12);

	/* HTTP/2 forbids CBC suites. */
	SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20");
	if (!readable(files->cert, error, error_size) || !readable(files->key, error, error_size) ||
		(files->client_ca != NULL && !readable(files->client_ca, error, error_size)))
		;
	else if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1)
		say_unfit(files->cert, "the server's certificate and its chain", error, error_size);
	else if (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1 ||
			 SSL_CTX_check_private_key(context) != 1)
		say_unfit(files->key, "the key of the server's certificate", error, error_size);
	else if (files->client_ca != NULL && SSL_CTX_load_verify_locations(context, files->client_ca, NULL) != 1)
		say_unfit(files->client_ca, "certificates of authorities", error, error_size);
	else
		fit = true;
	if (!fit)
	{
		SSL_CTX_free(context);
		return NULL;
	}
	if (files->client_ca != NULL)
	{
		SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(files->client_ca));
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER |
						   (files->client_cert_optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
	}
	if (files->alpn != NULL)
		SSL_CTX_set_alpn_select_cb(context, select_alpn, tls);
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

char *
tls_peer_name(SSL *ssl)
{
	X509	   *cert = SSL_get1_peer_certificate(ssl);
	GENERAL_NAMES *names;
	char	   *name = NULL;
	bool		names_read;
	int			found;
	int			i;

	if (cert == NULL)
		return NULL;
	names = X509_get_ext_d2i(cert, NID_subject_alt_name, &found, NULL);
	for (i = 0; name == NULL && names != NULL && i < sk_GENERAL_NAME_num(names); i++)
	{
		const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);

		if (entry->type == GEN_DNS || entry->type == GEN_URI)
			name = copy_asn1(entry->type == GEN_DNS ? entry->d.dNSName : entry->d.uniformResourceIdentifier);
	}
	names_read = names != NULL;
	GENERAL_NAMES_free(names);
	/* Names that are there but could not be read must not make it somebody else. */
	if (name == NULL && (names_read || found == -1))
	{
		X509_NAME  *subject = X509_get_subject_name(cert);
		int			at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

		if (at >= 0)
			name = copy_asn1(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	}
	X509_free(cert);
	return name;
}
