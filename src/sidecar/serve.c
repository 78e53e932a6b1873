/*
 * serve.c
 *		The command `serve`: start, reload, drain, stop.
 *
 * The main thread runs the loop; the executors have a thread of their own.
 * SIGHUP reads certificates and tokens again.  At SIGTERM and SIGINT /readyz says
 * no; after --shutdown-delay there are no new connections, GOAWAY on the old
 * ones, and calls may finish; a second signal ends the process at once.  A crash
 * leaves nothing behind: leases live by their deadlines and claims lapse.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "db/database.h"
#include "db/ephemeral.h"
#include "grpc/grpc.h"
#include "http2/http2.h"
#include "net/net.h"
#include "serve.h"
#include "services/callers.h"
#include "services/services.h"
#include "state.h"

#define DRAIN_CHECK_US 20000
#define OWN_DESCRIPTORS 150		/* of the admin port and of connections to PostgreSQL, among others */
#define LATE_US 1000000			/* for the executors to end after their time */

static const char *listen_address;
static const char *tls_cert;
static const char *tls_key;
static const char *tls_client_ca;
static const char *token_file;
static bool insecure;
static int64_t max_connections;
static int64_t handshake_us;
static int64_t shutdown_us;
static int64_t shutdown_delay_us;
static const char *executor_list;
static const char *file_root;
static OptionList handler_owners;
static const char *target_tls_ca;
static int64_t executor_calls;
static int64_t executor_host_calls;
static int64_t executor_visibility_us;
static const char *log_level;
static const char *log_format;
static bool ephemeral;
static const char *ephemeral_bindir;
static bool json;
static bool show_config;

static const Option serve_options[] =
{
	{"listen", OPTION_TEXT, &listen_address, "127.0.0.1:50051", "ADDR", "where gRPC is served: HOST:PORT, [V6]:PORT, :PORT or unix:/PATH"},
	{"tls-cert", OPTION_TEXT, &tls_cert, NULL, "FILE", "serve TLS with this certificate chain; read again on SIGHUP"},
	{"tls-key", OPTION_TEXT, &tls_key, NULL, "FILE", "its key"},
	{"tls-client-ca", OPTION_TEXT, &tls_client_ca, NULL, "FILE", "ask clients for certificates of this CA; their names (first DNS or URI name, else CN) name the callers"},
	{"token-file", OPTION_TEXT, &token_file, NULL, "FILE", "lines of TOKEN SERVICE_ID [claim=H1,H2] [admin]: callers must send authorization: Bearer TOKEN; read again on SIGHUP. A TOKEN of - gives rights to the client certificate of that name"},
	{"insecure", OPTION_SWITCH, &insecure, NULL, NULL, "serve what has no TLS on other addresses than loopback: gRPC without --tls-cert, and the admin port"},
	{"max-connections", OPTION_NUMBER, &max_connections, "10000", "N", "gRPC connections at once", 1, 1000000},
	{"handshake-timeout", OPTION_DURATION, &handshake_us, "10s", "D", "the longest TLS handshake", 1000, 3600000000LL},
	{"shutdown-timeout", OPTION_DURATION, &shutdown_us, "30s", "D", "how long calls may go on after SIGTERM", 0, 86400000000LL},
	{"shutdown-delay", OPTION_DURATION, &shutdown_delay_us, "0", "D", "how long after SIGTERM new connections and calls are still taken, while /readyz says 503", 0, 86400000000LL},
	{"executors", OPTION_TEXT, &executor_list, "http,grpc,s3,azure_blob,file,redis", "LIST", "kinds of cleanups to carry out here, none to leave them to others"},
	{"expect-identity", OPTION_TEXT, &state.expect_identity, NULL, "TEXT", "claim nothing, for no client either, from a database whose garbagetruck.identity differs"},
	{"file-root", OPTION_TEXT, &file_root, NULL, "DIR", "the directory beneath which the executor `file` may remove files; none by default"},
	{"target-tls-ca", OPTION_TEXT, &target_tls_ca, NULL, "FILE", "certificates to trust in targets of cleanups (default: the system's)"},
	{"handler-owner", OPTION_LIST, &handler_owners, NULL, "ROLE", "carry out the handlers of this role, too; repeatable. Without it: those of one's own role and of roles that it is a member of, of superusers and of the extension's owner", 0, 0},
	{"executor-calls", OPTION_NUMBER, &executor_calls, "256", "N", "cleanups in flight at once", 1, 100000},
	{"executor-host-calls", OPTION_NUMBER, &executor_host_calls, "16", "N", "cleanups in flight at once to one host", 1, 100000},
	{"executor-visibility", OPTION_DURATION, &executor_visibility_us, "30s", "D", "length of the executors' claims, which are extended while a call lasts", 1000000, 3600000000LL},
	{"log-level", OPTION_TEXT, &log_level, "info", "LEVEL", "error, warning, info or debug"},
	{"log-format", OPTION_TEXT, &log_format, "text", "FORMAT", "text or json"},
	{"ephemeral", OPTION_SWITCH, &ephemeral, NULL, NULL, "start a private PostgreSQL in a temporary directory, with the extension, and remove it at the end: for development"},
	{"pg-bindir", OPTION_TEXT, &ephemeral_bindir, NULL, "DIR", "PostgreSQL's programs for --ephemeral"},
	{"json", OPTION_SWITCH, &json, NULL, NULL, "errors as JSON, and the log too"},
	{"show-config", OPTION_SWITCH, &show_config, NULL, NULL, "print every option with its value and where that comes from, and exit"},
	OPTION_END
};

static const Option *const all_options[] =
{serve_options, database_options, services_options, admin_options, http2_options, grpc_options, NULL};

static Listener *listener;
static Tls *tls;
static Ephemeral ephemeral_server;
static double
read_dropped(void)
{
	return (double) log_dropped();
}

static Metric dropped_metric = {"log_lines_dropped_total", METRIC_COUNTER, "Lines of the log that could not be written at once.", .read = read_dropped};
static LoopFd *signal_watch;
static LoopTimer drain_timer;
static LoopTimer watchdog_timer;
static int64_t watchdog_us;
static int64_t drain_until_us;	/* by loop_awake(): calls have that time, whatever stops this process */

/* ---- telling systemd ---- */

static void
notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t		len;
	int			fd;

	if (path == NULL || (len = strlen(path)) == 0 || len >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, len);
	if (address.sun_path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *) &address,
		   (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

/* Twice in the time that systemd gives (WatchdogSec=): the loop turns. */
static void
feed_watchdog(void *arg)
{
	notify("WATCHDOG=1");
	timer_start(&watchdog_timer, watchdog_us, feed_watchdog, NULL);
}

static void
start_watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long) getpid()))
		return;
	watchdog_us = strtoll(usec, NULL, 10) / 2;
	if (watchdog_us > 0)
		feed_watchdog(NULL);
}

/* ---- reload ---- */

/* What a token or certificate has lost its open streams lose. */
static void
judge_conn(Conn *conn, void *arg)
{
	if (conn_is_trusted(conn))
		grpc_each_caller(conn, callers_judge);
	else
		conn_close(conn);
}

/* What can be read only once (a pipe) would now be empty, or keep us waiting for whoever writes it. */
static bool
may_read_again(const char *path, char *error, size_t error_size)
{
	struct stat info;

	if (path == NULL || stat(path, &info) != 0 || S_ISREG(info.st_mode))
		return true;
	snprintf(error, error_size, "%s is no regular file, and is read at the start only", path);
	return false;
}

static bool
reload_certificates(char *error, size_t error_size)
{
	return tls == NULL ||
		(may_read_again(tls_cert, error, error_size) && may_read_again(tls_key, error, error_size) &&
		 may_read_again(tls_client_ca, error, error_size) && tls_reload(tls, error, error_size));
}

static void
reload(void)
{
	char		error[512];
	bool		certificates;
	bool		tokens;
	char		reloading[64];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(reloading, sizeof(reloading), "RELOADING=1\nMONOTONIC_USEC=%lld",
			 (long long) now.tv_sec * 1000000 + now.tv_nsec / 1000);
	notify(reloading);
	certificates = reload_certificates(error, sizeof(error));
	if (!certificates)
		log_line(LOG_ERROR, "the certificates stay as they were: %s", error);
	tokens = may_read_again(token_file, error, sizeof(error)) && callers_load(token_file, tls_client_ca != NULL, error, sizeof(error));
	if (!tokens)
		log_line(LOG_ERROR, "the tokens stay as they were: %s", error);
	listener_each(listener, judge_conn, NULL);
	if (certificates && tokens)
		log_line(LOG_INFO, "certificates and tokens were read again");
	notify("READY=1");
}

/* ---- shutdown ---- */

static void
check_drained(void *arg)
{
	bool		calls = listener_connections(listener) > 0 || !db_idle();

	if (loop_awake() >= drain_until_us)
		calls = false;
	/* The executors have the same limit; until then the admin port answers.  A look-up of a name may hold them up for longer. */
	if ((!calls && (state.executors == NULL || executors_finished(state.executors))) || loop_awake() >= drain_until_us + LATE_US)
	{
		loop_stop();
		return;
	}
	timer_start(&drain_timer, DRAIN_CHECK_US, check_drained, NULL);
}

static void
drain(void *arg)
{
	state.draining = true;
	drain_until_us = loop_awake() + shutdown_us;
	listener_stop(listener);
	listener_each(listener, http2_drain_conn, NULL);
	timer_start(&drain_timer, DRAIN_CHECK_US, check_drained, NULL);
}

/* The first signal asks, the second one does not. */
static void
stop(void)
{
	if (state.stopping)
	{
		log_line(LOG_WARNING, "a second signal: stopped at once");
		if (!state.draining)
			listener_stop(listener);
		admin_stop();
		_exit(0);
	}
	state.stopping = true;
	log_line(LOG_INFO, "shutting down: calls in progress have %g s to finish", (double) (shutdown_delay_us + shutdown_us) / 1e6);
	notify("STOPPING=1");
	health_set_serving(false);
	if (state.executors != NULL)
		executors_drain(state.executors, (int) ((shutdown_delay_us + shutdown_us) / 1000));
	if (shutdown_delay_us > 0)
		timer_start(&drain_timer, shutdown_delay_us, drain, NULL);
	else
		drain(NULL);
}

static void
handle_signal(void *arg, uint32_t events)
{
	struct signalfd_siginfo info;
	int			fd = *(int *) arg;

	while (read(fd, &info, sizeof(info)) == (ssize_t) sizeof(info))
	{
		if (info.ssi_signo == SIGHUP)
			reload();
		else
			stop();
	}
}

/* Before there are threads: they inherit the mask. */
static bool
catch_signals(void)
{
	static int	fd;
	sigset_t	set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return false;
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return false;
	signal_watch = loop_add(fd, EPOLLIN, handle_signal, &fd);
	return signal_watch != NULL;
}

/* ---- start ---- */

static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max)
	{
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static bool
check_options(char *error, size_t error_size)
{
	unsigned	kinds;

	if (!log_configure(log_level, log_format))
		snprintf(error, error_size, "--log-level is error, warning, info or debug; --log-format is text or json");
	else if ((tls_cert == NULL) != (tls_key == NULL))
		snprintf(error, error_size, "--tls-cert and --tls-key go together");
	else if (tls_client_ca != NULL && tls_cert == NULL)
		snprintf(error, error_size, "--tls-client-ca needs --tls-cert and --tls-key");
	else if (!net_is_address(listen_address))
		snprintf(error, error_size, "--listen %s is no address: HOST:PORT, [V6]:PORT, :PORT or unix:/PATH is expected", listen_address);
	else if (tls_cert == NULL && !insecure && !net_is_loopback(listen_address))
		snprintf(error, error_size, "without TLS only loopback is served: give --tls-cert and --tls-key, or --insecure, to listen on %s", listen_address);
	else
		return admin_check(insecure, error, error_size) &&
			executors_parse_kinds(executor_list, &kinds, error, error_size) &&
			services_start(error, error_size);
	return false;
}

/* Others than this machine's can not reach what is private to it through a server that listens to them. */
static void
allow_development(void)
{
	if (ephemeral && net_is_loopback(listen_address))
		services_allow_loopback();
}

/* As many as there are descriptors for, beside those that we need ourselves: or one peer could take those. */
static int
possible_connections(void)
{
	struct rlimit limit;
	int64_t		possible;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT32_MAX)
		return (int) max_connections;
	possible = (int64_t) limit.rlim_cur - executor_calls - OWN_DESCRIPTORS;
	if (possible < (int64_t) limit.rlim_cur / 2)
		possible = (int64_t) limit.rlim_cur / 2;
	if (possible >= max_connections)
		return (int) max_connections;
	log_line(LOG_WARNING, "at most %lld connections, as there are %llu descriptors (ulimit -n): --max-connections %lld would take more",
			 (long long) possible, (unsigned long long) limit.rlim_cur, (long long) max_connections);
	return (int) possible;
}

static bool
start_listening(char *error, size_t error_size)
{
	ListenOptions options = {&http2_conn_handlers, NULL, possible_connections(), handshake_us, NULL, true};

	if (tls_cert != NULL)
	{
		TlsFiles	files = {tls_cert, tls_key, tls_client_ca, "h2", token_file != NULL};

		tls = tls_open(&files, error, error_size);
		if (tls == NULL)
			return false;
		options.tls = tls;
	}
	/* Those without a name make room, where there are names. */
	if (token_file != NULL || tls_client_ca != NULL)
		options.spare = http2_spare;
	listener = net_listen(listen_address, &options, error, error_size);
	return listener != NULL;
}

static void
log_executor_line(ExecutorLogLevel level, const char *line)
{
	static const LogLevel levels[] = {LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	log_line(levels[level], "executors: %s", line);
}

/* What does not exist would fail every attempt of the handlers that need it. */
static bool
check_files(char *error, size_t error_size)
{
	const struct
	{
		const char *flag;
		const char *path;
		int			mode;
	}			files[] = {
		{"file-root", file_root, X_OK},
		{"target-tls-ca", target_tls_ca, R_OK}
	};
	size_t		i;

	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		if (files[i].path == NULL || access(files[i].path, files[i].mode) == 0)
			continue;
		snprintf(error, error_size, "--%s %s: %s", files[i].flag, files[i].path, strerror(errno));
		return false;
	}
	return true;
}

static bool
start_executors(char *error, size_t error_size)
{
	ExecutorsConfig config = {0};

	if (!executors_parse_kinds(executor_list, &config.kinds, error, error_size))
		return false;
	if (config.kinds == 0)
		return true;
	config.conninfo = db_conninfo();
	config.expect_identity = state.expect_identity;
	config.file_root = file_root;
	config.tls_ca = target_tls_ca;
	config.handler_owners = (const char *const *) handler_owners.items;
	config.handler_owner_count = handler_owners.count;
	config.webhook_secret = getenv("GARBAGETRUCK_WEBHOOK_SECRET");	/* no flag: those can be read by all */
	config.allow = services_allow_list();
	config.max_in_flight = (int) executor_calls;
	config.max_per_host = (int) executor_host_calls;
	config.visibility_ms = (int) (executor_visibility_us / 1000);
	config.log = log_executor_line;
	state.executors = executors_start(&config, error, error_size);
	return state.executors != NULL;
}

static bool
start_database(char *error, size_t error_size)
{
	const char *why;

	if (ephemeral)
	{
		if (!ephemeral_start(&ephemeral_server, ephemeral_bindir, &why))
		{
			snprintf(error, error_size, "--ephemeral: %s", why);
			ephemeral = false;
			return false;
		}
		db_set_conninfo(ephemeral_server.conninfo);
	}
	return db_start(error, error_size);
}

/* In this order: what may be wrong with the options comes first, threads come last. */
static bool
start_all(char *error, size_t error_size)
{
	if (!loop_init() || !catch_signals())
	{
		snprintf(error, error_size, "could not set up the event loop: %s", strerror(errno));
		return false;
	}
	raise_file_limit();
	allow_development();
	if (!callers_load(token_file, tls_client_ca != NULL, error, error_size))
		return false;
	metric_register(&dropped_metric);
	http2_register_metrics();
	grpc_set_authenticate(callers_authenticate);
	grpc_start();
	grpc_register_metrics();
	return check_files(error, error_size) &&
		start_listening(error, error_size) &&
		start_database(error, error_size) &&
		admin_start(error, error_size) &&
		start_executors(error, error_size);
}

static void
print_help(void)
{
	printf("garbagetruck serve: the gRPC server for leases in PostgreSQL\n\n"
		   "usage: garbagetruck serve [--db CONNINFO] [--listen ADDR] [--admin ADDR] [OPTION ...]\n\n"
		   "Every option is also read from the environment: --some-name as GARBAGETRUCK_SOME_NAME.\n"
		   "Try it: garbagetruck serve --ephemeral\n\n");
	options_help(all_options, stdout);
}

/* An error met while reading must already be in the form that was asked for. */
static bool
wants_json(int argc, char **argv)
{
	int			i;

	for (i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--json") == 0)
			return true;
	}
	return json;
}

/* What keeps the server from starting, on stderr; its exit code. */
static int
refuse(int code, const char *error)
{
	if (!json && code == 2)
		fprintf(stderr, "garbagetruck serve: %s\n", error);
	else if (!json)
		log_line(LOG_ERROR, "%s", error);
	else
	{
		fprintf(stderr, "{\"error\":{\"code\":\"%s\",\"message\":",
				grpc_code_name(code == 2 ? GRPC_INVALID_ARGUMENT : GRPC_FAILED_PRECONDITION));
		json_write_string(stderr, error);
		fputs("}}\n", stderr);
	}
	return code;
}

int
serve_main(int argc, char **argv)
{
	char		error[1024] = "";
	bool		help;
	bool		stuck;

	clock_gettime(CLOCK_REALTIME, &state.started);
	/* What is large goes back to the system when it is free: what one caller has had does not stay for good. */
	mallopt(M_MMAP_THRESHOLD, 256 * 1024);
	mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
	srandom((unsigned) (state.started.tv_nsec ^ getpid()));
	if (!options_parse(all_options, argc, argv, &help, error, sizeof(error)))
	{
		json = wants_json(argc, argv);
		return refuse(2, error);
	}
	if (json)
		log_format = "json";
	if (help)
	{
		print_help();
		return 0;
	}
	if (show_config)
	{
		options_show(all_options, stdout);
		return 0;
	}
	if (!check_options(error, sizeof(error)))
		return refuse(2, error);
	if (!start_all(error, sizeof(error)))
	{
		if (ephemeral)
			ephemeral_stop(&ephemeral_server);
		return refuse(1, error);
	}
	log_line(LOG_INFO, "garbagetruck %s serves gRPC on %s%s%s%s", GT_VERSION, listener_address(listener),
			 tls != NULL ? " (TLS)" : "", admin_address() != NULL ? ", its admin port is " : "",
			 admin_address() != NULL ? admin_address() : "");
	notify("READY=1");
	start_watchdog();
	services_check_cleanups();
	loop_run();

	stuck = state.executors != NULL && !executors_finished(state.executors);
	if (state.executors != NULL && !stuck)
		executors_stop(state.executors);
	admin_stop();
	db_stop();
	loop_remove(signal_watch);
	loop_end();
	if (ephemeral)
		ephemeral_stop(&ephemeral_server);
	log_line(LOG_INFO, "stopped");
	/* Their thread still uses what exit() would tidy up. */
	if (stuck)
		_exit(0);
	return 0;
}
