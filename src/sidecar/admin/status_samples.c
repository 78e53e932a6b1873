/*
 * status_samples.c
 *		The last hour in samples, and the status page's tiles made of it.
 *
 * Runs on the loop.  Every 15 s the sidecar asks gt_metrics(), which reads
 * counters and scans nothing, and keeps an hour of answers in a ring.  A call
 * that fails leaves a gap.  With --no-database-metrics nothing is asked, and the
 * tiles say so.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/status.h"
#include "db/database.h"
#include "net/loop.h"

#define EVERY_US (15 * INT64_C(1000000))
#define UNTIL_UP_US (1 * INT64_C(1000000))
#define SAMPLES 241
#define MAX_BUCKETS 32
#define RECENT 20				/* samples: five minutes */

enum
{
	LEASES, GARBAGE, DEAD, OVERDUE, STALLED, CREATED, RENEWED, RELEASED,
	EXPIRED, CLEANUPS, VALUES
};

static const char *const value_names[VALUES] =
{
	"leases", "garbage", "dead", "oldest_overdue_seconds", "stalled",
	"leases_created_total", "leases_renewed_total", "leases_released_total",
	"leases_expired_total", "cleanups_total"
};

typedef struct Sample
{
	bool		known;
	int64_t		at_us;
	double		value[VALUES];
	int			buckets;
	double		bound[MAX_BUCKETS];
	double		count[MAX_BUCKETS]; /* cumulated, as the histogram has them */
} Sample;

/* Charts are at least five minutes wide, so that the first samples have a place. */
#define WINDOW (taken > RECENT + 1 ? taken : RECENT + 1)

static Sample ring[SAMPLES];
static int	newest = -1;		/* -1: none yet */
static int	taken;				/* how many of the ring are in use */
static char problem[256];		/* why the newest is not known */
static LoopTimer timer;
static DbCall *asking;

static DbStatement sample_statement =
{
	"gt_admin_sample",
	"SELECT * FROM (SELECT regexp_replace(name, '^garbagetruck_', '') AS name, coalesce(labels->>'le', '') AS le,"
	" sum(value) FROM gt_metrics() WHERE name ~ '^garbagetruck_(leases|garbage|dead|oldest_overdue_seconds|stalled"
	"|leases_created_total|leases_renewed_total|leases_released_total|leases_expired_total|cleanups_total"
	"|reclaim_lag_seconds(_bucket)?)$'"
	" GROUP BY 1, 2) AS m ORDER BY name, CASE le WHEN '' THEN 0 ELSE le::float8 END",
	0, DB_REPEATABLE
};

static void
read_row(Sample *sample, const PGresult *rows, int row)
{
	const char *name = PQgetvalue(rows, row, 0);
	const char *le = PQgetvalue(rows, row, 1);
	double		value = strtod(PQgetvalue(rows, row, 2), NULL);
	int			i;

	if (le[0] != '\0')
	{
		if (sample->buckets < MAX_BUCKETS)
		{
			sample->bound[sample->buckets] = strtod(le, NULL);
			sample->count[sample->buckets++] = value;
		}
		return;
	}
	for (i = 0; i < VALUES; i++)
		if (strcmp(name, value_names[i]) == 0)
			sample->value[i] = value;
}

static void take_sample(void *arg);

static Sample *
next_sample(void)
{
	newest = (newest + 1) % SAMPLES;
	if (taken < SAMPLES)
		taken++;
	memset(&ring[newest], 0, sizeof(Sample));
	ring[newest].at_us = loop_now();
	return &ring[newest];
}

static void
sample_came(void *arg, const DbOutcome *outcome)
{
	Sample	   *sample = next_sample();
	int			i;

	asking = NULL;
	sample->known = outcome->result != NULL;
	if (sample->known)
		for (i = 0; i < PQntuples(outcome->result); i++)
			read_row(sample, outcome->result, i);
	else
		snprintf(problem, sizeof(problem), "%s", outcome->message);
	timer_start(&timer, EVERY_US, take_sample, NULL);
}

static void
take_sample(void *arg)
{
	DbHow		how = {0};

	if (!db_up())
	{
		if (taken > 0)
			next_sample();		/* a gap */
		snprintf(problem, sizeof(problem), "%s", db_problem());
		timer_start(&timer, taken > 0 ? EVERY_US : UNTIL_UP_US, take_sample, NULL);
		return;
	}
	how.deadline_us = loop_now() + EVERY_US;
	asking = db_call(&sample_statement, NULL, &how, sample_came, NULL);
}

void
samples_start(void)
{
	if (admin_database_metrics())
		timer_start(&timer, 0, take_sample, NULL);
}

void
samples_stop(void)
{
	timer_stop(&timer);
	if (asking != NULL)
		db_forget(asking);
	asking = NULL;
}

/* The sample `back` before the newest; NULL: there is none, or a gap. */
static const Sample *
sample_at(int back)
{
	const Sample *sample;

	if (back < 0 || back >= taken)
		return NULL;
	sample = &ring[(newest - back + SAMPLES) % SAMPLES];
	return sample->known ? sample : NULL;
}

/*
 * How much of a histogram came between two samples lies under its quantile;
 * NAN when nothing came.  Within a bucket the values are taken as evenly
 * spread, as Prometheus does.
 */
static double
lag_quantile(const Sample *from, const Sample *to, double quantile)
{
	double		lower = 0,
				below = 0,
				total;
	int			b;

	if (from == NULL || to == NULL || to->buckets == 0 || from->buckets != to->buckets)
		return NAN;
	total = to->count[to->buckets - 1] - from->count[to->buckets - 1];
	if (total <= 0)
		return NAN;				/* nothing, or the server was restarted */
	for (b = 0; b < to->buckets; b++)
	{
		double		upto = to->count[b] - from->count[b];

		if (upto >= quantile * total)
		{
			if (isinf(to->bound[b]))
				return lower;
			return lower + (to->bound[b] - lower) * (quantile * total - below) / (upto - below);
		}
		lower = to->bound[b];
		below = upto;
	}
	return lower;
}

/* The oldest sample of the last five minutes. */
static const Sample *
recent_base(void)
{
	int			back;

	for (back = taken - 1 < RECENT ? taken - 1 : RECENT; back > 0; back--)
		if (sample_at(back) != NULL)
			return sample_at(back);
	return NULL;
}

/* Per second over the last five minutes; NAN when that cannot be known. */
static double
rate(int what)
{
	const Sample *to = sample_at(0);
	const Sample *from = recent_base();

	if (from == NULL || to == NULL || to->value[what] < from->value[what])
		return NAN;
	return (to->value[what] - from->value[what]) * 1e6 / (double) (to->at_us - from->at_us);
}

static void
print_rate(FILE *out, double per_second, const char *what)
{
	if (isnan(per_second))
		return;
	if (per_second >= 9.95)
		html_count(out, per_second);
	else
		fprintf(out, "%.*f", per_second == 0 ? 0 : per_second < .095 ? 2 : 1, per_second);
	fprintf(out, " %s/s", what);
}

/* The chart of a tile with its scale. */
static void
tile_chart(FILE *out, const double *values, int count, const char *label, bool seconds)
{
	double		top = 0;
	int			i;

	chart_line(out, values, count, label);
	for (i = 0; i < count; i++)
		if (!isnan(values[i]) && values[i] > top)
			top = values[i];
	fputs("<div class=\"scale\"><span>", out);
	html_seconds(out, (double) (count - 1) * (EVERY_US / 1000000));
	fputs(" ago</span><span>most ", out);
	if (seconds)
		html_seconds(out, top);
	else
		html_count(out, top);
	fputs("</span><span>now</span></div></div>", out);
}

static void
count_tile(FILE *out, int what, const char *name, const char *label, bool alarm,
		   int rate1, const char *rate1_name, int rate2, const char *rate2_name)
{
	double		values[SAMPLES];
	double		now = sample_at(0)->value[what];
	int			i;

	for (i = 0; i < WINDOW; i++)
		values[i] = sample_at(WINDOW - 1 - i) ? sample_at(WINDOW - 1 - i)->value[what] : NAN;
	fprintf(out, "<div class=\"card\"><div class=\"tile-name\">%s</div><div class=\"tile-value%s\">",
			name, alarm && now > 0 ? " alarm" : "");
	html_count(out, now);
	fputs("</div><div class=\"tile-more\">", out);
	if (rate1 >= 0)
		print_rate(out, rate(rate1), rate1_name);
	if (rate2 >= 0 && !isnan(rate(rate2)))
	{
		fputs(" &middot; ", out);
		print_rate(out, rate(rate2), rate2_name);
	}
	if (rate1 < 0)
		fputs(now > 0 ? "given up: see the errors below" : "none was given up", out);
	fputs("</div>", out);
	tile_chart(out, values, WINDOW, label, false);
}

static void
lag_tile(FILE *out)
{
	double		values[SAMPLES];
	double		p99 = lag_quantile(recent_base(), sample_at(0), .99);
	double		p50 = lag_quantile(recent_base(), sample_at(0), .5);
	int			i;

	/* each point looks a minute back, so that a lone cleanup shows */
	for (i = 0; i < WINDOW; i++)
	{
		int			back = WINDOW - 1 - i;

		values[i] = lag_quantile(sample_at(back + 4 < taken ? back + 4 : taken - 1), sample_at(back), .99);
	}
	fputs("<div class=\"card\"><div class=\"tile-name\">Lag, p99</div><div class=\"tile-value\">", out);
	if (isnan(p99))
		fputs("&ndash;", out);
	else
		html_seconds(out, p99);
	fputs("</div><div class=\"tile-more\">", out);
	if (isnan(p99))
		fputs("no cleanup in the last 5 minutes", out);
	else
	{
		fputs("p50 ", out);
		html_seconds(out, p50);
		fputs(", of the last 5 minutes", out);
	}
	fputs("</div>", out);
	tile_chart(out, values, WINDOW, "lag from a lease's end to its cleanup, p99, over the last hour", true);
}

void
samples_tiles(FILE *out)
{
	if (taken == 0 || sample_at(0) == NULL)
	{
		fputs("<section class=\"card\"><h2>Figures</h2><p class=\"none\">", out);
		if (!admin_database_metrics())
			fputs("Not asked for: this sidecar runs with <code>--no-database-metrics</code>.", out);
		else if (taken == 0 && problem[0] == '\0')
			fputs("They come in a moment.", out);
		else
		{
			fputs("Not to be had: ", out);
			html_text(out, problem);
		}
		fputs("</p></section>", out);
		return;
	}
	fputs("<section class=\"tiles\">", out);
	count_tile(out, LEASES, "Live leases", "live leases over the last hour", false,
			   CREATED, "created", RENEWED, "renewed");
	count_tile(out, GARBAGE, "Garbage", "objects waiting for their cleanup, over the last hour", false,
			   EXPIRED, "expired", CLEANUPS, "cleanups");
	count_tile(out, DEAD, "Dead", "objects whose cleanup was given up, over the last hour", true,
			   -1, NULL, -1, NULL);
	lag_tile(out);
	fputs("</section>", out);
}

void
samples_summary(FILE *out)
{
	const Sample *sample = taken > 0 ? sample_at(0) : NULL;

	if (sample == NULL)
		return;
	fputs(" &middot; ", out);
	html_count(out, sample->value[LEASES]);
	fputs(" live &middot; oldest overdue ", out);
	html_seconds(out, sample->value[OVERDUE]);
	fputs(" &middot; ", out);
	html_count(out, sample->value[DEAD]);
	fputs(" dead", out);
}
