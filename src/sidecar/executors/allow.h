/*
 * allow.h
 *		What leases may name as targets.
 */
#ifndef GT_EXECUTORS_ALLOW_H
#define GT_EXECUTORS_ALLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "executors/executors.h"

/* May a lease name this host?  An address or a name, without brackets. */
extern bool allow_host(const AllowList *list, const char *host, int port,
					   char *error, size_t error_size);

/*
 * May this address be connected to, for a target whose host is `host`?
 * lease_host: it came from a lease.
 */
extern bool allow_address(const AllowList *list, const char *host, int port,
						  const struct sockaddr *address, bool lease_host);

#endif							/* GT_EXECUTORS_ALLOW_H */
