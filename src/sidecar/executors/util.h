/*
 * util.h
 *		Text, memory and small things for all of the executors.
 */
#ifndef GT_EXECUTORS_UTIL_H
#define GT_EXECUTORS_UTIL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#define EXEC_ERROR_SIZE		512		/* of a failed attempt's text */

/* Growing text; always followed by a NUL that len does not count. */
typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buffer;

/* These end the process when memory is short: no claim is lost by that. */
extern void *exec_alloc(size_t size);	/* zeroed */
extern void *exec_realloc(void *old, size_t size);
extern char *exec_strdup(const char *text); /* NULL for NULL */

/* Append a header. */
extern struct curl_slist *exec_header(struct curl_slist *headers, const char *line);

/* The same of a name and a value. */
extern struct curl_slist *exec_header_value(struct curl_slist *headers, const char *name, const char *value);

extern void buffer_add(Buffer *buffer, const void *data, size_t len);
extern void buffer_text(Buffer *buffer, const char *text);
extern void buffer_printf(Buffer *buffer, const char *format,...)
			__attribute__((format(printf, 2, 3)));
extern void buffer_free(Buffer *buffer);

/*
 * Percent-encode all but unreserved characters (RFC 3986) and those in
 * `keep`.
 */
extern void buffer_encoded(Buffer *buffer, const char *text, size_t len,
						   const char *keep);

extern unsigned text_hash(const char *text);

extern int64_t exec_now(void);	/* monotonic, milliseconds */

/* Is this errno about us, descriptors or memory, and not about the target? */
extern bool exec_is_shortage(int error);

/* Make text printable UTF-8 of at most `max` bytes, in place; a last character that was cut goes. */
extern void exec_sanitize(char *text, size_t max);

/* Name and value, both owned. */
typedef struct Pair
{
	char	   *name;
	char	   *value;
} Pair;

/*
 * Read "NAME=VALUE,NAME=VALUE" with %25, %2C and %3D for % , and =, as the claim
 * query writes pairs.
 * Returns how many; 0 for NULL and for what is no such list.
 */
extern int	pairs_parse(const char *text, Pair **pairs);
extern void pairs_free(Pair *pairs, int count);

/* Can it go into a header as it is? */
extern bool text_is_plain(const char *text);

/* Read "2026-11-30T05:00:00Z", with a fraction perhaps; false: it is no such time. */
extern bool text_time(const char *text, time_t *when);

/* Append a parameter of a form. */
extern void buffer_parameter(Buffer *buffer, const char *name, const char *value);

/* Is it this machine, or one of the addresses at which the agents of containers are? */
extern bool address_is_of_agent(const struct sockaddr *address);

/* HMAC-SHA256 into 32 bytes. */
extern bool exec_hmac(const void *key, size_t key_len,
					  const void *data, size_t len, uint8_t *out);

#endif							/* GT_EXECUTORS_UTIL_H */
