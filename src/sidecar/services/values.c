/*
 * values.c
 *		Between protobuf's values and PostgreSQL's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/database.h"
#include "grpc/grpc_status.h"
#include "services/values.h"

#define EPOCH_2000 INT64_C(946684800)	/* PostgreSQL's, in Unix seconds */

const char	nil_uuid[] = "00000000-0000-0000-0000-000000000000";

/* ---- parameters ---- */

const char *
interval_param(int64_t microseconds, char *buffer)
{
	snprintf(buffer, INTERVAL_SIZE, "%lld us", (long long) microseconds);
	return buffer;
}

bool
valid_uuid(const char *text)
{
	int			i;

	for (i = 0; i < 36; i++)
	{
		char		c = text[i];

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (c != '-')
				return false;
		}
		else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
			return false;
	}
	return text[36] == '\0';
}

bool
duration_us(const Google__Protobuf__Duration *duration, int64_t *us)
{
	*us = 0;
	if (duration == NULL)
		return true;
	/* A thousand years: far beyond what SQL allows, far below an overflow. */
	if (duration->seconds < 0 || duration->nanos < 0 || duration->nanos > 999999999 ||
		duration->seconds > INT64_C(31556952000))
		return false;
	*us = duration->seconds * 1000000 + (duration->nanos + 999) / 1000;
	return true;
}

bool
is_untranslatable(const char *sqlstate)
{
	return strcmp(sqlstate, "22P05") == 0 || strcmp(sqlstate, "22021") == 0;
}

void
text_reduce(char *text)
{
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text >= 0x80)
			*text = '?';
	}
}

/* ---- results ---- */

const char *
get_text(const PGresult *result, int row, int column)
{
	char	   *text;

	if (PQgetisnull(result, row, column))
		return NULL;
	text = PQgetvalue(result, row, column);
	if (db_text_is_bytes())
		utf8_mend(text);
	return text;
}

static uint64_t
read_number(const char *data, int len)
{
	uint64_t	value = 0;
	int			i;

	for (i = 0; i < len; i++)
		value = value << 8 | (uint8_t) data[i];
	return value;
}

int64_t
get_int8(const PGresult *result, int row, int column)
{
	return PQgetlength(result, row, column) == 8 ? (int64_t) read_number(PQgetvalue(result, row, column), 8) : 0;
}

int32_t
get_int4(const PGresult *result, int row, int column)
{
	return PQgetlength(result, row, column) == 4 ? (int32_t) read_number(PQgetvalue(result, row, column), 4) : 0;
}

bool
get_bool(const PGresult *result, int row, int column)
{
	return PQgetlength(result, row, column) == 1 && PQgetvalue(result, row, column)[0] != 0;
}

char *
get_uuid(const PGresult *result, int row, int column, char *buffer)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *data = (const uint8_t *) PQgetvalue(result, row, column);
	char	   *at = buffer;
	int			i;

	buffer[0] = '\0';
	if (PQgetlength(result, row, column) != 16)
		return buffer;
	for (i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = hex[data[i] >> 4];
		*at++ = hex[data[i] & 15];
	}
	*at = '\0';
	return buffer;
}

/* Seconds and nanoseconds, the latter never negative. */
static void
split_us(int64_t us, int64_t *seconds, int32_t *nanos)
{
	*seconds = us / 1000000;
	*nanos = (int32_t) (us % 1000000) * 1000;
	if (*nanos < 0)
	{
		*nanos += 1000000000;
		(*seconds)--;
	}
}

Google__Protobuf__Timestamp *
get_timestamp(const PGresult *result, int row, int column, Google__Protobuf__Timestamp *timestamp)
{
	if (PQgetisnull(result, row, column))
		return NULL;
	google__protobuf__timestamp__init(timestamp);
	split_us(get_int8(result, row, column), &timestamp->seconds, &timestamp->nanos);
	timestamp->seconds += EPOCH_2000;
	return timestamp;
}

Google__Protobuf__Duration *
get_duration(const PGresult *result, int row, int column, Google__Protobuf__Duration *duration)
{
	const char *data = PQgetvalue(result, row, column);
	int64_t		us;

	if (PQgetlength(result, row, column) != 16)
		return NULL;
	google__protobuf__duration__init(duration);
	us = (int64_t) read_number(data, 8) +
		((int32_t) read_number(data + 8, 4) + (int64_t) (int32_t) read_number(data + 12, 4) * 30) * INT64_C(86400000000);
	/* Both parts have the same sign in a Duration. */
	duration->seconds = us / 1000000;
	duration->nanos = (int32_t) (us % 1000000) * 1000;
	return duration;
}

int
get_array_length(const PGresult *result, int row, int column)
{
	if (PQgetlength(result, row, column) < 20)
		return 0;
	return (int32_t) read_number(PQgetvalue(result, row, column) + 12, 4);
}

int
get_texts(PGresult *result, int row, int column, char **texts, int max)
{
	int			count = get_array_length(result, row, column);
	char	   *at = PQgetvalue(result, row, column);
	char	   *end = at + PQgetlength(result, row, column);
	char	   *cut = NULL;
	int			n = 0;

	/* dimensions, flags, type, then length and lower bound of the one dimension */
	at += 20;
	while (n < count && n < max && at + 4 <= end)
	{
		int32_t		len = (int32_t) read_number(at, 4);

		/* Only now may the length after the element before be overwritten. */
		if (cut != NULL)
			*cut = '\0';
		at += 4;
		cut = NULL;
		if (len < 0)
		{
			texts[n++] = (char *) "";
			continue;
		}
		if (len > end - at)
			break;
		texts[n++] = at;
		at += len;
		cut = at;
	}
	/* libpq ends every value with a NUL of its own. */
	if (cut != NULL)
		*cut = '\0';
	for (count = 0; db_text_is_bytes() && count < n; count++)
		utf8_mend(texts[count]);
	return n;
}
