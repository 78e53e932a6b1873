/*
 * array.c
 *		Arrays as parameters of SQL.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/memory.h"

static void
append(ArrayParam *array, const char *data, size_t len)
{
	if (array->len + len + 1 > array->size)
	{
		array->size = (array->size + len + 64) * 2;
		array->text = needed(realloc(array->text, array->size));
	}
	memcpy(array->text + array->len, data, len);
	array->len += len;
	array->text[array->len] = '\0';
}

void
param_begin(ArrayParam *array)
{
	memset(array, 0, sizeof(*array));
	append(array, "{", 1);
}

void
param_add(ArrayParam *array, const char *element)
{
	if (array->len > 1)
		append(array, ",", 1);
	if (element == NULL)
	{
		append(array, "NULL", 4);
		return;
	}
	append(array, "\"", 1);
	while (*element != '\0')
	{
		size_t		n = strcspn(element, "\"\\");

		append(array, element, n);
		element += n;
		if (*element != '\0')
		{
			append(array, "\\", 1);
			append(array, element++, 1);
		}
	}
	append(array, "\"", 1);
}

void
param_add_number(ArrayParam *array, int64_t number)
{
	char		text[24];

	if (array->len > 1)
		append(array, ",", 1);
	append(array, text, (size_t) snprintf(text, sizeof(text), "%lld", (long long) number));
}

const char *
param_end(ArrayParam *array)
{
	append(array, "}", 1);
	return array->text;
}

void
param_free(ArrayParam *array)
{
	free(array->text);
	array->text = NULL;
}
