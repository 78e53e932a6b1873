/*
 * options.h
 *		The options of `garbagetruck serve`.
 *
 * Each module that has options exports a table of them, which names the
 * variables that it reads; serve.c lists the tables.  Every option --some-name
 * is also GARBAGETRUCK_SOME_NAME in the environment; the flag wins.  The help,
 * the parsing and `serve --show-config` are made from the tables.
 */
#ifndef GT_OPTIONS_H
#define GT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum OptionKind
{
	OPTION_TEXT,				/* const char ** */
	OPTION_SWITCH,				/* bool *; in the environment 1, true, on, yes */
	OPTION_NUMBER,				/* int64_t *, between min and max */
	OPTION_DURATION,			/* int64_t *, microseconds; "90", "500ms", "30s", ... */
	OPTION_LIST					/* OptionList *; repeatable, in the environment
								 * separated by commas */
} OptionKind;

typedef struct OptionList
{
	const char **items;
	int			count;
} OptionList;

typedef struct Option
{
	const char *name;			/* without the dashes */
	OptionKind	kind;
	void	   *target;
	const char *standard;		/* the default as text; NULL: none */
	const char *argument;		/* ADDR, FILE, ... for the help; NULL for a switch */
	const char *help;
	int64_t		min,
				max;			/* of a number or duration; both 0: no bounds */
} Option;

/* The end of a table. */
#define OPTION_END {NULL, OPTION_TEXT, NULL, NULL, NULL, NULL, 0, 0}

/*
 * Set defaults, then the environment, then the flags of argv[1..].  False
 * after an error, which is in `error`.  *help is set when --help is among them.
 */
extern bool options_parse(const Option *const *tables, int argc, char **argv,
						  bool *help, char *error, size_t error_size);

/* The lines of the help: flag, default, meaning. */
extern void options_help(const Option *const *tables, FILE *out);

/* Every option, its value and where that came from (default, environment, flag). */
extern void options_show(const Option *const *tables, FILE *out);

/* Microseconds of "90", "500ms", "30s", "5m", "2h" or "7d". */
extern bool parse_duration_us(const char *text, int64_t *us);

#endif							/* GT_OPTIONS_H */
