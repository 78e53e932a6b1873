/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  A worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_WORKER_H
#define GT_WORKER_H

extern PGDLLEXPORT void gt_worker_main(Datum arg);

#endif
