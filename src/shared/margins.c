/*-------------------------------------------------------------------------
 *
 * margins.c
 *	  Renewal margins: how much of its duration a lease had left when it was renewed.
 *
 * The smallest of the last minutes is kept of each service, noted at once by whoever
 * renews, in shared memory under the lock of observe.c, which tells who makes room
 * where the table is full.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "shared/clock.h"
#include "shared/margins.h"
#include "shared/observe_lock.h"
#include "shared/parts.h"
#include "shared/shmem.h"

#define MAX_SERVICES	1000	/* whose renewal margin is kept, of all databases */
#define SERVICE_SIZE	256
#define MARGIN_WINDOW	(5 * USECS_PER_MINUTE)	/* the smallest margin of this one and the one before is shown */
#define WHOLE			1000	/* margins are thousandths of the duration */
#define UNSEEN			1001
#define TOLD			1024	/* services of which a process remembers what it has told, */
#define TOLD_FOR		(5 * USECS_PER_SEC) /* for so long */

typedef struct ServiceKey
{
	Oid			database;
	char		name[SERVICE_SIZE]; /* filled up with zeros */
} ServiceKey;

typedef struct Service
{
	ServiceKey	key;			/* first, for the hash */
	Oid			role;			/* that renewed first */
	TimestampTz used_at;
	int64		window;			/* number of the current one */
	int			margin[2];		/* smallest, thousandths of the duration: of this window and the one before */
} Service;

static HTAB *services = NULL;			/* of Service */

static void
start(bool first)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(ServiceKey);
	control.entrysize = sizeof(Service);
	services = ShmemInitHash("garbagetruck_services", MAX_SERVICES, MAX_SERVICES, &control,
							 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

void
gt_margins_init(void)
{
	gt_shmem_part(hash_estimate_size(MAX_SERVICES, sizeof(Service)), start);
}

void
gt_margins_forget(Oid database)
{
	gt_observe_remove(services, database);
}

static GtUse
use_of_service(const void *entry, Oid role)
{
	const Service *service = entry;

	return (GtUse) {service->used_at, service->role == role && service->key.database == MyDatabaseId, false};
}

/* The entry of a service. Lock held. */
static Service *
service_entry(const char *name)
{
	Service    *service;
	ServiceKey	key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	strlcpy(key.name, name, SERVICE_SIZE);
	service = hash_search(services, &key, HASH_FIND, NULL);
	if (service != NULL)
		return service;
	if (hash_get_num_entries(services) >= MAX_SERVICES)
		(void) gt_observe_make_room(services, use_of_service, GetUserId());
	service = hash_search(services, &key, HASH_ENTER, NULL);
	service->role = GetUserId();
	service->window = 0;
	service->margin[0] = service->margin[1] = UNSEEN;
	return service;
}

static void
move_window(Service *service, int64 window)
{
	if (service->window == window)
		return;
	service->margin[1] = service->window == window - 1 ? service->margin[0] : UNSEEN;
	service->margin[0] = UNSEEN;
	service->window = window;
}

/*
 * What this process has told lately: a smaller margin of a service makes this one
 * superfluous for a while.  By a hash of the name.
 */
static struct Told
{
	uint64		service;
	int			margin;
	TimestampTz at;
}			told[TOLD];

static int
margin_of(int64 left, int64 duration)
{
	return (int) (Max(Min((double) left / duration, 1.0), 0.0) * WHOLE);
}

/* See margins.h. Nobody can make up a name of the same hash: the run is a secret. */
uint64
gt_service_hash(const char *service_id)
{
	return hash_bytes_extended((const unsigned char *) service_id, (int) strlen(service_id),
							   gt_shared == NULL ? 0 : (uint64) gt_shared->clock.run);
}

/* See margins.h. */
bool
gt_margin_is_known(uint64 service, int64 left, int64 duration, TimestampTz now)
{
	const struct Told *t = &told[service % TOLD];

	return services == NULL || duration <= 0 ||
		(t->service == service && now < t->at + TOLD_FOR && margin_of(left, duration) >= t->margin);
}

/* A lease of this service was renewed with so much of its duration left, us. */
void
gt_observe_renewal(const char *service_id, int64 left, int64 duration)
{
	uint64		hash = gt_service_hash(service_id);
	struct Told *t = &told[hash % TOLD];
	TimestampTz now = gt_now();
	int			margin;
	Service    *service;

	if (services == NULL || gt_margin_is_known(hash, left, duration, now))
		return;
	margin = margin_of(left, duration);
	gt_observe_lock();
	service = service_entry(service_id);
	service->used_at = now;
	move_window(service, now / MARGIN_WINDOW);
	service->margin[0] = Min(service->margin[0], margin);
	*t = (struct Told) {hash, service->margin[0], now};
	gt_observe_unlock();
}

/* What services of this database renewed with lately, at worst. */
List *
gt_observe_margins(void)
{
	List	   *result = NIL;
	int64		window = gt_now() / MARGIN_WINDOW;
	GtMargin   *found = palloc(MAX_SERVICES * sizeof(GtMargin));
	char	   *names = palloc(MAX_SERVICES * SERVICE_SIZE);
	HASH_SEQ_STATUS scan;
	Service    *service;
	int			n = 0;
	int			i;

	/* memory first: nothing may fail under the lock, in the middle of a look at the table */
	gt_observe_lock();
	hash_seq_init(&scan, services);
	while ((service = hash_seq_search(&scan)) != NULL)
	{
		int			margin;

		if (service->key.database != MyDatabaseId)
			continue;
		move_window(service, window);
		margin = Min(service->margin[0], service->margin[1]);
		if (margin < 0 || margin > WHOLE)
			continue;
		found[n].service_id = strcpy(names + n * SERVICE_SIZE, service->key.name);
		found[n++].ratio = (double) margin / WHOLE;
	}
	gt_observe_unlock();
	for (i = 0; i < n; i++)
		result = lappend(result, &found[i]);
	return result;
}
