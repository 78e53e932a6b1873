/*
 * util.c
 *		Memory, growing text, percent-encoding and the like for the executors.
 *
 * Nothing here knows of calls or threads.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <openssl/crypto.h>

#include "executors/util.h"

static void
out_of_memory(void)
{
	/* Claims that nobody answers for lapse, so that ending loses nothing. */
	fputs("garbagetruck: executors: out of memory\n", stderr);
	_Exit(1);
}

void *
exec_alloc(size_t size)
{
	void	   *memory = calloc(1, size > 0 ? size : 1);

	if (memory == NULL)
		out_of_memory();
	return memory;
}

void *
exec_realloc(void *old, size_t size)
{
	void	   *memory = realloc(old, size > 0 ? size : 1);

	if (memory == NULL)
		out_of_memory();
	return memory;
}

char *
exec_strdup(const char *text)
{
	char	   *copy;
	size_t		size;

	if (text == NULL)
		return NULL;
	size = strlen(text) + 1;
	copy = exec_alloc(size);
	memcpy(copy, text, size);
	return copy;
}

struct curl_slist *
exec_header(struct curl_slist *headers, const char *line)
{
	headers = curl_slist_append(headers, line);
	if (headers == NULL)
		out_of_memory();
	return headers;
}

struct curl_slist *
exec_header_value(struct curl_slist *headers, const char *name, const char *value)
{
	Buffer		line = {NULL, 0, 0};

	buffer_printf(&line, "%s: %s", name, value);
	headers = exec_header(headers, line.data);
	OPENSSL_cleanse(line.data, line.len);	/* a proof, perhaps */
	buffer_free(&line);
	return headers;
}

static void
buffer_reserve(Buffer *buffer, size_t more)
{
	size_t		size = buffer->size > 0 ? buffer->size : 64;

	if (buffer->data != NULL && buffer->size - buffer->len > more)
		return;
	while (size - buffer->len <= more)
		size *= 2;
	buffer->data = exec_realloc(buffer->data, size);
	buffer->size = size;
}

void
buffer_add(Buffer *buffer, const void *data, size_t len)
{
	buffer_reserve(buffer, len);
	if (len > 0)
		memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
	buffer->data[buffer->len] = '\0';
}

void
buffer_text(Buffer *buffer, const char *text)
{
	buffer_add(buffer, text, strlen(text));
}

void
buffer_printf(Buffer *buffer, const char *format,...)
{
	va_list		args;
	int			len;

	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0)
		return;
	buffer_reserve(buffer, (size_t) len);
	va_start(args, format);
	vsnprintf(buffer->data + buffer->len, (size_t) len + 1, format, args);
	va_end(args);
	buffer->len += (size_t) len;
}

void
buffer_free(Buffer *buffer)
{
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

static bool
is_unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

void
buffer_encoded(Buffer *buffer, const char *text, size_t len, const char *keep)
{
	size_t		i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (is_unreserved(c) || (c != '\0' && strchr(keep, c) != NULL))
			buffer_add(buffer, text + i, 1);
		else
			buffer_printf(buffer, "%%%02X", c);
	}
}

bool
exec_is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

unsigned
text_hash(const char *text)
{
	unsigned	value = 2166136261u;

	while (*text != '\0')
		value = (value ^ (unsigned char) *text++) * 16777619u;
	return value;
}

int64_t
exec_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The length of the UTF-8 character at text, 0 when it is none. */
static size_t
utf8_length(const unsigned char *text)
{
	size_t		len;
	size_t		i;

	if (text[0] < 0x80)
		return 1;
	else if (text[0] >= 0xc2 && text[0] < 0xe0)
		len = 2;
	else if (text[0] >= 0xe0 && text[0] < 0xf0)
		len = 3;
	else if (text[0] >= 0xf0 && text[0] < 0xf5)
		len = 4;
	else
		return 0;
	for (i = 1; i < len; i++)
	{
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	/* no overlong forms, no surrogates, nothing beyond the last plane */
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
		(text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return len;
}

/* Has a buffer that was too short cut this last character?  It has utf8_length() 0. */
static bool
is_cut(const unsigned char *text)
{
	size_t		whole = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	size_t		len = 1;

	while ((text[len] & 0xc0) == 0x80)
		len++;
	return text[0] >= 0xc2 && text[0] <= 0xf4 && text[len] == '\0' && len < whole;
}

void
exec_sanitize(char *text, size_t max)
{
	unsigned char *at = (unsigned char *) text;

	while (*at != '\0')
	{
		size_t		len = utf8_length(at);

		if ((size_t) (at - (unsigned char *) text) + (len > 0 ? len : 1) > max || (len == 0 && is_cut(at)))
		{
			*at = '\0';
			return;
		}
		if (len == 0)
		{
			*at++ = '?';
			continue;
		}
		if (len == 1 && (*at < ' ' || *at == 0x7f))
			*at = ' ';
		at += len;
	}
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decode up to a comma or an equals sign; *text is moved there.  NULL: that is not how it is written. */
static char *
part_decode(const char **text)
{
	const char *at = *text;
	char	   *result = exec_alloc(strcspn(at, ",=") + 1);
	char	   *end = result;

	for (; *at != '\0' && *at != ',' && *at != '='; at++)
	{
		if (*at == '%' && (hex_digit(at[1]) < 0 || hex_digit(at[2]) < 0))
		{
			free(result);
			return NULL;
		}
		*end++ = *at == '%' ? (char) (hex_digit(at[1]) * 16 + hex_digit(at[2])) : *at;
		at += *at == '%' ? 2 : 0;
	}
	*end = '\0';
	*text = at;
	return result;
}

int
pairs_parse(const char *text, Pair **pairs)
{
	int			count = 0;

	*pairs = NULL;
	if (text == NULL)
		return 0;
	while (*text != '\0')
	{
		Pair		pair = {NULL, NULL};

		pair.name = part_decode(&text);
		if (pair.name != NULL && *text == '=')
		{
			text++;
			pair.value = part_decode(&text);
		}
		if (pair.value == NULL || (*text != ',' && *text != '\0'))
		{
			free(pair.name);
			free(pair.value);
			pairs_free(*pairs, count);
			*pairs = NULL;
			return 0;
		}
		*pairs = exec_realloc(*pairs, ((size_t) count + 1) * sizeof(Pair));
		(*pairs)[count++] = pair;
		if (*text == ',')
			text++;
	}
	return count;
}

void
pairs_free(Pair *pairs, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		free(pairs[i].name);
		free(pairs[i].value);
	}
	free(pairs);
}

bool
text_is_plain(const char *text)
{
	const char *at = text;

	while (*at > ' ' && *at < 0x7f)
		at++;
	return at != text && *at == '\0';
}

bool
text_time(const char *text, time_t *when)
{
	struct tm	utc;
	const char *end;

	memset(&utc, 0, sizeof(utc));
	end = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
	if (end != NULL && *end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	if (end == NULL || strcmp(end, "Z") != 0)
		return false;
	*when = timegm(&utc);
	return true;
}

void
buffer_parameter(Buffer *body, const char *name, const char *value)
{
	buffer_printf(body, "%s%s=", body->len > 0 ? "&" : "", name);
	buffer_encoded(body, value, strlen(value), "");
}

bool
address_is_of_agent(const struct sockaddr *address)
{
	static const char *const agents[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "::1"};
	char		text[INET6_ADDRSTRLEN] = "";
	size_t		i;

	if (address->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *) address)->sin_addr, text, sizeof(text));
	else if (address->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *) address)->sin6_addr, text, sizeof(text));
	for (i = 0; i < sizeof(agents) / sizeof(agents[0]); i++)
	{
		if (strcmp(text, agents[i]) == 0)
			return true;
	}
	return strncmp(text, "127.", 4) == 0;
}
