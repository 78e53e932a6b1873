/*
 * http2_session.c
 *		HTTP/2 server sessions from their first byte to their last.
 *
 * nghttp2 does the protocol; in the files http2*.c are the streams' buffers and
 * what servers must decide: how often a client may ping, how many streams it
 * may open, how long a connection lives, and how it ends without losing a call.
 */
#include <stdlib.h>
#include <string.h>

#include "http2/http2_internal.h"

#define STREAM_WINDOW (256 * 1024)
#define SESSION_WINDOW (4 * 1024 * 1024)
#define DRAIN_PING_US 1000000
#define AGED_PING_US 3000000
#define PING_BYTES 8
#define PREFACE_US 10000000
#define SESSION_FIRST_BYTES (8 * 1024)

int64_t		http2_max_streams;
int64_t		http2_max_calls;
int64_t		http2_keepalive_min_us;
static int64_t keepalive_time_us;
static int64_t keepalive_timeout_us;
static int64_t max_age_us;
static int64_t max_age_grace_us;

const Option http2_options[] =
{
	{"max-streams", OPTION_NUMBER, &http2_max_streams, "1000", "N", "calls at once over one connection; more are refused, which clients repeat", 1, 1000000},
	{"max-calls", OPTION_NUMBER, &http2_max_calls, "20000", "N", "calls at once over all connections; more are refused, which clients repeat", 1, 10000000},
	{"keepalive-min", OPTION_DURATION, &http2_keepalive_min_us, "10s", "D", "clients that ping more often are told to calm down, and disconnected", 0, INT64_MAX},
	{"keepalive-time", OPTION_DURATION, &keepalive_time_us, "2h", "D", "ping a client that has been silent for so long", 1000, INT64_MAX},
	{"keepalive-timeout", OPTION_DURATION, &keepalive_timeout_us, "20s", "D", "disconnect it when it does not answer that in time", 1000, INT64_MAX},
	{"max-connection-age", OPTION_DURATION, &max_age_us, "0", "D", "have clients connect anew after so long, give or take a tenth; 0: never", 0, INT64_MAX},
	{"max-connection-age-grace", OPTION_DURATION, &max_age_grace_us, "1m", "D", "how long calls may go on after that", 0, INT64_MAX},
	OPTION_END
};

static Metric sessions_opened = {"connections_total", METRIC_COUNTER, "gRPC connections accepted."};
static Metric sessions_open = {"connections", METRIC_GAUGE, "gRPC connections open now."};
Metric		http2_streams_open = {"streams", METRIC_GAUGE, "gRPC calls in progress."};
Metric		http2_streams_refused = {"refused_streams_total", METRIC_COUNTER, "Calls refused because there were too many."};
Metric		http2_too_many_pings = {"too_many_pings_total", METRIC_COUNTER, "Connections closed because the client pinged too often."};

static const uint8_t keepalive_ping[PING_BYTES + 1] = "keepaliv";
static const uint8_t drain_ping[PING_BYTES + 1] = "goneaway";

const Http2Handlers *http2_handlers;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *session_option;
static nghttp2_option *unix_option;

void
http2_register_metrics(void)
{
	metric_register(&sessions_opened);
	metric_register(&sessions_open);
	metric_register(&http2_streams_open);
	metric_register(&http2_streams_refused);
	metric_register(&http2_too_many_pings);
}

/* ---- the life of a session ---- */

static void
keep_alive(void *arg)
{
	Http2	   *session = arg;
	int64_t		silent = loop_now() - session->last_received_us;

	if (!session->started || (session->ping_sent && silent >= keepalive_timeout_us))
	{
		conn_close(session->conn);
		return;
	}
	if (!session->ping_sent && silent >= keepalive_time_us)
	{
		session->ping_sent = true;
		session_submitted(session, nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, keepalive_ping));
		session_send_soon(session);
		timer_start_patient(&session->timer, keepalive_timeout_us, keep_alive, session);
		return;
	}
	session->ping_sent = false;
	timer_start(&session->timer, keepalive_time_us - silent, keep_alive, session);
}

static void
close_session(void *arg)
{
	Http2	   *session = arg;

	conn_close(session->conn);
}

/* Second step: by now the client knows, and opens no more streams; from now on none is taken. */
static void
finish_draining(void *arg)
{
	Http2	   *session = arg;
	Http2Stream *stream;
	Http2Stream *next;

	timer_stop(&session->drain);
	session->drain_step = 2;
	session_submitted(session, nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
													 nghttp2_session_get_last_proc_stream_id(session->nghttp2), NGHTTP2_NO_ERROR, NULL, 0));
	for (stream = session->streams; stream != NULL; stream = next)
	{
		next = stream->next;
		if (stream->told)
			http2_handlers->draining(stream);
	}
	session_send_soon(session);
}

void
session_ping_answered(Http2 *session, const uint8_t *ping)
{
	session->ping_sent = false;
	/* An answer to another one may have left before the client has heard of this. */
	if (session->drain_step == 1 && memcmp(ping, drain_ping, PING_BYTES) == 0)
		finish_draining(session);
}

/* First step: what the client has sent before it knows is served; who does not answer in time knows all the same. */
static void
begin_draining(Http2 *session, int64_t patience_us)
{
	if (session->drain_step > 0)
		return;
	session->drain_step = 1;
	session_submitted(session, nghttp2_submit_shutdown_notice(session->nghttp2));
	session_submitted(session, nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, drain_ping));
	timer_start(&session->drain, patience_us, finish_draining, session);
	session_send_soon(session);
}

void
http2_drain(Http2 *session)
{
	begin_draining(session, DRAIN_PING_US);
}

static void
reached_max_age(void *arg)
{
	Http2	   *session = arg;

	/* There is no hurry. */
	begin_draining(session, max_age_grace_us / 2 < AGED_PING_US ? max_age_grace_us / 2 : AGED_PING_US);
	timer_start(&session->age, max_age_grace_us, close_session, session);
}

static bool
init_nghttp2(void)
{
	if (callbacks != NULL)
		return true;
	if (nghttp2_option_new(&session_option) != 0)
		return false;
	if (nghttp2_option_new(&unix_option) != 0)
	{
		nghttp2_option_del(session_option);
		return false;
	}
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
	{
		nghttp2_option_del(session_option);
		nghttp2_option_del(unix_option);
		return false;
	}
	receive_callbacks(callbacks);
	/* The standard limit (33 a second) ends honest clients that cancel a lot. */
	nghttp2_option_set_stream_reset_rate_limit(session_option, 10000, 1000);
	nghttp2_option_set_no_closed_streams(session_option, 1);
	nghttp2_option_set_stream_reset_rate_limit(unix_option, 10000, 1000);
	nghttp2_option_set_no_closed_streams(unix_option, 1);
	/* Some clients say the path of the socket for an authority, which is none; the calls' fields we check ourselves. */
	nghttp2_option_set_no_http_messaging(unix_option, 1);
	return true;
}

static void
forget_peer(Http2 *session)
{
	if (session->peer == NULL)
		return;
	party_give_back(session->peer, session->charged);
	party_release(session->peer);
}

static void
opened(Conn *conn)
{
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, INT32_MAX},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES}
	};
	Http2	   *session = calloc(1, sizeof(Http2));

	if (session != NULL)
	{
		session->peer = party_of_peer(conn_host(conn));
		session->unchecked = strcmp(conn_host(conn), "unix") == 0;
	}
	if (session == NULL || session->peer == NULL || !party_recharge(session->peer, &session->charged, SESSION_FIRST_BYTES) ||
		!init_nghttp2() || nghttp2_session_server_new2(&session->nghttp2, callbacks, session,
											session->unchecked ? unix_option : session_option) != 0)
	{
		if (session != NULL)
			forget_peer(session);
		free(session);
		conn_close(conn);
		return;
	}
	session->conn = conn;
	session->named = conn_certificate_name(conn) != NULL;
	session->skip = PREFACE;
	conn_set_data(conn, session);
	session_submitted(session, nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0])));
	session_submitted(session, nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, 0, SESSION_WINDOW));
	timer_start_patient(&session->timer, PREFACE_US, keep_alive, session);
	if (max_age_us > 0)
		timer_start(&session->age, max_age_us - max_age_us / 10 + random() % (max_age_us / 5 + 1), reached_max_age, session);
	metric_add(&sessions_opened, 1);
	metric_add(&sessions_open, 1);
	/* Our first word follows the client's: it may speak another language. */
	if (conn_is_late(conn))
		http2_drain(session);
}

static void
drained(Conn *conn)
{
	if (conn_data(conn) != NULL)
		session_send_soon(conn_data(conn));
}

static void
closed(Conn *conn)
{
	Http2	   *session = conn_data(conn);

	if (session == NULL)
		return;
	while (session->streams != NULL)
		stream_remove(session->streams, false);
	timer_stop(&session->timer);
	timer_stop(&session->age);
	timer_stop(&session->drain);
	timer_stop(&session->reap);
	timer_stop(&session->stalled);
	task_cancel(&session->flush);
	forget_peer(session);
	nghttp2_session_del(session->nghttp2);
	metric_add(&sessions_open, -1);
	free(session);
}

const ConnHandlers http2_conn_handlers = {opened, receive_bytes, drained, NULL, closed};

void
http2_set_handlers(const Http2Handlers *given)
{
	http2_handlers = given;
}
