/*
 * main.c
 *		The executors alone, for their tests: started with the settings of the
 *		command line, asked over stdin.
 *
 * "stats", "problems" and "drain MS" on stdin are answered by one line
 * (problems: by lines and a "."); the end of stdin stops it in order.
 */
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "executors/executors.h"

/* Of fail.c, when it is there: from here on allocations may fail. */
extern void fail_begin(void) __attribute__((weak));

/* Say where it was, for the test's output. */
static void
crashed(int signo)
{
	void	   *frames[40];
	int			count = backtrace(frames, 40);

	backtrace_symbols_fd(frames, count, STDERR_FILENO);
	signal(signo, SIG_DFL);
	raise(signo);
}

static void
say(ExecutorLogLevel level, const char *line)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	fprintf(stderr, "%s: %s\n", names[level], line);
}

static void
print_stats(Executors *executors)
{
	ExecutorsStats stats;
	int			kind;

	executors_stats(executors, &stats);
	printf("{\"claimed\": %llu, \"acked\": %llu, \"stale\": %llu, \"lapsed\": %llu, \"given_back\": %llu, \"connects\": %llu, \"waiting\": %d, \"hosts\": %d, \"connected\": %s",
		   (unsigned long long) stats.claimed, (unsigned long long) stats.acked, (unsigned long long) stats.stale,
		   (unsigned long long) stats.lapsed, (unsigned long long) stats.given_back, (unsigned long long) stats.connects, stats.waiting, stats.hosts,
		   stats.connected ? "true" : "false");
	for (kind = 0; kind < EXEC_KINDS; kind++)
		printf(", \"%s\": {\"succeeded\": %llu, \"failed\": %llu, \"timed_out\": %llu, \"in_flight\": %d}",
			   executor_kind_names[kind], (unsigned long long) stats.kind[kind].succeeded,
			   (unsigned long long) stats.kind[kind].failed, (unsigned long long) stats.kind[kind].timed_out,
			   stats.kind[kind].in_flight);
	printf("}\n");
}

static void
answer(Executors *executors, char *line)
{
	char	   *problems;

	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, "stats") == 0)
		print_stats(executors);
	else if (strcmp(line, "problems") == 0)
	{
		problems = executors_problems(executors);
		printf("%s.\n", problems);
		free(problems);
	}
	else if (strncmp(line, "drain ", 6) == 0)
		executors_drain(executors, atoi(line + 6));
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	ExecutorsConfig config;
	AllowList  *allow = allow_create();
	Executors  *executors;
	char		error[500];
	char		line[200];
	int			i;

	signal(SIGSEGV, crashed);
	signal(SIGABRT, crashed);
	if (fail_begin != NULL)
		fail_begin();
	/* As the sidecar's main() does. */
	if (OSSL_LIB_CTX_get0_global_default() == NULL)
	{
		fprintf(stderr, "out of memory\n");
		return 1;
	}
	memset(&config, 0, sizeof(config));
	config.allow = allow;
	config.webhook_secret = getenv("GARBAGETRUCK_WEBHOOK_SECRET");
	config.log = say;
	config.kinds = (1u << EXEC_KINDS) - 1;
	for (i = 1; i + 1 < argc; i += 2)
	{
		const char *flag = argv[i];
		const char *text = argv[i + 1];
		bool		valid = true;

		if (strcmp(flag, "--db") == 0)
			config.conninfo = text;
		else if (strcmp(flag, "--executors") == 0)
			valid = executors_parse_kinds(text, &config.kinds, error, sizeof(error));
		else if (strcmp(flag, "--allow-target") == 0)
			valid = allow_add(allow, text, error, sizeof(error));
		else if (strcmp(flag, "--file-root") == 0)
			config.file_root = text;
		else if (strcmp(flag, "--handler-owner") == 0)
		{
			config.handler_owners = (const char *const *) &argv[i + 1];
			config.handler_owner_count = 1;
		}
		else if (strcmp(flag, "--expect-identity") == 0)
			config.expect_identity = text;
		else if (strcmp(flag, "--tls-ca") == 0)
			config.tls_ca = text;
		else if (strcmp(flag, "--executor-calls") == 0)
			config.max_in_flight = atoi(text);
		else if (strcmp(flag, "--visibility-ms") == 0)
			config.visibility_ms = atoi(text);
		else
			valid = false;
		if (!valid)
		{
			fprintf(stderr, "%s %s: %s\n", flag, text, error);
			allow_free(allow);
			return 2;
		}
	}
	executors = executors_start(&config, error, sizeof(error));
	if (executors == NULL)
	{
		fprintf(stderr, "%s\n", error);
		allow_free(allow);
		return 1;
	}
	while (fgets(line, sizeof(line), stdin) != NULL)
		answer(executors, line);
	executors_stop(executors);
	allow_free(allow);
	return 0;
}
