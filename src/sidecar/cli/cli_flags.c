/*
 * cli_flags.c
 *		The command line's flags: their table, and reading them.
 *
 * Runs in the process of every command but `serve`.  The table says where each
 * flag is stored and which commands take it; the parsing, the environment and
 * the help are made from it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/options.h"
#include "cli/cli_flags.h"

/* Ten thousand years, about what a timestamp holds. */
#define LONGEST_US INT64_C(300000000000000000)

#define AT(field) offsetof(Cli, field)

const CliFlag cli_flags[CLI_FLAGS] =
{
	{"object-id", TEXT, AT(object_id), CREATE | HOLD, "X", "the object that the lease refers to (required)"},
	{"object-type", TEXT, AT(object_type), CREATE | HOLD, "TYPE", "database-row, blob-storage, temporary-file, websocket-session, cache-entry, custom (the default) or a name of your own"},
	{"lease-id", TEXT, AT(lease_id), RENEW | GET | RELEASE, "ID", "the lease (required)"},
	{"duration", DURATION, AT(duration_ms), CREATE | RENEW | HOLD, "D", "how long the lease lives unless it is renewed; by default the server's (create) or the lease's own (renew)"},
	{"cleanup", TEXT, AT(cleanup), CREATE | HOLD, "HANDLER", "the handler that cleans the object once nobody leases it any more"},
	{"cleanup-endpoint", TEXT, AT(cleanup_endpoint), CREATE | HOLD, "URL", "clean by a call to this address instead: http(s)://... is sent a POST, grpc(s)://host:port is called as distributed_gc.CleanupService"},
	{"payload", TEXT, AT(payload), CREATE | HOLD, "DATA", "what the cleanup needs to know: JSON for --cleanup, any text for --cleanup-endpoint"},
	{"metadata", REPEATED, AT(metadata), CREATE | HOLD, "KEY=VALUE", "a label for people; may be given several times"},
	{"exclusive", SWITCH, AT(exclusive), CREATE | HOLD, NULL, "only if nobody else leases the object, and nobody else may until this lease ends: a lock with a fence"},
	{"parent", TEXT, AT(parent), CREATE, "ID", "live and end with that lease instead of having a duration"},
	{"request-key", TEXT, AT(request_key), CREATE, "KEY", "the same key again returns the lease that it made: safe to repeat"},
	{"kill-after", DURATION, AT(kill_after_ms), HOLD, "D", "how long COMMAND may take to stop once the lease is lost, before it is killed: at most a third of the duration (default 10s or that third)"},
	{"wait", DURATION, AT(wait_ms), HOLD, "D", "wait so long while somebody else has the lock (default 0); not got is exit 75"},
	{"admin", TEXT, AT(admin), HEALTH, "URL", "ask the admin port instead, which needs neither TLS nor token: http://localhost:50052"},
	{"keep", SWITCH, AT(keep), RELEASE, NULL, "do not clean the object: it became permanent"},
	{"service", TEXT, AT(service), LIST, "S", "only leases of this service"},
	{"type", TEXT, AT(object_type), LIST, "T", "only leases on objects of this type"},
	{"limit", COUNT, AT(limit), LIST, "N", "at most so many (default 100)"},
	{"endpoint", TEXT, AT(endpoint), ALL, "URL", "the server (default http://localhost:50051)"},
	{"service-id", TEXT, AT(service_id), ALL, "S", "the service on whose behalf this is done (default: that of the token or the certificate, cli-client without)"},
	{"token-file", TEXT, AT(token_file), ALL, "FILE", "file with the bearer token"},
	{"tls-ca", TEXT, AT(tls_ca), ALL, "FILE", "certificates to trust (default: the system's)"},
	{"tls-cert", TEXT, AT(tls_cert), ALL, "FILE", "client certificate"},
	{"tls-key", TEXT, AT(tls_key), ALL, "FILE", "its key"},
	{"timeout", DURATION, AT(timeout_ms), ALL, "D", "the longest wait for an answer (default 10s)"},
	{"json", SWITCH, AT(json), ALL, NULL, "results and errors as JSON"},
	{"help", SWITCH, AT(help), ALL, NULL, "this help"},
};

int
cli_usage(const Cli *cli, const char *format,...)
{
	va_list		args;
	char	   *text = NULL;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	cli_error(cli->json, "INVALID_ARGUMENT", "%s", text ? text : "out of memory");
	free(text);
	return CLI_USAGE;
}

/* Milliseconds: what the commands count in. */
static bool
parse_duration_ms(const char *text, int64_t *ms)
{
	int64_t		us;

	if (!parse_duration_us(text, &us) || us > LONGEST_US)
		return false;
	*ms = us / 1000;
	return *ms > 0 || us == 0;
}

/* GARBAGETRUCK_OBJECT_ID for object-id; NULL when unset or empty. */
const char *
cli_from_environment(const char *flag)
{
	char		name[64];
	char	   *p;
	const char *value;

	snprintf(name, sizeof(name), "GARBAGETRUCK_%s", flag);
	for (p = name; *p != '\0'; p++)
		*p = *p == '-' ? '_' : (char) toupper((unsigned char) *p);
	value = getenv(name);
	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Store a flag's value.  False after an error, reported. */
static bool
store(Cli *cli, const CliFlag *flag, const char *value)
{
	char	   *field = (char *) cli + flag->offset;
	char	   *end;

	switch (flag->kind)
	{
		case TEXT:
			*(const char **) field = value;
			return true;
		case REPEATED:
			if (strchr(value, '=') == NULL || value[0] == '=')
			{
				cli_usage(cli, "--%s takes %s, not \"%s\"", flag->name, flag->argument, value);
				return false;
			}
			if (cli->metadata_count == CLI_MAX_METADATA)
			{
				cli_usage(cli, "--%s may be given %d times at most", flag->name, CLI_MAX_METADATA);
				return false;
			}
			cli->metadata[cli->metadata_count++] = value;
			return true;
		case DURATION:
			if (parse_duration_ms(value, (int64_t *) field))
				return true;
			cli_usage(cli, "--%s takes seconds or 500ms, 30s, 5m, 2h, 7d, not \"%s\"", flag->name, value);
			return false;
		case COUNT:
			errno = 0;
			*(int64_t *) field = strtoll(value, &end, 10);
			if (errno == 0 && isdigit((unsigned char) value[0]) && *end == '\0' &&
				*(int64_t *) field > 0)
				return true;
			cli_usage(cli, "--%s takes a whole number from 1, not \"%s\"", flag->name, value);
			return false;
		case SWITCH:
			*(bool *) field = true;
			return true;
	}
	return false;
}

/* A switch in the environment may also be turned off. */
bool
cli_store_from_environment(Cli *cli, const CliFlag *flag, const char *value)
{
	static const char *const on[] = {"1", "true", "yes", "on"};
	static const char *const off[] = {"0", "false", "no", "off"};
	size_t		i;

	if (flag->kind != SWITCH)
		return store(cli, flag, value);
	for (i = 0; i < 4; i++)
	{
		if (strcasecmp(value, on[i]) == 0)
			return store(cli, flag, NULL);
		if (strcasecmp(value, off[i]) == 0)
			return true;
	}
	cli_usage(cli, "the environment's switch for --%s is 1 or 0, not \"%s\"", flag->name, value);
	return false;
}

static const CliFlag *
find_flag(const char *name, size_t len)
{
	size_t		i;

	for (i = 0; i < CLI_FLAGS; i++)
		if (strlen(cli_flags[i].name) == len && strncmp(cli_flags[i].name, name, len) == 0)
			return &cli_flags[i];
	return NULL;
}

/* Does `serve` know nothing of a flag that the other commands all have? */
static bool
is_clients_only(const CliFlag *flag)
{
	static const char *const names[] = {"endpoint", "service-id", "tls-ca", "timeout"};
	size_t		i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], flag->name) == 0)
			return true;
	return false;
}

int
cli_take_serve(int argc, char **argv)
{
	char	  **args = needed(malloc((size_t) argc * sizeof(char *)));
	int			kept = 0;
	int			i;

	args[kept++] = argv[0];
	for (i = 1; i < argc && strcmp(argv[i], "serve") != 0; i++)
	{
		const char *name = argv[i] + 2;
		const CliFlag *flag = strncmp(argv[i], "--", 2) == 0 ? find_flag(name, strcspn(name, "=")) : NULL;
		bool		takes_next = flag != NULL && flag->kind != SWITCH && strchr(name, '=') == NULL;

		if (flag == NULL || flag->commands != ALL)
			break;
		if (!is_clients_only(flag))
		{
			args[kept++] = argv[i];
			if (takes_next && i + 1 < argc)
				args[kept++] = argv[i + 1];
		}
		if (takes_next)
			i++;
	}
	if (i >= argc || strcmp(argv[i], "serve") != 0)
		kept = 0;
	else
	{
		memmove(argv + kept, argv + i + 1, (size_t) (argc - i - 1) * sizeof(char *));
		memcpy(argv, args, (size_t) kept * sizeof(char *));
		kept += argc - i - 1;
	}
	free(args);
	return kept;
}

/* One argument that begins with "--"; *i is moved past its value. */
static int
take_flag(Cli *cli, CliWords *words, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2;
	const char *equals = strchr(name, '=');
	size_t		len = equals ? (size_t) (equals - name) : strlen(name);
	const CliFlag *flag = find_flag(name, len);
	const char *value = equals ? equals + 1 : NULL;

	if (flag == NULL)
		return cli_usage(cli, "there is no flag --%.*s: \"garbagetruck --help\" names the commands, and COMMAND --help its flags", (int) len, name);
	if (flag->kind == SWITCH && value != NULL)
		return cli_usage(cli, "--%s takes no value", flag->name);
	if (flag->kind != SWITCH && value == NULL)
	{
		if (*i + 1 >= argc)
			return cli_usage(cli, "--%s needs a value: --%s %s", flag->name, flag->name, flag->argument);
		value = argv[++*i];
	}
	words->given[flag - cli_flags] = true;
	return store(cli, flag, value) ? CLI_OK : CLI_USAGE;
}

int
cli_take_arguments(Cli *cli, CliWords *words, int argc, char **argv)
{
	int			i;
	int			rc;

	for (i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--") == 0)
		{
			cli->command = argv + i + 1;
			break;
		}
		if (strcmp(argv[i], "-h") == 0)
			cli->help = true;
		else if (strncmp(argv[i], "--", 2) == 0)
		{
			rc = take_flag(cli, words, argc, argv, &i);
			if (rc != CLI_OK)
				return rc;
		}
		else if (argv[i][0] == '-' && argv[i][1] != '\0')
			return cli_usage(cli, "there is no flag %s: flags begin with two dashes", argv[i]);
		else if (words->count == 1 && strcmp(words->word[0], "help") == 0)
		{
			cli->help = true;
			words->word[0] = argv[i];
		}
		else if (words->count == 2)
			return cli_usage(cli, "\"%s\" is one word too many%s", argv[i],
							 strcmp(words->word[1], "hold") == 0 ? ": the command to run comes after \"--\"" : "");
		else
			words->word[words->count++] = argv[i];
	}
	return CLI_OK;
}

