/*
 * net.c
 *		Listeners and connections on the loop.
 *
 * What is written in one turn of the loop is gathered and leaves with one
 * system call at its end.  A connection that is closed is freed by a task of
 * the same turn, so that its handlers may close it whenever they like.
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

#include "log.h"
#include "net.h"
#include <openssl/err.h>

#include "tls.h"

#define MAX_ADDRESSES 8
#define READ_SIZE (64 * 1024)
#define READS_PER_EVENT 4
#define ACCEPTS_PER_EVENT 64
#define ACCEPT_PAUSE_US 100000	/* after EMFILE and the like */
#define FINISH_US 10000000
#define LINGER_US 1000000		/* for the peer to close, once all is sent */

struct Listener
{
	ListenOptions options;
	int			fds[MAX_ADDRESSES];
	LoopFd	   *watches[MAX_ADDRESSES];
	int			count;
	int			connections;
	Conn	   *first;			/* list of connections */
	LoopTimer	resume;			/* accepting is paused while this runs */
	bool		stopped;
	char		address[128];
	char		unix_path[108];
};

typedef enum ConnState
{
	CONN_HANDSHAKE, CONN_OPEN, CONN_FINISHING, CONN_CLOSED
} ConnState;

struct Conn
{
	Listener   *listener;
	Conn	   *next,
			   *prev;
	int			fd;
	LoopFd	   *watch;
	uint32_t	events;			/* that are being watched */
	ConnState	state;
	bool		opened;
	bool		paused;
	bool		write_blocked;
	SSL		   *ssl;
	char	   *out;			/* written, from out_start, not sent */
	size_t		out_start,
				out_len,
				out_size;
	bool		was_full;
	LoopTask	flush;
	LoopTask	destroy;
	LoopTimer	timer;			/* of the handshake, or of finishing */
	void	   *data;
	char	   *certificate_name;
	char		peer[INET6_ADDRSTRLEN + 8];
};

static uint8_t read_buffer[READ_SIZE];

static void handle_events(void *arg, uint32_t events);
static void accept_some(void *arg, uint32_t events);

/* ---- connections ---- */

void *
conn_data(const Conn *conn)
{
	return conn->data;
}

void
conn_set_data(Conn *conn, void *data)
{
	conn->data = data;
}

const char *
conn_peer(const Conn *conn)
{
	return conn->peer;
}

const char *
conn_certificate_name(const Conn *conn)
{
	return conn->certificate_name;
}

size_t
conn_pending(const Conn *conn)
{
	return conn->out_len - conn->out_start;
}

static void
destroy_conn(void *arg)
{
	Conn	   *conn = arg;
	Listener   *listener = conn->listener;

	if (conn->opened && listener->options.handlers->closed != NULL)
		listener->options.handlers->closed(conn);
	timer_stop(&conn->timer);
	task_cancel(&conn->flush);
	loop_remove(conn->watch);
	if (conn->ssl != NULL)
	{
		if (SSL_is_init_finished(conn->ssl))
			SSL_shutdown(conn->ssl);
		ERR_clear_error();
		SSL_free(conn->ssl);
	}
	close(conn->fd);
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		listener->first = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	listener->connections--;
	free(conn->out);
	free(conn->certificate_name);
	free(conn);
}

void
conn_close(Conn *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	conn->state = CONN_CLOSED;
	task_defer(&conn->destroy, destroy_conn, conn);
}

static void
close_conn_now(void *arg)
{
	conn_close(arg);
}

static void
set_events(Conn *conn, uint32_t events)
{
	if (conn->events == events)
		return;
	conn->events = events;
	loop_modify(conn->watch, events);
}

static void
update_events(Conn *conn)
{
	set_events(conn, (conn->paused ? 0 : EPOLLIN) | (conn->write_blocked ? EPOLLOUT : 0));
}

/* Send; -1: failed, 0: would block, else the bytes taken. */
static ssize_t
send_bytes(Conn *conn, const char *data, size_t len)
{
	ssize_t		n;

	if (conn->ssl != NULL)
	{
		int			result;

		ERR_clear_error();
		result = SSL_write(conn->ssl, data, len > (1 << 20) ? 1 << 20 : (int) len);
		if (result > 0)
			return result;
		result = SSL_get_error(conn->ssl, result);
		return result == SSL_ERROR_WANT_WRITE || result == SSL_ERROR_WANT_READ ? 0 : -1;
	}
	n = send(conn->fd, data, len, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
	return n;
}

static void
flush_conn(void *arg)
{
	Conn	   *conn = arg;

	if (conn->state == CONN_CLOSED || conn->state == CONN_HANDSHAKE)
		return;
	conn->write_blocked = false;
	while (conn->out_start < conn->out_len)
	{
		ssize_t		n = send_bytes(conn, conn->out + conn->out_start, conn->out_len - conn->out_start);

		if (n < 0)
		{
			conn_close(conn);
			return;
		}
		if (n == 0)
		{
			conn->write_blocked = true;
			break;
		}
		conn->out_start += (size_t) n;
	}
	if (conn->out_start == conn->out_len)
	{
		conn->out_start = conn->out_len = 0;
		/* An idle connection holds no buffer. */
		free(conn->out);
		conn->out = NULL;
		conn->out_size = 0;
		if (conn->state == CONN_FINISHING)
		{
			/*
			 * Closing with unread input would make the kernel reset the
			 * connection, and what was sent last might never be read.
			 */
			if (conn->ssl != NULL)
				SSL_shutdown(conn->ssl);
			shutdown(conn->fd, SHUT_WR);
			conn->paused = false;
			timer_start(&conn->timer, LINGER_US, close_conn_now, conn);
		}
	}
	update_events(conn);
	if (conn->was_full && conn_pending(conn) < CONN_LOW_WATER)
	{
		conn->was_full = false;
		if (conn->listener->options.handlers->drained != NULL)
			conn->listener->options.handlers->drained(conn);
	}
}

static bool
make_room(Conn *conn, size_t len)
{
	size_t		size;
	char	   *grown;

	if (conn->out_len + len <= conn->out_size)
		return true;
	if (conn->out_start > 0)
	{
		memmove(conn->out, conn->out + conn->out_start, conn->out_len - conn->out_start);
		conn->out_len -= conn->out_start;
		conn->out_start = 0;
	}
	size = conn->out_size == 0 ? 4096 : conn->out_size;
	while (size < conn->out_len + len)
		size *= 2;
	grown = realloc(conn->out, size);
	if (grown == NULL)
		return false;
	conn->out = grown;
	conn->out_size = size;
	return true;
}

void
conn_write(Conn *conn, const void *data, size_t len)
{
	if (conn->state != CONN_OPEN || len == 0)
		return;
	if (!make_room(conn, len))
	{
		conn_close(conn);
		return;
	}
	memcpy(conn->out + conn->out_len, data, len);
	conn->out_len += len;
	if (conn_pending(conn) >= CONN_LOW_WATER)
		conn->was_full = true;
	if (!conn->write_blocked)
		task_defer(&conn->flush, flush_conn, conn);
}

void
conn_finish(Conn *conn)
{
	if (conn->state == CONN_HANDSHAKE)
		conn_close(conn);
	if (conn->state != CONN_OPEN)
		return;
	conn->state = CONN_FINISHING;
	timer_start(&conn->timer, FINISH_US, close_conn_now, conn);
	task_defer(&conn->flush, flush_conn, conn);
}

void
conn_pause(Conn *conn, bool paused)
{
	if (conn->state == CONN_CLOSED)
		return;
	conn->paused = paused;
	update_events(conn);
}

static void
open_conn(Conn *conn)
{
	conn->state = CONN_OPEN;
	conn->opened = true;
	timer_stop(&conn->timer);
	conn->listener->options.handlers->opened(conn);
}

/* Go on with the TLS handshake. */
static void
shake_hands(Conn *conn)
{
	static LogSite site;
	char		reason[256];
	int			result;

	ERR_clear_error();
	result = SSL_do_handshake(conn->ssl);
	if (result == 1)
	{
		if (!tls_protocol_fits(conn->listener->options.tls, conn->ssl))
		{
			log_limited(&site, LOG_INFO, "%s did not offer the protocol h2 (ALPN)", conn->peer);
			conn_close(conn);
			return;
		}
		conn->certificate_name = tls_peer_name(conn->ssl);
		set_events(conn, EPOLLIN);
		open_conn(conn);
		return;
	}
	result = SSL_get_error(conn->ssl, result);
	if (result == SSL_ERROR_WANT_READ)
		set_events(conn, EPOLLIN);
	else if (result == SSL_ERROR_WANT_WRITE)
		set_events(conn, EPOLLOUT);
	else
	{
		log_limited(&site, LOG_INFO, "TLS handshake with %s failed: %s", conn->peer, tls_error(reason, sizeof(reason)));
		conn_close(conn);
	}
}

/* Read once: bytes, 0 at the end of file, -1 would block, -2 failed. */
static ssize_t
receive_bytes(Conn *conn)
{
	ssize_t		n;

	if (conn->ssl != NULL)
	{
		ERR_clear_error();
		n = SSL_read(conn->ssl, read_buffer, READ_SIZE);
		if (n > 0)
			return n;
		switch (SSL_get_error(conn->ssl, (int) n))
		{
			case SSL_ERROR_WANT_READ:
			case SSL_ERROR_WANT_WRITE:
				return -1;
			case SSL_ERROR_ZERO_RETURN:
				return 0;
			default:
				return -2;
		}
	}
	n = recv(conn->fd, read_buffer, READ_SIZE, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
	return n;
}

static void
receive(Conn *conn)
{
	const ConnHandlers *handlers = conn->listener->options.handlers;
	int			i;

	for (i = 0; (i < READS_PER_EVENT || (conn->ssl != NULL && SSL_pending(conn->ssl) > 0)) &&
		 conn->state != CONN_CLOSED && !conn->paused; i++)
	{
		ssize_t		n = receive_bytes(conn);

		if (n == -1)
			return;
		if (n == -2)
		{
			conn_close(conn);
			return;
		}
		if (n == 0)
		{
			if (conn->state == CONN_OPEN && handlers->ended != NULL)
			{
				/* Nothing more to read, and level-triggered: look away. */
				conn->paused = true;
				update_events(conn);
				handlers->ended(conn);
			}
			else
				conn_close(conn);
			return;
		}
		if (conn->state == CONN_OPEN)
			handlers->received(conn, read_buffer, (size_t) n);
		if (conn->ssl == NULL && n < READ_SIZE)
			return;
	}
}

static void
handle_events(void *arg, uint32_t events)
{
	Conn	   *conn = arg;

	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state == CONN_HANDSHAKE)
	{
		shake_hands(conn);
		if (conn->state != CONN_OPEN)
			return;
		receive(conn);
		return;
	}
	if (events & EPOLLOUT)
		flush_conn(conn);
	if (conn->state != CONN_CLOSED && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
	{
		if (conn->paused && (events & (EPOLLHUP | EPOLLERR)))
			conn_close(conn);
		else
			receive(conn);
	}
}

/* ---- accepting ---- */

static void
name_peer(Conn *conn, const struct sockaddr_storage *address)
{
	char		host[INET6_ADDRSTRLEN] = "";

	if (address->ss_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) address;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(conn->peer, sizeof(conn->peer), "%s:%d", host, ntohs(in->sin_port));
	}
	else if (address->ss_family == AF_INET6)
	{
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) address;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(conn->peer, sizeof(conn->peer), "[%s]:%d", host, ntohs(in6->sin6_port));
	}
	else
		snprintf(conn->peer, sizeof(conn->peer), "unix");
}

static void
add_conn(Listener *listener, int fd, const struct sockaddr_storage *address)
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
	conn->watch = loop_add(fd, EPOLLIN, handle_events, conn);
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
	listener->first = conn;
	listener->connections++;
	if (conn->ssl != NULL)
		timer_start(&conn->timer, listener->options.handshake_us, close_conn_now, conn);
	else
		open_conn(conn);
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

static bool
accept_one(Listener *listener, int listening)
{
	static LogSite site;
	struct sockaddr_storage address = {0};
	socklen_t	len = sizeof(address);
	int			fd = accept4(listening, (struct sockaddr *) &address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
	{
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accepting(listener);
		return errno == ECONNABORTED || errno == EINTR;
	}
	if (listener->options.max_connections > 0 && listener->connections >= listener->options.max_connections)
	{
		log_limited(&site, LOG_WARNING, "refused a connection: there are %d already (--max-connections)",
					listener->connections);
		close(fd);
		return true;
	}
	add_conn(listener, fd, &address);
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

	if (colon == NULL || colon[1] == '\0')
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
	int			one = 1;

	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, address, len) < 0 || listen(fd, 1024) < 0)
	{
		int			saved = errno;

		close(fd);
		errno = saved;
		return false;
	}
	listener->fds[listener->count] = fd;
	listener->watches[listener->count] = loop_add(fd, EPOLLIN, accept_some, listener);
	listener->count++;
	return true;
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
		unlink(path);
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
	int			i;

	listener->stopped = true;
	timer_stop(&listener->resume);
	for (i = 0; i < listener->count; i++)
	{
		loop_remove(listener->watches[i]);
		listener->watches[i] = NULL;
		close(listener->fds[i]);
	}
	listener->count = 0;
	if (listener->unix_path[0] != '\0')
		unlink(listener->unix_path);
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
