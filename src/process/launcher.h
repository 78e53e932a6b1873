/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_LAUNCHER_H
#define GT_LAUNCHER_H

extern void gt_launcher_init(void);
extern PGDLLEXPORT void gt_launcher_main(Datum arg);

#endif
