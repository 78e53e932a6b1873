/*
 * stubs.c
 *		What the fuzzed files call and the fuzzing never reaches.
 */
#include <stdlib.h>

#include "executors/target.h"
#include "executors/context.h"
#include "executors/hosts.h"
#include "executors/calls.h"

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

void
host_answered(const Context *context, Host *host, int64_t took)
{
	abort();
}
