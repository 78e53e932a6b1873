/*-------------------------------------------------------------------------
 *
 * page.h
 *	  A page of leases is found.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PAGE_H
#define GT_PAGE_H

#include "utils/uuid.h"

#include "table/table.h"

/* What gt_lease_list() looks for; NULL: whatever it is. */
typedef struct GtFilter
{
	char	   *service;
	char	   *type;
	char	   *state;
	char	   *object;
	pg_uuid_t	after;			/* the page begins after that one */
	int			max_rows;
	bool		newest_first;	/* garbagetruck.newest_first: `after` is in that order, too */
} GtFilter;

/* Those that are in the page, in its order. */
typedef struct GtPage
{
	GtTable    *leases;
	const GtFilter *filter;
	pg_uuid_t  *ids;
	int64		n;
	bool		full;			/* there may be more behind it */
	/* of page.c, on the way */
	int64		room;
	int64		sort_at;
	int64		left;			/* so many more may be looked at */
} GtPage;

/* Is it one, and one that the caller may see? */
extern bool gt_filter_matches(const GtFilter *f, GtTable *leases, const GtRow *lease);
/* As of this moment: a lease of it may end before it is shown. */
extern void gt_page_find(GtPage *page);

#endif
