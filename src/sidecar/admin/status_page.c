/*
 * status_page.c
 *		The status page at /: asks for its parts and puts them together.
 *
 * Runs on the loop.  Owns, for each page being made, one buffer a section;
 * sections are written as their answers come, in any order, and the page
 * leaves when the last has come.  A section that fails says why, the others
 * stay: without preload there are no workers to show, for a role without
 * 'monitor' less still.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/admin.h"
#include "admin/status.h"
#include "db/database.h"
#include "executors/executors.h"
#include "net/loop.h"
#include "state.h"

#define LIMIT_US (5 * INT64_C(1000000))
#define REFRESH_S 10
#define MOST_CHECKS 32

typedef enum SectionName
{
	HEALTH, FORECAST, OBJECTS, WORKERS, SIDECARS, SECTIONS
} SectionName;

typedef struct Page Page;

typedef struct Section
{
	Page	   *page;
	SectionName name;
	FILE	   *out;
	char	   *text;
	size_t		len;
} Section;

struct Page
{
	AdminAnswer *answer;
	int			waiting;
	Section		section[SECTIONS];
	bool		health_known;
	int			failed;			/* checks */
	char		problem[512];	/* why the health is not known */
};

/* What is looked at is bounded, so that a page costs little in a bad hour. */
static DbStatement statements[SECTIONS] =
{
	{"gt_status_health",
		"SELECT check_name, coalesce(detail, ''), coalesce(remedy, '') FROM gt_health() WHERE NOT ok",
	0, DB_REPEATABLE},
	{"gt_status_forecast",
		"SELECT floor(extract(epoch FROM minute - date_trunc('minute', gt_clock())) / 60)::int, object_type, sum(leases)"
		" FROM gt_forecast('1 hour') GROUP BY 1, 2 ORDER BY sum(sum(leases)) OVER (PARTITION BY object_type) DESC, 2, 1",
	0, DB_REPEATABLE | DB_ALONE},
	{"gt_status_objects",
		"WITH one AS ("
		" SELECT object_type, handler, 0::bigint AS ending, (state = 'waiting')::int AS waiting,"
		" (state IN ('running', 'claimed'))::int AS running, 0 AS dead"
		" FROM (SELECT object_type, handler, state FROM gt_garbage WHERE state <> 'dead' LIMIT 10000) AS g"
		" UNION ALL SELECT object_type, handler, 0, 0, 0, 1 FROM (SELECT object_type, handler FROM gt_dead LIMIT 10000) AS d"
		" UNION ALL SELECT object_type, handler, leases, 0, 0, 0 FROM gt_forecast('1 hour')),"
		" kept AS (SELECT object_type, coalesce(handler, '') AS handler, sum(ending) AS ending, sum(waiting) AS waiting,"
		" sum(running) AS running, sum(dead) AS dead FROM one GROUP BY 1, 2)"
		" SELECT coalesce(k.object_type, ''), coalesce(k.handler, h.name), coalesce(h.kind, ''),"
		" coalesce(k.ending, 0), coalesce(k.waiting, 0), coalesce(k.running, 0), coalesce(k.dead, 0),"
		" coalesce(h.runs, 0), coalesce(h.failures, 0), extract(epoch FROM gt_clock() - h.last_run_at),"
		" left(coalesce(h.last_error, ''), 200), coalesce(h.paused, false), coalesce(h.paused_reason, '')"
		" FROM kept AS k FULL JOIN gt_handlers AS h ON h.name = k.handler"
		" ORDER BY k.dead DESC NULLS LAST, k.waiting + k.running DESC NULLS LAST, k.ending DESC NULLS LAST, 2, 1 LIMIT 200",
	0, DB_REPEATABLE | DB_ALONE},
	{"gt_status_workers",
		"SELECT pid, role, coalesce(database::text, ''), coalesce(state, ''), coalesce(handler, ''),"
		" extract(epoch FROM gt_clock() - since), extract(epoch FROM next_due_at - gt_clock()), coalesce(crashes, 0)"
		" FROM gt_workers ORDER BY role, database, pid LIMIT 100",
	0, DB_REPEATABLE},
	{"gt_status_sidecars",
		"SELECT coalesce(host(client_addr), 'local socket'), usename, count(*),"
		" extract(epoch FROM clock_timestamp() - min(backend_start)), bool_or(pid = pg_backend_pid())"
		" FROM pg_stat_activity WHERE application_name LIKE 'garbagetruck%' AND backend_type = 'client backend'"
		" AND datname = current_database() GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 100",
	0, DB_REPEATABLE},
};

/* The failed checks, each with its remedy; the first stands in the verdict. */
static void
section_health(Page *page, FILE *out, const PGresult *rows)
{
	int			i;

	page->health_known = true;
	page->failed = PQntuples(rows);
	for (i = 0; i < PQntuples(rows) && i < MOST_CHECKS; i++)
	{
		fputs("<p><b>", out);
		html_text(out, PQgetvalue(rows, i, 0));
		fputs("</b>: ", out);
		html_text(out, PQgetvalue(rows, i, 1));
		if (PQgetvalue(rows, i, 2)[0] != '\0')
		{
			fputs(" &rarr; <code>", out);
			html_text(out, PQgetvalue(rows, i, 2));
			fputs("</code>", out);
		}
		fputs("</p>", out);
	}
}

static void
write_section(Section *section, const PGresult *rows)
{
	switch (section->name)
	{
		case HEALTH:
			section_health(section->page, section->out, rows);
			break;
		case FORECAST:
			section_forecast(section->out, rows);
			break;
		case OBJECTS:
			section_objects(section->out, rows);
			break;
		case WORKERS:
			section_workers(section->out, rows);
			break;
		case SIDECARS:
			section_sidecars(section->out, rows);
			break;
		case SECTIONS:
			break;
	}
}

/* The line of verdict and what mends it. */
static void
write_verdict(Page *page, FILE *out)
{
	const char *checks = page->section[HEALTH].text;

	if (page->health_known && page->failed == 0)
	{
		fputs("<div class=\"verdict ok\" role=\"status\"><span class=\"sign\" aria-hidden=\"true\">&#10003;</span>"
			  "<div><p><b>Reclaiming normally</b>", out);
		samples_summary(out);
		fputs("</p></div></div>", out);
		return;
	}
	fputs("<div class=\"verdict bad\" role=\"alert\"><span class=\"sign\" aria-hidden=\"true\">!</span><div>", out);
	if (page->health_known)
		fputs(checks, out);
	else
	{
		fputs("<p><b>The database does not answer</b>: ", out);
		html_text(out, page->problem);
		fputs(" &rarr; see that PostgreSQL runs, and that <code>--db</code> names it; "
			  "leases wait for it and lose nothing</p>", out);
	}
	fputs("</div></div>", out);
}

/* What keeps this sidecar's executors from some of their work. */
static void
write_problems(FILE *out)
{
	char	   *problems = state.executors ? executors_problems(state.executors) : NULL;
	char	   *save = NULL;
	char	   *line = problems ? strtok_r(problems, "\n", &save) : NULL;

	if (line != NULL)
	{
		fputs("<div class=\"verdict note\" role=\"status\"><span class=\"sign\" aria-hidden=\"true\">i</span><div>", out);
		for (; line != NULL; line = strtok_r(NULL, "\n", &save))
		{
			fputs("<p><b>executors</b>: ", out);
			html_text(out, line);
			fputs("</p>", out);
		}
		fputs("</div></div>", out);
	}
	free(problems);
}

static void
write_card(Page *page, FILE *out, SectionName name, const char *title, const char *more)
{
	fprintf(out, "<section class=\"card\"><h2>%s <small>%s</small></h2>%s</section>",
			title, more, page->section[name].text);
}

static void
write_head(FILE *out)
{
	struct timespec started = state.started;
	time_t		now = time(NULL);
	struct tm	utc;
	char		clock[32] = "";

	if (gmtime_r(&now, &utc) != NULL)
		strftime(clock, sizeof(clock), "%Y-%m-%d %H:%M:%S UTC", &utc);
	fprintf(out, "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
			"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
			"<meta http-equiv=\"refresh\" content=\"%d\"><title>garbagetruck</title>"
			"<style>%s</style></head><body><main><header><h1>garbagetruck</h1><p>%s &middot; up ",
			REFRESH_S, status_style, clock);
	html_seconds(out, (double) (now - started.tv_sec));
	fprintf(out, " &middot; version %s</p></header>", GT_VERSION);
}

static void
write_page(Page *page)
{
	FILE	   *out = admin_body(page->answer);

	write_head(out);
	write_verdict(page, out);
	write_problems(out);
	samples_tiles(out);
	if (page->health_known)
	{
		write_card(page, out, FORECAST, "Forecast", "what ends in the next hour unless it is renewed");
		write_card(page, out, OBJECTS, "By type and handler", "");
		fputs("<div class=\"two\">", out);
		write_card(page, out, WORKERS, "Workers", "of the server");
		write_card(page, out, SIDECARS, "Sidecars", "on this database");
		fputs("</div>", out);
	}
	fputs("<footer><span>Every 10 s anew</span><a href=\"/metrics\">/metrics</a><a href=\"/healthz\">/healthz</a>"
		  "<span>In psql: <code>SELECT * FROM gt_health()</code> <code>TABLE gt_garbage</code> "
		  "<code>TABLE gt_dead</code> <code>TABLE gt_history</code></span></footer></main></body></html>\n", out);
}

/* False: there was no room for all of the sections. */
static bool
flush_sections(Page *page)
{
	bool		whole = true;
	int			i;

	for (i = 0; i < SECTIONS; i++)
	{
		Section    *section = &page->section[i];

		whole = fflush(section->out) == 0 && !ferror(section->out) && section->text != NULL && whole;
	}
	return whole;
}

static void
free_page(Page *page)
{
	int			i;

	for (i = 0; i < SECTIONS && page->section[i].out != NULL; i++)
	{
		fclose(page->section[i].out);
		free(page->section[i].text);
	}
	free(page);
}

static void
finish_page(Page *page)
{
	AdminAnswer *answer = page->answer;
	bool		healthy = page->health_known;
	bool		whole = flush_sections(page);

	if (whole)
		write_page(page);
	free_page(page);
	admin_finish(answer, !whole ? 500 : healthy ? 200 : 503, "text/html; charset=utf-8");
}

static void
section_came(void *arg, const DbOutcome *outcome)
{
	Section    *section = arg;
	Page	   *page = section->page;

	if (outcome->result != NULL)
		write_section(section, outcome->result);
	else if (section->name == HEALTH)
		snprintf(page->problem, sizeof(page->problem), "%s", outcome->message);
	else
	{
		fputs("<p class=\"none\">Not to be had: ", section->out);
		html_text(section->out, outcome->message);
		fputs("</p>", section->out);
	}
	if (--page->waiting == 0)
		finish_page(page);
}

void
admin_status(AdminAnswer *answer)
{
	Page	   *page = calloc(1, sizeof(Page));
	DbHow		how = {0};
	int			i;

	if (page == NULL)
	{
		admin_finish(answer, 500, "text/plain; charset=utf-8");
		return;
	}
	page->answer = answer;
	how.deadline_us = loop_now() + LIMIT_US;
	for (i = 0; i < SECTIONS; i++)
	{
		page->section[i].page = page;
		page->section[i].name = (SectionName) i;
		page->section[i].out = open_memstream(&page->section[i].text, &page->section[i].len);
		if (page->section[i].out == NULL)
		{
			free_page(page);
			admin_finish(answer, 500, "text/plain; charset=utf-8");
			return;
		}
	}
	if (!db_up())
	{
		snprintf(page->problem, sizeof(page->problem), "%s", db_problem());
		finish_page(page);
		return;
	}
	page->waiting = SECTIONS;
	for (i = 0; i < SECTIONS; i++)
		db_call(&statements[i], NULL, &how, section_came, &page->section[i]);
}
