/*
 * values.h
 *		Between protobuf's values and PostgreSQL's: parameters as text, results
 *		in binary form.
 */
#ifndef GT_VALUES_H
#define GT_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

/* ---- parameters ---- */

/* An interval, into a buffer; "" of text is NULL. */
#define INTERVAL_SIZE 40
extern const char *interval_param(int64_t microseconds, char *buffer);
static inline const char *
text_or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

/* 8-4-4-4-12 hexadecimal digits? */
extern bool valid_uuid(const char *text);

/* Stands for what is no UUID: an id that no lease has. */
extern const char nil_uuid[];

/*
 * Microseconds of a duration: 0 when it is absent or zero, of which SQL refuses
 * the latter where it makes no sense.  False: it is negative, or out of all range.
 */
extern bool duration_us(const Google__Protobuf__Duration *duration, int64_t *us);

/* ---- results, in binary form ---- */

/* Was a text refused that the database cannot hold?  What it surely can hold of one: ASCII. */
extern bool is_untranslatable(const char *sqlstate);
extern void text_reduce(char *text);

/* NULL for NULL; the text ends with a NUL; what is no UTF-8 in it becomes ? where the database does not know (SQL_ASCII). */
extern const char *get_text(const PGresult *result, int row, int column);
static inline const char *
get_text_or_empty(const PGresult *result, int row, int column)
{
	const char *text = get_text(result, row, column);

	return text != NULL ? text : "";
}
extern int64_t get_int8(const PGresult *result, int row, int column);
extern int32_t get_int4(const PGresult *result, int row, int column);
extern bool get_bool(const PGresult *result, int row, int column);

/* Into at least 37 bytes; "" for NULL. */
#define UUID_SIZE 37
extern char *get_uuid(const PGresult *result, int row, int column, char *buffer);

/* Fill a message and return it; NULL for NULL. */
extern Google__Protobuf__Timestamp *get_timestamp(const PGresult *result, int row, int column,
												  Google__Protobuf__Timestamp *timestamp);
extern Google__Protobuf__Duration *get_duration(const PGresult *result, int row, int column,
												Google__Protobuf__Duration *duration);

/*
 * The elements of a text[]: their number, up to max; NULLs are "".  They point
 * into the result and end with a NUL, for which `result` is written to.
 */
extern int	get_texts(PGresult *result, int row, int column, char **texts, int max);
extern int	get_array_length(const PGresult *result, int row, int column);

#endif							/* GT_VALUES_H */
