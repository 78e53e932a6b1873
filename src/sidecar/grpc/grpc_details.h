/*
 * grpc_details.h
 *		The details of a failed call, as the command line tells them.
 */
#ifndef GT_GRPC_DETAILS_H
#define GT_GRPC_DETAILS_H

#include <stddef.h>

/*
 * The hint in the value of grpc-status-details-bin (base64, without its
 * padding), allocated; NULL: there is none, or it is not to be read.
 */
extern char *grpc_details_hint(const char *text, size_t len);

#endif							/* GT_GRPC_DETAILS_H */
