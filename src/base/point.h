/*-------------------------------------------------------------------------
 *
 * point.h
 *	  Fault points.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_POINT_H
#define GT_POINT_H

/*
 * Fault points, in builds with -DGT_FAULT_POINTS only.  A file gt_point.NAME in
 * the data directory whose text is wait, error, fatal or crash makes the next
 * process that comes by do so.  error, fatal and crash remove the file first;
 * wait lasts as long as the file is there, and makes gt_point.NAME.waiting.
 */
#ifdef GT_FAULT_POINTS
extern void gt_point_at(const char *name);
#define GT_POINT(name) gt_point_at(name)
#else
#define GT_POINT(name) ((void) 0)
#endif

#endif
