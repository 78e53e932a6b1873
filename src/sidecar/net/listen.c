/*
 * listen.c
 *		Listening sockets, and accepting connections on them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "net/net_internal.h"

#define BACKLOG 1024
#define ACCEPTS_PER_EVENT 64
#define ACCEPT_PAUSE_US 100000	/* after EMFILE and the like */
#define CONN_BYTES (8 * 1024)
#define TLS_CONN_BYTES (32 * 1024)

static void accept_some(void *arg, uint32_t events);

/* ---- accepting ---- */

static void
name_peer(Conn *conn, const struct sockaddr_storage *address)
{
	char		host[INET6_ADDRSTRLEN] = "";

	if (address->ss_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) address;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(conn->host, sizeof(conn->host), "%s", host);
		snprintf(conn->peer, sizeof(conn->peer), "%s:%d", host, ntohs(in->sin_port));
	}
	else if (address->ss_family == AF_INET6)
	{
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) address;

		struct in6_addr network = in6->sin6_addr;

		/* Who has one address has all of its network. */
		memset(network.s6_addr + 8, 0, 8);
		inet_ntop(AF_INET6, &network, conn->host, sizeof(conn->host));
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(conn->peer, sizeof(conn->peer), "[%s]:%d", host, ntohs(in6->sin6_port));
	}
	else
	{
		snprintf(conn->peer, sizeof(conn->peer), "unix");
		snprintf(conn->host, sizeof(conn->host), "unix");
	}
}

/* What a connection holds here, in the system's library and in that for TLS. */
static size_t
bytes_of(const Listener *listener)
{
	return listener->options.tls != NULL ? TLS_CONN_BYTES : CONN_BYTES;
}

static void
add_conn(Listener *listener, int fd, const struct sockaddr_storage *address, Party *party)
{
	Conn	   *conn = calloc(1, sizeof(Conn));
	int			one = 1;

	if (conn == NULL)
	{
		close(fd);
		return;
	}
	conn->listener = listener;
	conn->fd = fd;
	conn->events = EPOLLIN;
	name_peer(conn, address);
	if (address->ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (listener->options.tls != NULL)
		conn->ssl = tls_session(listener->options.tls, fd);
	conn->watch = loop_add(fd, EPOLLIN, conn_handle_events, conn);
	if (conn->watch == NULL || (listener->options.tls != NULL && conn->ssl == NULL))
	{
		loop_remove(conn->watch);
		SSL_free(conn->ssl);
		close(fd);
		free(conn);
		return;
	}
	conn->next = listener->first;
	if (conn->next != NULL)
		conn->next->prev = conn;
	else
		listener->last = conn;
	listener->first = conn;
	listener->connections++;
	if (party != NULL)
		party->connections++;
	conn->party = party_hold(party);
	conn->charged = bytes_of(listener);
	party_charge_beyond(party, conn->charged);
	if (conn->ssl != NULL)
		timer_start_patient(&conn->timer, listener->options.handshake_us, conn_close_now, conn);
	else
		conn_opened(conn);
}

static void
resume_accepting(void *arg)
{
	Listener   *listener = arg;
	int			i;

	for (i = 0; i < listener->count; i++)
	{
		if (!listener->stopped && listener->watches[i] == NULL)
			listener->watches[i] = loop_add(listener->fds[i], EPOLLIN, accept_some, listener);
		if (!listener->stopped && listener->watches[i] == NULL)
			timer_start(&listener->resume, ACCEPT_PAUSE_US, resume_accepting, listener);
	}
}

/*
 * Out of descriptors or memory: the connection stays in the backlog and the
 * listening socket stays readable, so look away for a while.
 */
static void
pause_accepting(Listener *listener)
{
	static LogSite site;
	int			i;

	log_limited(&site, LOG_WARNING, "could not accept a connection, waiting: %s", strerror(errno));
	for (i = 0; i < listener->count; i++)
	{
		loop_remove(listener->watches[i]);
		listener->watches[i] = NULL;
	}
	timer_start(&listener->resume, ACCEPT_PAUSE_US, resume_accepting, listener);
}

/* Close a connection that can be spared, the oldest of them, or of one party's; false: there is none. */
static bool
make_room(Listener *listener, const Party *party)
{
	Conn	   *conn;
	Conn	   *spared = NULL;

	if (listener->options.spare == NULL)
		return false;
	for (conn = listener->last; conn != NULL; conn = conn->prev)
	{
		int			spare = conn->state == CONN_CLOSED || (party != NULL && conn->party != party) ? 0 : listener->options.spare(conn);

		if (spare == 2 || (spare == 1 && spared == NULL))
			spared = conn;
		if (spare == 2)
			break;
	}
	if (spared == NULL)
		return false;
	conn_close(spared);
	return true;
}

/* Whoever has his share, of connections or of memory, makes room for himself. */
static bool
make_room_for(Listener *listener, const Party *party, int most)
{
	return (party_may_take(party->connections, listener->connections, most) && party_fits(party, bytes_of(listener))) ||
		make_room(listener, party);
}

static bool
has_place(Listener *listener, const Party *party)
{
	int			most = listener->options.max_connections;

	if (most == 0)
		return true;
	if (listener->connections >= most)
		return make_room(listener, NULL);
	return party == NULL || make_room_for(listener, party, most);
}

static bool
accept_one(Listener *listener, int listening)
{
	static LogSite site;
	struct sockaddr_storage address = {0};
	socklen_t	len = sizeof(address);
	Conn		name = {0};
	Party	   *party = NULL;
	int			fd = accept4(listening, (struct sockaddr *) &address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
	{
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accepting(listener);
		return errno == ECONNABORTED || errno == EINTR;
	}
	name_peer(&name, &address);
	if (listener->options.shared)
		party = party_of_peer(name.host);
	if (has_place(listener, party))
		add_conn(listener, fd, &address, party);
	else
	{
		log_limited(&site, LOG_WARNING, "refused a connection of %s: there are %d already, %d of them from there (--max-connections%s)",
					name.host, listener->connections, party != NULL ? (int) party->connections : 0,
					party_fits(party, bytes_of(listener)) ? "" : "; what one address may have in memory is used up");
		close(fd);
	}
	party_release(party);
	return true;
}

static void
accept_some(void *arg, uint32_t events)
{
	Listener   *listener = arg;
	int			i,
				n;

	for (i = 0; i < listener->count; i++)
	{
		for (n = 0; n < ACCEPTS_PER_EVENT && listener->watches[i] != NULL; n++)
		{
			if (!accept_one(listener, listener->fds[i]))
				break;
		}
	}
}

/* ---- listening ---- */

/* Split "host:port"; host "" is all interfaces. */
static bool
split_address(const char *address, char *host, size_t host_size, const char **port)
{
	const char *colon = strrchr(address, ':');
	size_t		len;

	/* getaddrinfo() would take any number, and cut it. */
	if (colon == NULL || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
		strtol(colon + 1, NULL, 10) > 65535)
		return false;
	*port = colon + 1;
	len = (size_t) (colon - address);
	if (len >= 2 && address[0] == '[' && address[len - 1] == ']')
	{
		address++;
		len -= 2;
	}
	else if (memchr(address, ':', len) != NULL)
		return false;
	if (len >= host_size)
		return false;
	memcpy(host, address, len);
	host[len] = '\0';
	return true;
}

static struct addrinfo *
resolve(const char *address)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *found = NULL;
	char		host[256];
	const char *port;

	if (!split_address(address, host, sizeof(host), &port) ||
		getaddrinfo(host[0] != '\0' && strcmp(host, "*") != 0 ? host : NULL, port, &hints, &found) != 0)
		return NULL;
	return found;
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24) == 127;
	if (address->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
	return false;
}

bool
net_is_address(const char *address)
{
	char		host[256];
	const char *port;

	return strncmp(address, "unix:", 5) == 0 || split_address(address, host, sizeof(host), &port);
}

bool
net_is_loopback(const char *address)
{
	struct addrinfo *found,
			   *each;
	bool		loopback = true;

	if (strncmp(address, "unix:", 5) == 0)
		return true;
	found = resolve(address);
	if (found == NULL)
		return false;
	for (each = found; each != NULL; each = each->ai_next)
		loopback = loopback && is_loopback(each->ai_addr);
	freeaddrinfo(found);
	return loopback;
}

const char *
listener_address(const Listener *listener)
{
	return listener->address;
}

int
listener_connections(const Listener *listener)
{
	return listener->connections;
}

static bool
listen_on(Listener *listener, const struct sockaddr *address, socklen_t len)
{
	int			fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	LoopFd	   *watch = NULL;
	int			one = 1;

	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, address, len) < 0 || listen(fd, BACKLOG) < 0 ||
		(watch = loop_add(fd, EPOLLIN, accept_some, listener)) == NULL)
	{
		int			saved = errno;

		close(fd);
		errno = saved;
		return false;
	}
	listener->fds[listener->count] = fd;
	listener->watches[listener->count] = watch;
	listener->count++;
	return true;
}

/* Does somebody listen there, though he may be busy? */
static bool
is_served(const struct sockaddr_un *address)
{
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool		served;

	if (fd < 0)
		return true;
	served = connect(fd, (const struct sockaddr *) address, sizeof(*address)) == 0 || errno != ECONNREFUSED;
	close(fd);
	return served;
}

static bool
listen_unix(Listener *listener, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;

	if (strlen(path) >= sizeof(address.sun_path))
	{
		errno = ENAMETOOLONG;
		return false;
	}
	strcpy(address.sun_path, path);
	/* A socket that nobody listens on any more is left by a crash. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
	{
		if (is_served(&address))
		{
			errno = EADDRINUSE;
			return false;
		}
		unlink(path);
	}
	strcpy(listener->unix_path, path);
	snprintf(listener->address, sizeof(listener->address), "unix:%s", path);
	return listen_on(listener, (struct sockaddr *) &address, sizeof(address));
}

static void
name_listener(Listener *listener)
{
	Conn		name = {0};
	struct sockaddr_storage address = {0};
	socklen_t	len = sizeof(address);

	if (listener->unix_path[0] != '\0' || getsockname(listener->fds[0], (struct sockaddr *) &address, &len) < 0)
		return;
	name_peer(&name, &address);
	snprintf(listener->address, sizeof(listener->address), "%s", name.peer);
}

static bool
listen_inet(Listener *listener, const char *address, const char **why)
{
	struct addrinfo *found = resolve(address);
	struct addrinfo *each;
	int			saved = EINVAL;

	if (found == NULL)
	{
		*why = "no such address; write HOST:PORT, [V6]:PORT, :PORT or unix:/PATH";
		return false;
	}
	for (each = found; each != NULL && listener->count < MAX_ADDRESSES; each = each->ai_next)
	{
		if (!listen_on(listener, each->ai_addr, each->ai_addrlen))
			saved = errno;
	}
	freeaddrinfo(found);
	errno = saved;
	return listener->count > 0;
}

Listener *
net_listen(const char *address, const ListenOptions *options, char *error, size_t error_size)
{
	Listener   *listener = calloc(1, sizeof(Listener));
	const char *why = NULL;
	bool		ok;

	if (listener == NULL)
	{
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	listener->options = *options;
	if (strncmp(address, "unix:", 5) == 0)
		ok = listen_unix(listener, address + 5);
	else
		ok = listen_inet(listener, address, &why);
	if (!ok)
	{
		snprintf(error, error_size, "could not listen on %s: %s", address, why != NULL ? why : strerror(errno));
		free(listener);
		return NULL;
	}
	name_listener(listener);
	return listener;
}

void
listener_stop(Listener *listener)
{
	int			i,
				n;

	/* First, while nobody else can have taken the path. */
	if (listener->unix_path[0] != '\0' && listener->count > 0)
		unlink(listener->unix_path);
	/* Who has come already would be reset, and may have sent a call. */
	for (i = 0; i < listener->count; i++)
	{
		for (n = 0; n < BACKLOG && accept_one(listener, listener->fds[i]); n++)
			;
	}
	listener->stopped = true;
	timer_stop(&listener->resume);
	for (i = 0; i < listener->count; i++)
	{
		loop_remove(listener->watches[i]);
		listener->watches[i] = NULL;
		close(listener->fds[i]);
	}
	listener->count = 0;
}

bool
conn_is_late(const Conn *conn)
{
	return conn->listener->stopped;
}

void
listener_each(Listener *listener, void (*visit) (Conn *conn, void *arg), void *arg)
{
	Conn	   *conn;
	Conn	   *next;

	for (conn = listener->first; conn != NULL; conn = next)
	{
		next = conn->next;
		if (conn->state == CONN_OPEN)
			visit(conn, arg);
	}
}
