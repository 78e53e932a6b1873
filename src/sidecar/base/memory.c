/*
 * memory.c
 *		When memory is short.
 */
#include <stddef.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"

void
out_of_memory(void)
{
	log_line(LOG_ERROR, "out of memory");
	_exit(1);
}

void *
needed(void *memory)
{
	if (memory == NULL)
		out_of_memory();
	return memory;
}
