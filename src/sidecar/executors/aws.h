/*
 * aws.h
 *		Credentials of AWS.
 */
#ifndef GT_EXECUTORS_AWS_H
#define GT_EXECUTORS_AWS_H

#include <stdbool.h>
#include <stddef.h>

#include "executors/context.h"

typedef struct AwsKeys
{
	char	   *access_key;
	char	   *secret_key;
	char	   *token;			/* NULL: none */
} AwsKeys;

extern Aws *aws_create(const Settings *settings);
extern void aws_free(Aws *aws);

/*
 * Copies of the credentials to be used now.  False: there are none, and `why`
 * is advice.  Where the environment has none, this begins to fetch them.  `aws`
 * may be NULL where it has.
 */
extern bool aws_keys(Aws *aws, AwsKeys *keys, char *why, size_t why_size);
extern void aws_keys_free(AwsKeys *keys);
extern const char *aws_region(void);
extern const char *aws_domain(void);	/* of the endpoints */

#endif							/* GT_EXECUTORS_AWS_H */
