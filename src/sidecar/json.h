/*
 * json.h
 *		Writing JSON strings.  Reading JSON is left to PostgreSQL.
 */
#ifndef GT_JSON_H
#define GT_JSON_H

#include <stdio.h>

/* A JSON string with its quotes.  Bytes from 0x80 go as they are: UTF-8. */
extern void json_write_string(FILE *file, const char *text);

#endif							/* GT_JSON_H */
