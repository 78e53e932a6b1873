/*
 * service_health.c
 *		grpc.health.v1.Health: SERVING while PostgreSQL answers and is no standby,
 *		and the server is not draining.
 *
 * Watchers are in a list and are told of every change.
 */
#include <stdlib.h>
#include <string.h>

#include "health.pb-c.h"
#include "services/services.h"

typedef Grpc__Health__V1__HealthCheckResponse Response;

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

typedef struct Watcher
{
	struct Watcher *next,
			   *prev;
	GrpcCall   *call;
	bool		known;			/* the service that it asked for exists */
	int			last;			/* status sent; -1: none */
} Watcher;

static Watcher *watchers;
static bool draining;

static bool
known_service(const char *name)
{
	int			i;

	if (name[0] == '\0')
		return true;
	for (i = 0; grpc_method_at(i) != NULL; i++)
	{
		if (strcmp(grpc_method_at(i)->service, name) == 0)
			return true;
	}
	return false;
}

static int
current_status(bool known)
{
	if (!known)
		return STATUS(SERVICE_UNKNOWN);
	return db_serves() && !draining ? STATUS(SERVING) : STATUS(NOT_SERVING);
}

static void
check(GrpcCall *call, const ProtobufCMessage *message)
{
	const Grpc__Health__V1__HealthCheckRequest *request = (const void *) message;
	Response	response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	if (!known_service(request->service))
	{
		grpc_fail(call, GRPC_NOT_FOUND, "unknown service %.200s", request->service);
		return;
	}
	response.status = current_status(true);
	grpc_answer(call, &response.base);
}

static void
tell(Watcher *watcher)
{
	Response	response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

	response.status = current_status(watcher->known);
	if ((int) response.status == watcher->last)
		return;
	watcher->last = (int) response.status;
	grpc_send(watcher->call, &response.base);
}

static void
tell_all(bool ignored)
{
	Watcher    *watcher;
	Watcher    *next;

	for (watcher = watchers; watcher != NULL; watcher = next)
	{
		next = watcher->next;
		tell(watcher);
	}
}

void
health_set_serving(bool serving)
{
	draining = !serving;
	tell_all(serving);
}

static void
watch(GrpcCall *call, const ProtobufCMessage *message)
{
	const Grpc__Health__V1__HealthCheckRequest *request = (const void *) message;
	static bool watching;
	Watcher    *watcher = calloc(1, sizeof(Watcher));

	if (watcher == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	if (!watching)
	{
		watching = true;
		db_watch(tell_all);
	}
	watcher->call = call;
	watcher->known = known_service(request->service);
	watcher->last = -1;
	watcher->next = watchers;
	if (watcher->next != NULL)
		watcher->next->prev = watcher;
	watchers = watcher;
	grpc_set_state(call, watcher);
	tell(watcher);
}

static void
watch_over(GrpcCall *call)
{
	Watcher    *watcher = grpc_state(call);

	if (watcher == NULL)
		return;
	if (watcher->prev != NULL)
		watcher->prev->next = watcher->next;
	else
		watchers = watcher->next;
	if (watcher->next != NULL)
		watcher->next->prev = watcher->prev;
	free(watcher);
}

const GrpcMethod health_methods[] =
{
	{"grpc.health.v1.Health", "Check", &grpc__health__v1__health_check_request__descriptor, GRPC_PUBLIC, check, NULL, NULL},
	{"grpc.health.v1.Health", "Watch", &grpc__health__v1__health_check_request__descriptor,
	GRPC_PUBLIC | GRPC_SERVER_STREAMS | GRPC_OPEN_ENDED, watch, NULL, watch_over},
	{NULL}
};
