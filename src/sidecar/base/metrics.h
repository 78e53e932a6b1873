/*
 * metrics.h
 *		The server's own counters, gauges and histograms.
 *
 * A metric is a static variable of the module that counts; it is registered
 * once at start and may then be changed by any thread.  Names are without the
 * prefix garbagetruck_sidecar_, which the printing adds.
 */
#ifndef GT_METRICS_H
#define GT_METRICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

typedef enum MetricKind
{
	METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM
} MetricKind;

#define METRIC_MAX_BUCKETS 16

typedef struct Metric
{
	const char *name;
	MetricKind	kind;
	const char *help;
	const char *label;			/* the label's name, NULL: none */
	const char *label_value;	/* static text; one Metric for each value, registered
								 * one after the other */
	const double *bounds;		/* histogram: upper bounds, rising, ended by 0 */
	double		(*read) (void); /* gauge: asked when printed; else NULL */

	_Atomic uint64_t value;		/* counter, gauge; histogram: microseconds in all */
	_Atomic uint64_t buckets[METRIC_MAX_BUCKETS + 1];
	struct Metric *next;
} Metric;

/* Upper bounds, in seconds, that fit calls and database work. */
extern const double metric_latency_bounds[];

extern void metric_register(Metric *metric);

static inline void
metric_add(Metric *metric, int64_t n)
{
	atomic_fetch_add_explicit(&metric->value, (uint64_t) n, memory_order_relaxed);
}

static inline void
metric_set(Metric *metric, uint64_t n)
{
	atomic_store_explicit(&metric->value, n, memory_order_relaxed);
}

extern void metric_observe(Metric *metric, int64_t microseconds);

/* All of them, in Prometheus' text format 0.0.4. */
extern void metrics_print(FILE *out);

#endif							/* GT_METRICS_H */
