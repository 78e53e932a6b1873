/*
 * admin_reports.c
 *		/metrics, /healthz and /readyz.
 *
 * Runs on the loop.  Owns nothing but what one answer needs while the database
 * works on it.  Label sets and JSON are built by SQL, for that is where they
 * come from.
 */
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "db/database.h"
#include "executors/executors.h"
#include "net/loop.h"
#include "state.h"

#define PLAIN "text/plain; charset=utf-8"
#define JSON "application/json"
#define LIMIT_US (5 * INT64_C(1000000))
#define RIGHTS_US (1 * INT64_C(1000000))

/*
 * gt_metrics() in the order of the text format: all samples of a metric
 * together.  Label values are escaped as the format wants it.
 */
static DbStatement metrics_statement =
{
	"gt_admin_metrics",
	"WITH m AS (SELECT ord, kind, help, labels, value, name,"
	" CASE WHEN kind = 'histogram' THEN regexp_replace(name, '_(bucket|sum|count)$', '') ELSE name END AS base"
	" FROM gt_metrics() WITH ORDINALITY AS x(name, kind, labels, value, help, ord))"
	" SELECT base, kind, coalesce(help, ''),"
	" name || CASE WHEN kind = 'histogram' AND labels ? 'le' AND name = base THEN '_bucket' ELSE '' END,"
	" coalesce((SELECT string_agg(key || '=\"' || replace(replace(replace(l.value, E'\\\\', E'\\\\\\\\'),"
	" '\"', E'\\\\\"'), E'\\n', E'\\\\n') || '\"', ',' ORDER BY key = 'le', key)"
	" FROM jsonb_each_text(labels) AS l), ''), value"
	" FROM m ORDER BY min(ord) OVER (PARTITION BY base), ord",
	0, DB_REPEATABLE
};

/*
 * What our role may not do, a line for each right.  Claiming is not among them:
 * the executors say that themselves.
 */
#define LACKS \
	"(SELECT coalesce(string_agg(format('role \"%s\" lacks the right %L: SELECT gt_allow(%L, %L);'," \
	" current_user, r, current_user, r), E'\\n'), '')" \
	" FROM (VALUES ('lease', 'gt_lease_create'), ('monitor', 'gt_metrics')) AS v(r, f)" \
	" WHERE NOT EXISTS (SELECT FROM pg_proc AS p JOIN pg_extension AS e ON e.extnamespace = p.pronamespace" \
	" WHERE e.extname = 'garbagetruck' AND p.proname = f AND has_function_privilege(p.oid, 'EXECUTE')))"

static DbStatement lacks_statement = {"gt_admin_lacks", "SELECT " LACKS, 0, DB_REPEATABLE};

static DbStatement health_statement =
{
	"gt_admin_health",
	"SELECT coalesce(bool_and(ok), true), coalesce(json_agg(json_build_object("
	"'name', check_name, 'ok', ok, 'detail', coalesce(detail, ''), 'remedy', coalesce(remedy, '')))::text, '[]'), "
	LACKS " FROM gt_health()",
	0, DB_REPEATABLE
};

/* HELP and TYPE of a metric. */
static void
print_head(FILE *out, const char *name, const char *kind, const char *help)
{
	const char *p;

	fprintf(out, "# HELP %s ", name);
	for (p = help; *p != '\0'; p++)
	{
		if (*p == '\\' || *p == '\n')
			fputs(*p == '\n' ? "\\n" : "\\\\", out);
		else
			fputc(*p, out);
	}
	fprintf(out, "\n# TYPE %s %s\n", name, kind);
}

/* PostgreSQL's spelling of a number in the format's. */
static const char *
number(const char *value)
{
	if (strcmp(value, "Infinity") == 0)
		return "+Inf";
	if (strcmp(value, "-Infinity") == 0)
		return "-Inf";
	return value[0] != '\0' ? value : "NaN";
}

static void
print_database_metrics(FILE *out, const PGresult *rows)
{
	const char *previous = "";
	int			i;

	for (i = 0; i < PQntuples(rows); i++)
	{
		const char *base = PQgetvalue(rows, i, 0);
		const char *labels = PQgetvalue(rows, i, 4);

		if (strcmp(base, previous) != 0)
			print_head(out, base, PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2));
		previous = base;
		fputs(PQgetvalue(rows, i, 3), out);
		if (labels[0] != '\0')
			fprintf(out, "{%s}", labels);
		fprintf(out, " %s\n", number(PQgetvalue(rows, i, 5)));
	}
}

/* The executors' counters that go by kind. */
static void
print_executor_kinds(FILE *out, const ExecutorsStats *stats)
{
	int			k,
				b;

	print_head(out, "garbagetruck_sidecar_executor_calls_total", "counter",
			   "Calls made to clean objects, by kind of handler and result.");
	for (k = 0; k < EXEC_KINDS; k++)
	{
		const char *kind = executor_kind_names[k];

		fprintf(out, "garbagetruck_sidecar_executor_calls_total{kind=\"%s\",result=\"succeeded\"} %llu\n",
				kind, (unsigned long long) stats->kind[k].succeeded);
		fprintf(out, "garbagetruck_sidecar_executor_calls_total{kind=\"%s\",result=\"failed\"} %llu\n",
				kind, (unsigned long long) stats->kind[k].failed);
	}
	print_head(out, "garbagetruck_sidecar_executor_timeouts_total", "counter",
			   "Of the failed calls, those that took too long.");
	for (k = 0; k < EXEC_KINDS; k++)
		fprintf(out, "garbagetruck_sidecar_executor_timeouts_total{kind=\"%s\"} %llu\n",
				executor_kind_names[k], (unsigned long long) stats->kind[k].timed_out);
	print_head(out, "garbagetruck_sidecar_executor_in_flight", "gauge",
			   "Calls that wait for their answer.");
	for (k = 0; k < EXEC_KINDS; k++)
		fprintf(out, "garbagetruck_sidecar_executor_in_flight{kind=\"%s\"} %d\n",
				executor_kind_names[k], stats->kind[k].in_flight);
	print_head(out, "garbagetruck_sidecar_executor_seconds", "histogram",
			   "How long the calls took.");
	for (k = 0; k < EXEC_KINDS; k++)
	{
		const char *kind = executor_kind_names[k];
		unsigned long long sum = 0;

		for (b = 0; b <= EXEC_BUCKETS; b++)
		{
			sum += stats->kind[k].buckets[b];
			fprintf(out, "garbagetruck_sidecar_executor_seconds_bucket{kind=\"%s\",le=\"", kind);
			if (b < EXEC_BUCKETS)
				fprintf(out, "%g\"} %llu\n", executor_buckets[b], sum);
			else
				fprintf(out, "+Inf\"} %llu\n", sum);
		}
		fprintf(out, "garbagetruck_sidecar_executor_seconds_sum{kind=\"%s\"} %.6f\n",
				kind, stats->kind[k].seconds);
		fprintf(out, "garbagetruck_sidecar_executor_seconds_count{kind=\"%s\"} %llu\n", kind, sum);
	}
}

/* Those that do not. */
static void
print_executor_totals(FILE *out, const ExecutorsStats *stats)
{
	const struct
	{
		const char *name;
		const char *kind;
		const char *help;
		double		value;
	}			totals[] =
	{
		{"garbagetruck_sidecar_executor_claimed_total", "counter", "Garbage claimed.", (double) stats->claimed},
		{"garbagetruck_sidecar_executor_acked_total", "counter", "Acknowledgements that counted.", (double) stats->acked},
		{"garbagetruck_sidecar_executor_stale_total", "counter", "Outcomes that came too late to count.", (double) stats->stale},
		{"garbagetruck_sidecar_executor_lapsed_total", "counter", "Claims given up because the database was away.", (double) stats->lapsed},
		{"garbagetruck_sidecar_executor_given_back_total", "counter", "Claims given back, which is no attempt: no room at their target, it hangs, or the sidecar stopped.", (double) stats->given_back},
		{"garbagetruck_sidecar_executor_connects_total", "counter", "Connections made to the database.", (double) stats->connects},
		{"garbagetruck_sidecar_executor_waiting", "gauge", "Claimed objects whose call has not begun.", stats->waiting},
		{"garbagetruck_sidecar_executor_hosts", "gauge", "Hosts that are being called or were lately.", stats->hosts},
		{"garbagetruck_sidecar_executor_connected", "gauge", "Whether the executors reach the database.", stats->connected},
	};
	size_t		i;

	for (i = 0; i < sizeof(totals) / sizeof(totals[0]); i++)
	{
		print_head(out, totals[i].name, totals[i].kind, totals[i].help);
		fprintf(out, "%s %.0f\n", totals[i].name, totals[i].value);
	}
}

static void
print_executors(FILE *out)
{
	ExecutorsStats stats;

	if (state.executors == NULL)
		return;
	executors_stats(state.executors, &stats);
	print_executor_kinds(out, &stats);
	print_executor_totals(out, &stats);
}

static void
metrics_came(void *arg, const DbOutcome *outcome)
{
	static LogSite site;
	AdminAnswer *answer = arg;

	if (outcome->result != NULL)
		print_database_metrics(admin_body(answer), outcome->result);
	else if (db_up())
		log_limited(&site, LOG_WARNING, "/metrics is without the database's: %s (%s)",
					outcome->message, outcome->sqlstate);
	admin_finish_metrics(answer);
}

static DbHow
within_limit(void)
{
	DbHow		how = {0};

	how.deadline_us = loop_now() + LIMIT_US;
	return how;
}

void
admin_metrics(AdminAnswer *answer)
{
	DbHow		how = within_limit();

	metrics_print(admin_body(answer));
	print_executors(admin_body(answer));
	if (admin_database_metrics() && db_up())
		db_call(&metrics_statement, NULL, &how, metrics_came, answer);
	else
		admin_finish_metrics(answer);
}

/* Lines of text as JSON strings; returns whether there were any. */
static bool
print_lines(FILE *out, char *lines, bool comma)
{
	char	   *save = NULL;
	char	   *line = lines ? strtok_r(lines, "\n", &save) : NULL;
	bool		any = false;

	for (; line != NULL; line = strtok_r(NULL, "\n", &save))
	{
		if (comma || any)
			fputc(',', out);
		any = true;
		json_write_string(out, line);
	}
	return any;
}

/*
 * `checks`: what stands between the brackets of gt_health()'s array; `lacks`:
 * lines; `problem`: why the database cannot be asked.
 */
static void
finish_health(AdminAnswer *answer, bool healthy, const char *checks, int len,
			  char *lacks, const char *problem)
{
	FILE	   *out = admin_body(answer);
	char	   *problems = state.executors ? executors_problems(state.executors) : NULL;

	fprintf(out, "{\"healthy\":%s,\"version\":\"%s\",\"checks\":[{\"name\":\"database\",\"ok\":%s,\"detail\":",
			healthy ? "true" : "false", GT_VERSION, problem == NULL ? "true" : "false");
	json_write_string(out, problem ? problem : "it answers");
	fprintf(out, ",\"remedy\":\"%s\"}%s%.*s],\"problems\":[",
			problem == NULL ? "" : db_up() && !db_serves() ? "see that --db names the primary (target_session_attrs=primary), or promote it" :
			"see that PostgreSQL runs, and that --db names it",
			len > 0 ? "," : "", len, checks);
	print_lines(out, problems, print_lines(out, lacks, false));
	fprintf(out, "],\"draining\":%s}\n", state.stopping ? "true" : "false");
	free(problems);
	admin_finish(answer, healthy ? 200 : 503, JSON);
}

static void
health_came(void *arg, const DbOutcome *outcome)
{
	AdminAnswer *answer = arg;
	const char *array;

	if (outcome->result == NULL)
	{
		finish_health(answer, false, "", 0, NULL, outcome->message);
		return;
	}
	array = PQgetvalue(outcome->result, 0, 1);
	finish_health(answer, PQgetvalue(outcome->result, 0, 0)[0] == 't' && db_serves(),
				  array + 1, (int) strlen(array) - 2,
				  PQgetvalue(outcome->result, 0, 2), db_serves() ? NULL : db_problem());
}

void
admin_health(AdminAnswer *answer)
{
	DbHow		how = within_limit();

	if (db_up())
		db_call(&health_statement, NULL, &how, health_came, answer);
	else
		finish_health(answer, false, "", 0, NULL, db_problem());
}

void
admin_ready(AdminAnswer *answer)
{
	FILE	   *out = admin_body(answer);
	bool		ready = db_serves() && !state.stopping;

	if (ready)
		fputs("ready\n", out);
	else if (state.stopping)
		fputs("not ready: the server drains\n", out);
	else
		fprintf(out, "not ready: %s\n", db_problem());
	admin_finish(answer, ready ? 200 : 503, PLAIN);
}

static LoopTimer rights_timer;

static void
lacks_came(void *arg, const DbOutcome *outcome)
{
	char	   *save = NULL;
	char	   *line = NULL;

	if (outcome->result != NULL)
		line = strtok_r(PQgetvalue(outcome->result, 0, 0), "\n", &save);
	for (; line != NULL; line = strtok_r(NULL, "\n", &save))
		log_line(LOG_WARNING, "%s", line);
}

static void
look_at_rights(void *arg)
{
	if (db_up())
		db_call(&lacks_statement, NULL, NULL, lacks_came, NULL);
	else
		timer_start(&rights_timer, RIGHTS_US, look_at_rights, NULL);
}

void
admin_watch_rights(void)
{
	timer_start(&rights_timer, 0, look_at_rights, NULL);
}

void
admin_forget_rights(void)
{
	timer_stop(&rights_timer);
}
