/*-------------------------------------------------------------------------
 *
 * caller.h
 *	  What a server that works as one role for many says of its caller.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GT_CALLER_H
#define GT_CALLER_H

/*
 * Callers of a server that works as one role are kept apart as roles are: such a
 * server says for whom it calls by garbagetruck.caller, SET LOCAL before the call.
 * A caller S acts for the services S and S/..., and for objects whose first lease
 * was given to it.  Who does not say so is the role itself, and not judged.
 */
extern char *gt_caller;			/* garbagetruck.caller; "" */
extern bool gt_newest_first;	/* garbagetruck.newest_first: such a server's wish for gt_lease_list() */

#endif
