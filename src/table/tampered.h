/*-------------------------------------------------------------------------
 *
 * tampered.h
 *	  What others have put on our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TAMPERED_H
#define GT_TAMPERED_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

/* Both are cheap. NULL: all is well; else what is in the way, for people. */
extern const char *gt_tables_obstructed(void);	/* why nothing can be written */
extern const char *gt_tables_tampered(void);	/* why no SQL of anybody is run: another role can write our tables */

/* a trigger, rule or column of somebody else on a table of ours: nothing is written while it is there */
typedef struct GtObstacle
{
	char	   *what;
	char	   *remedy;			/* SQL */
} GtObstacle;

/* a right, or another owner, on a table or sequence of ours */
typedef struct GtTampering
{
	bool		suspends;		/* the SQL handlers; else it lets read only */
	char	   *what;
	char	   *remedy;			/* SQL */
} GtTampering;

extern void gt_must_be_ours_alone(Relation rel, int natts);	/* 55000, naming the first; natts: our own columns */
extern List *gt_table_obstacles(void);	/* of GtObstacle *: the first of each table */
extern List *gt_table_tamperings(void); /* of GtTampering * */

#endif
