/*
 * fail.c
 *		Preloaded by the tests: allocation number $FAIL_AT fails, once.
 *
 * Counted from fail_begin(), which main() calls: what libraries do before that
 * is their own.
 * At the end the number of allocations goes to the file $FAIL_COUNT.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long number;
static long fail_at;

extern void fail_begin(void);

void
fail_begin(void)
{
	const char *text = getenv("FAIL_AT");

	number = 0;
	fail_at = text != NULL ? atol(text) : 0;
}

__attribute__((destructor))
static void
end(void)
{
	const char *name = getenv("FAIL_COUNT");
	long		count = number;
	FILE	   *file = name != NULL ? fopen(name, "w") : NULL;

	if (file == NULL)
		return;
	fprintf(file, "%ld\n", count);
	fclose(file);
}

static int
fails(void)
{
	if (atomic_fetch_add(&number, 1) + 1 != fail_at)
		return 0;
	errno = ENOMEM;
	return 1;
}

void *
malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
	return fails() ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *old, size_t size)
{
	return fails() ? NULL : __libc_realloc(old, size);
}
