/*
 * names.c
 *		Preloaded by the tests: host names under .test resolve as the tests need, and
 *		while the file NO_PORTS is there, no local port is free for a connection.
 *
 * "turn.test" gives another address each time it is asked, as somebody would
 * who hopes that the one that is judged is not the one that is connected to.
 */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const names[][2] = {
	{"good.test", "127.0.0.1"},
	{"loopback.test", "127.0.0.1"},
	{"mapped.test", "::ffff:127.0.0.1"},
	{"loopback6.test", "::1"},
	{"metadata.test", "169.254.169.254"},
	{"linklocal.test", "fe80::1"},
	{"any.test", "0.0.0.0"},
};

static atomic_int turn;

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **);
	size_t		i;

	real = (int (*) (const char *, const char *, const struct addrinfo *, struct addrinfo **)) dlsym(RTLD_NEXT, "getaddrinfo");
	if (name != NULL && strcmp(name, "hang.test") == 0)
	{
		sleep(600);
		return EAI_AGAIN;
	}
	if (name != NULL && strcmp(name, "turn.test") == 0)
		name = turn++ % 2 == 0 ? "192.0.2.1" : "127.0.0.1";
	for (i = 0; name != NULL && i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i][0]) == 0)
			return real(names[i][1], service, hints, result);
	}
	return real(name, service, hints, result);
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
	int			(*real) (int, const struct sockaddr *, socklen_t) = (int (*) (int, const struct sockaddr *, socklen_t)) dlsym(RTLD_NEXT, "connect");
	const char *flag = getenv("NO_PORTS");

	if (flag != NULL && address->sa_family == AF_INET && access(flag, F_OK) == 0)
	{
		errno = EADDRNOTAVAIL;
		return -1;
	}
	return real(fd, address, len);
}
