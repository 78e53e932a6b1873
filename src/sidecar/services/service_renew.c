/*
 * service_renew.c
 *		garbagetruck.v1.GarbageTruck: RenewBatch, and KeepAlive, the same as a
 *		stream of beats.
 */
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "garbagetruck_v1.pb-c.h"
#include "services/services.h"

#define MAX_IDS 10000
#define MAX_WAITING 100000		/* ids of one stream's beats without an answer */
#define BEAT_COST 16			/* what a beat takes besides, in ids */

typedef Garbagetruck__V1__RenewResult RenewResult;

/*
 * Rows are in the order of the ids.  Leases of other services than a caller's own,
 * whose call says for whom it is, do not exist for him.
 */
static DbStatement renew_many = {"v1_renew_many",
	"SELECT status, ttl, expires_at FROM gt_renew_many($1, $2)",
2, DB_BINARY | DB_REPEATABLE};

static DbStatement renew_own = {"v1_renew_own",
	"SELECT CASE status WHEN 'denied' THEN 'not_found' ELSE status END, ttl, expires_at FROM gt_renew_many($1, $2)",
2, DB_BINARY | DB_REPEATABLE};

/* What an answer needs of its request. */
typedef struct Beat
{
	struct Beat *next;
	GrpcCall   *call;
	DbCall	   *waiting;
	size_t		charged;		/* bytes */
	uint64_t	seq;
	size_t		count;
	char	   *ids[];			/* followed by their text */
} Beat;

/* The state of a KeepAlive stream. */
typedef struct KeepAlive
{
	Beat	   *beats;			/* waiting for SQL */
	size_t		waiting;		/* their ids and costs */
	bool		ended;			/* the client will send no more */
} KeepAlive;

/* NULL after it has failed the call: there is no room for it. */
static Beat *
make_beat(GrpcCall *call, char *const *ids, size_t count)
{
	size_t		bytes = sizeof(Beat) + count * sizeof(char *);
	Beat	   *beat;
	char	   *at;
	size_t		i;

	for (i = 0; i < count; i++)
		bytes += strlen(ids[i]) + 1;
	if (!grpc_charge(call, bytes))
		return NULL;
	beat = malloc(bytes);
	if (beat == NULL)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return NULL;
	}
	memset(beat, 0, sizeof(Beat));
	beat->call = call;
	beat->charged = bytes;
	beat->count = count;
	at = (char *) &beat->ids[count];
	for (i = 0; i < count; i++)
	{
		beat->ids[i] = at;
		at = stpcpy(at, ids[i]) + 1;
	}
	return beat;
}

static Garbagetruck__V1__RenewResult__Status
status_of_text(const char *text)
{
	static const struct
	{
		const char *text;
		Garbagetruck__V1__RenewResult__Status status;
	}			known[] = {
		{"renewed", GARBAGETRUCK__V1__RENEW_RESULT__STATUS__RENEWED},
		{"expired", GARBAGETRUCK__V1__RENEW_RESULT__STATUS__EXPIRED},
		{"not_found", GARBAGETRUCK__V1__RENEW_RESULT__STATUS__NOT_FOUND},
		{"denied", GARBAGETRUCK__V1__RENEW_RESULT__STATUS__DENIED},
		{"child", GARBAGETRUCK__V1__RENEW_RESULT__STATUS__CHILD}
	};
	size_t		i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		if (strcmp(known[i].text, text) == 0)
			return known[i].status;
	}
	return GARBAGETRUCK__V1__RENEW_RESULT__STATUS__UNKNOWN;
}

/* The results as messages, in static memory. */
static RenewResult **
read_results(const PGresult *result, const Beat *beat)
{
	static RenewResult results[MAX_IDS];
	static RenewResult *pointers[MAX_IDS];
	static Google__Protobuf__Duration ttls[MAX_IDS];
	static Google__Protobuf__Timestamp times[MAX_IDS];
	int			i;

	for (i = 0; i < (int) beat->count; i++)
	{
		garbagetruck__v1__renew_result__init(&results[i]);
		results[i].lease_id = beat->ids[i];
		if (i < PQntuples(result))
		{
			results[i].status = status_of_text(get_text_or_empty(result, i, 0));
			results[i].ttl = get_duration(result, i, 1, &ttls[i]);
			results[i].expires_at = get_timestamp(result, i, 2, &times[i]);
		}
		pointers[i] = &results[i];
	}
	return pointers;
}

/* Check a request and send it to SQL; false after it has failed the call. */
static bool
send_beat(GrpcCall *call, Beat *beat, const Google__Protobuf__Duration *duration, DbDone done)
{
	DbHow		how = call_how(call);
	char		buffer[INTERVAL_SIZE];
	const char *params[2] = {NULL};
	ArrayParam	ids;
	size_t		i;

	if (!read_duration(call, "duration", duration, buffer, &params[1]))
		return false;
	param_begin(&ids);
	for (i = 0; i < beat->count; i++)
		param_add(&ids, valid_uuid(beat->ids[i]) ? beat->ids[i] : nil_uuid);
	params[0] = param_end(&ids);
	/* The beats of a stream go one after the other. */
	how.route = beat->count == 1 ? route_of_lease(beat->ids[0]) : (uint64_t) (uintptr_t) call;
	beat->waiting = db_call(caller_name(call) != NULL ? &renew_own : &renew_many, params, &how, done, beat);
	param_free(&ids);
	return true;
}

static bool
check_count(GrpcCall *call, size_t count)
{
	if (count <= MAX_IDS)
		return true;
	grpc_fail(call, GRPC_INVALID_ARGUMENT, "lease_ids: %zu are too many, %d are allowed", count, MAX_IDS);
	return false;
}

/* ---- RenewBatch ---- */

static void
batch_renewed(void *arg, const DbOutcome *outcome)
{
	Beat	   *beat = arg;
	GrpcCall   *call = beat->call;
	Garbagetruck__V1__RenewBatchResponse response = GARBAGETRUCK__V1__RENEW_BATCH_RESPONSE__INIT;

	beat->waiting = NULL;
	if (outcome->result == NULL)
	{
		call_fail_outcome(call, outcome, outcome->message);
		return;
	}
	response.results = read_results(outcome->result, beat);
	response.n_results = beat->count;
	grpc_answer(call, &response.base);
}

void
v1_renew_batch_over(GrpcCall *call)
{
	Beat	   *beat = grpc_state(call);

	if (beat != NULL && beat->waiting != NULL)
		db_forget(beat->waiting);
	free(beat);
}

void
v1_renew_batch(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__RenewBatchRequest *request = (const void *) message;
	Beat	   *beat;

	if (!check_count(call, request->n_lease_ids))
		return;
	beat = make_beat(call, request->lease_ids, request->n_lease_ids);
	if (beat == NULL)
		return;
	grpc_set_state(call, beat);
	send_beat(call, beat, request->duration, batch_renewed);
}

/* ---- KeepAlive ---- */

static void
unlink_beat(KeepAlive *stream, Beat *beat)
{
	Beat	  **at = &stream->beats;

	while (*at != beat)
		at = &(*at)->next;
	*at = beat->next;
	stream->waiting -= beat->count + BEAT_COST;
	grpc_give_back(beat->call, beat->charged);
}

static void
beat_renewed(void *arg, const DbOutcome *outcome)
{
	Beat	   *beat = arg;
	GrpcCall   *call = beat->call;
	KeepAlive  *stream = grpc_state(call);
	Garbagetruck__V1__KeepAliveResponse response = GARBAGETRUCK__V1__KEEP_ALIVE_RESPONSE__INIT;

	unlink_beat(stream, beat);
	if (outcome->result == NULL)
		call_fail_outcome(call, outcome, outcome->message);
	else
	{
		response.seq = beat->seq;
		response.results = read_results(outcome->result, beat);
		response.n_results = beat->count;
		grpc_send(call, &response.base);
		if (!grpc_over(call) && stream->ended && stream->beats == NULL)
			grpc_ok(call);
	}
	free(beat);
}

void
v1_keep_alive(GrpcCall *call, const ProtobufCMessage *message)
{
	const Garbagetruck__V1__KeepAliveRequest *request = (const void *) message;
	KeepAlive  *stream = grpc_state(call);
	Beat	   *beat;

	if (!check_count(call, request->n_lease_ids))
		return;
	if (stream == NULL)
	{
		stream = calloc(1, sizeof(KeepAlive));
		grpc_set_state(call, stream);
	}
	if (stream == NULL || stream->waiting > MAX_WAITING)
	{
		grpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "too many beats wait for an answer");
		return;
	}
	beat = make_beat(call, request->lease_ids, request->n_lease_ids);
	if (beat == NULL)
		return;
	beat->seq = request->seq;
	if (!send_beat(call, beat, request->duration, beat_renewed))
	{
		free(beat);
		return;
	}
	beat->next = stream->beats;
	stream->beats = beat;
	stream->waiting += beat->count + BEAT_COST;
}

void
v1_keep_alive_end(GrpcCall *call)
{
	KeepAlive  *stream = grpc_state(call);

	if (stream == NULL || stream->beats == NULL)
		grpc_ok(call);
	else
		stream->ended = true;
}

void
v1_keep_alive_over(GrpcCall *call)
{
	KeepAlive  *stream = grpc_state(call);

	while (stream != NULL && stream->beats != NULL)
	{
		Beat	   *beat = stream->beats;

		unlink_beat(stream, beat);
		db_forget(beat->waiting);
		free(beat);
	}
	free(stream);
}
