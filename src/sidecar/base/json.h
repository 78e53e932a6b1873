/*
 * json.h
 *		Writing JSON strings, and finding one; all other reading is left to PostgreSQL.
 */
#ifndef GT_JSON_H
#define GT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A JSON string with its quotes.  Bytes from 0x80 go as they are: UTF-8. */
extern void json_write_string(FILE *file, const char *text);

/*
 * The text of a member of an object, of several of that name the last one, as
 * jsonb has it.  False: there is none that is text and fits, or this is no object;
 * what is no JSON at all is not always found out.
 */
extern bool json_member(const char *json, const char *name, char *out, size_t size);

#endif							/* GT_JSON_H */
