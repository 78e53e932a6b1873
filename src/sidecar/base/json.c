/*
 * json.c
 *		Writing JSON strings, and finding one.
 *
 * Runs anywhere; owns nothing.
 */
#include <string.h>

#include "base/json.h"

void
json_write_string(FILE *file, const char *text)
{
	const unsigned char *p;

	fputc('"', file);
	for (p = (const unsigned char *) text; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			fprintf(file, "\\%c", *p);
		else if (*p == '\n')
			fputs("\\n", file);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(file, "\\u%04x", *p);
		else
			fputc(*p, file);
	}
	fputc('"', file);
}

/* ---- reading ---- */

static const char *
skip_blanks(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static int
hex_value(const char *at)
{
	int			value = 0;
	int			i;

	for (i = 0; i < 4; i++)
	{
		const char *digit = at[i] != '\0' ? strchr("0123456789abcdef", at[i] | 0x20) : NULL;

		if (digit == NULL || *digit == '\0')
			return -1;
		value = value * 16 + (int) (digit - "0123456789abcdef");
	}
	return value;
}

/* A string, from its quote on: what follows it, or NULL.  *fits: all of it is in `out`, as far as that can hold it. */
static const char *
read_string(const char *at, char *out, size_t size, bool *fits)
{
	static const char escapes[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	size_t		n = 0;

	*fits = size > 0;
	if (*at++ != '"')
		return NULL;
	while (*at != '"')
	{
		char		c = *at++;

		if (c == '\0')
			return NULL;
		if (c == '\\' && *at == 'u')
		{
			int			value = hex_value(at + 1);

			if (value < 0)
				return NULL;
			/* Others have no business in a URL. */
			if (value == 0 || value > 0x7F)
				*fits = false;
			c = (char) value;
			at += 5;
		}
		else if (c == '\\')
		{
			const char *escape = *at != '\0' ? strchr(escapes, *at++) : NULL;

			if (escape == NULL)
				return NULL;
			c = meanings[escape - escapes];
		}
		if (n + 1 < size)
			out[n++] = c;
		else
			*fits = false;
	}
	if (size > 0)
		out[n] = '\0';
	return at + 1;
}

/* Any value: what follows it, or NULL.  Without recursion, as depth is the sender's choice. */
static const char *
skip_value(const char *at)
{
	size_t		depth = 0;
	bool		ignored;

	do
	{
		at = skip_blanks(at);
		if (*at == '"')
			at = read_string(at, NULL, 0, &ignored);
		else if (*at == '{' || *at == '[')
		{
			depth++;
			at++;
		}
		else if (*at == '}' || *at == ']')
		{
			if (depth == 0)
				return NULL;
			depth--;
			at++;
		}
		else if (*at == ',' || *at == ':')
			at++;
		else
		{
			size_t		len = strspn(at, "+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");

			at = len > 0 ? at + len : NULL;
		}
	} while (at != NULL && depth > 0);
	return at;
}

bool
json_member(const char *json, const char *name, char *out, size_t size)
{
	const char *at = skip_blanks(json);
	bool		found = false;

	if (*at++ != '{')
		return false;
	for (;;)
	{
		char		key[64];
		bool		fits;

		at = read_string(skip_blanks(at), key, sizeof(key), &fits);
		if (at == NULL || *(at = skip_blanks(at)) != ':')
			return found;
		at = skip_blanks(at + 1);
		if (fits && strcmp(key, name) == 0)
		{
			found = *at == '"';
			at = found ? read_string(at, out, size, &found) : skip_value(at);
		}
		else
			at = skip_value(at);
		if (at == NULL || *(at = skip_blanks(at)) != ',')
			return found && at != NULL;
		at++;
	}
}
