/*
 * party.h
 *		Who takes how much of what all share: callers by their names, and of
 *		those who have none the peers by their addresses.
 *
 * Nobody takes from the others: of whatever is bounded in all, a party may have
 * three times as much as is left, so that one alone leaves a quarter to those
 * who come, and many have equal parts.  And all memory that the process holds
 * for a party, by our reckoning, has a bound of its own.
 *
 * A party lives while something refers to it.
 */
#ifndef GT_PARTY_H
#define GT_PARTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Party
{
	struct Party *next;			/* of the same bucket */
	int			refs;
	bool		named;
	size_t		bytes;			/* of memory that is held for it */
	size_t		unfinished;		/* of them in messages that have begun */
	int64_t		streams;		/* in the common pot */
	int64_t		strange;		/* in the pot of those who need no name */
	int64_t		queued;			/* SQL calls */
	int64_t		connections;
	int64_t		resting;		/* of its connections */
	char		name[];
} Party;

/* Referred to once more; NULL: out of memory. */
extern Party *party_of_caller(const char *name);
extern Party *party_of_peer(const char *host);
extern Party *party_hold(Party *party);
extern void party_release(Party *party);	/* NULL: nothing */

/* May it have one more, of whose `most` there are `all` in use and `has` by itself? */
extern bool party_may_take(int64_t has, int64_t all, int64_t most);

/* Reckon so many bytes for it; false: it has its fill, and nothing was reckoned.  NULL has no bound. */
extern bool party_charge(Party *party, size_t bytes);
extern void party_give_back(Party *party, size_t bytes);

/* The same without asking: something else of its is about to go. */
extern void party_charge_beyond(Party *party, size_t bytes);

/* Would so many still go?  How many would? */
extern bool party_fits(const Party *party, size_t bytes);
extern size_t party_room(const Party *party);

/* The bytes that were reckoned become others. */
extern bool party_recharge(Party *party, size_t *charged, size_t bytes);

/* Has it less than half of its fill? */
extern bool party_has_room(const Party *party);

#endif							/* GT_PARTY_H */
