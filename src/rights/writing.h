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
 * in a read-only transaction or on a standby, and remembers that PREPARE
 * TRANSACTION must fail (0A000).
 */
extern void gt_mark_write(const char *function);

#endif
