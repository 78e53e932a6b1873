/*-------------------------------------------------------------------------
 *
 * marks.h
 *	  Marks of what has become of a run whose process is gone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_MARKS_H
#define GT_MARKS_H

#include "clean/clean.h"
#include "table/table.h"

extern void gt_mark_arm(int64 serial);	/* from now on a signal leaves a mark for this record */
extern void gt_mark_disarm(void);
extern void gt_mark_path(char *path, const char *kind, int64 serial);
extern char *gt_mark_read(const char *path);	/* the text in a mark, NULL where there is none */
/* Those of a database (InvalidOid: of all) whose record is not among `runs` (NULL: all of them). */
extern void gt_marks_remove(Oid database, GtTable *runs);

/* This process leaves the run on record; crash.c says what each means.  Safe at exit, and in PG_CATCH(). */
extern void gt_clean_evicted(GtCleaner *c);
extern void gt_clean_undone(GtCleaner *c, const char *error);	/* NULL: it did not happen, and that is all */
extern void gt_clean_failed(GtCleaner *c, const char *error);	/* before an abort that this process survives */
extern void gt_clean_restart(GtCleaner *c); /* after that */
extern void gt_clean_watch(void);	/* signals that tell us of another process's death leave a mark, from here on */
extern void gt_clean_unwatch(void);
extern void gt_clean_forget_marks(Oid database);
extern void gt_clean_init(void);	/* from _PG_init */

extern bool gt_clean_has_failed(GtCleaner *c);	/* a transaction that made it did, and that is to be judged */

#endif
