/*
 * executors.h
 *		Carrying out the cleanups that need the network: what the rest of the
 *		sidecar sees of the executors.
 *
 * The executors are one thread with a database connection of its own.  It
 * claims garbage, makes the calls and acknowledges what succeeded.  Every
 * function here may be called from any thread.
 */
#ifndef GT_EXECUTORS_H
#define GT_EXECUTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ExecutorKind
{
	EXEC_HTTP,
	EXEC_GRPC,
	EXEC_S3,
	EXEC_AZURE_BLOB,
	EXEC_FILE,
	EXEC_REDIS,
	EXEC_KINDS					/* how many there are */
} ExecutorKind;

/* The kinds' names, as handlers and --executors spell them. */
extern const char *const executor_kind_names[EXEC_KINDS];

/* The ExecutorKind of that name; -1: none of ours. */
extern int	executor_kind(const char *name, size_t len);

/*
 * Read --executors: "none" or kinds separated by commas.  *mask gets one bit
 * for each kind.  False: `error` says what is wrong.
 */
extern bool executors_parse_kinds(const char *list, unsigned *mask,
								  char *error, size_t error_size);

/*
 * The targets that leases may name (--allow-target).  Filled before it is
 * used, read-only afterwards.
 */
typedef struct AllowList AllowList;

extern AllowList *allow_create(void);

/* Add HOST[:PORT]; false with a reason in `error` when it is none. */
extern bool allow_add(AllowList *list, const char *entry,
					  char *error, size_t error_size);

extern void allow_free(AllowList *list);

/*
 * May a lease name this URL as the target of a call of this kind (http or
 * grpc)?  As the call itself will be judged, with the host as written; the
 * address is judged again when it is connected to.  False: `error` says why
 * not, and names the flag where that is it.
 */
extern bool executors_judge_url(ExecutorKind kind, const AllowList *list, const char *url,
								char *error, size_t error_size);

typedef enum ExecutorLogLevel
{
	EXEC_LOG_ERROR, EXEC_LOG_WARNING, EXEC_LOG_INFO, EXEC_LOG_DEBUG
} ExecutorLogLevel;

/* What executors_start() takes; all strings are copied. */
typedef struct ExecutorsConfig
{
	const char *conninfo;		/* libpq connection string */
	unsigned	kinds;			/* bits of ExecutorKind */
	const char *expect_identity;	/* NULL: claim wherever it is */
	const char *file_root;		/* NULL: handlers of kind file are left to others */
	const char *tls_ca;			/* trusted certificates for targets; NULL:
								 * $SSL_CERT_FILE, else the system's */
	const char *const *handler_owners;	/* further roles whose handlers are carried out, see claims.c */
	int			handler_owner_count;
	const char *webhook_secret; /* signs what handlers of kind http send; several, separated by spaces; NULL: unsigned */
	const AllowList *allow;		/* must outlive the executors; NULL: none */
	int			max_in_flight;	/* calls at once; 0: 256 */
	int			max_per_host;	/* calls at once to one host; 0: 16 */
	int			visibility_ms;	/* length of a claim, extended while a call
								 * lasts; 0: 30 s */

	/* Called in the executors' thread with one line without a line end. */
	void		(*log) (ExecutorLogLevel level, const char *line);
} ExecutorsConfig;

/* Upper bounds, in seconds, of the histogram of call durations. */
#define EXEC_BUCKETS 10
extern const double executor_buckets[EXEC_BUCKETS];

/* Counters since the start; totals only grow. */
typedef struct ExecutorsStats
{
	struct
	{
		uint64_t	succeeded;	/* calls that succeeded */
		uint64_t	failed;		/* attempts that failed, timed out ones too */
		uint64_t	timed_out;	/* of these: by time */
		uint64_t	buckets[EXEC_BUCKETS + 1];	/* not cumulated; last: +Inf */
		double		seconds;	/* sum of durations */
		int			in_flight;	/* now */
	}			kind[EXEC_KINDS];
	uint64_t	claimed;		/* garbage claimed */
	uint64_t	acked;			/* acknowledgements that counted */
	uint64_t	stale;			/* outcomes that came too late to count */
	uint64_t	lapsed;			/* claims given up, as the database was away */
	uint64_t	given_back;		/* claims given back, which is no attempt; those too */
	uint64_t	connects;		/* connections made to the database */
	int			waiting;		/* claimed, not yet called */
	int			hosts;			/* targets known now */
	bool		connected;		/* the database answers */
} ExecutorsStats;

typedef struct Executors Executors;

/* Start the thread.  NULL with a reason in `error` when that is impossible. */
extern Executors *executors_start(const ExecutorsConfig *config,
								  char *error, size_t error_size);

extern void executors_stats(Executors *executors, ExecutorsStats *stats);

/*
 * Why the executors can not do their work, for /healthz: a right that the
 * role lacks, another database than expected, a paused copy.  Sentences, each
 * on its own line, with the remedy; "" when nothing is known to be wrong.  The
 * caller frees it.
 */
extern char *executors_problems(Executors *executors);

/*
 * Claim nothing more, and finish what is claimed in at most drain_ms.  Returns
 * at once; executors_stop() waits for the end and frees all.
 */
extern void executors_drain(Executors *executors, int drain_ms);
extern bool executors_finished(Executors *executors);	/* after executors_drain(): there is nothing to wait for */
extern void executors_stop(Executors *executors);

#endif							/* GT_EXECUTORS_H */
