/*-------------------------------------------------------------------------
 *
 * text.c
 *	  Texts: which names are good, and how much of one is shown or kept.
 *
 * Every process that serves SQL runs this.  It looks at the encoding of the
 * database, and at nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "base/fail.h"
#include "base/text.h"

#define MAX_ERROR		4000	/* bytes that are kept of an error's text */

/* Names are shown in errors: no more of a long one than helps. */
char *
gt_shown(const char *value)
{
	int			len = strlen(value);

	if (len <= 100)
		return pstrdup(value);
	return psprintf("%.*s...", pg_mbcliplen(value, len, 100), value);
}

/* A name for readers who may have another encoding. */
char *
gt_in_ascii(const char *name)
{
	char	   *copy = pstrdup(name);
	char	   *p;

	for (p = copy; *p != '\0'; p++)
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	return copy;
}

static bool
is_upper_control(unsigned char c)
{
	return c >= 0x80 && c < 0xa0;
}

/* The control character that begins here, also of the upper range (U+0080 to U+009F) in UTF-8 and ISO 8859; -1: none. */
static int
control_at(const char *p)
{
	unsigned char c = p[0];
	unsigned char next = c == '\0' ? 0 : p[1];

	if (c < 0x20 || c == 0x7f)
		return c;
	switch (GetDatabaseEncoding())
	{
		case PG_UTF8:
			return c == 0xc2 && is_upper_control(next) ? next : -1;
		case PG_LATIN1:
		case PG_LATIN2:
		case PG_LATIN3:
		case PG_LATIN4:
		case PG_LATIN5:
		case PG_LATIN6:
		case PG_LATIN7:
		case PG_LATIN8:
		case PG_LATIN9:
		case PG_LATIN10:
		case PG_ISO_8859_5:
		case PG_ISO_8859_6:
		case PG_ISO_8859_7:
		case PG_ISO_8859_8:
			return is_upper_control(c) ? c : -1;
		default:
			return -1;
	}
}

bool
gt_check_name(const char *what, const char *value, int max_bytes, GtFail *f)
{
	size_t		len = strlen(value);
	int			i;

	if (len == 0)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s must not be empty", what);
	if (len > (size_t) max_bytes)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s \"%s\" is too long: %zu bytes, the limit is %d",
					   what, gt_shown(value), len, max_bytes);
	for (i = 0; i < (int) len; i++)
	{
		int			control = control_at(value + i);

		if (control >= 0)
			return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s has a control character (0x%02x) at byte %d",
						   what, control, i + 1);
	}
	return true;
}

Datum
gt_error_text(const char *error)
{
	int			len = strlen(error);

	if (len > MAX_ERROR)
		len = pg_mbcliplen(error, len, MAX_ERROR);
	return PointerGetDatum(cstring_to_text_with_len(error, len));
}
