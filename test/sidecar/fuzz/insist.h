/*
 * insist.h
 *		What the harnesses hold: else they end, and the input is kept.
 */
#ifndef GT_FUZZ_INSIST_H
#define GT_FUZZ_INSIST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static inline void
insist(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "violated: %s\n", what);
	abort();
}

/* A condition that says itself what is wrong. */
#define hold(condition) insist(condition, #condition)

#endif							/* GT_FUZZ_INSIST_H */
