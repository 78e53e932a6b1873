/*
 * hosts.c
 *		The queue of each target host.
 *
 * Calls to one host are bounded, and so are those that wait for it: where there
 * is no room for one, it is given back at once, which is no attempt (calls.c).
 * So nothing else needs to know which hosts hang, or how they are spelt.
 *
 * The bound on calls grows with each answer.  A call without an answer for
 * longer than the host's answers took of late is hanging: it does not count
 * against that bound, only against the most that a host may have.  Hanging calls
 * hold at most half of that, and a quarter of what all hosts may have, while
 * others wait: those that began last are ended and given back.  So objects whose
 * calls hang do not keep those of the same host that would be answered, and each
 * of them is among those that are waited for to the end once in a while, which is
 * what counts as its attempt.  A target that is merely slow is called twice only
 * when so many calls wait for it, and before it has answered for the first time.
 *
 * Objects whose calls hung are remembered for a while.  They have half of their
 * host's places, from their claim on, and are hanging from the start: so they
 * neither fill its queue nor take, for as long as one waits before one knows, the
 * places of those that are called for the first time.
 *
 * A host is silent when several of its calls hang and none of those that began
 * since was answered, not when nothing was asked of it: so one that answers is not
 * taken for silent by a few objects that hang.  A silent one has at least one place
 * for the next try, beside those that hang.
 *
 * Places are shared by ranks: hosts that answer at once, hosts that were not tried
 * yet, those whose answers take long, those that are silent.  However many of one
 * rank there are, the other ranks find places.
 *
 * What waits for one host is at most as much as there is room left for all others,
 * but for the last of it, of which each may have a few.
 *
 * What is given back is due again over a time that grows with each, about as fast
 * as the host could take it: so claims are not made for nothing without end.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "executors/calls.h"
#include "executors/context.h"
#include "executors/hosts.h"
#include "executors/util.h"

#define IDLE_MS 60000
#define FLOOR_LIMIT 8			/* calls at once, until it has answered and when it hangs */
#define SILENT_LIMIT 1			/* and while none of them is answered, beside those that hang, and others need the places */
#define SILENT_CALLS 4
#define SILENT_MS 2000
#define SLOW_MS 500				/* what an answer takes of a host that is */
#define PATIENCE_MS 500			/* at least */
#define PATIENCE_NEW_MS 1000	/* for the first answer */
#define ROOM_SILENT 4			/* may wait for one that does not answer, where many wait for such */
#define ROOM_LEFT (MAX_WAITING / 8) /* of which each may have so many */
#define BACK_FIRST_MS 100
#define BACK_STEP_MS 5			/* between two of what is given back for a host of which nothing is known */
#define BACK_SILENT_MS 200		/* and for one that does not answer; the first waits five times as long */
#define BACK_MAX_MS (10 * 60 * 1000)
#define BACK_SUSPECT_MS 250
#define BACK_SUSPECT_MAX_MS 60000

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

/* At the beginning. */
static void
list_push(CallList *list, Call *call)
{
	call->prev = NULL;
	call->next = list->head;
	if (list->head != NULL)
		list->head->prev = call;
	else
		list->tail = call;
	list->head = call;
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

/* "host:port", however it is spelt. */
static void
write_key(Buffer *key, const char *name, int port)
{
	char	   *at;

	buffer_printf(key, "%s:%d", name, port);
	for (at = key->data; *at != '\0'; at++)
		*at = (char) tolower((unsigned char) *at);
}

static Host *
find(const Context *context, const char *key)
{
	Host	   *host;

	for (host = context->hosts[text_hash(key) % HOST_BUCKETS]; host != NULL && strcmp(host->key, key) != 0; host = host->next)
		;
	return host;
}

Host *
host_find(const Context *context, const char *name, int port)
{
	Buffer		key = {NULL, 0, 0};
	Host	   *host;

	write_key(&key, name, port);
	host = find(context, key.data);
	buffer_free(&key);
	return host;
}

Host *
host_get(Context *context, const char *name, int port)
{
	Buffer		key = {NULL, 0, 0};
	Host	   *host;

	write_key(&key, name, port);
	host = find(context, key.data);
	if (host == NULL)
	{
		Host	  **bucket = &context->hosts[text_hash(key.data) % HOST_BUCKETS];

		host = exec_alloc(sizeof(*host));
		host->key = exec_strdup(key.data);
		host->limit = context->settings.max_per_host < FLOOR_LIMIT ? context->settings.max_per_host : FLOOR_LIMIT;
		host->next = *bucket;
		*bucket = host;
		context->host_count++;
	}
	buffer_free(&key);
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
				free(host);
				context->host_count--;
				continue;
			}
			link = &host->next;
		}
	}
}

/* Nothing of what is under way there is answered. */
static bool
is_silent(const Host *host, int64_t now)
{
	return host->answered_at == 0 ? host->unanswered > 0 :
		host->unanswered >= SILENT_CALLS && now - host->answered_at > SILENT_MS;
}

HostRank
host_rank(const Host *host)
{
	if (host->answered_at == 0 && host->unanswered == 0)
		return HOST_NEW;
	if (is_silent(host, exec_now()))
		return HOST_SILENT;
	return host->usual_us > SLOW_MS * 1000 ? HOST_SLOW : HOST_QUICK;
}

/*
 * Each rank may have so many times as many places as are free: so there always
 * are some for the others, however many hosts are of one rank.
 */
bool
host_has_place(const Context *context, HostRank rank)
{
	static const int times[HOST_RANKS] = {[HOST_QUICK] = 8, [HOST_NEW] = 1, [HOST_SLOW] = 3, [HOST_SILENT] = 1};

	return context->of_rank[rank] < times[rank] * (context->settings.max_in_flight - context->in_flight);
}

int
host_limit(const Context *context, const Host *host)
{
	int			most = context->settings.max_per_host;
	int			limit;

	if (host->limit > most)
		return host->limit;		/* the thread for files */
	if (!is_silent(host, exec_now()))
		limit = host->answered_at == 0 && context->of_rank[HOST_NEW] + context->of_rank[HOST_SILENT] >= context->settings.max_in_flight / 4 ? 1 :
			host->limit + host->hanging;
	else if (context->in_flight < context->settings.max_in_flight / 2)
		limit = host->hanging + FLOOR_LIMIT;	/* others to try, after those that hang */
	else
		limit = host->hanging + SILENT_LIMIT;
	return limit < most ? limit : most;
}

int
host_rate(const Host *host)
{
	int64_t		rate = (int64_t) host->limit * 1000000 / (host->usual_us + 100);

	return rate > 0 ? (int) rate : 1;
}

/*
 * For one of which nothing is known, or that does not answer, as many may wait as
 * for any other one, where nobody else needs the room: those whose calls would be
 * answered may be among them.
 */
int
host_room(const Context *context, const Host *host)
{
	int			left = MAX_WAITING - context->waiting;
	int			room = 2 * host->limit;

	if (is_silent(host, exec_now()))
		room = context->waiting > MAX_WAITING / 2 ? 0 : left / 2;
	else if (host->answered_at == 0)
		room = left / 2 > room ? left / 2 : room;
	else if (host_rate(host) > room)
		room = host_rate(host);
	if (room > ROOM_SILENT && room > left - ROOM_LEFT)
		room = left - ROOM_LEFT > ROOM_SILENT ? left - ROOM_LEFT : ROOM_SILENT;
	return room;
}

void
host_wait(Context *context, Call *call)
{
	Host	   *host = call->host;

	call->state = CALL_WAITING;
	/* in no order where some hang, so that those that would be answered are found among them */
	if (host->hanging > 0 && random() % 2 == 0)
		list_push(&host->waiting, call);
	else
		list_add(&host->waiting, call);
	context->waiting++;
}

void
host_note_hung(Context *context, const Call *call, bool hung)
{
	int64_t    *place = &context->hung_ids[call->cleanup_id % HUNG_IDS];

	if (hung)
		*place = call->cleanup_id;
	else if (*place == call->cleanup_id)
		*place = 0;
}

bool
host_has_suspects(Context *context, Call *call)
{
	Host	   *host = call->host;

	if (context->hung_ids[call->cleanup_id % HUNG_IDS] != call->cleanup_id)
		return false;
	if (2 * host->suspects >= host_limit(context, host))
		return true;
	call->suspect = true;
	host->suspects++;
	return false;
}

void
host_forget_suspect(Call *call)
{
	if (call->suspect)
		call->host->suspects--;
	call->suspect = false;
}

int64_t
host_suspect_back_off(Host *host)
{
	int64_t		now = exec_now();

	if (host->suspects_back_at < now + BACK_FIRST_MS)
		host->suspects_back_at = now + BACK_FIRST_MS;
	else if (host->suspects_back_at < now + BACK_SUSPECT_MAX_MS)
		host->suspects_back_at += BACK_SUSPECT_MS;
	return BACK_FIRST_MS + random() % (host->suspects_back_at - now - BACK_FIRST_MS + 1);
}

bool
host_is_crowded(const Context *context, const Host *host)
{
	return context->waiting > MAX_WAITING / 2 && host->waiting.count > ROOM_SILENT && is_silent(host, exec_now());
}

int64_t
host_patience(const Host *host)
{
	int64_t		patience = (host->usual_us + 4 * host->varies_us) / 1000;

	if (host->answered_at == 0)
		return PATIENCE_NEW_MS;
	return patience > PATIENCE_MS ? patience : PATIENCE_MS;
}

void
host_answered(const Context *context, Host *host, int64_t took)
{
	int64_t		off = took * 1000 - host->usual_us;

	if (host->answered_at == 0)
	{
		host->usual_us = took * 1000;
		host->varies_us = host->usual_us / 2;
	}
	else
	{
		host->usual_us += off / 16;
		host->varies_us += ((off < 0 ? -off : off) - host->varies_us) / 16;
	}
	host->answered_at = exec_now();
	host->unanswered = 0;
	if (host->limit < context->settings.max_per_host)
		host->limit++;
}

void
host_timed_out(Host *host, int64_t started_at)
{
	/* nothing at all was answered in all that time */
	if (host->answered_at < started_at && host->limit > FLOOR_LIMIT)
		host->limit = host->limit / 2;
}

int64_t
host_back_off(Host *host)
{
	int64_t		now = exec_now();
	bool		silent = is_silent(host, now);
	int64_t		first = silent ? 5 * BACK_SILENT_MS : BACK_FIRST_MS;
	int64_t		step = silent ? BACK_SILENT_MS : host->answered_at > 0 ? 1000 / host_rate(host) : BACK_STEP_MS;

	if (host->back_at < now + first)
		host->back_at = now + first;
	else if (host->back_at < now + BACK_MAX_MS)
		host->back_at += step;
	/* in no order, so that those whose calls hang do not come first again */
	return first + random() % (host->back_at - now - first + 1);
}
