/*
 * service_poll.c
 *		Waiting for garbage, in turn.  See service_poll.h.
 */
#include <stdlib.h>
#include <string.h>

#include "net/loop.h"
#include "services/service_poll.h"
#include "state.h"

#define POLL_FIRST_US 20000
#define POLL_MOST_US 500000

/* Those who wait for one set of handlers. */
struct Poll
{
	Poll	   *next;
	PollWaiter *first,
			   *last;
	PollWaiter *asking;			/* has its turn */
	int64_t		pause_us;
	LoopTimer	timer;
	bool		any;			/* handler */
	char		handlers[];
};

static Poll *polls;

static Poll *
find_poll(const char *handlers)
{
	Poll	   *poll;

	for (poll = polls; poll != NULL; poll = poll->next)
	{
		if (poll->any == (handlers == NULL) && (handlers == NULL || strcmp(poll->handlers, handlers) == 0))
			return poll;
	}
	poll = calloc(1, sizeof(Poll) + (handlers != NULL ? strlen(handlers) : 0) + 1);
	if (poll == NULL)
		return NULL;
	poll->any = handlers == NULL;
	strcpy(poll->handlers, handlers != NULL ? handlers : "");
	poll->pause_us = POLL_FIRST_US;
	poll->next = polls;
	polls = poll;
	return poll;
}

static void
free_poll(Poll *poll)
{
	Poll	  **at = &polls;

	while (*at != poll)
		at = &(*at)->next;
	*at = poll->next;
	timer_stop(&poll->timer);
	free(poll);
}

static void
append(Poll *poll, PollWaiter *waiter)
{
	waiter->next = NULL;
	waiter->prev = poll->last;
	*(poll->last != NULL ? &poll->last->next : &poll->first) = waiter;
	poll->last = waiter;
}

static void
unlink_waiter(Poll *poll, PollWaiter *waiter)
{
	*(waiter->prev != NULL ? &waiter->prev->next : &poll->first) = waiter->next;
	*(waiter->next != NULL ? &waiter->next->prev : &poll->last) = waiter->prev;
}

/* The next one's turn; when the server drains, everybody's. */
static void
take_turn(void *arg)
{
	Poll	   *poll = arg;

	if (state.draining && poll->first->next != NULL)
		timer_start(&poll->timer, 0, take_turn, poll);
	poll->asking = poll->first;
	poll->asking->ask(poll->asking->arg);
}

bool
poll_join(PollWaiter *waiter, const char *handlers, void (*ask) (void *arg), void *arg)
{
	Poll	   *poll = find_poll(handlers);

	if (poll == NULL)
		return false;
	waiter->poll = poll;
	waiter->ask = ask;
	waiter->arg = arg;
	append(poll, waiter);
	if (poll->asking == NULL && !timer_running(&poll->timer))
		timer_start(&poll->timer, poll->pause_us, take_turn, poll);
	return true;
}

void
poll_leave(PollWaiter *waiter)
{
	Poll	   *poll = waiter->poll;

	if (poll == NULL)
		return;
	waiter->poll = NULL;
	unlink_waiter(poll, waiter);
	if (poll->first == NULL)
	{
		free_poll(poll);
		return;
	}
	if (poll->asking != waiter)
		return;
	/* Nobody knows whether there is more. */
	poll->asking = NULL;
	timer_start(&poll->timer, 0, take_turn, poll);
}

void
poll_asked(PollWaiter *waiter, bool found)
{
	Poll	   *poll = waiter->poll;

	unlink_waiter(poll, waiter);
	append(poll, waiter);
	if (poll->asking != waiter)
		return;
	poll->asking = NULL;
	if (found)
		poll->pause_us = POLL_FIRST_US;
	timer_start(&poll->timer, found ? 0 : poll->pause_us, take_turn, poll);
	if (!found && poll->pause_us < POLL_MOST_US)
		poll->pause_us *= 2;
}
