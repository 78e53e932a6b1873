/*-------------------------------------------------------------------------
 *
 * fail.c
 *	  How something is refused: raised, or shown in a row.
 *
 * A function that works on many leases at once tells of each what was wrong with
 * it, and one that works on one raises the same: so what is wrong is written into
 * a GtFail first, without an error, and no subtransaction is needed to survive it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/fail.h"

/* Sets what went wrong, for the caller to raise or to show; always false. */
bool
gt_fail(GtFail *f, int sqlstate, const char *fmt,...)
{
	va_list		args;
	StringInfoData buf;

	memset(f, 0, sizeof(GtFail));
	f->sqlstate = sqlstate;
	initStringInfo(&buf);
	for (;;)
	{
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	f->message = buf.data;
	return false;
}

void
gt_raise(const GtFail *f)
{
	ereport(ERROR,
			(errcode(f->sqlstate),
			 errmsg("%s", f->message),
			 f->detail ? errdetail("%s", f->detail) : 0,
			 f->hint ? errhint("%s", f->hint) : 0));
}
