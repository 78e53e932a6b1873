/*
 * status_sections.c
 *		The status page's forecast and tables, from results into HTML.
 *
 * Runs on the loop; owns nothing.  The columns are those of the statements in
 * status_page.c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "admin/status.h"

static double
number_at(const PGresult *rows, int row, int column)
{
	return strtod(PQgetvalue(rows, row, column), NULL);
}

static bool
is_true(const PGresult *rows, int row, int column)
{
	return PQgetvalue(rows, row, column)[0] == 't';
}

/* The series of a name, the last one for all that have no place of their own. */
static int
find_series(ChartBars *bars, const char *name)
{
	int			s;

	for (s = 0; s < bars->series; s++)
		if (strcmp(bars->names[s], name) == 0)
			return s;
	if (bars->series == CHART_SERIES)
	{
		strcpy(bars->names[CHART_SERIES - 1], "others");
		return CHART_SERIES - 1;
	}
	snprintf(bars->names[bars->series], sizeof(bars->names[0]), "%.60s", name);
	return bars->series++;
}

/* Columns: minute from now, object type, leases; the commonest types first. */
void
section_forecast(FILE *out, const PGresult *rows)
{
	ChartBars	bars;
	int			i;

	memset(&bars, 0, sizeof(bars));
	for (i = 0; i < PQntuples(rows); i++)
	{
		int			minute = atoi(PQgetvalue(rows, i, 0));
		int			s = find_series(&bars, PQgetvalue(rows, i, 1));

		if (minute < 0)
			minute = 0;
		if (minute < CHART_MINUTES)
			bars.values[s][minute] += number_at(rows, i, 2);
	}
	if (bars.series == 0)
		fputs("<p class=\"none\">No lease ends within the hour.</p>", out);
	else
		chart_bars(out, &bars);
}

static void
count_cell(FILE *out, double n, bool alarm)
{
	fprintf(out, "<td class=\"n\"><span class=\"%s\">", n <= 0 ? "zero" : alarm ? "alarm" : "");
	html_count(out, n);
	fputs("</span></td>", out);
}

static void
text_cell(FILE *out, const char *class, const char *text)
{
	fprintf(out, "<td class=\"%s\">", class);
	html_text(out, text);
	fputs("</td>", out);
}

/* "3 s ago"; nothing for NULL. */
static void
ago_cell(FILE *out, const PGresult *rows, int row, int column)
{
	fputs("<td class=\"n\">", out);
	if (!PQgetisnull(rows, row, column))
	{
		/* a tenth of a second says nothing here */
		html_seconds(out, number_at(rows, row, column) < 1 ? 1 : ceil(number_at(rows, row, column)));
		fputs(" ago", out);
	}
	fputs("</td>", out);
}

/*
 * Columns: type, handler, kind, ending within the hour, waiting, running, dead,
 * runs, failures, age of the last run, last error, paused, its reason.
 */
void
section_objects(FILE *out, const PGresult *rows)
{
	int			i;

	if (PQntuples(rows) == 0)
	{
		fputs("<p class=\"none\">There are no handlers and no objects yet.</p>", out);
		return;
	}
	fputs("<div class=\"scroll\"><table><tr><th>Type<th>Handler<th class=\"n\">Ends in 1 h<th class=\"n\">Waiting"
		  "<th class=\"n\">Running<th class=\"n\">Dead<th class=\"n\">Runs<th class=\"n\">Failed<th class=\"n\">Last run<th>Last error", out);
	for (i = 0; i < PQntuples(rows); i++)
	{
		fputs("<tr>", out);
		text_cell(out, "w", PQgetvalue(rows, i, 0)[0] ? PQgetvalue(rows, i, 0) : "–");
		fputs("<td class=\"w\">", out);
		html_text(out, PQgetvalue(rows, i, 1)[0] ? PQgetvalue(rows, i, 1) : "no cleanup");
		fputs(" <small>", out);
		html_text(out, PQgetvalue(rows, i, 2));
		fputs("</small>", out);
		if (is_true(rows, i, 11))
		{
			fputs(" <span class=\"pill paused\" title=\"", out);
			html_text(out, PQgetvalue(rows, i, 12));
			fputs("\">&#10074;&#10074; paused</span>", out);
		}
		fputs("</td>", out);
		count_cell(out, number_at(rows, i, 3), false);
		count_cell(out, number_at(rows, i, 4), false);
		count_cell(out, number_at(rows, i, 5), false);
		count_cell(out, number_at(rows, i, 6), true);
		count_cell(out, number_at(rows, i, 7), false);
		count_cell(out, number_at(rows, i, 8), false);
		ago_cell(out, rows, i, 9);
		text_cell(out, "err", PQgetvalue(rows, i, 10));
	}
	fputs("</table></div>", out);
}

/* Columns: pid, role, database, state, handler, age, next due in, crashes. */
void
section_workers(FILE *out, const PGresult *rows)
{
	int			i;

	if (PQntuples(rows) == 0)
	{
		fputs("<p class=\"none\">None runs.</p>", out);
		return;
	}
	fputs("<div class=\"scroll\"><table><tr><th>Role<th>Database<th>State<th class=\"n\">Since<th class=\"n\">Next due<th class=\"n\">Crashes", out);
	for (i = 0; i < PQntuples(rows); i++)
	{
		fputs("<tr>", out);
		fputs("<td class=\"w\">", out);
		html_text(out, PQgetvalue(rows, i, 1));
		fputs(" <small>", out);
		html_text(out, PQgetvalue(rows, i, 0));
		fputs("</small></td>", out);
		text_cell(out, "w", PQgetvalue(rows, i, 2));
		fputs("<td class=\"w\">", out);
		html_text(out, PQgetvalue(rows, i, 3));
		fputs(" <small>", out);
		html_text(out, PQgetvalue(rows, i, 4));
		fputs("</small></td>", out);
		ago_cell(out, rows, i, 5);
		fputs("<td class=\"n\">", out);
		if (!PQgetisnull(rows, i, 6))
		{
			fputs("in ", out);
			html_seconds(out, number_at(rows, i, 6));
		}
		fputs("</td>", out);
		count_cell(out, number_at(rows, i, 7), true);
	}
	fputs("</table></div>", out);
}

/* Columns: client, role, connections, age of the oldest, whether it is this one. */
void
section_sidecars(FILE *out, const PGresult *rows)
{
	int			i;

	fputs("<div class=\"scroll\"><table><tr><th>Client<th>Role<th class=\"n\">Connections<th class=\"n\">Since", out);
	for (i = 0; i < PQntuples(rows); i++)
	{
		fputs("<tr><td class=\"w\">", out);
		html_text(out, PQgetvalue(rows, i, 0));
		if (is_true(rows, i, 4))
			fputs(" <span class=\"pill\">this one</span>", out);
		fputs("</td>", out);
		text_cell(out, "w", PQgetvalue(rows, i, 1));
		count_cell(out, number_at(rows, i, 2), false);
		ago_cell(out, rows, i, 3);
	}
	fputs("</table></div>", out);
}
