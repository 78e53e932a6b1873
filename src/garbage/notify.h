/*-------------------------------------------------------------------------
 *
 * notify.h
 *	  Garbage that is announced.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_NOTIFY_H
#define GT_NOTIFY_H

#include "handler/run.h"

/* Sends the NOTIFYs of n items of a notify or notify_only handler in the current transaction; writes outcomes. */
extern void gt_notify_items(const GtHandler *h, GtItem *items, int n);

#endif
