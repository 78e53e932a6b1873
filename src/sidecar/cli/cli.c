/*
 * cli.c
 *		The commands of the command line: finding one, its help, running it.
 *
 * Runs in the process of every command but `serve`.  The commands are a table,
 * from which their help and their checks are made.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "cli/cli_flags.h"

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
		"can it do its work? Exit 0 only when it can",
		"Asks the server how it is. What is wrong is named together with what mends it,\n"
		"also what does not keep it from its work, such as garbage that nobody claims.\n"
		"\nExample:\n"
		"  garbagetruck health || echo 'garbagetruck needs a look' | mail -s alert ops\n"
	"  garbagetruck health --admin http://localhost:50052      # for a probe: no TLS, no token\n"},
	{"lease", "create", CREATE, cli_lease_create, offsetof(Cli, object_id), "object-id", "",
		"take a lease on an object",
		"Creates a lease: a time-limited reference to an object. While any lease on it\n"
		"runs the object stays; when the last has ended, released or not renewed in time,\n"
		"the object is cleaned as --cleanup or --cleanup-endpoint says.\n"
		"\nExamples:\n"
		"  garbagetruck lease create --object-id /tmp/job-17 --object-type temporary-file \\\n"
		"      --duration 5m --cleanup remove_file\n"
		"  garbagetruck lease create --object-id upload/9 --object-type blob-storage \\\n"
	"      --cleanup-endpoint https://files.example.com/cleanup --json\n"},
	{"lease", "renew", RENEW, cli_lease_renew, offsetof(Cli, lease_id), "lease-id", "",
		"go on living: the heartbeat",
		"Moves the deadline to now + the duration, never back. Renew every third of the\n"
		"duration. Exit 1 when the lease is over: stop using the object then.\n"
		"\nExample:\n"
	"  while garbagetruck lease renew --lease-id \"$ID\"; do sleep 100; done\n"},
	{"lease", "get", GET, cli_lease_get, offsetof(Cli, lease_id), "lease-id", "",
		"show one lease",
		"Shows a lease with its object, deadline, fence and cleanup.\n"
		"\nExample:\n"
	"  garbagetruck lease get --lease-id \"$ID\" --json | jq .expires_at\n"},
	{"lease", "release", RELEASE, cli_lease_release, offsetof(Cli, lease_id), "lease-id", "",
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
	{"lease", "hold", HOLD, cli_lease_hold, offsetof(Cli, object_id), "object-id", " -- COMMAND [ARGUMENT...]",
		"run a command under a lease",
		"Creates a lease, renews it while COMMAND runs, and releases it at the end. Exits\n"
		"with COMMAND's status (128 + n when signal n ended it; 127 when there is none, 126\n"
		"when it cannot be run), with 75 when somebody else has the lock, for longer than\n"
		"--wait, with 1 when there may be no process for COMMAND. When the lease is lost, or\n"
		"can no longer be renewed, COMMAND and everything that it has started is stopped\n"
		"before the lease can be somebody else's: SIGTERM, after --kill-after SIGKILL, and\n"
		"exit 1. So it is when hold is killed, or stopped for too long. What COMMAND leaves\n"
		"running at its end is stopped a second later. Out of reach are what runs as another\n"
		"user, and what a service that was running before does for COMMAND. Signals are\n"
		"passed on. COMMAND finds GARBAGETRUCK_LEASE_ID and GARBAGETRUCK_FENCE in its\n"
		"environment.\n"
		"\nExamples:\n"
		"  garbagetruck lease hold --object-id nightly-report --exclusive -- ./report.sh\n"
		"  garbagetruck lease hold --object-id deploy --exclusive --wait 10m -- ./deploy.sh\n"
		"  garbagetruck lease hold --object-id \"$PWD/out\" --object-type temporary-file \\\n"
	"      --cleanup remove_file --duration 30s -- make\n"},
};

#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void
print_flags(int commands_wanted, bool common)
{
	size_t		i;

	for (i = 0; i < CLI_FLAGS; i++)
	{
		char		left[64];

		if ((cli_flags[i].commands & commands_wanted) == 0 ||
			(cli_flags[i].commands == ALL) != common)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", cli_flags[i].name,
				 cli_flags[i].argument ? " " : "", cli_flags[i].argument ? cli_flags[i].argument : "");
		printf("  %-24s %s\n", left, cli_flags[i].help);
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
		 "1 failed, 2 the command line is wrong, 75 somebody else has the lock.");
}

static const Command *
find_command(const CliWords *words)
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

static bool
was_given(const CliWords *words, size_t offset)
{
	size_t		i;

	for (i = 0; i < CLI_FLAGS; i++)
		if (cli_flags[i].offset == offset)
			return words->given[i];
	return false;
}

/* Flags that the command does not take, and what it cannot do without. */
static int
check(Cli *cli, const CliWords *words, const Command *command)
{
	const char *group = command->group ? "lease " : "";
	const char *wrong;
	size_t		i;

	for (i = 0; i < CLI_FLAGS; i++)
	{
		const char *value;

		if (words->given[i] && (cli_flags[i].commands & command->bit) == 0)
			return cli_usage(cli, "%s%s has no flag --%s: \"garbagetruck %s%s --help\" shows those it has",
							 group, command->name, cli_flags[i].name, group, command->name);
		if (words->given[i] || (cli_flags[i].commands & command->bit) == 0 ||
			cli_flags[i].offset == offsetof(Cli, help))
			continue;
		value = cli_from_environment(cli_flags[i].name);
		/* There TYPE=HANDLER is meant for a server that reads the same environment. */
		if (value != NULL && cli_flags[i].offset == offsetof(Cli, cleanup) && strchr(value, '=') != NULL)
			continue;
		if (value != NULL && !cli_store_from_environment(cli, &cli_flags[i], value))
			return CLI_USAGE;
	}
	if (command->required_flag != NULL)
	{
		const char *value = *(const char **) ((char *) cli + command->required);

		if (value == NULL || value[0] == '\0')
			return cli_usage(cli, "%s%s needs --%s", group, command->name, command->required_flag);
	}
	if (command->bit == HOLD && (cli->command == NULL || cli->command[0] == NULL))
		return cli_usage(cli, "lease hold needs the command to run: lease hold --object-id X -- COMMAND");
	if (command->bit != HOLD && cli->command != NULL && cli->command[0] != NULL)
		return cli_usage(cli, "%s%s runs no command, but \"%s\" follows \"--\"", group, command->name, cli->command[0]);
	if (cli->cleanup != NULL && cli->cleanup_endpoint != NULL)
		return cli_usage(cli, "--cleanup and --cleanup-endpoint exclude each other");
	/* GARBAGETRUCK_ADMIN is the server's own setting, too: an endpoint that was asked for by its flag goes before. */
	if (was_given(words, offsetof(Cli, endpoint)) && !was_given(words, offsetof(Cli, admin)))
		cli->admin = NULL;
	if (!grpc_client_is_endpoint(cli->endpoint, &wrong))
		return cli_usage(cli, "--endpoint %s %s", cli->endpoint, wrong);
	if (cli->timeout_ms <= 0)
		return cli_usage(cli, "--timeout must be longer than nothing");
	return CLI_OK;
}

static int
no_command(Cli *cli, const CliWords *words)
{
	bool		lease = words->count > 0 && strcmp(words->word[0], "lease") == 0;

	if (words->count == 0)
		return cli_usage(cli, "a command is missing: serve, health or lease; \"garbagetruck --help\" tells more");
	if (lease && words->count == 1)
		return cli_usage(cli, "lease needs one of create, renew, get, release, list, hold");
	if (words->count == 2 && strcmp(words->word[0], "health") == 0)
		return cli_usage(cli, "\"%s\" is one word too many", words->word[1]);
	if (lease)
		return cli_usage(cli, "there is no \"lease %s\", but create, renew, get, release, list and hold", words->word[1]);
	return cli_usage(cli, "there is no command \"%s\", but serve, health and lease", words->word[0]);
}

/* Errors met while reading must already be in the form that was asked for. */
static bool
wants_json(int argc, char **argv)
{
	const char *value = cli_from_environment("json");
	int			i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return value != NULL && strchr("1tTyY", value[0]) != NULL;
}

/* --version, with or without --json. */
static bool
wants_version(int argc, char **argv)
{
	bool		version = false;
	int			i;

	for (i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--version") == 0)
			version = true;
		else if (strcmp(argv[i], "--json") != 0)
			return false;
	}
	return version;
}

int
cli_main(int argc, char **argv)
{
	Cli			cli = {
		.endpoint = "http://localhost:50051",
		.timeout_ms = 10000, .duration_ms = -1, .kill_after_ms = -1, .limit = 100
	};
	CliWords	words = {0};
	const Command *command;
	int			rc;

	if (wants_version(argc, argv))
	{
		puts("garbagetruck " GT_VERSION);
		return CLI_OK;
	}
	cli.json = wants_json(argc, argv);
	rc = cli_take_arguments(&cli, &words, argc, argv);
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
	if (rc == CLI_OK && (fflush(stdout) != 0 || ferror(stdout)))
	{
		cli_error(cli.json, "DATA_LOSS", "the result could not be written, but it was done");
		rc = CLI_FAILED;
	}
	grpc_client_close(cli.client);
	free(cli.token);
	curl_global_cleanup();
	return rc;
}
