/*
 * exec.h
 *		What the files of the executors share.
 *
 * All of this belongs to the executors' thread, but for what is marked
 * otherwise.  No lock is ever held around a call into libpq or libcurl.
 */
#ifndef GT_EXEC_H
#define GT_EXEC_H

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include <curl/curl.h>
#include <libpq-fe.h>

#include "executors/executors.h"

#define EXEC_ERROR_SIZE		512		/* of a failed attempt's text */
#define EXEC_BODY_MAX		65536	/* of an answer that is read */
#define EXEC_HEADER_MAX		65536
#define EXEC_SPARE			64	/* idle handles of libcurl that are kept */

/* --- util.c --- */

/* Growing text; always followed by a NUL that len does not count. */
typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buffer;

/* These end the process when memory is short: no claim is lost by that. */
extern void *exec_alloc(size_t size);	/* zeroed */
extern void *exec_realloc(void *old, size_t size);
extern char *exec_strdup(const char *text); /* NULL for NULL */

/* Append a header. */
extern struct curl_slist *exec_header(struct curl_slist *headers, const char *line);

/* The same of a name and a value. */
extern struct curl_slist *exec_header_value(struct curl_slist *headers, const char *name, const char *value);

extern void buffer_add(Buffer *buffer, const void *data, size_t len);
extern void buffer_text(Buffer *buffer, const char *text);
extern void buffer_printf(Buffer *buffer, const char *format,...)
			__attribute__((format(printf, 2, 3)));
extern void buffer_free(Buffer *buffer);

/*
 * Percent-encode all but unreserved characters (RFC 3986) and those in
 * `keep`.
 */
extern void buffer_encoded(Buffer *buffer, const char *text, size_t len,
						   const char *keep);

extern int64_t exec_now(void);	/* monotonic, milliseconds */

/* Is this errno about us, descriptors or memory, and not about the target? */
extern bool exec_is_shortage(int error);

/* Make text printable UTF-8 of at most `max` bytes, in place. */
extern void exec_sanitize(char *text, size_t max);

/* Name and value, both owned. */
typedef struct Pair
{
	char	   *name;
	char	   *value;
} Pair;

/*
 * Read "HEX=HEX,HEX=HEX" (of UTF-8 text), as the claim query writes pairs.
 * Returns how many; 0 for NULL and for what is no such list.
 */
extern int	pairs_parse(const char *text, Pair **pairs);
extern void pairs_free(Pair *pairs, int count);

/* --- target.c --- */

/* What a target is, which tells how its placeholders are encoded. */
typedef enum TargetForm
{
	TARGET_URL,					/* '/' in a value becomes %2F */
	TARGET_BLOB_URL,			/* '/' in a value stays */
	TARGET_NAME,				/* scheme://container/name, as it is */
	TARGET_REDIS,				/* redis://host:port/DB/KEY, as it is */
	TARGET_FILE					/* a path, as it is */
} TargetForm;

typedef struct TargetValues
{
	const char *object_id;
	const char *object_type;
	const char *lease_id;
	const char *service_id;
	const Pair *payload;		/* scalars of the payload, by key */
	int			payload_count;
} TargetValues;

typedef struct Target
{
	Buffer		text;
	bool		lease_host;		/* the host comes from a lease */
} Target;

/*
 * Fill in a template.  False, with a reason in `error`, when a placeholder is
 * unknown, has no value, or has one that its place can not hold.  No I/O.
 */
extern bool target_expand(const char *template, TargetForm form,
						  const TargetValues *values, Target *target,
						  char *error, size_t error_size);
extern void target_free(Target *target);

/*
 * Has the path of the URL a "." or ".." segment?  Servers and proxies resolve
 * those: a value must not climb by them.
 */
extern bool target_climbs(const char *url);

/* --- allow.c --- */

/* May a lease name this host?  An address or a name, without brackets. */
extern bool allow_host(const AllowList *list, const char *host, int port,
					   char *error, size_t error_size);

/*
 * May this address be connected to, for a target whose host is `host`?
 * lease_host: it came from a lease.
 */
extern bool allow_address(const AllowList *list, const char *host, int port,
						  const struct sockaddr *address, bool lease_host);

/* --- calls.c, hosts.c --- */

typedef struct Context Context;
typedef struct Settings Settings;
typedef struct Call Call;
typedef struct Host Host;

/* A doubly linked list of calls; a call is in one at most. */
typedef struct CallList
{
	Call	   *head;
	Call	   *tail;
	int			count;
} CallList;

typedef enum CallState
{
	CALL_WAITING,				/* in its host's list */
	CALL_RUNNING,				/* in context->running */
	CALL_DONE					/* in context->succeeded or context->failed */
} CallState;

/* One claimed piece of garbage, until its outcome is told to the database. */
struct Call
{
	Call	   *next;
	Call	   *prev;
	CallList   *list;
	CallState	state;

	/* from the claim */
	int64_t		cleanup_id;
	int			attempt;
	ExecutorKind kind;
	char	   *handler;
	char	   *command;
	char	   *object_id;
	char	   *object_type;
	char	   *lease_id;
	char	   *service_id;
	char	   *body;			/* http: JSON to send; grpc: the payload */
	Pair	   *payload;
	int			payload_count;
	Pair	   *metadata;		/* grpc only */
	int			metadata_count;
	int64_t		timeout_ms;
	int64_t		extend_at;		/* when its claim is to be extended */
	int64_t		lapses_at;		/* when its claim is over, at the earliest */

	/* the target */
	Target		target;
	Host	   *host;
	char	   *url;			/* what to request */
	char	   *host_name;		/* of url */
	int			port;
	const char *method;

	/* the run */
	int64_t		started_at;
	int64_t		deadline;
	bool		hanging;		/* counted as such */
	bool		unproven;		/* likewise */
	bool		suspect;		/* likewise: its object's call hung before */
	CURL	   *easy;
	struct curl_slist *headers;
	void	   *work;			/* the executor's own */
	const uint8_t *send;		/* request body, NULL: none */
	size_t		send_len;
	Buffer		answer;			/* at most EXEC_BODY_MAX */
	size_t		header_bytes;
	bool		too_long;
	int			status;			/* of the last status line, as we read it */
	bool		refused;		/* the address may not be connected to */
	int			family;			/* of the address connected to last */
	char	   *trailer_status; /* grpc-status, grpc-message */
	char	   *trailer_message;
	char	   *retry_after;	/* these two of the answer's headers */
	char	   *error_code;		/* x-ms-error-code */
	char		curl_error[CURL_ERROR_SIZE];	/* libcurl's own words */
	char		error[EXEC_ERROR_SIZE];

	/* telling the database */
	int			tries;
	int64_t		not_before;
	bool		ours;			/* failed for want of a descriptor or the like: no attempt */
	bool		release;		/* given back: no attempt was made, or none that counts */
	bool		final;			/* failed, and will for ever: dead at once */
	int64_t		retry_after_ms; /* to be left alone so long; 0: not said */
};

/*
 * How a kind is carried out.  Each is a step that may fail the attempt, with
 * false and call->error.
 */
typedef struct ExecutorOps
{
	/* From the claim to url, host_name, port and target: no I/O. */
	bool		(*prepare) (Context *context, Call *call);

	/* Complete method, headers and body, now that it starts. */
	bool		(*start) (Context *context, Call *call);

	/* The answer is there: was it success? */
	bool		(*judge) (Context *context, Call *call, long status);

	/* Free call->work; may be NULL. */
	void		(*cleanup) (Call *call);

	/*
	 * Would every call of a handler with this command lack something?  Then
	 * `why` is advice.  May be NULL.
	 */
	bool		(*lacks) (Context *context, const char *command, char *why, size_t why_size);

	/* A target, for handlers that leave all of it to leases. */
	const char *sample;
} ExecutorOps;

extern const ExecutorOps *const kind_ops[EXEC_KINDS];

/*
 * The signature of a webhook (Standard Webhooks) for the header of that name,
 * with each of the secrets, which are separated by spaces.  False: one of them
 * begins with "whsec_" and is no base64, or memory is short.
 */
extern bool http_sign(const char *secrets, const char *id, const char *timestamp,
					  const void *body, size_t len, Buffer *signature);

/* Milliseconds from `now` (seconds since 1970) until what a Retry-After says; 0: nothing that can be read. */
extern int64_t http_retry_after(const char *text, int64_t now);

extern const ExecutorOps http_ops;
extern const ExecutorOps grpc_ops;
extern const ExecutorOps s3_ops;
extern const ExecutorOps azure_ops;

/* Files that the thread is given at once. */
#define FILE_JOBS 128

/* A target host: calls wait here for their turn.  See hosts.c. */
struct Host
{
	Host	   *next;			/* in the bucket of context->hosts */
	char	   *key;			/* "host:port" */
	CallList	waiting;
	int			in_flight;
	int			hanging;		/* of these: for longer than its patience */
	int			suspects;		/* waiting or in flight: whose calls hung before */
	bool		hung;			/* a call has, and none was answered since */
	int			limit;			/* calls at once; shrinks while it hangs */
	int64_t		answered_at;	/* when it last answered; 0: never */
	int64_t		slowest_ms;		/* answer of late */
	int64_t		usual_us;		/* what an answer takes, smoothed */
	int64_t		back_at;		/* when what was given back last is due */
	int64_t		suspects_back_at;	/* the same of suspects */
	int64_t		idle_since;
};

#define HOST_BUCKETS 256
#define HUNG_IDS 8192

#define MAX_WAITING		1024	/* claimed, not yet started */

typedef enum HandlerState
{
	HANDLER_UNKNOWN,			/* not tried yet */
	HANDLER_OK,
	HANDLER_DENIED				/* no claim on it; tried again at retry_at */
} HandlerState;

/* A handler of one of our kinds, as gt_handlers shows it. */
typedef struct Handler
{
	char	   *name;
	ExecutorKind kind;
	int64_t		timeout_ms;
	int64_t		retry_delay_ms;
	HandlerState state;
	int64_t		retry_at;
	int64_t		hold_until;		/* its own host is crowded: not claimed before */
	char	   *lacks;			/* why it is left to others; NULL: it is not */
	bool		seen;
} Handler;

typedef struct Database Database;
typedef struct FileThread FileThread;
typedef struct Aws Aws;

/* What may keep us from claiming: who finds one clears it, too. */
typedef enum Problem
{
	PROBLEM_CONNECTION,
	PROBLEM_HANDLERS,			/* reading them; another database than expected */
	PROBLEM_CLAIM,
	PROBLEMS
} Problem;

struct Settings
{
	char	   *conninfo;
	unsigned	kinds;
	char	   *expect_identity;
	char	   *file_root;
	char	   *tls_ca;
	char	   *webhook_secret;
	char	   *handler_owners; /* roles, as an array literal */
	bool		private_root;	/* file_root is on a /tmp that only we see */
	const AllowList *allow;
	int			max_in_flight;
	int			max_per_host;
	int			visibility_ms;
	void		(*log) (ExecutorLogLevel level, const char *line);
};

struct Context
{
	Settings	settings;
	CURLM	   *multi;
	Database   *database;
	FileThread *files;
	Aws		   *aws;

	Host	   *hosts[HOST_BUCKETS];
	int64_t		hung_ids[HUNG_IDS]; /* cleanups whose calls hung of late, each in the place of its number */
	int			host_count;
	CallList	running;		/* through libcurl, redis and file */
	CallList	succeeded;		/* to be acknowledged */
	CallList	failed;			/* to be given back */
	int			in_flight;
	int			hanging;		/* of what is in flight */
	int			unproven;		/* of what is in flight: to hosts that did not answer of late */
	int			waiting;		/* in the hosts' lists */
	int			first_bucket;	/* where the next round over the hosts begins */
	CURL	   *spare[EXEC_SPARE];	/* handles that were used and reset */
	int			spare_count;

	Handler    *handlers;
	int			handler_count;

	bool		draining;
	int64_t		stalled_at;		/* when this process last went on after it had not run for a while */
	int64_t		start_until;	/* what waits then is given back */
	int64_t		drain_until;	/* what runs then is left to its claim */
	int64_t		end_at;			/* what is not told then is left to it, too */

	char		place[9];		/* tells the database; "" until it is known */

	ExecutorsStats stats;		/* copied to the public one once a turn */
	char	   *problems[PROBLEMS]; /* by what found them; NULL: none */
	bool		problems_changed;
	char	   *lacks;			/* what is lacking, as last logged */
};

extern void list_add(CallList *list, Call *call);
extern void list_remove(Call *call);

extern Call *call_create(Context *context);
extern void call_free(Context *context, Call *call);

/* target_expand() with the values of the call, into its target. */
extern bool call_expand(Call *call, const char *template, TargetForm form);

/* PLACE-CLEANUP_ID: the same for each attempt at this cleanup, and for no other one. */
extern void call_idempotency_key(const Context *context, const Call *call, char *key, size_t size);

/* Take a claimed call: it waits for its host, or has failed already. */
extern void call_accept(Context *context, Call *call);

/* The outcome of an attempt: it goes to the list for the database. */
extern void call_succeed(Context *context, Call *call);
extern void call_fail(Context *context, Call *call, bool timed_out);

/* Give a call back: no attempt was made, for which it says why. It is due again after so long. */
extern void call_give_back(Context *context, Call *call, int64_t after_ms, const char *why);

/* Forget a call without an outcome: its claim lapses. */
extern void call_abandon(Context *context, Call *call);

/* Start what may start; take what has ended; enforce times. */
extern void calls_start(Context *context);
extern void calls_collect(Context *context);
extern void calls_check_times(Context *context);
extern int64_t calls_next_time(const Context *context);

/* Visit every call that waits or runs; `visit` may abandon it. */
extern void calls_visit(Context *context,
						void (*visit) (Context *context, Call *call, void *arg),
						void *arg);

/* Add the sockets that libcurl does not watch; returns how many. */
extern int	calls_poll_fds(const Context *context, struct curl_waitfd *fds, int max);

extern Host *host_get(Context *context, const char *key);
extern void hosts_forget_idle(Context *context, int64_t now);

/* How many calls it can answer within a second, by how long they took; however few it was given of late. */
extern int	host_rate(const Host *host);

/* How many calls may wait for it at the most. */
extern int	host_room(const Context *context, const Host *host);

/* Do more wait for it than for one that does not answer may, where others need the room? */
extern bool host_is_crowded(const Context *context, const Host *host);

/* In this order they get places. */
typedef enum HostRank
{
	HOST_ANSWERS, HOST_NEW, HOST_SILENT, HOST_RANKS
} HostRank;

extern HostRank host_rank(const Host *host);

/* How many calls to it may be under way at once. */
extern int	host_limit(const Context *context, const Host *host);

/* For how long a call to it may be without an answer before it counts as hanging. */
extern int64_t host_patience(const Host *host);

/* It has answered a call that took so long. */
extern void host_answered(const Context *context, Host *host, int64_t took);

/* A call that began then has timed out. */
extern void host_timed_out(Host *host, int64_t started_at);

/* What is known of the objects whose calls hang: that one did, or was answered. */
extern void host_note_hung(Context *context, const Call *call, bool hung);

/* Did it hang before, and do as many such have their place already?  Else it is counted in, if it did. */
extern bool host_has_suspects(Context *context, Call *call);
extern void host_forget_suspect(Call *call);
extern int64_t host_suspect_back_off(Host *host);

/* When a call for which there is no room shall be due again, from now on. */
extern int64_t host_back_off(Host *host);

/* --- transfer.c: one request through libcurl --- */

extern bool transfer_start(Context *context, Call *call, bool connect_only);
extern void transfer_end(Context *context, Call *call);

/* The call that a handle of libcurl works for. */
extern Call *transfer_call(CURL *easy);

/* A URL of http or https, as libcurl reads it and nobody reads it otherwise. */
typedef struct Url
{
	bool		tls;
	bool		user;			/* it has one in it */
	char	   *host;			/* without brackets */
	int			port;
	const char *path;			/* in the text, with the query; perhaps "" */
} Url;

/* False: it is none.  To be freed otherwise. */
extern bool url_parse(const char *text, Url *parts);
extern void url_free(Url *parts);

/* Set host_name and port by call->url; false when it is none of http or https. */
extern bool transfer_split_url(Call *call);

/* Text for a request that failed before there was an answer. */
extern void transfer_error(Call *call, CURLcode code);

/* --- redis.c, file.c --- */

extern bool redis_prepare(Context *context, Call *call);
extern bool redis_start(Context *context, Call *call);

/* libcurl has connected: go on with the protocol. */
extern void redis_connected(Context *context, Call *call);

/* Go on if possible; the call may have ended after this. */
extern void redis_step(Context *context, Call *call);
extern bool redis_wants_poll(const Call *call, struct curl_waitfd *fd);
extern void redis_cleanup(Call *call);

extern bool file_prepare(Context *context, Call *call);
extern bool file_lacks(Context *context, const char *command, char *why, size_t why_size);
extern FileThread *file_thread_start(Context *context);
extern void file_thread_stop(FileThread *files);
extern bool file_start(Context *context, Call *call);
extern void file_collect(Context *context);

/* Take back what the thread has not begun; false: it has it in hand. */
extern bool file_withdraw(Context *context, const Call *call);

/*
 * Remove one file beneath root.  True: it is gone, or was not there, while the
 * directory that it would be in is; else `error` says why not.  What is mounted
 * on the way is noted in `mounts`, and must be mounted from then on.
 */
extern bool file_remove(const char *root, Buffer *mounts, const char *path,
						char *error, size_t error_size);

/* One RESP2 reply.  Returns its length, 0: not all there, -1: no reply. */
typedef struct RedisReply
{
	char		type;			/* + - : $ */
	const char *text;			/* of + - $; points into the input */
	size_t		text_len;
	int64_t		integer;		/* of : */
} RedisReply;

extern int	redis_parse(const char *data, size_t len, RedisReply *reply);

/* --- check.c --- */

/*
 * Is this a target that calls of the kind can be made to, whatever leases fill
 * in?  Judged by what prepares the calls, so that both are of one mind.
 */
extern bool target_is_possible(Context *context, ExecutorKind kind, const char *command,
							   char *error, size_t error_size);

/* --- aws.c --- */

typedef struct AwsKeys
{
	char	   *access_key;
	char	   *secret_key;
	char	   *token;			/* NULL: none */
} AwsKeys;

extern Aws *aws_create(const Settings *settings);
extern void aws_free(Aws *aws);

/*
 * Copies of the credentials to be used now.  False: there are none, and `why`
 * is advice.  Where the environment has none, this begins to fetch them.  `aws`
 * may be NULL where it has.
 */
extern bool aws_keys(Aws *aws, AwsKeys *keys, char *why, size_t why_size);
extern void aws_keys_free(AwsKeys *keys);
extern const char *aws_region(void);
extern const char *aws_domain(void);	/* of the endpoints */

/* --- documents.c --- */

/* The text of the first element at a path from the root, "Error/Code". */
extern bool xml_value(const char *text, size_t len, const char *path, Buffer *value);

/* A string that is a member of the object that the text is. */
extern bool json_value(const char *text, size_t len, const char *name, Buffer *value);

/* --- s3.c, azure.c: the parts without I/O --- */

typedef struct S3Request
{
	const char *method;
	const char *query;			/* canonical, "" for none */
	const char *host;			/* as in the Host header */
	const char *path;			/* percent-encoded */
	const char *region;
	const char *access_key;
	const char *secret_key;
	const char *token;			/* NULL: none */
	const char *date;			/* 20261123T213000Z */
} S3Request;

/* The Authorization header's value for a request without a body. */
extern bool s3_sign(const S3Request *request, Buffer *authorization);

/*
 * OpenSSL looks its algorithms up when they are first used, and takes one for
 * absent, for good, when there is no memory for that.  False: so it is.
 */
extern bool s3_can_sign(void);

/* HMAC-SHA256 into 32 bytes. */
extern bool exec_hmac(const void *key, size_t key_len,
					  const void *data, size_t len, uint8_t *out);

/* --- database.c, claims.c --- */

extern Database *database_create(Context *context);
extern void database_free(Database *database);

/* Go on: connect, read answers, send what is due. */
extern void database_step(Context *context);
extern void database_wake(Context *context);
extern int64_t database_next_time(const Context *context);
extern bool database_wants_poll(const Context *context, struct curl_waitfd *fd);

/* Everything told to the database that there was to tell. */
extern bool database_settled(const Context *context);

/* --- executors.c --- */

extern void exec_log(Context *context, ExecutorLogLevel level, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* Set or clear (NULL) what keeps us from claiming. */
extern void exec_problem(Context *context, Problem problem, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif							/* GT_EXEC_H */
