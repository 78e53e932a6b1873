/*
 * cli_health.c
 *		health: can the server do its work?
 *
 * Runs in the command line's process.  Asked over gRPC, the server tells what is
 * wrong, too; the admin port is for probes, which have neither token nor
 * certificate at hand.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/memory.h"
#include "cli/cli.h"
#include "cli/cli_requests.h"

#define GC_PATH "/distributed_gc.DistributedGCService/"
#define V1_PATH "/garbagetruck.v1.GarbageTruck/"

static int
ask_grpc(Cli *cli)
{
	DistributedGc__HealthCheckRequest request = DISTRIBUTED_GC__HEALTH_CHECK_REQUEST__INIT;
	Google__Protobuf__Empty nothing = GOOGLE__PROTOBUF__EMPTY__INIT;
	DistributedGc__HealthCheckResponse *answer;
	Garbagetruck__V1__HealthResponse *checks;
	GrpcReply	reply;
	bool		healthy;
	size_t		i;

	answer = (DistributedGc__HealthCheckResponse *)
		cli_call(cli, GC_PATH "HealthCheck", &request.base,
				 &distributed_gc__health_check_response__descriptor);
	if (answer == NULL)
		return CLI_FAILED;
	/* The reasons are a gain, not a need: a caller may not be allowed to see them. */
	checks = (Garbagetruck__V1__HealthResponse *)
		cli_call_quiet(cli, V1_PATH "Health", &nothing.base,
					   &garbagetruck__v1__health_response__descriptor,
					   (long) cli->timeout_ms, &reply);
	grpc_reply_free(&reply);

	healthy = answer->healthy;
	out_begin(cli->json);
	out_bool("healthy", healthy);
	out_text("version", answer->version);
	out_integer("active_leases", (int64_t) answer->active_leases);
	out_integer("expired_leases", (int64_t) answer->expired_leases);
	if (answer->uptime != NULL)
		out_time("uptime", answer->uptime->seconds, answer->uptime->nanos);
	if (cli->json && checks != NULL)
	{
		out_open_array("checks");
		for (i = 0; i < checks->n_checks; i++)
		{
			out_open_object();
			out_text("name", checks->checks[i]->name);
			out_bool("ok", checks->checks[i]->ok);
			out_text("detail", checks->checks[i]->detail);
			out_text("remedy", checks->checks[i]->remedy);
			out_close_object();
		}
		out_close_array();
	}
	out_end();
	for (i = 0; !cli->json && checks != NULL && i < checks->n_checks; i++)
		if (!checks->checks[i]->ok)
			cli_error(false, "UNAVAILABLE", "%s: %s%s%s", checks->checks[i]->name,
					  checks->checks[i]->detail[0] ? checks->checks[i]->detail : "not ok; /healthz on the admin port tells more, or a token with admin",
					  checks->checks[i]->remedy[0] ? ": " : "",
					  checks->checks[i]->remedy);
	if (!healthy && (checks == NULL || checks->n_checks == 0))
		cli_error(cli->json, "UNAVAILABLE",
				  "the server is not healthy: look at /healthz on its admin port");
	distributed_gc__health_check_response__free_unpacked(answer, NULL);
	if (checks != NULL)
		garbagetruck__v1__health_response__free_unpacked(checks, NULL);
	return healthy ? CLI_OK : CLI_FAILED;
}

/* ---- the admin port ---- */

/* The first line of what the admin port says. */
typedef struct Line
{
	char		text[300];
	size_t		len;
} Line;

static size_t
keep_line(char *bytes, size_t size, size_t count, void *arg)
{
	Line	   *line = arg;
	size_t		i;

	for (i = 0; i < size * count && line->len < sizeof(line->text) - 1; i++)
		line->text[line->len++] = bytes[i];
	line->text[line->len] = '\0';
	line->text[strcspn(line->text, "\r\n")] = '\0';
	return size * count;
}

/* What serve's --admin takes is understood, too: all addresses, and none, are this machine. */
static char *
ready_url(const char *admin, const char **socket)
{
	const char *host = admin;
	const char *port = "";
	const char *scheme = "http://";
	char	   *url = NULL;

	*socket = NULL;
	if (strncasecmp(admin, "http://", 7) == 0 || strncasecmp(admin, "https://", 8) == 0)
		scheme = "";
	else if (strncmp(admin, "unix:", 5) == 0)
	{
		*socket = admin + 5;
		host = "localhost";
	}
	else if (admin[0] == ':')
	{
		host = "localhost";
		port = admin;
	}
	else if (strncmp(admin, "0.0.0.0:", 8) == 0)
	{
		host = "127.0.0.1";
		port = admin + 7;
	}
	else if (strncmp(admin, "[::]:", 5) == 0)
	{
		host = "[::1]";
		port = admin + 4;
	}
	if (asprintf(&url, "%s%s%s%s", scheme, host, port,
				 host[0] != '\0' && port[0] == '\0' && host[strlen(host) - 1] == '/' ? "readyz" : "/readyz") < 0)
		url = NULL;
	return needed(url);
}

static int
ask_admin(Cli *cli)
{
	CURL	   *curl = needed(curl_easy_init());
	char		error[CURL_ERROR_SIZE] = "";
	Line		line = {.len = 0};
	const char *socket;
	char	   *url = ready_url(cli->admin, &socket);
	long		status = 0;
	CURLcode	rc;

	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long) cli->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep_line);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &line);
	if (cli->tls_ca != NULL)
		curl_easy_setopt(curl, CURLOPT_CAINFO, cli->tls_ca);
	rc = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(curl);
	if (rc != CURLE_OK)
		cli_error(cli->json, "UNAVAILABLE", "no answer from %s: %s: is that the server's --admin address?", url,
				  error[0] ? error : curl_easy_strerror(rc));
	else
	{
		out_begin(cli->json);
		out_bool("healthy", status == 200);
		out_end();
		if (status != 200 && !cli->json)
			cli_error(false, "UNAVAILABLE", "%s answers HTTP %ld: %s", url, status, line.text);
	}
	free(url);
	return rc == CURLE_OK && status == 200 ? CLI_OK : CLI_FAILED;
}

int
cli_health(Cli *cli)
{
	return cli->admin != NULL && strcmp(cli->admin, "none") != 0 ? ask_admin(cli) : ask_grpc(cli);
}
