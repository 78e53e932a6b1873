/*
 * target.c
 *		Filling in the placeholders of a target.
 *
 * A value comes from a lease, so from somebody who may be hostile; the
 * template comes from whoever registered the handler.  So a value may decide
 * what its place is meant to hold and nothing else: in a path it can not
 * begin a query, in a host it can not begin a path, in redis' DB it can not
 * begin a key.  The place is found by looking at what has been written so far.
 * Pure functions, no I/O: this is fuzzed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "executors/target.h"
#include "executors/util.h"

typedef enum Place
{
	PLACE_START,				/* nothing before it: a whole target, or its
								 * beginning */
	PLACE_SCHEME,
	PLACE_AUTHORITY,			/* host, bucket, container */
	PLACE_DB,					/* redis only */
	PLACE_REST					/* path, query, key */
} Place;

static Place
place_of(const Buffer *text, TargetForm form)
{
	const char *authority;
	const char *rest;

	if (form == TARGET_FILE)
		return PLACE_REST;
	if (text->len == 0)
		return PLACE_START;
	authority = strstr(text->data, "://");
	if (authority == NULL)
		return PLACE_SCHEME;
	authority += 3;
	rest = strpbrk(authority, form == TARGET_URL || form == TARGET_BLOB_URL ? "/?#" : "/");
	if (rest == NULL)
		return PLACE_AUTHORITY;
	if (form == TARGET_REDIS && strchr(rest + 1, '/') == NULL)
		return PLACE_DB;
	return PLACE_REST;
}

/* Does the value consist of these characters only? */
static bool
consists_of(const char *value, const char *characters)
{
	return value[strspn(value, characters)] == '\0';
}

#define LETTERS_DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* Write a value at the end of the text, as the place there needs. */
static bool
add_value(Target *target, TargetForm form, const char *name, const char *value,
		  char *error, size_t error_size)
{
	Buffer	   *text = &target->text;
	bool		is_url = form == TARGET_URL || form == TARGET_BLOB_URL;
	const char *at;

	switch (place_of(text, form))
	{
		case PLACE_START:
			for (at = value; is_url && *at != '\0'; at++)
			{
				if ((unsigned char) *at <= ' ' || *at == 0x7f)
				{
					snprintf(error, error_size, "placeholder {%s}: the URL contains a space or a control character", name);
					return false;
				}
			}
			buffer_text(text, value);
			target->lease_host = true;
			return true;
		case PLACE_SCHEME:
			snprintf(error, error_size, "placeholder {%s}: the scheme can not be filled in by parts", name);
			return false;
		case PLACE_AUTHORITY:
			if (!consists_of(value, form == TARGET_NAME ? LETTERS_DIGITS "-._$" : LETTERS_DIGITS "-._:[]"))
			{
				snprintf(error, error_size, "placeholder {%s}: the value is no %s", name,
						 form == TARGET_NAME ? "bucket or container name" : "host name");
				return false;
			}
			buffer_text(text, value);
			target->lease_host = true;
			return true;
		case PLACE_DB:
			if (!consists_of(value, "0123456789"))
			{
				snprintf(error, error_size, "placeholder {%s}: the value is no database number", name);
				return false;
			}
			buffer_text(text, value);
			return true;
		case PLACE_REST:
			if (form == TARGET_URL)
				buffer_encoded(text, value, strlen(value), "");
			else if (form == TARGET_BLOB_URL)
				buffer_encoded(text, value, strlen(value), "/");
			else
				buffer_text(text, value);
			return true;
	}
	return false;
}

/* The value of a placeholder; NULL when there is none. */
static const char *
find_value(const char *name, const TargetValues *values, bool *known)
{
	int			i;

	*known = true;
	if (strcmp(name, "object_id") == 0)
		return values->object_id;
	if (strcmp(name, "object_type") == 0)
		return values->object_type;
	if (strcmp(name, "lease_id") == 0)
		return values->lease_id;
	if (strcmp(name, "service_id") == 0)
		return values->service_id;
	if (strncmp(name, "payload.", 8) == 0 && name[8] != '\0')
	{
		for (i = 0; i < values->payload_count; i++)
		{
			if (strcmp(values->payload[i].name, name + 8) == 0)
				return values->payload[i].value;
		}
		return NULL;
	}
	*known = false;
	return NULL;
}

/* Fill in the placeholder that begins at *at ("{"), and move behind it. */
static bool
add_placeholder(const char **at, TargetForm form, const TargetValues *values,
				Target *target, char *error, size_t error_size)
{
	const char *end = strchr(*at, '}');
	size_t		len;
	char	   *name;
	const char *value;
	bool		known;
	bool		added = false;

	if (end == NULL)
	{
		snprintf(error, error_size, "the target has a \"{\" without a \"}\"");
		return false;
	}
	len = (size_t) (end - *at) - 1;
	name = exec_alloc(len + 1);
	memcpy(name, *at + 1, len);
	value = find_value(name, values, &known);
	if (!known)
		snprintf(error, error_size, "the target has the unknown placeholder {%.100s}", name);
	else if (value == NULL || value[0] == '\0')
		snprintf(error, error_size, "placeholder {%.100s} has no value: it is absent, null, empty or no scalar", name);
	else
		added = add_value(target, form, name, value, error, error_size);
	free(name);
	*at = end + 1;
	return added;
}

/*
 * The length of a path segment.  What separates segments may be encoded, and
 * be decoded before it is looked at by whoever serves the path: nginx does so
 * with %2F, others with a backslash.
 */
static size_t
segment_length(const char *at)
{
	size_t		len = 0;

	while (at[len] != '\0' && strchr("/\\?#", at[len]) == NULL &&
		   strncasecmp(at + len, "%2f", 3) != 0 && strncasecmp(at + len, "%5c", 3) != 0)
		len++;
	return len;
}

/*
 * Is this path segment "." or "..", also when it is spelt with %2e?  What follows a
 * semicolon are parameters, which servers of Java take away before they resolve it.
 */
static bool
is_dot_segment(const char *segment, size_t len)
{
	int			dots = 0;

	while (len > 0 && segment[0] != ';' && strncasecmp(segment, "%3b", 3) != 0)
	{
		if (segment[0] == '.')
			segment++, len--;
		else if (len >= 3 && strncasecmp(segment, "%2e", 3) == 0)
			segment += 3, len -= 3;
		else
			return false;
		dots++;
	}
	return dots == 1 || dots == 2;
}

bool
target_climbs(const char *url)
{
	const char *at = strstr(url, "://");

	if (at == NULL)
		return false;
	at += 3;
	at += strcspn(at, "/?#");
	while (*at != '\0' && *at != '?' && *at != '#')
	{
		size_t		len;

		at += *at == '%' ? 3 : 1;
		len = segment_length(at);
		if (is_dot_segment(at, len))
			return true;
		at += len;
	}
	return false;
}

bool
target_expand(const char *template, TargetForm form, const TargetValues *values,
			  Target *target, char *error, size_t error_size)
{
	bool		filled = false;

	memset(target, 0, sizeof(*target));
	buffer_add(&target->text, "", 0);
	while (*template != '\0')
	{
		size_t		len = strcspn(template, "{");

		buffer_add(&target->text, template, len);
		template += len;
		if (*template == '{')
		{
			filled = true;
			if (!add_placeholder(&template, form, values, target, error, error_size))
				return false;
		}
	}
	if (filled && (form == TARGET_URL || form == TARGET_BLOB_URL) && target_climbs(target->text.data))
	{
		snprintf(error, error_size, "the URL has a \".\" or \"..\" segment in its path");
		return false;
	}
	return true;
}

/* Is the host in it, to its last character? */
static bool
has_host(const char *text)
{
	const char *host = strstr(text, "://");

	return host != NULL && strpbrk(host + 3, "/?#\\") != NULL;
}

void
target_head(const char *template, const TargetValues *values, Buffer *head)
{
	buffer_text(head, "");
	while (*template != '\0' && !has_host(head->data))
	{
		size_t		len = strcspn(template, "{");
		char	   *name;
		const char *value;
		bool		known;

		buffer_add(head, template, len);
		template += len;
		if (*template == '\0')
			break;
		len = strcspn(++template, "}");
		name = exec_alloc(len + 1);
		memcpy(name, template, len);
		value = find_value(name, values, &known);
		buffer_text(head, value != NULL ? value : "");
		free(name);
		template += len + (template[len] == '}');
	}
	if (has_host(head->data))
	{
		char	   *host = strstr(head->data, "://") + 3;

		head->len = (size_t) (host - head->data) + strcspn(host, "/?#\\");
		head->data[head->len] = '\0';
	}
}

void
target_free(Target *target)
{
	buffer_free(&target->text);
}
