/*
 * tokens.c
 *		What a stream of WatchCleanups has pushed and its client has not settled:
 *		a hash table.
 */
#include <stdlib.h>

#include "services/tokens.h"

#define FIRST_BUCKETS 64

/* Pushed, and neither acked nor nacked. */
struct Token
{
	Token	   *next;			/* of its bucket */
	int64_t		cleanup_id;
	uint32_t	attempt;
};

const size_t token_size = sizeof(Token);

bool
tokens_make(Tokens *tokens)
{
	tokens->buckets = calloc(FIRST_BUCKETS, sizeof(Token *));
	tokens->bucket_count = FIRST_BUCKETS;
	return tokens->buckets != NULL;
}

static Token **
bucket_of(const Tokens *tokens, int64_t cleanup_id)
{
	return &tokens->buckets[(size_t) cleanup_id % tokens->bucket_count];
}

static Token **
find(const Tokens *tokens, int64_t cleanup_id, uint32_t attempt)
{
	Token	  **at = bucket_of(tokens, cleanup_id);

	while (*at != NULL && ((*at)->cleanup_id != cleanup_id || (*at)->attempt != attempt))
		at = &(*at)->next;
	return at;
}

bool
tokens_have(const Tokens *tokens, int64_t cleanup_id, uint32_t attempt)
{
	return *find(tokens, cleanup_id, attempt) != NULL;
}

static void
put(Tokens *tokens, Token *token)
{
	Token	  **bucket = bucket_of(tokens, token->cleanup_id);

	token->next = *bucket;
	*bucket = token;
}

/* Takes the first one out of a bucket or a chain. */
static Token *
pop(Token **at)
{
	Token	   *token = *at;

	*at = token->next;
	return token;
}

/* Twice the buckets; when there is no memory for that, it goes on with long chains. */
static void
grow(Tokens *tokens)
{
	Token	  **old = tokens->buckets;
	size_t		old_count = tokens->bucket_count;
	Token	  **grown = calloc(old_count * 2, sizeof(Token *));
	size_t		i;

	if (grown == NULL)
		return;
	tokens->buckets = grown;
	tokens->bucket_count = old_count * 2;
	tokens->next = 0;
	for (i = 0; i < old_count; i++)
	{
		while (old[i] != NULL)
			put(tokens, pop(&old[i]));
	}
	free(old);
}

bool
tokens_add(Tokens *tokens, int64_t cleanup_id, uint32_t attempt)
{
	Token	   *token = calloc(1, sizeof(Token));

	if (token == NULL)
		return false;
	if (tokens->count >= tokens->bucket_count * 2)
		grow(tokens);
	token->cleanup_id = cleanup_id;
	token->attempt = attempt;
	put(tokens, token);
	tokens->count++;
	return true;
}

void
tokens_remove(Tokens *tokens, int64_t cleanup_id, uint32_t attempt)
{
	Token	  **at = find(tokens, cleanup_id, attempt);

	if (*at == NULL)
		return;
	free(pop(at));
	tokens->count--;
}

void
tokens_free(Tokens *tokens)
{
	size_t		i;

	for (i = 0; i < tokens->bucket_count; i++)
	{
		while (tokens->buckets[i] != NULL)
			free(pop(&tokens->buckets[i]));
	}
	free(tokens->buckets);
}

int
tokens_take(Tokens *tokens, int most, ArrayParam *ids, ArrayParam *attempts)
{
	int			count = 0;

	while (tokens->next < tokens->bucket_count && count < most)
	{
		const Token *token;

		for (token = tokens->buckets[tokens->next++]; token != NULL; token = token->next, count++)
		{
			param_add_number(ids, token->cleanup_id);
			param_add_number(attempts, token->attempt);
		}
	}
	return count;
}
