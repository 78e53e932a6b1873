/*
 * documents.c
 *		One value out of an answer in XML or JSON, by its place in the document.
 *
 * Read from the beginning to the end, by structure: what a text contains is
 * never taken for markup, nor a member of an inner object for one of the outer.
 * Not validators: what they can not follow they refuse.  Pure functions, no
 * I/O: this is fuzzed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/documents.h"
#include "executors/util.h"

#define MAX_DEPTH 32

/* Append a character as UTF-8; false: it is none. */
static bool
add_character(Buffer *out, unsigned long c)
{
	char		bytes[4];
	size_t		len = 0;

	if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return false;
	if (c < 0x80)
		bytes[len++] = (char) c;
	else
	{
		if (c >= 0x10000)
			bytes[len++] = (char) (0xf0 | c >> 18);
		if (c >= 0x800)
			bytes[len++] = (char) ((c >= 0x10000 ? 0x80 : 0xe0) | (c >> 12 & (c >= 0x10000 ? 0x3f : 0x0f)));
		bytes[len++] = (char) ((c >= 0x800 ? 0x80 : 0xc0) | (c >> 6 & (c >= 0x800 ? 0x3f : 0x1f)));
		bytes[len++] = (char) (0x80 | (c & 0x3f));
	}
	buffer_add(out, bytes, len);
	return true;
}

/* --- XML --- */

#define XML_SPACE " \t\r\n"

typedef struct Name
{
	const char *text;
	size_t		len;
} Name;

typedef struct Xml
{
	const char *at;				/* what is read ends with a NUL */
	const char *path;
	Name		open[MAX_DEPTH];	/* the elements that we are in */
	int			depth;
	Buffer	   *value;
} Xml;

/* Are we in the element that is looked for? */
static bool
is_wanted(const Xml *xml)
{
	const char *path = xml->path;
	int			i;

	for (i = 0; i < xml->depth; i++)
	{
		size_t		len = strcspn(path, "/");

		if (len != xml->open[i].len || strncmp(path, xml->open[i].text, len) != 0)
			return false;
		path += len;
		if (*path == '/')
			path++;
		else
			return i == xml->depth - 1;
	}
	return false;
}

/* Behind the next `end`; false: there is none. */
static bool
skip_past(Xml *xml, const char *end)
{
	const char *found = strstr(xml->at, end);

	if (found == NULL)
		return false;
	xml->at = found + strlen(end);
	return true;
}

/* "&name;" or "&#number;" */
static bool
take_entity(Xml *xml, Buffer *out)
{
	static const struct
	{
		const char *name;
		char		character;
	}			entities[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
	bool		is_hex = strncmp(xml->at, "&#x", 3) == 0;
	const char *digits;
	size_t		len;
	size_t		i;

	for (i = 0; i < sizeof(entities) / sizeof(entities[0]); i++)
	{
		len = strlen(entities[i].name);
		if (strncmp(xml->at, entities[i].name, len) == 0)
		{
			buffer_add(out, &entities[i].character, 1);
			xml->at += len;
			return true;
		}
	}
	if (strncmp(xml->at, "&#", 2) != 0)
		return false;
	digits = xml->at + (is_hex ? 3 : 2);
	len = strspn(digits, is_hex ? "0123456789abcdefABCDEF" : "0123456789");
	if (len == 0 || len > 8 || digits[len] != ';')
		return false;
	xml->at = digits + len + 1;
	return add_character(out, strtoul(digits, NULL, is_hex ? 16 : 10));
}

/* The text up to the next "<". */
static bool
take_text(Xml *xml)
{
	bool		wanted = is_wanted(xml);
	Buffer		ignored = {NULL, 0, 0};
	bool		valid = true;

	while (valid && *xml->at != '<' && *xml->at != '\0')
	{
		size_t		len = strcspn(xml->at, "<&");

		if (wanted)
			buffer_add(xml->value, xml->at, len);
		xml->at += len;
		if (*xml->at == '&')
			valid = take_entity(xml, wanted ? xml->value : &ignored);
	}
	buffer_free(&ignored);
	return valid;
}

static bool
take_cdata(Xml *xml)
{
	const char *text = xml->at + strlen("<![CDATA[");

	if (!skip_past(xml, "]]>"))
		return false;
	if (is_wanted(xml))
		buffer_add(xml->value, text, (size_t) (xml->at - text) - 3);
	return true;
}

/* The attributes of an element, which tell us nothing; *empty: it ends with "/>". */
static bool
skip_attributes(Xml *xml, bool *empty)
{
	char		quote[2] = "";

	for (;;)
	{
		xml->at += strspn(xml->at, XML_SPACE);
		*empty = xml->at[0] == '/';
		if (xml->at[*empty] == '>')
		{
			xml->at += *empty + 1;
			return true;
		}
		xml->at += strcspn(xml->at, XML_SPACE "=/><\"'");
		xml->at += strspn(xml->at, XML_SPACE);
		if (*xml->at++ != '=')
			return false;
		xml->at += strspn(xml->at, XML_SPACE);
		quote[0] = *xml->at;
		if ((quote[0] != '"' && quote[0] != '\'') || (xml->at++, !skip_past(xml, quote)))
			return false;
	}
}

/* Behind "<".  *found: the element was looked for, and has ended. */
static bool
take_tag(Xml *xml, bool *found)
{
	bool		ends = xml->at[0] == '/';
	Name		name = {xml->at + ends, strcspn(xml->at + ends, XML_SPACE "/><=\"'")};
	bool		empty = false;

	if (name.len == 0)
		return false;
	xml->at = name.text + name.len;
	if (ends)
	{
		xml->at += strspn(xml->at, XML_SPACE);
		if (*xml->at++ != '>' || xml->depth == 0 || xml->open[xml->depth - 1].len != name.len ||
			strncmp(xml->open[xml->depth - 1].text, name.text, name.len) != 0)
			return false;
	}
	else
	{
		/* an element within the one that is looked for, or too deep */
		if (is_wanted(xml) || xml->depth == MAX_DEPTH || !skip_attributes(xml, &empty))
			return false;
		xml->open[xml->depth++] = name;
	}
	if (ends || empty)
	{
		*found = is_wanted(xml);
		xml->depth--;
	}
	return true;
}

/* False: it is something else. */
static bool
skip_space(Xml *xml)
{
	size_t		len = strspn(xml->at, XML_SPACE);

	xml->at += len;
	return len > 0;
}

bool
xml_value(const char *text, size_t len, const char *path, Buffer *value)
{
	Xml			xml = {text, path, {{NULL, 0}}, 0, value};
	bool		found = false;
	bool		valid = text != NULL && strlen(text) == len;
	bool		root = false;

	if (valid && strncmp(text, "\xef\xbb\xbf", 3) == 0)
		xml.at += 3;			/* a byte order mark */
	while (valid && !found && *xml.at != '\0')
	{
		/* one root, and nothing but space around it */
		if (*xml.at != '<')
			valid = xml.depth > 0 ? take_text(&xml) : skip_space(&xml);
		else if (strncmp(xml.at, "<?", 2) == 0)
			valid = skip_past(&xml, "?>");
		else if (strncmp(xml.at, "<!--", 4) == 0)
			valid = skip_past(&xml, "-->");
		else if (strncmp(xml.at, "<![CDATA[", 9) == 0)
			valid = xml.depth > 0 && take_cdata(&xml);
		else
		{
			valid = xml.depth > 0 || !root;
			root = true;
			xml.at++;
			valid = valid && take_tag(&xml, &found);
		}
	}
	if (found)
		buffer_add(value, "", 0);
	else
		buffer_free(value);
	return found;
}

/* --- JSON --- */

static bool json_skip(const char **at, int depth);

static void
json_space(const char **at)
{
	*at += strspn(*at, " \t\r\n");
}

/* Behind this character; false: it is not there. */
static bool
json_take(const char **at, char c)
{
	if (**at != c)
		return false;
	(*at)++;
	return true;
}

/* Four hexadecimal digits; -1: they are not there. */
static long
json_unit(const char *at)
{
	char		digits[5] = "";

	if (strspn(at, "0123456789abcdefABCDEF") < 4)
		return -1;
	memcpy(digits, at, 4);
	return strtol(digits, NULL, 16);
}

/* Behind a backslash. */
static bool
json_escape(const char **at, Buffer *out)
{
	static const char names[] = "\"\\/bfnrt";
	static const char characters[] = "\"\\/\b\f\n\r\t";
	const char *name = **at != '\0' ? strchr(names, **at) : NULL;
	long		c;
	long		low;

	if (name != NULL)
	{
		buffer_add(out, &characters[name - names], 1);
		(*at)++;
		return true;
	}
	if (**at != 'u' || (c = json_unit(*at + 1)) < 0)
		return false;
	*at += 5;
	if (c >= 0xd800 && c < 0xdc00)
	{
		if (strncmp(*at, "\\u", 2) != 0 || (low = json_unit(*at + 2)) < 0xdc00 || low > 0xdfff)
			return false;
		*at += 6;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	return add_character(out, (unsigned long) c);
}

static bool
json_string(const char **at, Buffer *out)
{
	if (!json_take(at, '"'))
		return false;
	buffer_add(out, "", 0);
	for (;;)
	{
		const char *begin = *at;

		while (**at != '"' && **at != '\\' && (unsigned char) **at >= ' ')
			(*at)++;
		buffer_add(out, begin, (size_t) (*at - begin));
		if (json_take(at, '"'))
			return true;
		if (!json_take(at, '\\') || !json_escape(at, out))
			return false;
	}
}

/* An object, or an array; of an object at depth 0 the string that is the member `name` goes to `value`. */
static bool
json_container(const char **at, int depth, const char *name, Buffer *value)
{
	char		end = **at == '{' ? '}' : ']';
	bool		valid = depth < MAX_DEPTH;

	(*at)++;
	json_space(at);
	if (**at == end)
	{
		(*at)++;
		return valid;
	}
	while (valid)
	{
		Buffer		key = {NULL, 0, 0};

		json_space(at);
		if (end == '}')
		{
			valid = json_string(at, &key);
			json_space(at);
			valid = valid && json_take(at, ':');
			json_space(at);
		}
		if (valid && name != NULL && key.data != NULL && strcmp(key.data, name) == 0 && **at == '"')
		{
			buffer_free(value);
			valid = json_string(at, value);
		}
		else
			valid = valid && json_skip(at, depth + 1);
		buffer_free(&key);
		json_space(at);
		if (valid && **at == end)
		{
			(*at)++;
			return true;
		}
		valid = valid && json_take(at, ',');
	}
	return false;
}

static bool
json_skip(const char **at, int depth)
{
	Buffer		ignored = {NULL, 0, 0};
	size_t		len;
	bool		valid;

	if (**at == '{' || **at == '[')
		return json_container(at, depth, NULL, NULL);
	if (**at == '"')
	{
		valid = json_string(at, &ignored);
		buffer_free(&ignored);
		return valid;
	}
	/* a number, or one of three words */
	len = strspn(*at, "+-.0123456789abcdefghijklmnopqrstuvwxyzE");
	*at += len;
	return len > 0;
}

bool
json_value(const char *text, size_t len, const char *name, Buffer *value)
{
	const char *at = text;
	bool		valid = text != NULL && strlen(text) == len;

	if (valid)
		json_space(&at);
	valid = valid && *at == '{' && json_container(&at, 0, name, value);
	if (valid)
		json_space(&at);
	if (valid && *at == '\0' && value->data != NULL)
		return true;
	buffer_free(value);
	return false;
}
