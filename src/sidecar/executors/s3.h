/*
 * s3.h
 *		Signatures of S3 and Azure Blob, without I/O.
 */
#ifndef GT_EXECUTORS_S3_H
#define GT_EXECUTORS_S3_H

#include <stdbool.h>

#include "executors/util.h"

typedef struct S3Request
{
	const char *method;
	const char *query;			/* canonical, "" for none */
	const char *host;			/* as in the Host header */
	const char *path;			/* percent-encoded */
	const char *region;
	const char *access_key;
	const char *secret_key;
	const char *token;			/* NULL: none */
	const char *date;			/* 20261123T213000Z */
} S3Request;

/* The Authorization header's value for a request without a body. */
extern bool s3_sign(const S3Request *request, Buffer *authorization);

/*
 * OpenSSL looks its algorithms up when they are first used, and takes one for
 * absent, for good, when there is no memory for that.  False: so it is.
 */
extern bool s3_can_sign(void);

#endif							/* GT_EXECUTORS_S3_H */
