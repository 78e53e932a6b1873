/*
 * status_chart.c
 *		The status page's charts, as inline SVG, and its numbers.
 *
 * Runs on the loop; owns nothing.  Charts are stretched to their place
 * (preserveAspectRatio none), so they hold lines and areas only: text beside
 * them is HTML.
 */
#include <math.h>
#include <string.h>

#include "admin/status.h"

#define WIDTH 240.0
#define HEIGHT 44.0
#define BARS_HEIGHT 120.0

void
html_text(FILE *out, const char *text)
{
	for (; *text != '\0'; text++)
	{
		switch (*text)
		{
			case '&':
				fputs("&amp;", out);
				break;
			case '<':
				fputs("&lt;", out);
				break;
			case '>':
				fputs("&gt;", out);
				break;
			case '"':
				fputs("&quot;", out);
				break;
			default:
				fputc(*text, out);
		}
	}
}

void
html_seconds(FILE *out, double seconds)
{
	if (!(seconds > 0))
		fputs("0 s", out);
	else if (seconds < 0.0995)
		fprintf(out, "%.0f ms", ceil(seconds * 1000));
	else if (seconds < 9.95 && seconds != floor(seconds))
		fprintf(out, "%.1f s", seconds);
	else if (seconds < 100)
		fprintf(out, "%.0f s", seconds);
	else if (seconds < 100 * 60)
		fprintf(out, "%.0f min", seconds / 60);
	else if (seconds < 48 * 3600)
		fprintf(out, "%.0f h", seconds / 3600);
	else
		fprintf(out, "%.0f d", seconds / 86400);
}

void
html_count(FILE *out, double n)
{
	if (n >= 9.995e8)
		fprintf(out, "%.1f G", n / 1e9);
	else if (n >= 9.995e5)
		fprintf(out, "%.*f M", n < 9.95e6 ? 2 : 1, n / 1e6);
	else if (n >= 1e5)
		fprintf(out, "%.0f k", n / 1e3);
	else if (n >= 1e4)
		fprintf(out, "%.1f k", n / 1e3);
	else
		fprintf(out, "%.0f", n);
}

/* One stretch of values without a gap, [from, to): its area and its line. */
static void
stretch(FILE *out, const double *values, int from, int to, double step, double top)
{
	int			i;

	fprintf(out, "<path class=\"area\" d=\"M%.1f %.1f", from * step, HEIGHT);
	for (i = from; i < to; i++)
		fprintf(out, "L%.1f %.1f", i * step, HEIGHT - 1 - values[i] / top * (HEIGHT - 4));
	fprintf(out, "L%.1f %.1fZ\"/><path class=\"line\" d=\"", (to - 1) * step, HEIGHT);
	for (i = from; i < to; i++)
		fprintf(out, "%c%.1f %.1f", i == from ? 'M' : 'L', i * step,
				HEIGHT - 1 - values[i] / top * (HEIGHT - 4));
	if (to == from + 1)
		fputs("h2", out);		/* a lone value would not show */
	fputs("\"/>", out);
}

void
chart_line(FILE *out, const double *values, int count, const char *label)
{
	double		top = 0;
	double		step = count > 1 ? WIDTH / (count - 1) : WIDTH;
	int			from = -1;
	int			i;

	for (i = 0; i < count; i++)
		if (!isnan(values[i]) && values[i] > top)
			top = values[i];
	fprintf(out, "<svg class=\"spark\" viewBox=\"0 0 %g %g\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"",
			WIDTH, HEIGHT);
	html_text(out, label);
	fprintf(out, "\"><line class=\"base\" x1=\"0\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>",
			WIDTH, HEIGHT - .5, HEIGHT - .5);
	for (i = 0; i <= count; i++)
	{
		bool		gap = i == count || isnan(values[i]);

		if (gap && from >= 0)
			stretch(out, values, from, i, step, top > 0 ? top : 1);
		if (gap)
			from = -1;
		else if (from < 0)
			from = i;
	}
	fputs("</svg>", out);
}

/* A round number not below `top`, so that the scale reads well. */
static double
round_up(double top)
{
	static const double steps[] = {1, 2, 4, 6, 8, 10};
	double		unit = 1;
	size_t		i;

	while (unit * 10 < top)
		unit *= 10;
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (steps[i] * unit >= top)
			return steps[i] * unit;
	return top;
}

static void
bar(FILE *out, const ChartBars *bars, int minute, double top)
{
	double		width = WIDTH * 4 / CHART_MINUTES;
	double		y = BARS_HEIGHT;
	double		sum = 0;
	int			s;

	for (s = 0; s < bars->series; s++)
		sum += bars->values[s][minute];
	if (sum <= 0)
		return;
	fputs("<g>", out);
	for (s = 0; s < bars->series; s++)
	{
		double		height = bars->values[s][minute] / top * BARS_HEIGHT;

		if (height <= 0)
			continue;
		y -= height;
		fprintf(out, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>",
				s, minute * width + 1, y, width - 2, height);
	}
	fprintf(out, "<title>in %d min: %.0f</title></g>", minute, sum);
}

void
chart_bars(FILE *out, const ChartBars *bars)
{
	double		top = 1;
	int			m,
				s;

	for (m = 0; m < CHART_MINUTES; m++)
	{
		double		sum = 0;

		for (s = 0; s < bars->series; s++)
			sum += bars->values[s][m];
		if (sum > top)
			top = sum;
	}
	top = round_up(top);
	fputs("<div class=\"plot\"><div class=\"y\"><span>", out);
	html_count(out, top);
	fputs("</span><span>0</span></div>", out);
	fprintf(out, "<svg class=\"bars\" viewBox=\"0 0 %g %g\" preserveAspectRatio=\"none\" role=\"img\" "
			"aria-label=\"leases that end in each of the next 60 minutes unless they are renewed\">",
			WIDTH * 4, BARS_HEIGHT);
	for (m = 0; m <= 2; m++)
		fprintf(out, "<line class=\"grid\" x1=\"0\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>", WIDTH * 4,
				.5 + m * (BARS_HEIGHT - 1) / 2, .5 + m * (BARS_HEIGHT - 1) / 2);
	for (m = 0; m < CHART_MINUTES; m++)
		bar(out, bars, m, top);
	fputs("</svg><div class=\"scale\"><span>now</span><span>+15 min</span><span>+30 min</span>"
		  "<span>+45 min</span><span>+1 h</span></div></div>", out);
	fputs("<ul class=\"legend\">", out);
	for (s = 0; s < bars->series; s++)
	{
		double		sum = 0;

		for (m = 0; m < CHART_MINUTES; m++)
			sum += bars->values[s][m];
		fprintf(out, "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"f%d\" width=\"10\" height=\"10\" rx=\"2\"/></svg>", s);
		html_text(out, bars->names[s]);
		fputs(" <span>", out);
		html_count(out, sum);
		fputs("</span></li>", out);
	}
	fputs("</ul>", out);
}
