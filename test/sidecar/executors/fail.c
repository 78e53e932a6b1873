/*
 * fail.c
 *		Preloaded by the tests: allocation number $FAIL_AT fails, once.
 *
 * Counted from fail_begin(), which main() calls, or with $FAIL_WHOLE from the
 * start, for programs that do not: what libraries do before that is their own.
 * At the end the number of allocations goes to the file $FAIL_COUNT.  With
 * $FAIL_TRACE the place of the one that fails goes to stderr.
 */
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long number;
static long fail_at;
static int	trace;

extern void fail_begin(void);

void
fail_begin(void)
{
	const char *text = getenv("FAIL_AT");
	void	   *frame;

	/* The first call loads a library. */
	backtrace(&frame, 1);
	trace = getenv("FAIL_TRACE") != NULL;
	number = 0;
	fail_at = text != NULL ? atol(text) : 0;
}

__attribute__((constructor))
static void
begin_whole(void)
{
	if (getenv("FAIL_WHOLE") != NULL)
		fail_begin();
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
	void	   *frames[40];

	if (atomic_fetch_add(&number, 1) + 1 != fail_at)
		return 0;
	if (trace)
		backtrace_symbols_fd(frames, backtrace(frames, 40), 2);
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
