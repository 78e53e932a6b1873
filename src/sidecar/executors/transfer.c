/*
 * transfer.c
 *		One request through libcurl, bounded in every way.
 *
 * The address is judged where the socket is opened, and once more before the
 * request is sent, because a connection may be one that another handler's
 * call had opened under other rules.  No proxy, no redirect, no cookie, no
 * netrc, no protocol but http and https.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "executors/allow.h"
#include "executors/context.h"
#include "executors/transfer.h"
#include "executors/util.h"

#define CONNECT_TIMEOUT_MS 10000L

/* Copy a part of the URL; NULL when it has none. */
static char *
url_part(CURLU *url, CURLUPart part, unsigned flags)
{
	char	   *text = NULL;
	char	   *copy;

	if (curl_url_get(url, part, &text, flags) != CURLUE_OK)
		return NULL;
	copy = exec_strdup(text);
	curl_free(text);
	return copy;
}

/*
 * The path behind "http[s]://authority", as everybody reads it: libcurl also takes
 * one slash or three, and a backslash where others see the end of the host.
 */
static const char *
path_of(const char *text, bool *tls)
{
	const char *authority = strstr(text, "://");
	size_t		len;

	if (authority == NULL)
		return NULL;
	*tls = authority - text == 5 && strncasecmp(text, "https", 5) == 0;
	if (!*tls && (authority - text != 4 || strncasecmp(text, "http", 4) != 0))
		return NULL;
	authority += 3;
	len = strcspn(authority, "/?#");
	return len > 0 && memchr(authority, '\\', len) == NULL ? authority + len : NULL;
}

bool
url_parse(const char *text, Url *parts)
{
	CURLU	   *url = curl_url();
	char	   *user = NULL;
	char	   *port = NULL;
	char	   *host = NULL;

	memset(parts, 0, sizeof(*parts));
	parts->path = path_of(text, &parts->tls);
	if (url != NULL && parts->path != NULL && curl_url_set(url, CURLUPART_URL, text, CURLU_PATH_AS_IS) == CURLUE_OK)
	{
		user = url_part(url, CURLUPART_USER, 0);
		host = url_part(url, CURLUPART_HOST, 0);
		port = url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	}
	curl_url_cleanup(url);
	parts->user = user != NULL;
	parts->port = port != NULL ? atoi(port) : 0;
	/* an IPv6 address is written in brackets */
	if (host != NULL && host[0] == '[')
	{
		host[strcspn(host, "]")] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	free(user);
	free(port);
	parts->host = host;
	if (host != NULL && host[0] != '\0' && parts->port > 0)
		return true;
	url_free(parts);
	return false;
}

void
url_free(Url *parts)
{
	free(parts->host);
	memset(parts, 0, sizeof(*parts));
}

bool
transfer_split_url(Call *call)
{
	Url			parts;

	if (!url_parse(call->url, &parts))
		return false;
	free(call->host_name);
	call->host_name = exec_strdup(parts.host);
	call->port = parts.port;
	url_free(&parts);
	return true;
}

/* The transfer that a libcurl callback is about, and where it belongs. */
typedef struct Transfer
{
	Context    *context;
	Call	   *call;
	TransferMode mode;
} Transfer;

static Transfer *
transfer_of(Call *call)
{
	char	   *private = NULL;

	curl_easy_getinfo(call->easy, CURLINFO_PRIVATE, &private);
	return (Transfer *) private;
}

static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *transfer = arg;
	Call	   *call = transfer->call;
	int			made;

	if (!allow_address(transfer->context->settings.allow, call->host_name, call->port,
					   &address->addr, call->target.lease_host))
	{
		call->refused = true;
		return CURL_SOCKET_BAD;
	}
	call->refused = false;		/* another address of the name was, perhaps */
	call->family = address->family;
	made = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	call->ours = made < 0 && exec_is_shortage(errno);
	return made;
}

/* Before a request goes out, on a new connection or on one in use before. */
static int
before_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	Transfer   *transfer = arg;
	Call	   *call = transfer->call;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	const struct sockaddr *address;

	memset(&v4, 0, sizeof(v4));
	memset(&v6, 0, sizeof(v6));
	v4.sin_family = AF_INET;
	v6.sin6_family = AF_INET6;
	if (inet_pton(AF_INET, remote_ip, &v4.sin_addr) == 1)
		address = (const struct sockaddr *) &v4;
	else if (inet_pton(AF_INET6, remote_ip, &v6.sin6_addr) == 1)
		address = (const struct sockaddr *) &v6;
	else
		return CURL_PREREQFUNC_ABORT;
	if (allow_address(transfer->context->settings.allow, call->host_name, call->port,
					  address, call->target.lease_host))
		return CURL_PREREQFUNC_OK;
	call->refused = true;
	return CURL_PREREQFUNC_ABORT;
}

static size_t
take_body(char *data, size_t size, size_t count, void *arg)
{
	Call	   *call = ((Transfer *) arg)->call;
	size_t		len = size * count;

	if (call->answer.len + len > EXEC_BODY_MAX)
	{
		call->too_long = true;
		return 0;
	}
	buffer_add(&call->answer, data, len);
	return len;
}

/* Keep a header's value when it is the one that is asked for; of several that differ, the list, which says none of them. */
static void
keep_header(const char *line, size_t len, const char *name, char **value)
{
	size_t		name_len = strlen(name);

	if (len <= name_len || line[name_len] != ':' || strncasecmp(line, name, name_len) != 0)
		return;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	if (*value == NULL)
	{
		*value = exec_alloc(len + 1);
		memcpy(*value, line, len);
	}
	else if (strlen(*value) != len || memcmp(*value, line, len) != 0)
	{
		Buffer		list = {NULL, 0, 0};

		buffer_printf(&list, "%s, %.*s", *value, (int) len, line);
		free(*value);
		*value = list.data;
	}
}

/* What came with a status before the last one (103 Early Hints) was said of nothing. */
static void
forget_headers(Call *call)
{
	char	  **const kept[] = {&call->trailer_status, &call->trailer_message, &call->retry_after, &call->error_code};
	size_t		i;

	for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
	{
		free(*kept[i]);
		*kept[i] = NULL;
	}
}

/*
 * The status in "HTTP/1.1 200" or "HTTP/2 200"; -1: it is not there.  libcurl
 * takes a status line that it cannot read for one of status 200.
 */
static int
read_status(const char *line, size_t len)
{
	static const char *const forms[] = {"HTTP/d.d ddd", "HTTP/d ddd"};
	size_t		i;

	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
	{
		const char *form = forms[i];
		size_t		at = 0;

		/* d is a digit */
		while (at < len && form[at] != '\0' &&
			   (form[at] == 'd' ? isdigit((unsigned char) line[at]) : line[at] == form[at]))
			at++;
		if (at < len && form[at] == '\0' && isspace((unsigned char) line[at]))
			return (line[at - 3] - '0') * 100 + (line[at - 2] - '0') * 10 + line[at - 1] - '0';
	}
	return -1;
}

static size_t
take_header(char *data, size_t size, size_t count, void *arg)
{
	Call	   *call = ((Transfer *) arg)->call;
	size_t		len = size * count;

	if (len >= 5 && strncasecmp(data, "HTTP/", 5) == 0)
	{
		call->status = read_status(data, len);
		forget_headers(call);
	}
	call->header_bytes += len;
	if (call->header_bytes > EXEC_HEADER_MAX)
	{
		call->too_long = true;
		return 0;
	}
	keep_header(data, len, "grpc-status", &call->trailer_status);
	keep_header(data, len, "grpc-message", &call->trailer_message);
	keep_header(data, len, "retry-after", &call->retry_after);
	keep_header(data, len, "x-ms-error-code", &call->error_code);
	return len;
}

/* Only what belongs to every request; false when memory is short. */
static bool
set_common(Context *context, Call *call, Transfer *transfer)
{
	CURL	   *easy = call->easy;
	long		timeout = (long) (call->deadline - exec_now());
	bool		set = true;

	if (timeout < 1)
		timeout = 1;
#define SET(option, value) \
	(set = set && curl_easy_setopt(easy, option, value) == CURLE_OK)
	SET(CURLOPT_PRIVATE, transfer);
	SET(CURLOPT_ERRORBUFFER, call->curl_error);
	SET(CURLOPT_URL, call->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_TIMEOUT_MS, timeout);
	SET(CURLOPT_CONNECTTIMEOUT_MS, timeout < CONNECT_TIMEOUT_MS ? timeout : CONNECT_TIMEOUT_MS);
	SET(CURLOPT_QUICK_EXIT, 1L);	/* never wait for a look-up that hangs */
	SET(CURLOPT_USERAGENT, "garbagetruck");
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, transfer);
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, transfer);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, transfer);
	if (context->settings.tls_ca != NULL)
		SET(CURLOPT_CAINFO, context->settings.tls_ca);
	return set;
}

static bool
set_request(Call *call)
{
	CURL	   *easy = call->easy;
	bool		set = true;

	if (call->send != NULL)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) call->send_len);
		SET(CURLOPT_POSTFIELDS, call->send);
	}
	if (strcmp(call->method, "HEAD") == 0)
		SET(CURLOPT_NOBODY, 1L);
	else
		SET(CURLOPT_CUSTOMREQUEST, call->method);
	SET(CURLOPT_HTTPHEADER, call->headers);
	return set;
}

/*
 * gRPC needs HTTP/2, the others do well with 1.1.  A connection of HTTP/2 is
 * for one call: what a peer does to one stream is then no other call's loss.
 */
static bool
set_version(Call *call, TransferMode mode)
{
	CURL	   *easy = call->easy;
	long		version = CURL_HTTP_VERSION_1_1;
	bool		set = true;

	if (mode == TRANSFER_HTTP2)
	{
		version = strncasecmp(call->url, "https:", 6) == 0 ?
			CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_FORBID_REUSE, 1L);
	}
	SET(CURLOPT_HTTP_VERSION, version);
	return set;
}

bool
transfer_start(Context *context, Call *call, TransferMode mode)
{
	Transfer   *transfer;
	bool		ready;

	call->easy = context->spare_count > 0 ? context->spare[--context->spare_count] : curl_easy_init();
	if (call->easy == NULL)
	{
		call->ours = true;
		snprintf(call->error, sizeof(call->error), "out of memory");
		return false;
	}
	transfer = exec_alloc(sizeof(*transfer));
	transfer->context = context;
	transfer->call = call;
	transfer->mode = mode;
	ready = set_common(context, call, transfer);
	if (transfer_of(call) != transfer)
		free(transfer);
	if (ready && mode == TRANSFER_CONNECT)
		ready = curl_easy_setopt(call->easy, CURLOPT_CONNECT_ONLY, 1L) == CURLE_OK &&
			curl_easy_setopt(call->easy, CURLOPT_SSL_ENABLE_ALPN, 0L) == CURLE_OK;
	else if (ready)
		ready = set_request(call);
	if (ready)
		ready = set_version(call, mode);
	if (ready && curl_multi_add_handle(context->multi, call->easy) == CURLM_OK)
		return true;
	call->ours = true;
	snprintf(call->error, sizeof(call->error), "could not prepare the request");
	transfer_end(context, call);
	return false;
}

/*
 * Before 8.1.0 libcurl remembers the header that it read last beyond the end of
 * the transfer: an answer that begins with a folded line is then joined to freed
 * memory, so that a hostile target could write there.
 */
static bool
may_reuse_handles(void)
{
	return curl_version_info(CURLVERSION_NOW)->version_num >= 0x080100;
}

/* Also where the transfer was not added yet. */
void
transfer_end(Context *context, Call *call)
{
	CURL	   *easy = call->easy;
	Transfer   *transfer;
	bool		again;

	if (easy == NULL)
		return;
	transfer = transfer_of(call);
	again = transfer != NULL && transfer->mode != TRANSFER_CONNECT;	/* a bare connection goes with its handle */
	free(transfer);
	curl_multi_remove_handle(context->multi, easy);
	call->easy = NULL;
	if (again && context->spare_count < EXEC_SPARE && may_reuse_handles())
	{
		curl_easy_reset(easy);
		context->spare[context->spare_count++] = easy;
	}
	else
		curl_easy_cleanup(easy);
}

Call *
transfer_call(CURL *easy)
{
	char	   *private = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
	return private != NULL ? ((Transfer *) private)->call : NULL;
}

/* What the operating system said when there was no connection; 0: nothing. */
static int
system_error(const Call *call, CURLcode code)
{
	long		error = 0;

	if (code == CURLE_COULDNT_CONNECT && call->easy != NULL)
		curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &error);
	return (int) error;
}

/* Are all ports taken from which the target could be called?  Of IPv6, a machine may have no address that leads there. */
static bool
is_out_of_ports(const Call *call, int error)
{
	return error == EADDRNOTAVAIL && call->family == AF_INET;
}

void
transfer_error(Call *call, CURLcode code)
{
	int			error = system_error(call, code);

	if (code == CURLE_OUT_OF_MEMORY || exec_is_shortage(error) || is_out_of_ports(call, error))
		call->ours = true;
	if (call->refused)
		snprintf(call->error, sizeof(call->error),
				 "%.200s port %d: the host's address may not be connected to (see --allow-target)",
				 call->host_name, call->port);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(call->error, sizeof(call->error), "%.200s port %d: no answer within %lld ms",
				 call->host_name, call->port, (long long) (exec_now() - call->started_at));
	else if (error != 0)
		snprintf(call->error, sizeof(call->error), "%.200s port %d: could not connect: %s",
				 call->host_name, call->port, strerror(error));
	else
		snprintf(call->error, sizeof(call->error), "%.200s port %d: %s",
				 call->host_name, call->port, call->curl_error[0] != '\0' ? call->curl_error : curl_easy_strerror(code));
}
