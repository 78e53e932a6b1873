/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Which values are good: names, durations, payloads; and how a bad one is shown.
 *
 * Every process that serves SQL runs this.  It looks at settings, at no table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "garbagetruck.h"
#include "lease.h"

/* Names are shown in errors: no more of a long one than helps. */
char *
gt_shown(const char *value)
{
	int			len = strlen(value);

	if (len <= 100)
		return pstrdup(value);
	return psprintf("%.*s...", pg_mbcliplen(value, len, 100), value);
}

/* The control character that begins here, also of the upper range in UTF-8 (U+0080 to U+009F); -1: none. */
static int
control_at(const char *p)
{
	unsigned char c = p[0];
	unsigned char next = c == '\0' ? 0 : p[1];

	if (c < 0x20 || c == 0x7f)
		return c;
	return c == 0xc2 && next >= 0x80 && next < 0xa0 && GetDatabaseEncoding() == PG_UTF8 ? next : -1;
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

/* Microseconds of an interval; a month is 30 days, a day 24 hours. */
int64
gt_interval_us(Interval *i, bool *ok)
{
	double		us = (double) i->month * 30 * USECS_PER_DAY + (double) i->day * USECS_PER_DAY + (double) i->time;

	*ok = us < 9.0e18 && us > -9.0e18;
	return *ok ? ((int64) i->month * 30 + i->day) * USECS_PER_DAY + i->time : 0;
}

Interval *
gt_us_interval(int64 us)
{
	Interval   *i = palloc0(sizeof(Interval));

	i->time = us;
	return i;
}

/* Microseconds of a lease's duration, judged by the settings; false: out of range, or no duration. */
bool
gt_check_duration(Interval *duration, int64 *us, GtFail *f)
{
	int64		min = (int64) gt_min_duration * 1000;
	int64		max = (int64) gt_max_duration * USECS_PER_SEC;
	bool		ok;

	*us = gt_interval_us(duration, &ok);
	if (!ok || *us < min || *us > max)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "duration %s is out of range: it must be between %s and %s",
					   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(duration))),
					   GetConfigOptionByName("garbagetruck.min_lease_duration", NULL, false),
					   GetConfigOptionByName("garbagetruck.max_lease_duration", NULL, false));
	return true;
}

/* payload and metadata together, as text */
bool
gt_check_payload(Jsonb *payload, Jsonb *metadata, GtFail *f)
{
	size_t		size = 0;

	if (payload != NULL)
		size += strlen(JsonbToCString(NULL, &payload->root, VARSIZE(payload)));
	if (metadata != NULL)
		size += strlen(JsonbToCString(NULL, &metadata->root, VARSIZE(metadata)));
	if (size > (size_t) gt_max_payload)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "payload and metadata are too large: %zu bytes, the limit is %d (garbagetruck.max_payload)",
					   size, gt_max_payload);
	return true;
}
