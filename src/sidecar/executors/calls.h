/*
 * calls.h
 *		Calls: from the claim to the outcome.
 */
#ifndef GT_EXECUTORS_CALLS_H
#define GT_EXECUTORS_CALLS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executors/context.h"
#include "executors/target.h"

#define MAX_WAITING		1024	/* claimed, not yet started */

extern void list_add(CallList *list, Call *call);
extern void list_remove(Call *call);

extern Call *call_create(Context *context);
extern void call_free(Context *context, Call *call);

/* target_expand() with the values of the call, into its target. */
extern bool call_expand(Call *call, const char *template, TargetForm form);

/* PLACE-CLEANUP_ID: the same for each attempt at this cleanup, and for no other one. */
extern void call_idempotency_key(const Context *context, const Call *call, char *key, size_t size);

/* Take a claimed call: it waits for its host, or has failed already. */
extern void call_accept(Context *context, Call *call);

/* The outcome of an attempt: it goes to the list for the database. */
extern void call_succeed(Context *context, Call *call);
extern void call_fail(Context *context, Call *call, bool timed_out);

/* Forget a call without an outcome: its claim lapses. */
extern void call_abandon(Context *context, Call *call);

/* May it be ended?  What has begun where nobody can call it back may not; what has not begun there is taken back. */
extern bool call_withdraw(Context *context, const Call *call);

/* Start what may start; take what has ended; enforce times. */
extern void calls_start(Context *context);
extern void calls_collect(Context *context);
extern void calls_check_times(Context *context);
extern int64_t calls_next_time(const Context *context);

/* Visit every call that waits or runs; `visit` may abandon it. */
extern void calls_visit(Context *context,
						void (*visit) (Context *context, Call *call, void *arg),
						void *arg);

/* Add the sockets that libcurl does not watch; returns how many. */
extern int	calls_poll_fds(const Context *context, struct curl_waitfd *fds, int max);

#endif							/* GT_EXECUTORS_CALLS_H */
