/*
 * hosts.h
 *		Target hosts: how many calls to one may be under way, or wait.
 */
#ifndef GT_EXECUTORS_HOSTS_H
#define GT_EXECUTORS_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "executors/context.h"

/* A host, however it is spelt; host_find(): NULL, nothing is known of it. */
extern Host *host_get(Context *context, const char *name, int port);
extern Host *host_find(const Context *context, const char *name, int port);
extern void hosts_forget_idle(Context *context, int64_t now);

/* How many calls it can answer within a second, by how long they took; however few it was given of late. */
extern int	host_rate(const Host *host);

/* How many calls may wait for it at the most. */
extern int	host_room(const Context *context, const Host *host);

/* It waits for its host. */
extern void host_wait(Context *context, Call *call);

/* Do more wait for it than for one that does not answer may, where others need the room? */
extern bool host_is_crowded(const Context *context, const Host *host);

extern HostRank host_rank(const Host *host);

/* May one more call to a host of that rank begin? */
extern bool host_has_place(const Context *context, HostRank rank);

/* How many calls to it may be under way at once. */
extern int	host_limit(const Context *context, const Host *host);

/* For how long a call to it may be without an answer before it counts as hanging. */
extern int64_t host_patience(const Host *host);

/* It has answered a call that took so long. */
extern void host_answered(const Context *context, Host *host, int64_t took);

/* A call that began then has timed out. */
extern void host_timed_out(Host *host, int64_t started_at);

/* What is known of the objects whose calls hang: that one did, or was answered. */
extern void host_note_hung(Context *context, const Call *call, bool hung);

/* Did it hang before, and do as many such have their place already?  Else it is counted in, if it did. */
extern bool host_has_suspects(Context *context, Call *call);
extern void host_forget_suspect(Call *call);
extern int64_t host_suspect_back_off(Host *host);

/* When a call for which there is no room shall be due again, from now on. */
extern int64_t host_back_off(Host *host);

#endif							/* GT_EXECUTORS_HOSTS_H */
