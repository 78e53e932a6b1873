/*
 * service_poll.h
 *		Waiting for garbage: whoever waits for the same handlers asks in turn.
 *
 * Nobody tells when garbage is due, so somebody must ask, more and more seldom
 * while there is none.  Of a thousand who wait one asks for all; when it finds
 * something the next one asks at once.
 */
#ifndef GT_SERVICE_POLL_H
#define GT_SERVICE_POLL_H

#include <stdbool.h>

typedef struct Poll Poll;

/* Embedded in who waits; zeroed before its first use. */
typedef struct PollWaiter
{
	struct PollWaiter *next,
			   *prev;
	Poll	   *poll;			/* NULL: does not wait */
	void		(*ask) (void *arg);
	void	   *arg;
} PollWaiter;

/*
 * Wait for these handlers (NULL: all).  `ask` is called when it is its turn, and
 * when the server drains; then poll_asked() or poll_leave() must follow, which
 * may be later.  False: out of memory.
 */
extern bool poll_join(PollWaiter *waiter, const char *handlers, void (*ask) (void *arg), void *arg);
extern void poll_leave(PollWaiter *waiter);

/* It asked, and found something or nothing; it goes on waiting, behind the others. */
extern void poll_asked(PollWaiter *waiter, bool found);

#endif							/* GT_SERVICE_POLL_H */
