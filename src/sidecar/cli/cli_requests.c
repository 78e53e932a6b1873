/*
 * cli_requests.c
 *		Requests of garbagetruck.v1 that several commands make.
 *
 * Runs in the command line's process; owns nothing.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/object_types.h"
#include "cli/cli_requests.h"

char *
cli_object_type(const char *given)
{
	char	   *type = needed(strdup(given != NULL ? given : "custom"));
	char	   *spelt = needed(strdup(type));
	char	   *p;

	for (p = spelt; *p != '\0'; p++)
		*p = *p == '-' ? '_' : (char) tolower((unsigned char) *p);
	if (object_type_number(spelt) != OBJECT_TYPE_CUSTOM)
		strcpy(type, spelt);
	free(spelt);
	return type;
}

bool
cli_endpoint_is_grpc(const char *endpoint)
{
	return strncasecmp(endpoint, "grpc://", 7) == 0 || strncasecmp(endpoint, "grpcs://", 8) == 0;
}

char *
cli_endpoint_url(const char *endpoint)
{
	char	   *url = NULL;

	if (!cli_endpoint_is_grpc(endpoint))
		url = strdup(endpoint);
	else if (asprintf(&url, "http%s", endpoint + 4) < 0)
		url = NULL;
	return needed(url);
}

/* The whole text of a stream in memory. */
static char *
written(FILE *out, char **text)
{
	bool		whole = !ferror(out);

	if (fclose(out) != 0 || !whole)
		out_of_memory();
	return needed(*text);
}

/* {"url": ..., "payload": ...}: what the built-in handlers are given. */
static char *
endpoint_payload(const Cli *cli)
{
	char	   *url = cli_endpoint_url(cli->cleanup_endpoint);
	char	   *text = NULL;
	size_t		len;
	FILE	   *out = needed(open_memstream(&text, &len));

	fputs("{\"url\":", out);
	json_write_string(out, url);
	fputs(",\"payload\":", out);
	json_write_string(out, cli->payload ? cli->payload : "");
	fputc('}', out);
	free(url);
	return written(out, &text);
}

/* The labels as one JSON object. */
static char *
metadata_json(const Cli *cli)
{
	char	   *text = NULL;
	size_t		len;
	FILE	   *out = needed(open_memstream(&text, &len));
	int			i;

	fputc('{', out);
	for (i = 0; i < cli->metadata_count; i++)
	{
		const char *equals = strchr(cli->metadata[i], '=');
		char	   *key = needed(strndup(cli->metadata[i], (size_t) (equals - cli->metadata[i])));

		if (i > 0)
			fputc(',', out);
		json_write_string(out, key);
		fputc(':', out);
		json_write_string(out, equals + 1);
		free(key);
	}
	fputc('}', out);
	return written(out, &text);
}

static Google__Protobuf__Duration *
duration_message(int64_t ms)
{
	Google__Protobuf__Duration *duration = needed(malloc(sizeof(*duration)));

	google__protobuf__duration__init(duration);
	duration->seconds = ms / 1000;
	duration->nanos = (int32_t) (ms % 1000) * 1000000;
	return duration;
}

static char *
copy(const char *text)
{
	return needed(strdup(text != NULL ? text : ""));
}

Garbagetruck__V1__CreateRequest *
cli_create_request(const Cli *cli, char *type)
{
	Garbagetruck__V1__CreateRequest *request = needed(malloc(sizeof(*request)));

	garbagetruck__v1__create_request__init(request);
	request->object_id = copy(cli->object_id);
	request->object_type = copy(type);
	request->service_id = copy(cli_service(cli));
	request->cleanup = copy(cli->cleanup);
	request->payload = copy(cli->payload);
	if (cli->cleanup_endpoint != NULL)
	{
		free(request->cleanup);
		free(request->payload);
		request->cleanup = copy(cli_endpoint_is_grpc(cli->cleanup_endpoint)
								? "grpc_endpoint" : "http_endpoint");
		request->payload = endpoint_payload(cli);
	}
	request->metadata = cli->metadata_count > 0 ? metadata_json(cli) : copy("");
	request->parent = copy(cli->parent);
	request->exclusive = cli->exclusive;
	request->request_key = copy(cli->request_key);
	if (cli->duration_ms >= 0)
		request->duration = duration_message(cli->duration_ms);
	return request;
}

void
cli_free_create_request(Garbagetruck__V1__CreateRequest *request)
{
	garbagetruck__v1__create_request__free_unpacked(request, NULL);
}

/* The gRPC status that RenewLease has for a result, and its words. */
static void
renew_failure(const char *lease_id, int status, GrpcReply *reply)
{
	const char *what;

	switch (status)
	{
		case GARBAGETRUCK__V1__RENEW_RESULT__STATUS__EXPIRED:
			reply->status = GRPC_FAILED_PRECONDITION;
			what = "has expired";
			break;
		case GARBAGETRUCK__V1__RENEW_RESULT__STATUS__NOT_FOUND:
			reply->status = GRPC_NOT_FOUND;
			what = "not found";
			break;
		case GARBAGETRUCK__V1__RENEW_RESULT__STATUS__DENIED:
			reply->status = GRPC_PERMISSION_DENIED;
			what = "belongs to another service";
			break;
		case GARBAGETRUCK__V1__RENEW_RESULT__STATUS__CHILD:
			reply->status = GRPC_INVALID_ARGUMENT;
			what = "lives with its parent and is not renewed by itself";
			break;
		default:
			reply->status = GRPC_UNIMPLEMENTED;
			what = "was not renewed, for a reason that this version does not know";
			break;
	}
	free(reply->message);
	if (asprintf(&reply->message, "lease %s %s", lease_id, what) < 0)
		out_of_memory();
}

Garbagetruck__V1__RenewResult *
cli_renew(Cli *cli, const char *lease_id, int64_t duration_ms,
		  long timeout_ms, GrpcReply *reply)
{
	Garbagetruck__V1__RenewBatchRequest request = GARBAGETRUCK__V1__RENEW_BATCH_REQUEST__INIT;
	Garbagetruck__V1__RenewBatchResponse *answer;
	Garbagetruck__V1__RenewResult *result = NULL;
	char	   *ids[1];

	ids[0] = (char *) lease_id;
	request.n_lease_ids = 1;
	request.lease_ids = ids;
	if (duration_ms >= 0)
		request.duration = duration_message(duration_ms);
	answer = (Garbagetruck__V1__RenewBatchResponse *)
		cli_call_quiet(cli, "/garbagetruck.v1.GarbageTruck/RenewBatch", &request.base,
					   &garbagetruck__v1__renew_batch_response__descriptor,
					   timeout_ms, reply);
	free(request.duration);
	if (answer == NULL)
		return NULL;
	if (answer->n_results == 1 &&
		answer->results[0]->status == GARBAGETRUCK__V1__RENEW_RESULT__STATUS__RENEWED)
	{
		result = answer->results[0];
		answer->n_results = 0;
		free(answer->results);
		answer->results = NULL;
	}
	else
		renew_failure(lease_id, answer->n_results == 1 ? (int) answer->results[0]->status : 0,
					  reply);
	garbagetruck__v1__renew_batch_response__free_unpacked(answer, NULL);
	return result;
}
