/*
 * options.c
 *		Reads options from defaults, the environment and the command line, and
 *		prints the help from the same tables.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/options.h"

#define MAX_OPTIONS 128
#define ENV_PREFIX "GARBAGETRUCK_"

/* Where the value of each option came from, for options_show(). */
static struct
{
	const Option *option;
	const char *source;
}			sources[MAX_OPTIONS];
static int	source_count;

static void
set_source(const Option *option, const char *source)
{
	int			i;

	for (i = 0; i < source_count; i++)
	{
		if (sources[i].option == option)
			break;
	}
	if (i == MAX_OPTIONS)
		return;
	if (i == source_count)
		source_count++;
	sources[i].option = option;
	sources[i].source = source;
}

static const char *
get_source(const Option *option)
{
	int			i;

	for (i = 0; i < source_count; i++)
	{
		if (sources[i].option == option)
			return sources[i].source;
	}
	return "default";
}

/* GARBAGETRUCK_SOME_NAME of some-name. */
static void
environment_name(const char *name, char *out, size_t size)
{
	size_t		n = strlen(ENV_PREFIX);

	memcpy(out, ENV_PREFIX, n);
	for (; *name != '\0' && n + 1 < size; name++)
		out[n++] = *name == '-' ? '_' : (char) toupper((unsigned char) *name);
	out[n] = '\0';
}

bool
parse_duration_us(const char *text, int64_t *us)
{
	static const struct
	{
		const char *unit;
		double		factor;
	}			units[] = {{"", 1e6}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}, {"d", 86400e6}};
	char	   *end;
	double		value;
	size_t		i;

	if (!isdigit((unsigned char) text[0]) && text[0] != '.')
		return false;
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		return false;
	value = strtod(text, &end);
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (strcmp(end, units[i].unit) == 0)
		{
			value *= units[i].factor;
			if (!(value >= 0 && value < 9e18))
				return false;
			*us = (int64_t) llround(value);
			return true;
		}
	}
	return false;
}

static bool
list_add(OptionList *list, const char *text)
{
	const char **items = realloc(list->items, sizeof(char *) * (size_t) (list->count + 1));

	if (items == NULL)
		return false;
	list->items = items;
	items[list->count++] = text;
	return true;
}

static bool
list_add_split(OptionList *list, const char *text)
{
	char	   *copy = strdup(text);
	char	   *item;

	/* The pieces live as long as the process. */
	for (item = copy == NULL ? NULL : strtok(copy, ","); item != NULL; item = strtok(NULL, ","))
	{
		while (*item == ' ')
			item++;
		if (*item != '\0' && !list_add(list, item))
			return false;
	}
	return copy != NULL;
}

static bool
in_bounds(const Option *option, int64_t value)
{
	return (option->min == 0 && option->max == 0) ||
		(value >= option->min && value <= option->max);
}

static bool
parse_switch(const char *text, bool *on)
{
	static const char *const words[][2] = {{"0", "1"}, {"false", "true"}, {"off", "on"}, {"no", "yes"}};
	int			i;

	for (i = 0; i < 8; i++)
	{
		if (strcasecmp(text, words[i / 2][i % 2]) == 0)
		{
			*on = i % 2 == 1;
			return true;
		}
	}
	return false;
}

/* Set one option from text; `from` names the flag or variable in the error. */
static bool
set_option(const Option *option, const char *text, const char *from, char *error, size_t error_size)
{
	int64_t		value;
	char	   *end;

	switch (option->kind)
	{
		case OPTION_TEXT:
			*(const char **) option->target = text;
			return true;
		case OPTION_SWITCH:
			if (parse_switch(text, option->target))
				return true;
			snprintf(error, error_size, "%s: \"%s\" is neither on nor off", from, text);
			return false;
		case OPTION_LIST:
			return list_add(option->target, text);
		case OPTION_NUMBER:
			errno = 0;
			value = strtoll(text, &end, 10);
			if (end == text || *end != '\0' || errno != 0)
			{
				snprintf(error, error_size, "%s: \"%s\" is not a whole number", from, text);
				return false;
			}
			break;
		case OPTION_DURATION:
			if (!parse_duration_us(text, &value))
			{
				snprintf(error, error_size, "%s: \"%s\" is not a duration like 90, 500ms, 30s, 5m, 2h or 7d", from, text);
				return false;
			}
			break;
		default:
			return false;
	}
	if (!in_bounds(option, value))
	{
		double		unit = option->kind == OPTION_DURATION ? 1e6 : 1;

		snprintf(error, error_size, "%s: %s is out of range: %.10g to %.10g%s", from, text, (double) option->min / unit,
				 (double) option->max / unit, option->kind == OPTION_DURATION ? " seconds" : "");
		return false;
	}
	*(int64_t *) option->target = value;
	return true;
}

static bool
set_defaults(const Option *const *tables, char *error, size_t error_size)
{
	const Option *option;

	for (; *tables != NULL; tables++)
	{
		for (option = *tables; option->name != NULL; option++)
		{
			char		name[64];
			const char *text;

			if (option->standard != NULL && !set_option(option, option->standard, option->name, error, error_size))
				return false;
			environment_name(option->name, name, sizeof(name));
			text = getenv(name);
			if (text == NULL || text[0] == '\0')
				continue;
			if (option->kind == OPTION_LIST)
			{
				if (!list_add_split(option->target, text))
					return false;
			}
			else if (!set_option(option, text, name, error, error_size))
				return false;
			set_source(option, "environment");
		}
	}
	return true;
}

static const Option *
find_option(const Option *const *tables, const char *name, size_t len)
{
	const Option *option;

	for (; *tables != NULL; tables++)
	{
		for (option = *tables; option->name != NULL; option++)
		{
			if (strlen(option->name) == len && memcmp(option->name, name, len) == 0)
				return option;
		}
	}
	return NULL;
}

bool
options_parse(const Option *const *tables, int argc, char **argv, bool *help, char *error, size_t error_size)
{
	int			i;

	*help = false;
	if (!set_defaults(tables, error, error_size))
		return false;
	for (i = 1; i < argc; i++)
	{
		const char *name = argv[i];
		const char *value;
		const Option *option;
		char		from[80];

		if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		{
			*help = true;
			continue;
		}
		if (strncmp(name, "--", 2) != 0)
		{
			snprintf(error, error_size, "\"%s\" is not expected here; options begin with --", name);
			return false;
		}
		name += 2;
		value = strchr(name, '=');
		option = find_option(tables, name, value != NULL ? (size_t) (value - name) : strlen(name));
		if (option == NULL)
		{
			snprintf(error, error_size, "unknown option --%s; --help lists them", name);
			return false;
		}
		if (option->kind == OPTION_SWITCH)
			value = value != NULL ? value + 1 : "on";
		else if (value != NULL)
			value++;
		else if (i + 1 < argc)
			value = argv[++i];
		else
		{
			snprintf(error, error_size, "--%s needs a value: --%s %s", option->name, option->name, option->argument);
			return false;
		}
		/* A flag replaces what a list got from the environment. */
		if (option->kind == OPTION_LIST && strcmp(get_source(option), "environment") == 0)
			((OptionList *) option->target)->count = 0;
		snprintf(from, sizeof(from), "--%s", option->name);
		if (!set_option(option, value, from, error, error_size))
			return false;
		set_source(option, "flag");
	}
	return true;
}

void
options_help(const Option *const *tables, FILE *out)
{
	const Option *option;

	for (; *tables != NULL; tables++)
	{
		for (option = *tables; option->name != NULL; option++)
		{
			fprintf(out, "  --%s%s%s\n        %s", option->name, option->argument != NULL ? " " : "",
					option->argument != NULL ? option->argument : "", option->help);
			if (option->standard != NULL && option->standard[0] != '\0')
				fprintf(out, " (default %s)", option->standard);
			fputc('\n', out);
		}
	}
}

/* The end of a value in a connection string: to a blank, or to the quote's end. */
static const char *
end_of_value(const char *at)
{
	bool		quoted = *at == '\'';

	for (at += quoted; *at != '\0' && (quoted ? *at != '\'' : *at != ' '); at++)
	{
		if (*at == '\\' && at[1] != '\0')
			at++;
	}
	return at + (quoted && *at == '\'');
}

/* Text without the passwords that a connection string or URI has. */
static void
show_text(const char *text, FILE *out)
{
	const char *scheme = strstr(text, "://");
	const char *at = scheme != NULL ? scheme + 3 : NULL;
	const char *host = at != NULL ? memrchr(at, '@', strcspn(at, "/?")) : NULL;
	const char *colon = host != NULL ? memchr(at, ':', (size_t) (host - at)) : NULL;

	if (colon != NULL)
	{
		fprintf(out, "%.*s:***", (int) (colon - text), text);
		text = host;
	}
	while ((at = strstr(text, "password")) != NULL)
	{
		const char *value = at + strlen("password");

		value += strspn(value, " ");
		if (*value != '=')
		{
			fprintf(out, "%.*s", (int) (value - text), text);
			text = value;
			continue;
		}
		value++;
		value += strspn(value, " ");
		fprintf(out, "%.*s***", (int) (value - text), text);
		text = scheme != NULL ? value + strcspn(value, "&") : end_of_value(value);
	}
	fputs(text, out);
}

void
options_show(const Option *const *tables, FILE *out)
{
	const Option *option;
	int			i;

	for (; *tables != NULL; tables++)
	{
		for (option = *tables; option->name != NULL; option++)
		{
			fprintf(out, "%s = ", option->name);
			switch (option->kind)
			{
				case OPTION_TEXT:
					if (*(const char **) option->target != NULL)
						show_text(*(const char **) option->target, out);
					break;
				case OPTION_SWITCH:
					fputs(*(bool *) option->target ? "on" : "off", out);
					break;
				case OPTION_NUMBER:
					fprintf(out, "%lld", (long long) *(int64_t *) option->target);
					break;
				case OPTION_DURATION:
					fprintf(out, "%gs", (double) *(int64_t *) option->target / 1e6);
					break;
				case OPTION_LIST:
					for (i = 0; i < ((OptionList *) option->target)->count; i++)
						fprintf(out, "%s%s", i > 0 ? "," : "", ((OptionList *) option->target)->items[i]);
					break;
			}
			fprintf(out, "  # %s\n", get_source(option));
		}
	}
}
