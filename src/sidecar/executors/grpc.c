/*
 * grpc.c
 *		Handlers of kind grpc: "http[s]://host:port", called as
 *		distributed_gc.CleanupService/CleanupObject.
 *
 * A unary call in one HTTP/2 request.  Success is grpc-status 0 with an
 * answer whose `success` is true, and nothing else.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/object_types.h"
#include "executors/calls.h"
#include "executors/context.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"
#include "proto/distributed_gc.pb-c.h"

#define METHOD_PATH "/distributed_gc.CleanupService/CleanupObject"

static bool
grpc_prepare(Context *context, Call *call)
{
	Buffer		url = {NULL, 0, 0};
	const char *authority;
	const char *path;

	if (!call_expand(call, call->command, TARGET_URL))
		return false;
	authority = strstr(call->target.text.data, "://");
	path = authority != NULL ? authority + 3 + strcspn(authority + 3, "/?#") : NULL;
	if (path == NULL || (path[0] != '\0' && strcmp(path, "/") != 0))
	{
		snprintf(call->error, sizeof(call->error), "the target is no http[s]://host:port: \"%.200s\"", call->target.text.data);
		return false;
	}
	buffer_add(&url, call->target.text.data, (size_t) (path - call->target.text.data));
	buffer_text(&url, METHOD_PATH);
	call->url = url.data;
	call->method = "POST";
	if (transfer_split_url(call))
		return true;
	snprintf(call->error, sizeof(call->error), "the target is no http[s]://host:port: \"%.200s\"", call->target.text.data);
	return false;
}

/* The message with its frame of five bytes; *len is set. */
static uint8_t *
pack_request(const Call *call, size_t *len)
{
	DistributedGc__CleanupObjectRequest request = DISTRIBUTED_GC__CLEANUP_OBJECT_REQUEST__INIT;
	DistributedGc__CleanupObjectRequest__MetadataEntry *entries;
	DistributedGc__CleanupObjectRequest__MetadataEntry **pointers;
	uint8_t    *frame;
	size_t		size;
	int			i;

	entries = exec_alloc((size_t) call->metadata_count * sizeof(*entries));
	pointers = exec_alloc((size_t) call->metadata_count * sizeof(*pointers));
	for (i = 0; i < call->metadata_count; i++)
	{
		distributed_gc__cleanup_object_request__metadata_entry__init(&entries[i]);
		entries[i].key = call->metadata[i].name;
		entries[i].value = call->metadata[i].value;
		pointers[i] = &entries[i];
	}
	request.lease_id = call->lease_id != NULL ? call->lease_id : "";
	request.object_id = call->object_id;
	request.object_type = (DistributedGc__ObjectType) object_type_number(call->object_type);
	request.service_id = call->service_id != NULL ? call->service_id : "";
	request.n_metadata = (size_t) call->metadata_count;
	request.metadata = pointers;
	request.payload = call->body != NULL ? call->body : "";

	size = distributed_gc__cleanup_object_request__get_packed_size(&request);
	frame = exec_alloc(5 + size);
	frame[1] = (uint8_t) (size >> 24);
	frame[2] = (uint8_t) (size >> 16);
	frame[3] = (uint8_t) (size >> 8);
	frame[4] = (uint8_t) size;
	distributed_gc__cleanup_object_request__pack(&request, frame + 5);
	free(entries);
	free(pointers);
	*len = 5 + size;
	return frame;
}

static bool
grpc_start(Context *context, Call *call)
{
	char		timeout[40];
	char		key[40];

	call->work = pack_request(call, &call->send_len);
	call->send = call->work;
	/* the header holds at most eight digits */
	snprintf(timeout, sizeof(timeout), "grpc-timeout: %lldm",
			 (long long) (call->timeout_ms < 99999999 ? call->timeout_ms : 99999999));
	call->headers = exec_header(call->headers, "Content-Type: application/grpc");
	call->headers = exec_header(call->headers, "TE: trailers");
	call->headers = exec_header(call->headers, "Expect:");
	call->headers = exec_header(call->headers, timeout);
	call_idempotency_key(context, call, key, sizeof(key));
	call->headers = exec_header_value(call->headers, "idempotency-key", key);
	return true;
}

/* Does the answer say success?  Else why not. */
static bool
unpack_answer(Call *call)
{
	const uint8_t *data = (const uint8_t *) call->answer.data;
	DistributedGc__CleanupObjectResponse *response;
	size_t		size;
	bool		success;

	if (call->answer.len < 5 || data[0] != 0)
		response = NULL;
	else
	{
		size = (size_t) data[1] << 24 | (size_t) data[2] << 16 | (size_t) data[3] << 8 | data[4];
		response = size != call->answer.len - 5 ? NULL :
			distributed_gc__cleanup_object_response__unpack(NULL, size, data + 5);
	}
	if (response == NULL)
	{
		snprintf(call->error, sizeof(call->error), "%.200s port %d: the answer is no CleanupObjectResponse",
				 call->host_name, call->port);
		return false;
	}
	success = response->success;
	if (!success)
		snprintf(call->error, sizeof(call->error), "%.150s port %d: %.300s", call->host_name, call->port,
				 response->error_message[0] != '\0' ? response->error_message : "success is false");
	distributed_gc__cleanup_object_response__free_unpacked(response, NULL);
	return success;
}

/* As the answer tells it, which is percent-encoded. */
static void
tell_status(Call *call)
{
	char	   *message = curl_easy_unescape(NULL, call->trailer_message != NULL ? call->trailer_message : "", 0, NULL);

	snprintf(call->error, sizeof(call->error), "%.150s port %d: grpc-status %.10s: %.250s", call->host_name, call->port,
			 call->trailer_status, message != NULL ? message : "");
	curl_free(message);
}

static bool
grpc_judge(Context *context, Call *call, long status)
{
	if (status == 200 && call->trailer_status != NULL && strcmp(call->trailer_status, "0") == 0)
		return unpack_answer(call);
	if (call->trailer_status != NULL)
		tell_status(call);
	else
		snprintf(call->error, sizeof(call->error), "%.200s port %d: no gRPC answer, HTTP status %ld",
				 call->host_name, call->port, status);
	return false;
}

static void
grpc_cleanup(Call *call)
{
	free(call->work);
	call->work = NULL;
	call->send = NULL;
}

const ExecutorOps grpc_ops = {grpc_prepare, grpc_start, grpc_judge, grpc_cleanup, NULL, "http://1", TRANSFER_HTTP2};
