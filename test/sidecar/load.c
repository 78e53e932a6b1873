/*
 * load.c
 *		Keeps a number of CreateLease or RenewLease calls in flight over some
 *		connections, and prints what came of it.
 *
 *		load PORT create|renew|etcd-create|etcd-renew CONNECTIONS IN_FLIGHT SECONDS
 *
 * Prints "calls_per_second p50_ms p99_ms errors".  A renewal is of one of 1000
 * leases that are created first.  With 0 in flight the connections are opened
 * and held for the given time.  etcd-... are etcd's LeaseGrant and LeaseKeepAlive,
 * a stream for each beat, as its own client does for a single one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

#define LEASES 1000
#define MAX_SAMPLES 4000000

typedef struct Connection
{
	int			fd;
	nghttp2_session *session;
	int			in_flight;
} Connection;

typedef struct Request
{
	uint8_t		data[256];
	size_t		len,
				sent;
	int64_t		began;
	int			failed;
	uint8_t		answer[64];
	size_t		answered;
} Request;

static int	port;
static int	renewing;
static int	etcd;				/* the server is etcd, of which the ids of leases are chosen here */
static int	wanted;				/* in flight on each connection */
static int	epoll_fd;
static char leases[LEASES][40];
static int	lease_count;
static uint64_t serial;
static int	running = 1;
static float *samples;
static size_t sample_count;
static size_t errors;
static int	counting;

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
put_text(Request *request, int field, const char *text)
{
	size_t		len = strlen(text);

	request->data[request->len++] = (uint8_t) (field << 3 | 2);
	request->data[request->len++] = (uint8_t) len;
	memcpy(request->data + request->len, text, len);
	request->len += len;
}

static void
put_number(Request *request, int field, uint64_t number)
{
	request->data[request->len++] = (uint8_t) (field << 3);
	for (; number >= 0x80; number >>= 7)
		request->data[request->len++] = (uint8_t) (number | 0x80);
	request->data[request->len++] = (uint8_t) number;
}

static void
build(Request *request, int renew)
{
	char		name[64];
	uint64_t	first = (uint64_t) getpid() << 32;

	request->len = 5;
	if (etcd && renew)
		put_number(request, 1, first + serial++ % LEASES);
	else if (etcd)
	{
		put_number(request, 1, 3600);	/* s */
		put_number(request, 2, first + serial++);
	}
	else if (renew)
	{
		put_text(request, 1, leases[serial++ % LEASES]);
		put_text(request, 2, "load");
	}
	else
	{
		snprintf(name, sizeof(name), "load-%d-%llu", (int) getpid(), (unsigned long long) serial++);
		put_text(request, 1, name);
		put_text(request, 3, "load");
		put_number(request, 4, 3600);	/* s */
	}
	memset(request->data, 0, 5);
	request->data[4] = (uint8_t) (request->len - 5);
}

static ssize_t
read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t size,
		  uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	Request    *request = source->ptr;

	memcpy(buffer, request->data, request->len);
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t) request->len;
}

#define FIELD(name, value) {(uint8_t *) name, (uint8_t *) value, sizeof(name) - 1, sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE}

static void
submit(Connection *connection)
{
	static const char *const paths[] = {
		"/distributed_gc.DistributedGCService/CreateLease", "/distributed_gc.DistributedGCService/RenewLease",
		"/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseKeepAlive"
	};
	int			renew = renewing && lease_count == LEASES;
	nghttp2_nv	fields[] = {
		FIELD(":method", "POST"), FIELD(":scheme", "http"), FIELD(":path", ""), FIELD(":authority", "localhost"),
		FIELD("content-type", "application/grpc"), FIELD("te", "trailers")
	};
	Request    *request = calloc(1, sizeof(Request));
	nghttp2_data_provider provider = {.source.ptr = request, .read_callback = read_body};

	fields[2].value = (uint8_t *) paths[2 * etcd + renew];
	fields[2].valuelen = strlen(paths[2 * etcd + renew]);
	build(request, renew);
	request->began = now_us();
	nghttp2_submit_request(connection->session, NULL, fields, 6, &provider, request);
	connection->in_flight++;
}

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		  const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	Request    *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	if (request != NULL && name_len == 11 && memcmp(name, "grpc-status", 11) == 0 && (value_len != 1 || value[0] != '0'))
		request->failed = 1;
	if (request != NULL && request->failed && name_len == 12 && memcmp(name, "grpc-message", 12) == 0 && errors < 3)
		fprintf(stderr, "%.*s\n", (int) value_len, value);
	return 0;
}

static int
on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	Request    *request = nghttp2_session_get_stream_user_data(session, id);
	size_t		i;

	for (i = 0; request != NULL && i < len && request->answered < sizeof(request->answer); i++)
		request->answer[request->answered++] = data[i];
	return 0;
}

static int
on_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	Connection *connection = arg;
	Request    *request = nghttp2_session_get_stream_user_data(session, id);

	connection->in_flight--;
	if (code != 0 || request->failed || request->answered < 7)
		errors++;
	else
	{
		/* The id is the answer's first field, but for etcd. */
		if (renewing && lease_count < LEASES && etcd)
			lease_count++;
		else if (renewing && lease_count < LEASES && request->answered >= 43)
			memcpy(leases[lease_count++], request->answer + 7, 36);
		if (counting && sample_count < MAX_SAMPLES)
			samples[sample_count++] = (float) (now_us() - request->began);
	}
	free(request);
	if (running && !(errors > 1000))
		submit(connection);
	return 0;
}

static void
flush(Connection *connection)
{
	const uint8_t *data;
	ssize_t		n;
	static uint8_t buffer[1 << 20];
	size_t		len = 0;
	size_t		sent = 0;

	while (len < sizeof(buffer) - 70000 && (n = nghttp2_session_mem_send(connection->session, &data)) > 0)
	{
		memcpy(buffer + len, data, (size_t) n);
		len += (size_t) n;
	}
	while (sent < len)
	{
		n = send(connection->fd, buffer + sent, len - sent, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
		{
			perror("send");
			exit(1);
		}
		if (n > 0)
			sent += (size_t) n;
	}
}

static void
open_connection(Connection *connection)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
	struct epoll_event event = {.events = EPOLLIN};
	nghttp2_session_callbacks *callbacks;
	int			one = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	connection->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(connection->fd, (struct sockaddr *) &address, sizeof(address)) < 0)
	{
		perror("connect");
		exit(1);
	}
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	fcntl(connection->fd, F_SETFL, O_NONBLOCK);
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_client_new(&connection->session, callbacks, connection);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, NULL, 0);
	event.data.ptr = connection;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connection->fd, &event);
}

static void
turn(int wait_ms)
{
	static uint8_t buffer[65536];
	struct epoll_event events[64];
	int			n = epoll_wait(epoll_fd, events, 64, wait_ms);
	int			i;

	for (i = 0; i < n; i++)
	{
		Connection *connection = events[i].data.ptr;
		ssize_t		got = recv(connection->fd, buffer, sizeof(buffer), 0);

		if (got == 0 || (got < 0 && errno != EAGAIN))
		{
			fprintf(stderr, "the server closed a connection\n");
			exit(1);
		}
		if (got > 0)
			nghttp2_session_mem_recv(connection->session, buffer, (size_t) got);
		flush(connection);
	}
}

static int
compare(const void *a, const void *b)
{
	float		x = *(const float *) a;
	float		y = *(const float *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	Connection *connections;
	int			count;
	int			in_flight;
	double		seconds;
	int64_t		began;
	int64_t		end;
	int			i,
				j;

	if (argc != 6)
	{
		fprintf(stderr, "usage: load PORT create|renew|etcd-create|etcd-renew CONNECTIONS IN_FLIGHT SECONDS\n");
		return 2;
	}
	port = atoi(argv[1]);
	etcd = strncmp(argv[2], "etcd-", 5) == 0;
	renewing = strcmp(argv[2] + 5 * etcd, "renew") == 0;
	count = atoi(argv[3]);
	in_flight = atoi(argv[4]);
	seconds = atof(argv[5]);
	samples = malloc(MAX_SAMPLES * sizeof(float));
	connections = calloc((size_t) count, sizeof(Connection));
	epoll_fd = epoll_create1(0);
	for (i = 0; i < count; i++)
	{
		open_connection(&connections[i]);
		wanted = in_flight / count;
		for (j = 0; j < wanted; j++)
			submit(&connections[i]);
		flush(&connections[i]);
	}
	end = now_us() + 1000000;
	while (now_us() < end || (renewing && in_flight > 0 && lease_count < LEASES))
		turn(10);
	counting = 1;
	began = now_us();
	end = began + (int64_t) (seconds * 1e6);
	while (now_us() < end && errors <= 1000)
		turn(10);
	end = now_us();
	if (sample_count == 0)
	{
		printf("0 0 0 %zu\n", errors);
		return in_flight > 0;
	}
	qsort(samples, sample_count, sizeof(float), compare);
	printf("%.0f %.2f %.2f %zu\n", (double) sample_count * 1e6 / (double) (end - began),
		   samples[sample_count / 2] / 1000, samples[sample_count * 99 / 100] / 1000, errors);
	return 0;
}
