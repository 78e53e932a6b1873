/*-------------------------------------------------------------------------
 *
 * parts.h
 *	  What files keep in shared memory beside shmem.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_PARTS_H
#define GT_PARTS_H

extern void gt_shmem_init(void);	/* from _PG_init, before the files that have parts of it */
/* From _PG_init: so much more, and what is called when it is there; first: by the postmaster, at its start or after a crash. */
typedef void (*GtShmemStart) (bool first);
extern void gt_shmem_part(Size size, GtShmemStart start);

#endif
