/*
 * net.c
 *		Connections on the loop, with or without TLS.
 *
 * What is written in one turn of the loop is gathered and leaves with one
 * system call at its end.  A connection that is closed is freed by a task of
 * the same turn, so that its handlers may close it whenever they like.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/log.h"
#include "net/net_internal.h"

#define READ_SIZE (64 * 1024)
#define FIRST_READ (4 * 1024)
#define READ_US 500				/* for one connection in a turn */
#define HEAVY_US 5000			/* of processor time for what was read in one turn */
#define REST_TIMES 2
#define REST_MOST_US 1000000
#define FINISH_US 10000000
#define LINGER_US 1000000		/* for the peer to close, once all is sent */

static uint8_t read_buffer[READ_SIZE];

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
conn_host(const Conn *conn)
{
	return conn->host;
}

const char *
conn_certificate_name(const Conn *conn)
{
	return conn->certificate_name;
}

bool
conn_is_foreign(const Conn *conn)
{
	return conn->foreign;
}

bool
conn_is_trusted(const Conn *conn)
{
	return conn->ssl == NULL || tls_peer_trusted(conn->listener->options.tls, conn->ssl);
}

size_t
conn_pending(const Conn *conn)
{
	return conn->out_len - conn->out_start;
}

/* It is read again as soon as somebody asks for its events. */
static void
end_rest(Conn *conn)
{
	timer_stop(&conn->rest);
	if (conn->resting && conn->party != NULL)
		conn->party->resting--;
	conn->resting = false;
}

static void
destroy_conn(void *arg)
{
	Conn	   *conn = arg;
	Listener   *listener = conn->listener;

	if (conn->opened && listener->options.handlers->closed != NULL)
		listener->options.handlers->closed(conn);
	timer_stop(&conn->timer);
	end_rest(conn);
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
	else
		listener->last = conn->prev;
	listener->connections--;
	if (conn->party != NULL)
		conn->party->connections--;
	party_give_back(conn->party, conn->charged);
	party_release(conn->party);
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

void
conn_close_now(void *arg)
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
	set_events(conn, (conn->paused || conn->resting ? 0 : EPOLLIN) | (conn->write_blocked ? EPOLLOUT : 0));
}

static void
rested(void *arg)
{
	Conn	   *conn = arg;

	end_rest(conn);
	if (conn->state != CONN_CLOSED)
		update_events(conn);
}

/*
 * Few bytes may take long: compressed ones that stand for a thousand times as
 * many.  Then others are read meanwhile; the longer, the more connections of the
 * same party do so.
 */
static void
rest(Conn *conn, int64_t used_us)
{
	int64_t		times = REST_TIMES;

	if (used_us < HEAVY_US || conn->state != CONN_OPEN || conn->resting || conn->listener->connections <= 1)
		return;
	if (conn->party != NULL)
		times *= ++conn->party->resting;
	conn->resting = true;
	timer_start(&conn->rest, used_us * times < REST_MOST_US ? used_us * times : REST_MOST_US, rested, conn);
	update_events(conn);
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
			timer_start(&conn->timer, LINGER_US, conn_close_now, conn);
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
	timer_start_patient(&conn->timer, FINISH_US, conn_close_now, conn);
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

void
conn_opened(Conn *conn)
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
		conn->foreign = !tls_protocol_fits(conn->listener->options.tls, conn->ssl);
		if (conn->foreign)
			log_limited(&site, LOG_INFO, "%s did not offer the protocol h2 (ALPN)", conn->peer);
		/* A connection that is nobody's for good would be of no use, and clients keep theirs long. */
		if (!tls_peer_name(conn->ssl, &conn->certificate_name))
		{
			log_limited(&site, LOG_INFO, "the names in the certificate of %s could not be read", conn->peer);
			conn_close(conn);
			return;
		}
		set_events(conn, EPOLLIN);
		conn_opened(conn);
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

/* Read once, at most so much: bytes, 0 at the end of file, -1 would block, -2 failed. */
static ssize_t
receive_bytes(Conn *conn, size_t size)
{
	ssize_t		n;

	if (conn->ssl != NULL)
	{
		ERR_clear_error();
		n = SSL_read(conn->ssl, read_buffer, (int) size);
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
	n = recv(conn->fd, read_buffer, size, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
	return n;
}

/*
 * As much as others can wait for: small frames take long for their bytes, so
 * it begins with few, and more are read at once while they take little time.
 */
static void
receive_some(Conn *conn)
{
	const ConnHandlers *handlers = conn->listener->options.handlers;
	int64_t		until = loop_clock() + READ_US;
	size_t		size;

	for (size = FIRST_READ; (size == FIRST_READ || loop_clock() < until || (conn->ssl != NULL && SSL_pending(conn->ssl) > 0)) &&
		 conn->state != CONN_CLOSED && !conn->paused; size = size < READ_SIZE ? 2 * size : READ_SIZE)
	{
		ssize_t		n = receive_bytes(conn, size);

		if (n == -1)
			return;
		if (n == -2)
		{
			conn_close(conn);
			return;
		}
		if (n == 0)
		{
			/* It has said all, and may still read what we have. */
			if (conn->state == CONN_FINISHING && conn_pending(conn) > 0)
			{
				conn->paused = true;
				update_events(conn);
			}
			else if (conn->state == CONN_OPEN && handlers->ended != NULL)
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
		if (conn->ssl == NULL && (size_t) n < size)
			return;
	}
}

static int64_t
processor_us(void)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return (int64_t) used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void
receive(Conn *conn)
{
	int64_t		before = processor_us();

	receive_some(conn);
	rest(conn, processor_us() - before);
}

void
conn_handle_events(void *arg, uint32_t events)
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
