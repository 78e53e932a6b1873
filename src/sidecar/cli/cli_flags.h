/*
 * cli_flags.h
 *		The command line's flags: their table, and reading them.
 */
#ifndef GT_CLI_FLAGS_H
#define GT_CLI_FLAGS_H

#include <stddef.h>

#include "cli/cli.h"

/* Bits that say which commands take a flag. */
enum
{
	HEALTH = 1, CREATE = 2, RENEW = 4, GET = 8, RELEASE = 16, LIST = 32,
	HOLD = 64, ALL = 127
};

typedef enum CliFlagKind
{
	TEXT, SWITCH, DURATION, COUNT, REPEATED
} CliFlagKind;

typedef struct CliFlag
{
	const char *name;
	CliFlagKind	kind;
	size_t		offset;			/* in Cli */
	int			commands;
	const char *argument;
	const char *help;
} CliFlag;

#define CLI_FLAGS 27
extern const CliFlag cli_flags[CLI_FLAGS];

/* What the loop over the arguments gathers beside the flags' values. */
typedef struct CliWords
{
	const char *word[2];
	int			count;
	bool		given[CLI_FLAGS];
} CliWords;

/* Read argv[1..] up to "--".  An exit code, CLI_OK when all is well so far. */
extern int	cli_take_arguments(Cli *cli, CliWords *words, int argc, char **argv);

/*
 * Take the command `serve` out of the arguments, and the flags before it that
 * only other commands have a use for.  The new number of arguments; 0: another
 * command is meant, and nothing was changed.
 */
extern int	cli_take_serve(int argc, char **argv);

/* GARBAGETRUCK_OBJECT_ID for object-id; NULL when unset or empty. */
extern const char *cli_from_environment(const char *flag);

/* Store a value from there; false after an error, which has been reported. */
extern bool cli_store_from_environment(Cli *cli, const CliFlag *flag, const char *value);

/* Report a wrong command line; returns CLI_USAGE. */
extern int	cli_usage(const Cli *cli, const char *format,...)
			__attribute__((format(printf, 2, 3)));

#endif							/* GT_CLI_FLAGS_H */
