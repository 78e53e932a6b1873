/*
 * cli_lease.c
 *		lease create, renew, get, release and list.
 *
 * Runs in the command line's process.  Each command is one call or a few, and
 * its result.  garbagetruck.v1 is spoken, but for what only distributed_gc
 * knows: whose lease is renewed or released, and whether the server lets a
 * --cleanup-endpoint be called.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/object_types.h"
#include "cli/cli.h"
#include "cli/cli_requests.h"

#define GC_PATH "/distributed_gc.DistributedGCService/"
#define V1_PATH "/garbagetruck.v1.GarbageTruck/"
#define PAGE_SIZE 1000

/* protobuf-c's members are not const, though packing changes nothing. */
#define TEXT_FIELD(text) ((char *) ((text) != NULL ? (text) : ""))

/* The enum's value for a type, UNKNOWN for a name of the user's own. */
static DistributedGc__ObjectType
enum_type(const char *type)
{
	int			number = object_type_number(type);

	if (number == OBJECT_TYPE_CUSTOM && strcmp(type, "custom") != 0)
		return DISTRIBUTED_GC__OBJECT_TYPE__UNKNOWN;
	return (DistributedGc__ObjectType) number;
}

static void
print_grant(const Cli *cli, const Garbagetruck__V1__Grant *grant)
{
	out_begin(cli->json);
	out_text("lease_id", grant->lease_id);
	if (grant->expires_at != NULL)
		out_time("expires_at", grant->expires_at->seconds, grant->expires_at->nanos);
	out_integer("fence", grant->fence);
	if (grant->ttl != NULL)
		out_seconds("ttl_seconds", grant->ttl->seconds, grant->ttl->nanos);
	out_bool("created", grant->created);
	out_integer("attempts", grant->attempts);
	if (cli->json)
		out_bool("success", true);
	out_end();
}

static int
create_by_v1(Cli *cli, char *type)
{
	Garbagetruck__V1__CreateRequest *request = cli_create_request(cli, type);
	Garbagetruck__V1__Grant *grant = (Garbagetruck__V1__Grant *)
		cli_call(cli, V1_PATH "Create", &request->base,
				 &garbagetruck__v1__grant__descriptor);

	cli_free_create_request(request);
	if (grant == NULL)
		return CLI_FAILED;
	print_grant(cli, grant);
	garbagetruck__v1__grant__free_unpacked(grant, NULL);
	return CLI_OK;
}

/* What CreateLease does not answer is asked for, so that every create prints the same. */
static void
print_created(Cli *cli, const DistributedGc__CreateLeaseResponse *created)
{
	Garbagetruck__V1__GetRequest request = GARBAGETRUCK__V1__GET_REQUEST__INIT;
	Garbagetruck__V1__Grant grant = GARBAGETRUCK__V1__GRANT__INIT;
	Garbagetruck__V1__Lease *lease;
	GrpcReply	reply;

	request.lease_id = created->lease_id;
	lease = (Garbagetruck__V1__Lease *)
		cli_call_quiet(cli, V1_PATH "Get", &request.base, &garbagetruck__v1__lease__descriptor,
					   (long) cli->timeout_ms, &reply);
	grpc_reply_free(&reply);
	grant.lease_id = created->lease_id;
	grant.expires_at = created->expires_at;
	grant.created = true;
	if (lease != NULL)
	{
		grant.fence = lease->fence;
		grant.ttl = lease->duration;
		grant.attempts = lease->attempts;
	}
	print_grant(cli, &grant);
	if (lease != NULL)
		garbagetruck__v1__lease__free_unpacked(lease, NULL);
}

/* CreateLease looks at the URL of a cleanup, and refuses it while somebody is there to hear it. */
static int
create_by_gc(Cli *cli, DistributedGc__ObjectType type)
{
	DistributedGc__CreateLeaseRequest request = DISTRIBUTED_GC__CREATE_LEASE_REQUEST__INIT;
	DistributedGc__CleanupConfig config = DISTRIBUTED_GC__CLEANUP_CONFIG__INIT;
	DistributedGc__CreateLeaseRequest__MetadataEntry entries[CLI_MAX_METADATA];
	DistributedGc__CreateLeaseRequest__MetadataEntry *pointers[CLI_MAX_METADATA];
	DistributedGc__CreateLeaseResponse *answer;
	char	   *url = NULL;
	int			i;

	request.object_id = (char *) cli->object_id;
	request.object_type = type;
	request.service_id = (char *) cli_service(cli);
	if (cli->duration_ms > 0)
		request.lease_duration_seconds = (uint64_t) cli->duration_ms / 1000;
	for (i = 0; i < cli->metadata_count; i++)
	{
		const char *equals = strchr(cli->metadata[i], '=');

		distributed_gc__create_lease_request__metadata_entry__init(&entries[i]);
		entries[i].key = needed(strndup(cli->metadata[i], (size_t) (equals - cli->metadata[i])));
		entries[i].value = (char *) equals + 1;
		pointers[i] = &entries[i];
	}
	request.n_metadata = (size_t) cli->metadata_count;
	request.metadata = pointers;
	if (cli->cleanup_endpoint != NULL)
	{
		url = cli_endpoint_url(cli->cleanup_endpoint);
		if (cli_endpoint_is_grpc(cli->cleanup_endpoint))
			config.cleanup_endpoint = url;
		else
			config.cleanup_http_endpoint = url;
		config.cleanup_payload = TEXT_FIELD(cli->payload);
		request.cleanup_config = &config;
	}
	answer = (DistributedGc__CreateLeaseResponse *)
		cli_call(cli, GC_PATH "CreateLease", &request.base,
				 &distributed_gc__create_lease_response__descriptor);
	for (i = 0; i < cli->metadata_count; i++)
		free(entries[i].key);
	free(url);
	if (answer == NULL)
		return CLI_FAILED;
	print_created(cli, answer);
	distributed_gc__create_lease_response__free_unpacked(answer, NULL);
	return CLI_OK;
}

/* Whole seconds, or none at all; 0 is refused, and so must be said. */
static bool
fits_seconds(int64_t ms)
{
	return ms < 0 || (ms > 0 && ms % 1000 == 0);
}

int
cli_lease_create(Cli *cli)
{
	char	   *type = cli_object_type(cli->object_type);
	bool		gc = cli->cleanup_endpoint != NULL && cli_service(cli)[0] != '\0' &&
		!cli->exclusive && cli->parent == NULL && cli->request_key == NULL && fits_seconds(cli->duration_ms) &&
		enum_type(type) != DISTRIBUTED_GC__OBJECT_TYPE__UNKNOWN;
	int			rc;

	if (gc)
		rc = create_by_gc(cli, enum_type(type));
	else
		rc = create_by_v1(cli, type);
	free(type);
	return rc;
}

/*
 * The calls of garbagetruck.v1 do not say for which service they are: see that
 * the lease is its, as RenewLease and ReleaseLease do.
 */
static bool
is_own_lease(Cli *cli)
{
	Garbagetruck__V1__GetRequest request = GARBAGETRUCK__V1__GET_REQUEST__INIT;
	Garbagetruck__V1__Lease *lease;
	bool		own;

	/* No service was named: the server looks at the token's. */
	if (cli_service(cli)[0] == '\0')
		return cli_connect(cli);
	request.lease_id = (char *) cli->lease_id;
	lease = (Garbagetruck__V1__Lease *)
		cli_call(cli, V1_PATH "Get", &request.base, &garbagetruck__v1__lease__descriptor);
	if (lease == NULL)
		return false;
	own = strcmp(lease->service_id, cli_service(cli)) == 0;
	if (!own)
		cli_error(cli->json, "PERMISSION_DENIED",
				  "lease %s belongs to service \"%s\", not \"%s\": name the lease's own service with --service-id",
				  cli->lease_id, lease->service_id, cli_service(cli));
	garbagetruck__v1__lease__free_unpacked(lease, NULL);
	return own;
}

/* A duration that whole seconds cannot say, or a service that only the server knows. */
static int
renew_by_v1(Cli *cli)
{
	Garbagetruck__V1__RenewResult *result;
	GrpcReply	reply;

	if (!is_own_lease(cli))
		return CLI_FAILED;
	result = cli_renew(cli, cli->lease_id, cli->duration_ms, (long) cli->timeout_ms, &reply);
	if (result == NULL)
	{
		cli_report(cli, &reply);
		grpc_reply_free(&reply);
		return CLI_FAILED;
	}
	grpc_reply_free(&reply);
	out_begin(cli->json);
	out_text("lease_id", cli->lease_id);
	if (result->expires_at != NULL)
		out_time("expires_at", result->expires_at->seconds, result->expires_at->nanos);
	if (cli->json)
		out_bool("success", true);
	out_end();
	garbagetruck__v1__renew_result__free_unpacked(result, NULL);
	return CLI_OK;
}

int
cli_lease_renew(Cli *cli)
{
	DistributedGc__RenewLeaseRequest request = DISTRIBUTED_GC__RENEW_LEASE_REQUEST__INIT;
	DistributedGc__RenewLeaseResponse *answer;

	if (!fits_seconds(cli->duration_ms) || cli_service(cli)[0] == '\0')
		return renew_by_v1(cli);
	request.lease_id = (char *) cli->lease_id;
	request.service_id = (char *) cli_service(cli);
	if (cli->duration_ms > 0)
		request.extend_duration_seconds = (uint64_t) cli->duration_ms / 1000;
	answer = (DistributedGc__RenewLeaseResponse *)
		cli_call(cli, GC_PATH "RenewLease", &request.base,
				 &distributed_gc__renew_lease_response__descriptor);
	if (answer == NULL)
		return CLI_FAILED;
	out_begin(cli->json);
	out_text("lease_id", cli->lease_id);
	if (answer->new_expires_at != NULL)
		out_time("expires_at", answer->new_expires_at->seconds, answer->new_expires_at->nanos);
	if (cli->json)
		out_bool("success", true);
	out_end();
	distributed_gc__renew_lease_response__free_unpacked(answer, NULL);
	return CLI_OK;
}

/* By garbagetruck.v1, which counts: --keep must not be lost silently. */
static int
release_by_v1(Cli *cli)
{
	Garbagetruck__V1__ReleaseRequest request = GARBAGETRUCK__V1__RELEASE_REQUEST__INIT;
	Garbagetruck__V1__CountResponse *answer;
	char	   *ids[1];
	bool		done;

	if (!is_own_lease(cli))
		return CLI_FAILED;
	ids[0] = (char *) cli->lease_id;
	request.n_lease_ids = 1;
	request.lease_ids = ids;
	request.keep = cli->keep;
	answer = (Garbagetruck__V1__CountResponse *)
		cli_call(cli, V1_PATH "Release", &request.base,
				 &garbagetruck__v1__count_response__descriptor);
	if (answer == NULL)
		return CLI_FAILED;
	done = answer->count > 0;
	garbagetruck__v1__count_response__free_unpacked(answer, NULL);
	if (!done)
	{
		cli_error(cli->json, "NOT_FOUND", "lease %s not found%s", cli->lease_id,
				  cli->keep ? ", so its object is not kept: it may have been cleaned already" : ": it has ended or never was");
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int
release_by_gc(Cli *cli)
{
	DistributedGc__ReleaseLeaseRequest request = DISTRIBUTED_GC__RELEASE_LEASE_REQUEST__INIT;
	ProtobufCMessage *answer;

	request.lease_id = (char *) cli->lease_id;
	request.service_id = (char *) cli_service(cli);
	answer = cli_call(cli, GC_PATH "ReleaseLease", &request.base,
					  &distributed_gc__release_lease_response__descriptor);
	if (answer == NULL)
		return CLI_FAILED;
	protobuf_c_message_free_unpacked(answer, NULL);
	return CLI_OK;
}

int
cli_lease_release(Cli *cli)
{
	bool		v1 = cli->keep || cli_service(cli)[0] == '\0';
	int			rc = v1 ? release_by_v1(cli) : release_by_gc(cli);

	if (rc != CLI_OK)
		return rc;
	out_begin(cli->json);
	out_text("lease_id", cli->lease_id);
	out_bool("released", true);
	if (cli->keep)
		out_bool("kept", true);
	if (cli->json)
		out_bool("success", true);
	out_end();
	return CLI_OK;
}

/* The members of one lease; the caller has opened the object. */
static void
print_lease(const Garbagetruck__V1__Lease *lease)
{
	out_text("lease_id", lease->lease_id);
	out_text("object_id", lease->object_id);
	out_text("object_type", lease->object_type);
	out_text("service_id", lease->service_id);
	out_text("state", lease->state);
	if (lease->created_at != NULL)
		out_time("created_at", lease->created_at->seconds, lease->created_at->nanos);
	if (lease->renewed_at != NULL)
		out_time("renewed_at", lease->renewed_at->seconds, lease->renewed_at->nanos);
	if (lease->expires_at != NULL)
		out_time("expires_at", lease->expires_at->seconds, lease->expires_at->nanos);
	if (lease->duration != NULL)
		out_seconds("duration_seconds", lease->duration->seconds, lease->duration->nanos);
	out_integer("renewals", (int64_t) lease->renewals);
	out_integer("fence", lease->fence);
	out_bool("exclusive", lease->exclusive);
	out_text_or_null("parent", lease->parent);
	out_text_or_null("cleanup", lease->cleanup);
	out_json("payload", lease->payload);
	out_json("metadata", lease->metadata);
	out_integer("attempts", lease->attempts);
}

int
cli_lease_get(Cli *cli)
{
	Garbagetruck__V1__GetRequest request = GARBAGETRUCK__V1__GET_REQUEST__INIT;
	Garbagetruck__V1__Lease *lease;

	request.lease_id = (char *) cli->lease_id;
	lease = (Garbagetruck__V1__Lease *)
		cli_call(cli, V1_PATH "Get", &request.base, &garbagetruck__v1__lease__descriptor);
	if (lease == NULL)
		return CLI_FAILED;
	out_begin(cli->json);
	print_lease(lease);
	out_end();
	garbagetruck__v1__lease__free_unpacked(lease, NULL);
	return CLI_OK;
}

/* What stands before the first lease; nothing is written before it has come. */
static void
print_head(const Cli *cli)
{
	out_begin(cli->json);
	if (cli->json)
		out_open_array("leases");
	else
		printf("%-36s  %-7s  %-24s  %-17s  %-16s  %s\n", "LEASE_ID", "STATE",
			   "EXPIRES_AT", "OBJECT_TYPE", "SERVICE_ID", "OBJECT_ID");
}

static void
print_row(const Cli *cli, const Garbagetruck__V1__Lease *lease)
{
	char		expires[32] = "";

	if (cli->json)
	{
		out_open_object();
		print_lease(lease);
		out_close_object();
		return;
	}
	if (lease->expires_at != NULL)
		cli_format_time(lease->expires_at->seconds, lease->expires_at->nanos, expires);
	printf("%-36s  %-7s  %-24s  %-17s  %-16s  %s\n", lease->lease_id, lease->state,
		   expires, lease->object_type, lease->service_id, lease->object_id);
}

/* One page after `token`, which it replaces.  False after an error. */
static bool
print_page(Cli *cli, char *type, bool first, int64_t *left, char **token)
{
	Garbagetruck__V1__ListRequest request = GARBAGETRUCK__V1__LIST_REQUEST__INIT;
	Garbagetruck__V1__ListResponse *answer;
	size_t		i;

	request.service_id = TEXT_FIELD(cli->service);
	request.object_type = TEXT_FIELD(type);
	request.limit = *left < PAGE_SIZE ? (uint32_t) *left : PAGE_SIZE;
	request.page_token = TEXT_FIELD(*token);
	answer = (Garbagetruck__V1__ListResponse *)
		cli_call(cli, V1_PATH "List", &request.base,
				 &garbagetruck__v1__list_response__descriptor);
	free(*token);
	*token = NULL;
	if (answer == NULL)
		return false;
	if (first)
		print_head(cli);
	for (i = 0; i < answer->n_leases; i++)
		print_row(cli, answer->leases[i]);
	*left -= (int64_t) answer->n_leases;
	if (answer->n_leases > 0 && answer->next_page_token[0] != '\0')
		*token = needed(strdup(answer->next_page_token));
	garbagetruck__v1__list_response__free_unpacked(answer, NULL);
	return true;
}

int
cli_lease_list(Cli *cli)
{
	char	   *type = cli->object_type ? cli_object_type(cli->object_type) : NULL;
	char	   *token = NULL;
	int64_t		left = cli->limit;
	bool		ok;

	ok = print_page(cli, type, true, &left, &token);
	if (ok)
	{
		while (ok && token != NULL && left > 0)
			ok = print_page(cli, type, false, &left, &token);
		if (cli->json)
		{
			out_close_array();
			out_bool("more", token != NULL || !ok);
		}
		out_end();
	}
	if (!cli->json && token != NULL)
		cli_error(false, "OK", "there are more: raise --limit");
	free(token);
	free(type);
	return ok ? CLI_OK : CLI_FAILED;
}
