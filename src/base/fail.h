/*-------------------------------------------------------------------------
 *
 * fail.h
 *	  Why something was refused: to be raised, or shown in a row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_FAIL_H
#define GT_FAIL_H

/* Why something was refused: to be raised, or shown in a row. */
typedef struct GtFail
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* or NULL */
	char	   *hint;			/* or NULL */
	const char *holder;			/* the service that stands in the way (GT005); or NULL */
	int64		retry_after;	/* us; 0: not known */
} GtFail;

extern bool gt_fail(GtFail *f, int sqlstate, const char *fmt,...) pg_attribute_printf(3, 4);
extern void gt_raise(const GtFail *f);	/* does not return */

#endif
