/*
 * status.h
 *		The status page's parts, which know nothing of each other.
 *
 * All of it runs on the loop.  The page is plain HTML with one style sheet and
 * inline SVG: no script, nothing fetched, nothing that changes the database.
 */
#ifndef GT_STATUS_H
#define GT_STATUS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

/* status_style.c: the style sheet. */
extern const char status_style[];

/* Text into HTML, also into attributes in double quotes. */
extern void html_text(FILE *out, const char *text);

/* "0.4 s", "12 s", "3 min", "5 h", "2 d"; negative ones as if they were 0. */
extern void html_seconds(FILE *out, double seconds);

/* "950", "12.3 k", "1.2 M". */
extern void html_count(FILE *out, double n);

/*
 * status_chart.c: a line over an area.  Values are drawn left to right, NAN is
 * a gap; `label` is what a screen reader says.
 */
extern void chart_line(FILE *out, const double *values, int count, const char *label);

/* Bars of several series, stacked: values[series][minute]. */
#define CHART_SERIES 5
#define CHART_MINUTES 60

typedef struct ChartBars
{
	double		values[CHART_SERIES][CHART_MINUTES];
	char		names[CHART_SERIES][64];
	int			series;
} ChartBars;

extern void chart_bars(FILE *out, const ChartBars *bars);

/* status_samples.c: the last hour, for the tiles. */
extern void samples_start(void);
extern void samples_stop(void);

/* The tiles; what cannot be known is said instead. */
extern void samples_tiles(FILE *out);

/* "oldest overdue 0.4 s", for the verdict; nothing when it is unknown. */
extern void samples_summary(FILE *out);

/* status_sections.c: results into HTML. */
extern void section_forecast(FILE *out, const PGresult *rows);
extern void section_objects(FILE *out, const PGresult *rows);
extern void section_workers(FILE *out, const PGresult *rows);
extern void section_sidecars(FILE *out, const PGresult *rows);

#endif							/* GT_STATUS_H */
