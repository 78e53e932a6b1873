/*
 * array.h
 *		Arrays as parameters of SQL: their literals, as text that grows.
 */
#ifndef GT_ARRAY_H
#define GT_ARRAY_H

#include <stddef.h>
#include <stdint.h>

typedef struct ArrayParam
{
	char	   *text;
	size_t		len,
				size;
} ArrayParam;

extern void param_begin(ArrayParam *array);
extern void param_add(ArrayParam *array, const char *element);	/* NULL is NULL */
extern void param_add_number(ArrayParam *array, int64_t number);
extern const char *param_end(ArrayParam *array);
extern void param_free(ArrayParam *array);

#endif							/* GT_ARRAY_H */
