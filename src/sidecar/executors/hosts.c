/*
 * hosts.c
 *		The queue of each target host.
 *
 * Calls to one host are bounded; the bound grows with each answer and shrinks
 * while there is none, so that a hanging target holds few of the slots that all
 * share.
 * While too many calls wait for a host, nothing more is claimed for it (see
 * claims.c): a claim is an attempt, and attempts are not to be used up by
 * waiting.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

#define IDLE_MS 60000
#define FIRST_LIMIT 4			/* until it has answered */

void
list_add(CallList *list, Call *call)
{
	call->next = NULL;
	call->prev = list->tail;
	if (list->tail != NULL)
		list->tail->next = call;
	else
		list->head = call;
	list->tail = call;
	list->count++;
	call->list = list;
}

void
list_remove(Call *call)
{
	CallList   *list = call->list;

	if (list == NULL)
		return;
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		list->head = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	else
		list->tail = call->prev;
	list->count--;
	call->next = call->prev = NULL;
	call->list = NULL;
}

static unsigned
hash(const char *key)
{
	unsigned	value = 2166136261u;

	while (*key != '\0')
		value = (value ^ (unsigned char) *key++) * 16777619u;
	return value % HOST_BUCKETS;
}

Host *
host_get(Context *context, const char *key)
{
	Host	  **bucket = &context->hosts[hash(key)];
	Host	   *host;

	for (host = *bucket; host != NULL; host = host->next)
	{
		if (strcmp(host->key, key) == 0)
			return host;
	}
	host = exec_alloc(sizeof(*host));
	host->key = exec_strdup(key);
	host->limit = context->settings.max_per_host < FIRST_LIMIT ? context->settings.max_per_host : FIRST_LIMIT;
	host->next = *bucket;
	*bucket = host;
	context->host_count++;
	return host;
}

/* Hosts without calls are kept for a while: they remember that they hung. */
void
hosts_forget_idle(Context *context, int64_t now)
{
	int			i;

	for (i = 0; i < HOST_BUCKETS; i++)
	{
		Host	  **link = &context->hosts[i];

		while (*link != NULL)
		{
			Host	   *host = *link;

			if (host->in_flight > 0 || host->waiting.count > 0)
				host->idle_since = now;
			else if (now - host->idle_since > IDLE_MS)
			{
				*link = host->next;
				free(host->key);
				free(host->lease_text);
				free(host);
				context->host_count--;
				continue;
			}
			link = &host->next;
		}
	}
}

bool
host_crowded(const Context *context, const Host *host)
{
	return host->waiting.count >= 2 * host->limit;
}
