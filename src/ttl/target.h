/*-------------------------------------------------------------------------
 *
 * target.h
 *	  What a row TTL goes by of its table: the deadline, its index, the key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TARGET_H
#define GT_TARGET_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"


/* One table in which rows are: the table itself, or a partition of it. */
typedef struct GtLeaf
{
	Relation	rel;
	Oid			index;			/* that begins with the deadline */
	bool		descending;
	Node	   *deadline;		/* of a row of it */
	AttrNumber	column;			/* where that is a column; else 0 */
	Oid			key;			/* the index of the primary key */
	int			nkeys;
	AttrNumber	keys[INDEX_MAX_KEYS];
} GtLeaf;

typedef struct GtTarget
{
	Relation	rel;			/* as declared */
	bool		partitioned;
	int			nleaves;
	GtLeaf	   *leaves;
} GtTarget;

/*
 * Who calls these is the table's owner, or could become him: they meet his
 * expressions.
 */

/* The expression, analyzed; returns what is wrong with it, or NULL. */
extern ErrorData *gt_target_deadline(Relation rel, const char *text, Node **node);
/* The same for a name or expression as a user gives it: 22023. *expression: with all names qualified. */
extern Node *gt_target_parse(Relation rel, const char *text, char **expression);
/* The index that begins with it; InvalidOid: there is none. */
extern Oid	gt_target_index(Relation rel, Node *deadline, bool *descending);
extern Oid	gt_target_key(Relation rel);	/* that of the primary key, or InvalidOid */
extern const char *gt_target_index_sql(Relation rel, Node *deadline, const char *expression, bool concurrently);
/* Columns of the table that the expression reads, their numbers. */
extern List *gt_target_columns(Node *deadline);
/* The timestamptz made of these columns with which an index of the table begins, as its text is now; NULL: there is none. */
extern const char *gt_target_called_now(Relation rel, List *columns);

/*
 * Opens the table and its partitions, with this lock, which is not waited for.
 * false: nothing was opened (but stays locked), for somebody has it (*why NULL), or
 * what is needed is not there (*why, and *remedy as SQL, or NULL).
 */
extern bool gt_target_open(GtTarget *target, Oid relation, const char *expression, LOCKMODE lockmode,
						   const char **why, const char **remedy);
extern void gt_target_close(GtTarget *target);	/* keeps the locks */

#endif
