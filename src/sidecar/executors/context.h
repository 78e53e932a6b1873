/*
 * context.h
 *		A claimed call, and the state of the executors' thread.
 *
 * All of this belongs to that thread, but for what is marked otherwise.  No
 * lock is ever held around a call into libpq or libcurl.
 */
#ifndef GT_EXECUTORS_CONTEXT_H
#define GT_EXECUTORS_CONTEXT_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executors/executors.h"
#include "executors/target.h"
#include "executors/util.h"

#define EXEC_BODY_MAX		65536	/* of an answer that is read */
#define EXEC_HEADER_MAX		65536
#define EXEC_SPARE			64	/* idle handles of libcurl that are kept */

typedef struct Context Context;
typedef struct Settings Settings;
typedef struct Call Call;
typedef struct Host Host;
typedef struct Handler Handler;

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

/* What is known of a host; in this order they get places. */
typedef enum HostRank
{
	HOST_QUICK, HOST_NEW, HOST_SLOW, HOST_SILENT, HOST_RANKS
} HostRank;

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
	HostRank	rank;			/* of its host when it began, but none that hangs is new */
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
	char	   *trailer_status, *trailer_message;	/* grpc-status, grpc-message */
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

/* A target host: calls wait here for their turn.  See hosts.c. */
struct Host
{
	Host	   *next;			/* in the bucket of context->hosts */
	char	   *key;			/* "host:port" */
	CallList	waiting;
	int			in_flight;
	int			hanging;		/* of these: for longer than its patience */
	int			suspects;		/* waiting or in flight: whose calls hung before */
	int			unanswered;		/* calls that came to hang, and none was answered since */
	int			limit;			/* calls at once; shrinks while it hangs */
	int64_t		answered_at;	/* when it last answered; 0: never */
	int64_t		usual_us;		/* what an answer takes, smoothed */
	int64_t		varies_us;		/* how far from that answers are, likewise */
	int64_t		back_at;		/* when what was given back last is due */
	int64_t		suspects_back_at;	/* the same of suspects */
	int			picked;			/* in the look numbered... */
	int			picked_in;		/* ...so: what is to be claimed for it */
	int64_t		idle_since;
};

#define HOST_BUCKETS 256
#define HUNG_IDS 8192

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
	int			of_rank[HOST_RANKS];	/* of what is in flight */
	uint64_t	turned_away;	/* of what was given back: for hosts that do not answer, or not soon */
	int			waiting;		/* in the hosts' lists */
	int			looks;			/* at what is due, so far */
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

extern void exec_log(Context *context, ExecutorLogLevel level, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* Set or clear (NULL) what keeps us from claiming. */
extern void exec_problem(Context *context, Problem problem, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif							/* GT_EXECUTORS_CONTEXT_H */
