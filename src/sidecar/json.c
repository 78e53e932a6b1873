/*
 * json.c
 *		Writing JSON strings.
 *
 * Runs anywhere; owns nothing.
 */
#include "json.h"

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
