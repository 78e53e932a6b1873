/*
 * stubs.c
 *		What the fuzzed files call and the fuzzing never reaches.
 */
#include <stdlib.h>

#include "exec.h"

void
call_succeed(Context *context, Call *call)
{
	abort();
}

void
call_fail(Context *context, Call *call, bool timed_out)
{
	abort();
}

bool
call_expand(Call *call, const char *template, TargetForm form)
{
	abort();
}

bool
transfer_split_url(Call *call)
{
	abort();
}

void
transfer_error(Call *call, CURLcode code)
{
	abort();
}

bool
transfer_start(Context *context, Call *call, bool connect_only)
{
	abort();
}

void
transfer_end(Context *context, Call *call)
{
	abort();
}

void
host_answered(const Context *context, Host *host, int64_t took)
{
	abort();
}
