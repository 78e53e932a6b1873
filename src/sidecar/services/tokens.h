/*
 * tokens.h
 *		What a stream of WatchCleanups has pushed and its client has not settled.
 */
#ifndef GT_TOKENS_H
#define GT_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/array.h"

typedef struct Token Token;

typedef struct Tokens
{
	Token	  **buckets;
	size_t		bucket_count;
	size_t		count;
	size_t		next;			/* the bucket from which the round over all goes on */
} Tokens;

/* What one costs. */
extern const size_t token_size;

/* False: no memory. */
extern bool tokens_make(Tokens *tokens);
extern bool tokens_add(Tokens *tokens, int64_t cleanup_id, uint32_t attempt);
extern void tokens_free(Tokens *tokens);

extern bool tokens_have(const Tokens *tokens, int64_t cleanup_id, uint32_t attempt);
extern void tokens_remove(Tokens *tokens, int64_t cleanup_id, uint32_t attempt);

/*
 * Put into arrays what comes next in a round over all, which begins with `next`
 * 0: about `most` of them.  Returns how many; 0: that was all.
 */
extern int	tokens_take(Tokens *tokens, int most, ArrayParam *ids, ArrayParam *attempts);

#endif							/* GT_TOKENS_H */
