/*-------------------------------------------------------------------------
 *
 * health_put.h
 *	  What the checks of gt_health() share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_HEALTH_PUT_H
#define GT_HEALTH_PUT_H

#include "nodes/pg_list.h"

#include "table/table.h"

#define GT_HEALTH_ROWS		5		/* of one check that tell of the same kind of thing */

typedef struct GtHealth
{
	List	   *rows;			/* of GtHealthRow * */
	MemoryContext context;		/* theirs */
	const char *check;			/* in progress */
	void		(*run) (struct GtHealth *health); /* likewise */
	bool		all;			/* the caller is a monitor */
	bool		standby;
} GtHealth;

/* One row; the remedy is for what is not ok. */
extern void gt_health_put(GtHealth *health, bool ok, const char *detail, const char *remedy);
/* The same, by an ALTER SYSTEM and what makes it count. */
extern void gt_health_put_setting(GtHealth *health, const char *detail, const char *alter, bool restart);
/* What an error has told; otherwise: the remedy where its SQLSTATE says nothing. */
extern void gt_health_put_error(GtHealth *health, const char *detail, int sqlstate, const char *otherwise);
/* A public function or view of ours as a statement of this session names it. */
extern const char *gt_health_our(const char *name);
/* Is this row of garbage among what the caller may know of? */
extern bool gt_health_sees(const GtHealth *health, const GtRow *row, bool may_claim);
extern const char *gt_health_seconds(int64 us);
/* The handlers that the caller may know of. */
extern List *gt_health_handlers(const GtHealth *health);
/* After GT_HEALTH_ROWS of a kind: how many more there are. */
extern void gt_health_put_more(GtHealth *health, int n, const char *what);

#endif
