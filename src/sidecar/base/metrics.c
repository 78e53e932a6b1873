/*
 * metrics.c
 *		Prints the server's own metrics in Prometheus' text format.
 */
#include <stdbool.h>
#include <string.h>

#include "base/metrics.h"

#define PREFIX "garbagetruck_sidecar_"

const double metric_latency_bounds[] =
{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 0};

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

static Metric *first;
static Metric **last = &first;

void
metric_register(Metric *metric)
{
	metric->next = NULL;
	*last = metric;
	last = &metric->next;
}

void
metric_observe(Metric *metric, int64_t microseconds)
{
	double		seconds = (double) microseconds / 1e6;
	int			i = 0;

	while (metric->bounds[i] != 0 && seconds > metric->bounds[i])
		i++;
	atomic_fetch_add_explicit(&metric->buckets[i], 1, memory_order_relaxed);
	metric_add(metric, microseconds);
}

/* A sample's name with its labels; `le` is NULL but for buckets. */
static void
print_name(const Metric *metric, const char *suffix, const char *le, FILE *out)
{
	fprintf(out, PREFIX "%s%s", metric->name, suffix);
	if (metric->label == NULL && le == NULL)
		return;
	fputc('{', out);
	if (metric->label != NULL)
		fprintf(out, "%s=\"%s\"%s", metric->label, metric->label_value, le != NULL ? "," : "");
	if (le != NULL)
		fprintf(out, "le=\"%s\"", le);
	fputc('}', out);
}

static void
print_histogram(Metric *metric, FILE *out)
{
	uint64_t	count = 0;
	int			i;

	for (i = 0;; i++)
	{
		char		le[32] = "+Inf";

		count += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
		if (metric->bounds[i] != 0)
			snprintf(le, sizeof(le), "%g", metric->bounds[i]);
		print_name(metric, "_bucket", le, out);
		fprintf(out, " %llu\n", (unsigned long long) count);
		if (metric->bounds[i] == 0)
			break;
	}
	print_name(metric, "_sum", NULL, out);
	fprintf(out, " %.6f\n", (double) atomic_load_explicit(&metric->value, memory_order_relaxed) / 1e6);
	print_name(metric, "_count", NULL, out);
	fprintf(out, " %llu\n", (unsigned long long) count);
}

void
metrics_print(FILE *out)
{
	const Metric *before = NULL;
	Metric	   *metric;

	for (metric = first; metric != NULL; before = metric, metric = metric->next)
	{
		if (before == NULL || strcmp(before->name, metric->name) != 0)
			fprintf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n",
					metric->name, metric->help, metric->name, kind_names[metric->kind]);
		if (metric->kind == METRIC_HISTOGRAM)
		{
			print_histogram(metric, out);
			continue;
		}
		print_name(metric, "", NULL, out);
		if (metric->read != NULL)
			fprintf(out, " %.15g\n", metric->read());
		else
			fprintf(out, " %llu\n", (unsigned long long) atomic_load_explicit(&metric->value, memory_order_relaxed));
	}
}
