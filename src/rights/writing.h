/*-------------------------------------------------------------------------
 *
 * writing.h
 *	  What every SQL function that writes begins with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WRITING_H
#define GT_WRITING_H

/*
 * First thing in every writing SQL function: 42501 without the right to it, 25006
 * in a read-only transaction or on a standby; and what is written may be prepared.
 */
extern void gt_mark_write(const char *function);
/* This transaction, if it is prepared, is one that workers are to be told of when it ends; part of gt_mark_write(). */
extern void gt_mark_prepared(void);

#endif
