/*
 * party.c
 *		Who takes how much.  See party.h.
 */
#include <stdlib.h>
#include <string.h>

#include "net/party.h"

#define BUCKETS 1024
/* 64 and 300 MiB are promised to be the most: what is not reckoned, the allocator's rounding among it, has the rest. */
#define PEER_BYTES ((size_t) 56 * 1024 * 1024)
#define CALLER_BYTES ((size_t) 270 * 1024 * 1024)

static Party *buckets[BUCKETS];

static Party **
bucket_of(const char *name, bool named)
{
	uint32_t	hash = named ? 2166136261u : 84696351u;

	for (; *name != '\0'; name++)
		hash = (hash ^ (unsigned char) *name) * 16777619u;
	return &buckets[(hash ^ hash >> 16) % BUCKETS];
}

static Party *
find_or_make(const char *name, bool named)
{
	Party	  **bucket = bucket_of(name, named);
	Party	   *party;

	for (party = *bucket; party != NULL; party = party->next)
	{
		if (party->named == named && strcmp(party->name, name) == 0)
			return party_hold(party);
	}
	party = calloc(1, sizeof(Party) + strlen(name) + 1);
	if (party == NULL)
		return NULL;
	strcpy(party->name, name);
	party->named = named;
	party->refs = 1;
	party->next = *bucket;
	*bucket = party;
	return party;
}

Party *
party_of_caller(const char *name)
{
	return find_or_make(name, true);
}

Party *
party_of_peer(const char *host)
{
	return find_or_make(host, false);
}

Party *
party_hold(Party *party)
{
	if (party != NULL)
		party->refs++;
	return party;
}

void
party_release(Party *party)
{
	Party	  **at;

	if (party == NULL || --party->refs > 0)
		return;
	for (at = bucket_of(party->name, party->named); *at != party; at = &(*at)->next)
		;
	*at = party->next;
	free(party);
}

bool
party_may_take(int64_t has, int64_t all, int64_t most)
{
	return all < most && has < 3 * (most - all);
}

static size_t
fill_of(const Party *party)
{
	return party->named ? CALLER_BYTES : PEER_BYTES;
}

size_t
party_room(const Party *party)
{
	if (party == NULL)
		return SIZE_MAX;
	return party->bytes < fill_of(party) ? fill_of(party) - party->bytes : 0;
}

bool
party_fits(const Party *party, size_t bytes)
{
	return bytes <= party_room(party);
}

bool
party_charge(Party *party, size_t bytes)
{
	if (!party_fits(party, bytes))
		return false;
	if (party != NULL)
		party->bytes += bytes;
	return true;
}

void
party_charge_beyond(Party *party, size_t bytes)
{
	if (party != NULL)
		party->bytes += bytes;
}

void
party_give_back(Party *party, size_t bytes)
{
	if (party != NULL)
		party->bytes -= bytes;
}

bool
party_recharge(Party *party, size_t *charged, size_t bytes)
{
	if (bytes > *charged && !party_charge(party, bytes - *charged))
		return false;
	if (bytes < *charged)
		party_give_back(party, *charged - bytes);
	*charged = bytes;
	return true;
}

bool
party_has_room(const Party *party)
{
	return party == NULL || party->bytes < fill_of(party) / 2;
}
