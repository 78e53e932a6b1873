/*
 * cli.c
 *		Reads the command line and runs the command that it names.
 *
 * Runs in the process of every command but `serve`.  Two tables say all there
 * is to know: the flags (where each is stored, which commands take it) and the
 * commands.  The help, the environment and the checks are made from them.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "cli.h"

#ifndef GT_VERSION
#define GT_VERSION "1.0"
#endif

/* Bits that say which commands take a flag. */
enum
{
	HEALTH = 1, CREATE = 2, RENEW = 4, GET = 8, RELEASE = 16, LIST = 32,
	HOLD = 64, ALL = 127
};

typedef enum FlagKind
{
	TEXT, SWITCH, DURATION, COUNT, REPEATED
} FlagKind;

typedef struct Flag
{
	const char *name;
	FlagKind	kind;
	size_t		offset;			/* in Cli */
	int			commands;
	const char *argument;
	const char *help;
} Flag;

#define AT(field) offsetof(Cli, field)

static const Flag flags[] =
{
	{"object-id", TEXT, AT(object_id), CREATE | HOLD, "X", "the object that the lease refers to (required)"},
	{"object-type", TEXT, AT(object_type), CREATE | HOLD, "TYPE", "database-row, blob-storage, temporary-file, websocket-session, cache-entry, custom (the default) or a name of your own"},
	{"lease-id", TEXT, AT(lease_id), RENEW | GET | RELEASE, "ID", "the lease (required)"},
	{"duration", DURATION, AT(duration_ms), CREATE | RENEW | HOLD, "D", "how long the lease lives unless it is renewed; by default the server's (create) or the lease's own (renew)"},
	{"cleanup", TEXT, AT(cleanup), CREATE | HOLD, "HANDLER", "the handler that cleans the object once nobody leases it any more"},
	{"cleanup-endpoint", TEXT, AT(cleanup_endpoint), CREATE, "URL", "clean by a call to this address instead: http(s)://... is sent a POST, grpc(s)://host:port is called as distributed_gc.CleanupService"},
	{"payload", TEXT, AT(payload), CREATE | HOLD, "DATA", "what the cleanup needs to know: JSON for --cleanup, any text for --cleanup-endpoint"},
	{"metadata", REPEATED, AT(metadata), CREATE | HOLD, "KEY=VALUE", "a label for people; may be given several times"},
	{"exclusive", SWITCH, AT(exclusive), CREATE | HOLD, NULL, "only if nobody else leases the object, and nobody else may until this lease ends: a lock with a fence"},
	{"parent", TEXT, AT(parent), CREATE, "ID", "live and end with that lease instead of having a duration"},
	{"request-key", TEXT, AT(request_key), CREATE, "KEY", "the same key again returns the lease that it made: safe to repeat"},
	{"kill-after", DURATION, AT(kill_after_ms), HOLD, "D", "how long COMMAND may take to stop once the lease is lost, before it is killed (default 10s)"},
	{"keep", SWITCH, AT(keep), RELEASE, NULL, "do not clean the object: it became permanent"},
	{"service", TEXT, AT(service), LIST, "S", "only leases of this service"},
	{"type", TEXT, AT(object_type), LIST, "T", "only leases on objects of this type"},
	{"limit", COUNT, AT(limit), LIST, "N", "at most so many (default 100)"},
	{"endpoint", TEXT, AT(endpoint), ALL, "URL", "the server (default http://localhost:50051)"},
	{"service-id", TEXT, AT(service_id), ALL, "S", "the service on whose behalf this is done (default cli-client)"},
	{"token-file", TEXT, AT(token_file), ALL, "FILE", "file with the bearer token"},
	{"tls-ca", TEXT, AT(tls_ca), ALL, "FILE", "certificates to trust (default: the system's)"},
	{"tls-cert", TEXT, AT(tls_cert), ALL, "FILE", "client certificate"},
	{"tls-key", TEXT, AT(tls_key), ALL, "FILE", "its key"},
	{"timeout", DURATION, AT(timeout_ms), ALL, "D", "the longest wait for an answer (default 10s)"},
	{"json", SWITCH, AT(json), ALL, NULL, "results and errors as JSON"},
	{"help", SWITCH, AT(help), ALL, NULL, "this help"},
};

#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

typedef struct Command
{
	const char *group;			/* "lease", or NULL */
	const char *name;
	int			bit;
	int			(*run) (Cli *cli);
	size_t		required;		/* offset of the flag that must be there; 0: none */
	const char *required_flag;
	const char *operands;
	const char *summary;
	const char *text;			/* the help's middle part */
} Command;

static const Command commands[] =
{
	{NULL, "health", HEALTH, cli_health, 0, NULL, "",
		"is the server able to work? Exit 0 only when it is",
		"Asks the server how it is. What is wrong is named together with what mends it.\n"
		"\nExample:\n"
	"  garbagetruck health || echo 'garbagetruck needs a look' | mail -s alert ops\n"},
	{"lease", "create", CREATE, cli_lease_create, AT(object_id), "object-id", "",
		"take a lease on an object",
		"Creates a lease: a time-limited reference to an object. While any lease on it\n"
		"runs the object stays; when the last has ended, released or not renewed in time,\n"
		"the object is cleaned as --cleanup or --cleanup-endpoint says.\n"
		"\nExamples:\n"
		"  garbagetruck lease create --object-id /tmp/job-17 --object-type temporary-file \\\n"
		"      --duration 5m --cleanup remove_file\n"
		"  garbagetruck lease create --object-id upload/9 --object-type blob-storage \\\n"
	"      --cleanup-endpoint https://files.example.com/cleanup --json\n"},
	{"lease", "renew", RENEW, cli_lease_renew, AT(lease_id), "lease-id", "",
		"go on living: the heartbeat",
		"Moves the deadline to now + the duration, never back. Renew every third of the\n"
		"duration. Exit 1 when the lease is over: stop using the object then.\n"
		"\nExample:\n"
	"  while garbagetruck lease renew --lease-id \"$ID\"; do sleep 100; done\n"},
	{"lease", "get", GET, cli_lease_get, AT(lease_id), "lease-id", "",
		"show one lease",
		"Shows a lease with its object, deadline, fence and cleanup.\n"
		"\nExample:\n"
	"  garbagetruck lease get --lease-id \"$ID\" --json | jq .expires_at\n"},
	{"lease", "release", RELEASE, cli_lease_release, AT(lease_id), "lease-id", "",
		"end a lease now",
		"Ends the lease. If it was the object's last, the object is cleaned now; with\n"
		"--keep it stays for good (the upload became permanent).\n"
		"\nExample:\n"
	"  garbagetruck lease release --lease-id \"$ID\" --keep\n"},
	{"lease", "list", LIST, cli_lease_list, 0, NULL, "",
		"show many leases",
		"Lists leases, oldest first.\n"
		"\nExample:\n"
	"  garbagetruck lease list --service billing --type temporary-file --limit 20\n"},
	{"lease", "hold", HOLD, cli_lease_hold, AT(object_id), "object-id", " -- COMMAND [ARGUMENT...]",
		"run a command under a lease",
		"Creates a lease, renews it while COMMAND runs, and releases it at the end. Exits\n"
		"with COMMAND's status (128 + n when signal n ended it). When the lease is lost,\n"
		"or can no longer be renewed and is about to end, COMMAND is stopped: SIGTERM,\n"
		"after --kill-after SIGKILL, and exit 1. Signals are passed on. COMMAND finds\n"
		"GARBAGETRUCK_LEASE_ID and GARBAGETRUCK_FENCE in its environment.\n"
		"\nExamples:\n"
		"  garbagetruck lease hold --object-id nightly-report --exclusive -- ./report.sh\n"
		"  garbagetruck lease hold --object-id \"$PWD/out\" --object-type temporary-file \\\n"
	"      --cleanup remove_file --duration 30s -- make\n"},
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

bool
cli_parse_duration(const char *text, int64_t *ms)
{
	static const struct
	{
		const char *unit;
		double		ms;
	}			units[] =
	{
		{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}
	};
	size_t		digits = strspn(text, "0123456789.");
	char	   *end;
	double		value;
	size_t		i;

	/* strtod alone would take signs, hex and "infinity" */
	if (!isdigit((unsigned char) text[0]))
		return false;
	value = strtod(text, &end);
	if (end != text + digits)
		return false;
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0)
		{
			value *= units[i].ms;
			if (value > 3e14)	/* ten thousand years */
				return false;
			*ms = (int64_t) (value + 0.5);
			return *ms > 0 || value == 0;
		}
	return false;
}

/* GARBAGETRUCK_OBJECT_ID for object-id; NULL when unset or empty. */
static const char *
from_environment(const char *flag)
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

static int __attribute__((format(printf, 2, 3)))
usage(const Cli *cli, const char *format,...)
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

/* Store a flag's value.  False after an error, reported. */
static bool
store(Cli *cli, const Flag *flag, const char *value)
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
				usage(cli, "--%s takes %s, not \"%s\"", flag->name, flag->argument, value);
				return false;
			}
			if (cli->metadata_count == CLI_MAX_METADATA)
			{
				usage(cli, "--%s may be given %d times at most", flag->name, CLI_MAX_METADATA);
				return false;
			}
			cli->metadata[cli->metadata_count++] = value;
			return true;
		case DURATION:
			if (cli_parse_duration(value, (int64_t *) field))
				return true;
			usage(cli, "--%s takes seconds or 500ms, 30s, 5m, 2h, 7d, not \"%s\"", flag->name, value);
			return false;
		case COUNT:
			errno = 0;
			*(int64_t *) field = strtoll(value, &end, 10);
			if (errno == 0 && isdigit((unsigned char) value[0]) && *end == '\0' &&
				*(int64_t *) field > 0)
				return true;
			usage(cli, "--%s takes a whole number from 1, not \"%s\"", flag->name, value);
			return false;
		case SWITCH:
			*(bool *) field = true;
			return true;
	}
	return false;
}

/* A switch in the environment may also be turned off. */
static bool
store_from_environment(Cli *cli, const Flag *flag, const char *value)
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
	usage(cli, "the environment's switch for --%s is 1 or 0, not \"%s\"", flag->name, value);
	return false;
}

static const Flag *
find_flag(const char *name, size_t len)
{
	size_t		i;

	for (i = 0; i < FLAG_COUNT; i++)
		if (strlen(flags[i].name) == len && strncmp(flags[i].name, name, len) == 0)
			return &flags[i];
	return NULL;
}

static void
print_flags(int commands_wanted, bool common)
{
	size_t		i;

	for (i = 0; i < FLAG_COUNT; i++)
	{
		char		left[64];

		if ((flags[i].commands & commands_wanted) == 0 ||
			(flags[i].commands == ALL) != common)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", flags[i].name,
				 flags[i].argument ? " " : "", flags[i].argument ? flags[i].argument : "");
		printf("  %-24s %s\n", left, flags[i].help);
	}
}

static void
print_help(const Command *command)
{
	size_t		i;

	if (command != NULL)
	{
		printf("Usage: garbagetruck %s%s%s [FLAG...]%s\n\n%s\nFlags:\n",
			   command->group ? command->group : "", command->group ? " " : "",
			   command->name, command->operands, command->text);
		print_flags(command->bit, false);
		puts("\nFlags of every command:");
		print_flags(command->bit, true);
	}
	else
	{
		puts("garbagetruck: leases for things that somebody must clean up.\n"
			 "\nUsage: garbagetruck [FLAG...] COMMAND [FLAG...]\n\nCommands:\n"
			 "  serve          run the gRPC server (\"serve --help\"); \"serve --ephemeral\" to try it");
		for (i = 0; i < COMMAND_COUNT; i++)
			printf("  %s%s%-*s %s\n", commands[i].group ? commands[i].group : "",
				   commands[i].group ? " " : "",
				   commands[i].group ? 8 : 14, commands[i].name, commands[i].summary);
		puts("\nFlags of every command:");
		print_flags(ALL, true);
		puts("\nTry it, in two terminals:\n"
			 "  garbagetruck serve --ephemeral\n"
			 "  garbagetruck lease hold --object-id demo --duration 10s -- sleep 60");
	}
	puts("\nDurations are seconds, or 500ms, 30s, 5m, 2h, 7d. Each flag may come from the\n"
		 "environment instead: --lease-id from GARBAGETRUCK_LEASE_ID, and so on. Exit status: 0 done,\n"
		 "1 failed, 2 the command line is wrong.");
}

/* What the loop over the arguments gathers beside the flags' values. */
typedef struct Words
{
	const char *word[2];
	int			count;
	bool		given[FLAG_COUNT];
} Words;

/* One argument that begins with "--"; *i is moved past its value. */
static int
take_flag(Cli *cli, Words *words, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2;
	const char *equals = strchr(name, '=');
	size_t		len = equals ? (size_t) (equals - name) : strlen(name);
	const Flag *flag = find_flag(name, len);
	const char *value = equals ? equals + 1 : NULL;

	if (flag == NULL)
		return usage(cli, "there is no flag --%.*s: \"garbagetruck --help\" names the commands, and COMMAND --help its flags", (int) len, name);
	if (flag->kind == SWITCH && value != NULL)
		return usage(cli, "--%s takes no value", flag->name);
	if (flag->kind != SWITCH && value == NULL)
	{
		if (*i + 1 >= argc)
			return usage(cli, "--%s needs a value: --%s %s", flag->name, flag->name, flag->argument);
		value = argv[++*i];
	}
	words->given[flag - flags] = true;
	return store(cli, flag, value) ? CLI_OK : CLI_USAGE;
}

static int
take_arguments(Cli *cli, Words *words, int argc, char **argv)
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
			return usage(cli, "there is no flag %s: flags begin with two dashes", argv[i]);
		else if (words->count == 2)
			return usage(cli, "\"%s\" is one word too many%s", argv[i],
						 strcmp(words->word[1], "hold") == 0 ? ": the command to run comes after \"--\"" : "");
		else
			words->word[words->count++] = argv[i];
	}
	return CLI_OK;
}

static const Command *
find_command(const Words *words)
{
	size_t		i;

	for (i = 0; i < COMMAND_COUNT; i++)
	{
		const Command *c = &commands[i];

		if (c->group == NULL && words->count == 1 && strcmp(words->word[0], c->name) == 0)
			return c;
		if (c->group != NULL && words->count == 2 &&
			strcmp(words->word[0], c->group) == 0 && strcmp(words->word[1], c->name) == 0)
			return c;
	}
	return NULL;
}

/* Flags that the command does not take, and what it cannot do without. */
static int
check(Cli *cli, const Words *words, const Command *command)
{
	const char *group = command->group ? "lease " : "";
	size_t		i;

	for (i = 0; i < FLAG_COUNT; i++)
	{
		const char *value;

		if (words->given[i] && (flags[i].commands & command->bit) == 0)
			return usage(cli, "%s%s has no flag --%s: \"garbagetruck %s%s --help\" shows those it has",
						 group, command->name, flags[i].name, group, command->name);
		if (words->given[i] || (flags[i].commands & command->bit) == 0 ||
			flags[i].offset == AT(help))
			continue;
		value = from_environment(flags[i].name);
		if (value != NULL && !store_from_environment(cli, &flags[i], value))
			return CLI_USAGE;
	}
	if (command->required_flag != NULL)
	{
		const char *value = *(const char **) ((char *) cli + command->required);

		if (value == NULL || value[0] == '\0')
			return usage(cli, "%s%s needs --%s", group, command->name, command->required_flag);
	}
	if (command->bit == HOLD && (cli->command == NULL || cli->command[0] == NULL))
		return usage(cli, "lease hold needs the command to run: lease hold --object-id X -- COMMAND");
	if (command->bit != HOLD && cli->command != NULL && cli->command[0] != NULL)
		return usage(cli, "%s%s runs no command, but \"%s\" follows \"--\"", group, command->name, cli->command[0]);
	if (cli->cleanup != NULL && cli->cleanup_endpoint != NULL)
		return usage(cli, "--cleanup and --cleanup-endpoint exclude each other");
	if (cli->timeout_ms <= 0)
		return usage(cli, "--timeout must be longer than nothing");
	return CLI_OK;
}

static int
no_command(Cli *cli, const Words *words)
{
	bool		lease = words->count > 0 && strcmp(words->word[0], "lease") == 0;

	if (words->count == 0)
		return usage(cli, "a command is missing: serve, health or lease; \"garbagetruck --help\" tells more");
	if (lease && words->count == 1)
		return usage(cli, "lease needs one of create, renew, get, release, list, hold");
	if (lease)
		return usage(cli, "there is no \"lease %s\", but create, renew, get, release, list and hold", words->word[1]);
	return usage(cli, "there is no command \"%s\", but serve, health and lease", words->word[0]);
}

/* Errors met while reading must already be in the form that was asked for. */
static bool
wants_json(int argc, char **argv)
{
	const char *value = from_environment("json");
	int			i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return value != NULL && strchr("1tTyY", value[0]) != NULL;
}

int
cli_main(int argc, char **argv)
{
	Cli			cli = {
		.endpoint = "http://localhost:50051", .service_id = "cli-client",
		.timeout_ms = 10000, .kill_after_ms = 10000, .limit = 100
	};
	Words		words = {0};
	const Command *command;
	int			rc;

	if (argc == 2 && strcmp(argv[1], "--version") == 0)
	{
		puts("garbagetruck " GT_VERSION);
		return CLI_OK;
	}
	cli.json = wants_json(argc, argv);
	rc = take_arguments(&cli, &words, argc, argv);
	if (rc != CLI_OK)
		return rc;
	command = find_command(&words);
	if (cli.help || (words.count > 0 && strcmp(words.word[0], "help") == 0))
	{
		print_help(command);
		return CLI_OK;
	}
	if (command == NULL)
		return no_command(&cli, &words);
	rc = check(&cli, &words, command);
	if (rc != CLI_OK)
		return rc;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
	{
		cli_error(cli.json, "INTERNAL", "cannot initialise libcurl");
		return CLI_FAILED;
	}
	rc = command->run(&cli);
	grpc_client_close(cli.client);
	free(cli.token);
	curl_global_cleanup();
	return rc;
}
