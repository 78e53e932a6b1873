/*
 * lookup.c
 *		Looks the database's names up in a thread.  See lookup.h.
 *
 * The thread has copies of all that it needs and tells its end by an eventfd;
 * when the process ends before it, nobody waits for it.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "base/memory.h"
#include "net/lookup.h"
#include "net/loop.h"

#define MAX_ADDRESSES 64		/* of all hosts together */

typedef struct Lookup
{
	char	   *hosts;			/* separated by commas */
	char	   *ports;			/* NULL: none were given */
	LookedUp	found;
	char		problem[300];	/* "": found */
} Lookup;

static Lookup *running;
static int	event_fd = -1;
static void (*tell) (const LookedUp *found, const char *problem);

/* ---- the thread ---- */

/* Text that grows: elements separated by commas. */
static void
add_element(char **list, bool first, const char *element)
{
	size_t		len = *list != NULL ? strlen(*list) : 0;

	*list = needed(realloc(*list, len + strlen(element) + 2));
	sprintf(*list + len, "%s%s", first ? "" : ",", element);
}

/* The nth element, or the only one; "" when there is none. */
static const char *
nth_element(const char *list, int n, char *buffer, size_t size)
{
	bool		only = list == NULL || strchr(list, ',') == NULL;

	for (; list != NULL && !only && n > 0 && (list = strchr(list, ',')) != NULL; n--)
		list++;
	snprintf(buffer, size, "%.*s", list != NULL ? (int) strcspn(list, ",") : 0, list != NULL ? list : "");
	return buffer;
}

static bool
is_name(const char *host)
{
	unsigned char address[16];

	return host[0] != '\0' && host[0] != '/' && host[0] != '@' &&
		inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1;
}

/* All addresses of one host, each with its name and port. */
static void
look_up(Lookup *lookup, const char *host, const char *port, int *count)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *all = NULL;
	struct addrinfo *each;
	int			failed = is_name(host) ? getaddrinfo(host, NULL, &hints, &all) : 0;

	if (failed != 0)
	{
		snprintf(lookup->problem, sizeof(lookup->problem), "could not translate host name \"%.200s\" to address: %s", host, gai_strerror(failed));
		return;
	}
	for (each = all; (each != NULL || all == NULL) && *count < MAX_ADDRESSES; each = each->ai_next)
	{
		char		address[INET6_ADDRSTRLEN + 20] = "";

		if (each != NULL && getnameinfo(each->ai_addr, each->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST) != 0)
			continue;
		add_element(&lookup->found.host, *count == 0, host);
		add_element(&lookup->found.hostaddr, *count == 0, address);
		add_element(&lookup->found.port, *count == 0, port);
		(*count)++;
		if (each == NULL)
			break;
	}
	if (all != NULL)
		freeaddrinfo(all);
}

static void *
run(void *arg)
{
	Lookup	   *lookup = arg;
	const char *at = lookup->hosts;
	uint64_t	one = 1;
	int			count = 0;
	int			n;
	ssize_t		ignored;

	for (n = 0; at != NULL; n++)
	{
		char		host[300];
		char		port[16];

		snprintf(host, sizeof(host), "%.*s", (int) strcspn(at, ","), at);
		look_up(lookup, host, nth_element(lookup->ports, n, port, sizeof(port)), &count);
		at = strchr(at, ',');
		if (at != NULL)
			at++;
	}
	/* One host of several that is not known is no failure. */
	if (count > 0)
		lookup->problem[0] = '\0';
	ignored = write(event_fd, &one, sizeof(one));
	(void) ignored;
	return NULL;
}

/* ---- the loop's side ---- */

static void
free_lookup(Lookup *lookup)
{
	free(lookup->hosts);
	free(lookup->ports);
	free(lookup->found.host);
	free(lookup->found.hostaddr);
	free(lookup->found.port);
	free(lookup);
}

static void
finished(void *arg, uint32_t events)
{
	Lookup	   *lookup = running;
	uint64_t	count;

	if (read(event_fd, &count, sizeof(count)) != (ssize_t) sizeof(count) || lookup == NULL)
		return;
	running = NULL;
	tell(lookup->problem[0] == '\0' ? &lookup->found : NULL, lookup->problem);
	free_lookup(lookup);
}

static const char *
value_of(const PQconninfoOption *options, const char *keyword)
{
	for (; options != NULL && options->keyword != NULL; options++)
	{
		if (strcmp(options->keyword, keyword) == 0 && options->val != NULL && options->val[0] != '\0')
			return options->val;
	}
	return NULL;
}

/* What --db says of a keyword, else a service file or the environment; NULL: nothing.  To be freed. */
static char *
setting(const PQconninfoOption *given, const PQconninfoOption *defaults, const char *keyword)
{
	const char *value = value_of(given, keyword);

	if (value == NULL)
		value = value_of(defaults, keyword);
	return value != NULL ? needed(strdup(value)) : NULL;
}

/* As libpq fills in what is not given: of the service that --db names, it is told by the environment. */
static PQconninfoOption *
defaults_with(const char *service)
{
	if (service != NULL && (getenv("PGSERVICE") == NULL || strcmp(getenv("PGSERVICE"), service) != 0))
		setenv("PGSERVICE", service, 1);
	return PQconndefaults();
}

static bool
has_name(const char *hosts)
{
	char		host[300];
	const char *at = hosts;

	while (at != NULL)
	{
		snprintf(host, sizeof(host), "%.*s", (int) strcspn(at, ","), at);
		if (is_name(host))
			return true;
		at = strchr(at, ',');
		if (at != NULL)
			at++;
	}
	return false;
}

static Lookup *
make_lookup(const char *conninfo)
{
	bool		is_string = strchr(conninfo, '=') != NULL || strstr(conninfo, "://") != NULL;
	PQconninfoOption *given = PQconninfoParse(is_string ? conninfo : "", NULL);
	PQconninfoOption *defaults = defaults_with(value_of(given, "service"));
	char	   *hosts = setting(given, defaults, "host");
	char	   *address = setting(given, defaults, "hostaddr");
	Lookup	   *lookup = NULL;

	if (hosts != NULL && address == NULL && has_name(hosts))
	{
		lookup = needed(calloc(1, sizeof(Lookup)));
		lookup->hosts = hosts;
		lookup->ports = setting(given, defaults, "port");
		hosts = NULL;
	}
	free(hosts);
	free(address);
	PQconninfoFree(given);
	PQconninfoFree(defaults);
	return lookup;
}

LookupState
lookup_start(const char *conninfo, void (*done) (const LookedUp *found, const char *problem))
{
	Lookup	   *lookup;
	pthread_attr_t attributes;
	pthread_t	thread;
	bool		started;

	tell = done;
	if (running != NULL)
		return LOOKUP_RUNS;
	lookup = make_lookup(conninfo);
	if (lookup == NULL)
		return LOOKUP_NOT_NEEDED;
	if (event_fd < 0)
	{
		event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (event_fd >= 0 && loop_add(event_fd, EPOLLIN, finished, NULL) == NULL)
		{
			close(event_fd);
			event_fd = -1;
		}
	}
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	started = event_fd >= 0 && pthread_create(&thread, &attributes, run, lookup) == 0;
	pthread_attr_destroy(&attributes);
	if (!started)
	{
		free_lookup(lookup);
		return LOOKUP_FAILED;
	}
	running = lookup;
	return LOOKUP_RUNS;
}
