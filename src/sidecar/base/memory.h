/*
 * memory.h
 *		When memory is short.
 *
 * What belongs to one call or connection fails alone.  What the rest cannot go
 * on without ends the process with a message: leases live by their deadlines,
 * claims lapse, and nothing was answered that did not happen.
 */
#ifndef GT_MEMORY_H
#define GT_MEMORY_H

/* Say so and end the process. */
extern void out_of_memory(void) __attribute__((noreturn));

/* Given back; NULL: out_of_memory(). */
extern void *needed(void *memory);

#endif							/* GT_MEMORY_H */
