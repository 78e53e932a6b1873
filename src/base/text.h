/*-------------------------------------------------------------------------
 *
 * text.h
 *	  Names, and texts that are shown or kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_TEXT_H
#define GT_TEXT_H

#include "base/fail.h"

extern Datum gt_error_text(const char *error);	/* as it is kept: bounded, on the border of a character */

extern char *gt_shown(const char *value);	/* in an error: no more of it than helps */
extern char *gt_in_ascii(const char *name);	/* for readers who may have another encoding */
/* 1 to max_bytes bytes without control characters? False, and why: 22023. */
extern bool gt_check_name(const char *what, const char *value, int max_bytes, GtFail *f);

#endif
