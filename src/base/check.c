/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Which values are good: intervals, durations, numbers of attempts, payloads.
 *
 * Every process that serves SQL runs this.  It looks at settings, at no table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/check.h"
#include "base/settings.h"

/* Microseconds of an interval; a month is 30 days, a day 24 hours. */
static int64
interval_us(Interval *i, bool *ok)
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

/* An array of ids that may be passed is longer than what palloc() gives of something larger. */
void *
gt_alloc_array(int n, Size size)
{
	return palloc_extended((Size) Max(n, 1) * size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/* Microseconds of an interval; false: not between min and max. */
static bool
interval_within(Interval *i, int64 min, int64 max, int64 *us)
{
	bool		ok;

	*us = interval_us(i, &ok);
	return ok && *us >= min && *us <= max;
}

static bool
out_of_range(const char *what, Interval *i, const char *range, GtFail *f)
{
	return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "%s %s is out of range: it must be %s", what,
				   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(i))), range);
}

/* The same, and what is wrong; `range` tells min and max in words. */
bool
gt_check_interval(const char *what, Interval *i, int64 min, int64 max, const char *range, int64 *us, GtFail *f)
{
	return interval_within(i, min, max, us) || out_of_range(what, i, range, f);
}

/* The two options on retries, of a handler and of a lease. */
bool
gt_check_max_attempts(int max_attempts, GtFail *f)
{
	if (max_attempts < 1 || max_attempts > GT_MAX_MAX_ATTEMPTS)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "max_attempts %d is out of range: it must be between 1 and %d", max_attempts, GT_MAX_MAX_ATTEMPTS);
	return true;
}

bool
gt_check_retry_delay(Interval *retry_delay, int64 *us, GtFail *f)
{
	return gt_check_interval("retry_delay", retry_delay, 0, GT_MAX_RETRY_DELAY, GT_RETRY_DELAY_RANGE, us, f);
}

/* A setting as SHOW tells it. Not for the way that every request goes: it costs as much as an index entry. */
static char *
shown_setting(const char *name)
{
	return GetConfigOptionByName(name, NULL, false);
}

/* Microseconds of a lease's duration, judged by the settings; of NULL, what they say. false: out of range. */
bool
gt_check_duration(Interval *duration, int64 *us, GtFail *f)
{
	int64		min = (int64) gt_min_duration * 1000;
	int64		max = (int64) gt_max_duration * USECS_PER_SEC;
	char	   *range;

	if (duration == NULL)
	{
		*us = (int64) gt_default_duration * 1000;
		return true;
	}
	if (interval_within(duration, min, max, us))
		return true;
	range = psprintf("between %s and %s", shown_setting("garbagetruck.min_lease_duration"),
					 shown_setting("garbagetruck.max_lease_duration"));
	if (min <= max)
		return out_of_range("duration", duration, range, f);
	gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE, "no duration is allowed: it would have to be %s", range);
	f->hint = pstrdup("garbagetruck.min_lease_duration must not be longer than garbagetruck.max_lease_duration.");
	return false;
}

/* The same of its regrant_delay. */
bool
gt_check_regrant_delay(Interval *delay, int64 *us, GtFail *f)
{
	return interval_within(delay, 0, (int64) gt_max_duration * USECS_PER_SEC, us) ||
		out_of_range("regrant_delay", delay, psprintf("between 0 and %s", shown_setting("garbagetruck.max_lease_duration")), f);
}

/* Of a string, quoted and escaped as JSON. */
static size_t
quoted_length(const char *s, int len)
{
	size_t		result = 2;
	int			i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = s[i];

		if (c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t')
			result += 2;
		else
			result += c < ' ' ? 6 : 1;
	}
	return result;
}

static size_t
scalar_length(const JsonbValue *v)
{
	char	   *number;
	size_t		result;

	switch (v->type)
	{
		case jbvString:
			return quoted_length(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			number = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
			result = strlen(number);
			pfree(number);
			return result;
		case jbvBool:
			return v->val.boolean ? 4 : 5;
		default:
			return 4;			/* null */
	}
}

/*
 * How long a value is as text, as JsonbToCString() writes it; it is not counted on
 * once that is more than `enough`.  A number of a few bytes may have a hundred
 * thousand digits: the text itself can be more than there is memory for.
 */
size_t
gt_json_length(Jsonb *json, size_t enough)
{
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	size_t		result = 0;
	bool		first = true;

	while (result <= enough && (token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		bool		ends = token == WJB_END_ARRAY || token == WJB_END_OBJECT;

		CHECK_FOR_INTERRUPTS();
		if (!first && !ends)
			result += 2;		/* ", " */
		first = token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT || token == WJB_KEY;
		if (token == WJB_KEY)
			result += quoted_length(v.val.string.val, v.val.string.len) + 2;	/* ": " */
		else if (token == WJB_ELEM || token == WJB_VALUE)
			result += scalar_length(&v);
		else if (!JB_ROOT_IS_SCALAR(json))
			result++;			/* a bracket */
	}
	return result;
}

/* payload and metadata together, as text */
bool
gt_check_payload(Jsonb *payload, Jsonb *metadata, GtFail *f)
{
	size_t		limit = (size_t) gt_max_payload;
	size_t		enough = limit + 1024 * 1024;	/* to say how large it is */
	size_t		size = 0;

	if (payload != NULL)
		size += gt_json_length(payload, enough);
	if (metadata != NULL && size <= enough)
		size += gt_json_length(metadata, enough);
	if (size > limit)
		return gt_fail(f, ERRCODE_INVALID_PARAMETER_VALUE,
					   "payload and metadata are too large: %s%zu bytes, the limit is %d (garbagetruck.max_payload)",
					   size > enough ? "more than " : "", Min(size, enough), gt_max_payload);
	return true;
}
