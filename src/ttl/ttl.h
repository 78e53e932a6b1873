/*-------------------------------------------------------------------------
 *
 * ttl.h
 *	  Row TTLs as declared: tables whose rows have a deadline.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TTL_H
#define GT_TTL_H

#include "nodes/pg_list.h"

#include "handler/handler.h"

typedef struct GtTtl
{
	int			id;				/* of the sequence of handlers: what is kept of one by its id, is of it, too */
	Oid			relation;
	char	   *expires_at;		/* as it was given */
	char	   *expression;		/* with all names qualified */
	int			cleanup;		/* id of a handler; 0: none */
	int			batch_size;		/* 0: the setting */
	bool		wake;
	int			careful;		/* so many rows go by themselves */
	char	   *declared_by;	/* name of the table's owner then */
	char	   *type;			/* of its objects: the table's name, quoted */
	GtHandler	h;				/* as which its deletes are run: by the table's owner, in turn with handlers */
} GtTtl;

/* All of these tell of tables that are there, as the latest committed state has them; copies, in the current memory context. */
extern List *gt_ttl_list(void); /* of GtTtl *, by id */
extern uint64 gt_ttl_reading(void);	/* another number: something of them, or of their tables, may have changed */
extern GtTtl *gt_ttl_by_id(int id); /* or NULL, as these are */
extern GtTtl *gt_ttl_of_table(Oid relation);
/* The role whose objects those of this type are, for they stand for rows of its table; InvalidOid: of nobody in particular. */
extern Oid	gt_ttl_owner_of_type(const char *type);
/* Of the garbage that stands for a row which could not be deleted: what stands for its handler; false: it is none. */
extern bool gt_ttl_handler(int id, GtHandler *h);
extern char *gt_ttl_type(Oid relation); /* the name of a table, as a type of objects */
/* Why nothing of it (NULL: it is gone) can be run, as far as the table is not asked: see gt_target_open(). NULL: it can. */
extern const char *gt_ttl_suspended(const GtTtl *t);

extern void gt_ttl_init(void);	/* from _PG_init */

/* An object is leased, in memory: if it has stood for a row that could not be deleted, it does so no longer. */
extern void gt_ttl_let_go(GtRow *object);

/* Nobody deletes its rows, or changes it, while somebody else has this; false: somebody has. */
extern bool gt_ttl_lock(Oid relation, bool exclusive, bool wait);

/* A crash: so many rows go by themselves from now on; or, fewer < 0, have gone. false: somebody has its row. */
extern bool gt_ttl_set_careful(int id, int more);
/* A row by itself took the process down (or lived): two in a row pause it. false: somebody has its row. */
extern bool gt_ttl_crashed(int id, bool crashed, const char *object);
/* The declaration goes, with the garbage that stands for rows of its table. skip: what others have locked stays. */
extern void gt_ttl_forget(int id, bool skip);
extern void gt_ttl_forget_gone(void);	/* those whose table is gone; what others have locked stays */

#endif
