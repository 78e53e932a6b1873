/*-------------------------------------------------------------------------
 *
 * handler.h
 *	  Handlers as registered.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HANDLER_H
#define GT_HANDLER_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "table/table.h"

typedef enum
{
	GT_KIND_SQL, GT_KIND_SQL_BATCH, GT_KIND_NOTIFY, GT_KIND_NOTIFY_ONLY, GT_KIND_QUEUE,
	GT_KIND_HTTP, GT_KIND_GRPC, GT_KIND_S3, GT_KIND_AZURE_BLOB, GT_KIND_FILE, GT_KIND_REDIS, GT_NKINDS
} GtKind;

#define GT_KIND_IS_EXTERNAL(k) ((k) >= GT_KIND_QUEUE)	/* only gt_claim starts its attempts */
#define GT_KIND_IS_CLAIMABLE(k) ((k) == GT_KIND_NOTIFY || (k) >= GT_KIND_QUEUE)

typedef struct GtHandler
{
	int			id;
	char	   *name;
	GtKind		kind;
	char	   *command;		/* may be NULL */
	Oid			owner;
	char	   *owner_name;
	Oid			run_as;			/* the owner where none was given */
	char	   *run_as_name;
	char	   *search_path;
	int			max_attempts;
	int64		retry_delay;	/* us, as those below */
	int64		timeout;
	int64		grace;
	int			concurrency;	/* 0: no limit */
	int			rate_limit;		/* 0: no limit */
	bool		paused;
	char	   *paused_reason;
	bool		builtin;
	int			version;
	int			crashes;
	TimestampTz resumed_at;		/* 0: never */
	bool		must_affect;	/* a run that affects nothing has failed */
	TransactionId xmin;			/* of the row version: with id and version, a cache key */
	bool		rows;			/* it is none: it stands for a row TTL, whose deletes are run as its */
	bool		apart;			/* then: of its rows those that could not be deleted, which keep no others waiting */
	bool		missing;		/* only the id is known, by what refers to it: see gt_handler_missing() */
} GtHandler;

extern const char *const gt_kind_names[GT_NKINDS];
extern void gt_handler_from_row(const GtRow *row, GtHandler *h);
extern bool gt_handler_by_name(const char *name, GtHandler *h);	/* the latest committed */
extern bool gt_handler_by_id(int id, GtHandler *h);
extern void gt_handler_missing(int id, GtHandler *h);	/* what stands for one that is gone, though there is garbage of it */
/*
 * The handler that a new lease names: to the end of the transaction it is
 * neither dropped nor given another kind.  false: there is none.
 */
extern bool gt_handler_hold(const char *name, GtHandler *h);
extern void gt_handler_let_go(const GtHandler *h);	/* in the same call: it was not for the caller */
extern List *gt_handler_list(void);	/* of GtHandler *, by id */
extern bool gt_database_paused(void);	/* gt_pause() without a handler */

#define GT_KIND_IS_SQL(kind) ((kind) == GT_KIND_SQL || (kind) == GT_KIND_SQL_BATCH)

extern GtKind gt_kind_of(const char *name);

#endif
