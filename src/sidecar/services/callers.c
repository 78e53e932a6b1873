/*
 * callers.c
 *		Tokens, client certificates and the rights that go with them.
 *
 * Tokens are kept as digests and compared in constant time.  Entries are never
 * freed: calls in progress refer to them, and a reload is rare.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "base/memory.h"
#include "services/callers.h"

typedef struct Caller
{
	const char *name;
	bool		has_token;
	uint8_t		token[SHA256_DIGEST_LENGTH];
	bool		admin;
	const char **handlers;
	int			handler_count;
} Caller;

static Caller **callers;
static int	caller_count;

/* What a reload replaced. */
typedef struct Superseded
{
	struct Superseded *next;
	Caller	  **callers;
} Superseded;

static Superseded *superseded;
static bool tokens_used;
static bool certificates_used;

/* ---- the file ---- */

static void
add_handlers(Caller *caller, char *list)
{
	char	   *save;
	char	   *name;

	for (name = strtok_r(list, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save))
	{
		caller->handlers = needed(realloc(caller->handlers, sizeof(char *) * (size_t) (caller->handler_count + 1)));
		caller->handlers[caller->handler_count++] = needed(strdup(name));
	}
}

static void
free_caller(Caller *caller)
{
	while (caller->handler_count > 0)
		free((char *) caller->handlers[--caller->handler_count]);
	free(caller->handlers);
	free((char *) caller->name);
	free(caller);
}

/* One line; NULL after an error or when there is nothing on it. */
static Caller *
parse_line(char *line, int number, char *error, size_t error_size)
{
	char	   *save;
	char	   *token = strtok_r(line, " \t\r\n", &save);
	char	   *name = strtok_r(NULL, " \t\r\n", &save);
	char	   *word;
	Caller	   *caller;

	if (token == NULL || token[0] == '#')
		return NULL;
	if (name == NULL)
	{
		snprintf(error, error_size, "line %d: TOKEN SERVICE_ID [claim=H1,H2] [admin] is expected", number);
		return NULL;
	}
	caller = needed(calloc(1, sizeof(Caller)));
	caller->name = needed(strdup(name));
	caller->has_token = strcmp(token, "-") != 0;
	needed(SHA256((const unsigned char *) token, strlen(token), caller->token));
	while ((word = strtok_r(NULL, " \t\r\n", &save)) != NULL)
	{
		if (strcmp(word, "admin") == 0)
			caller->admin = true;
		else if (strncmp(word, "claim=", 6) == 0)
			add_handlers(caller, word + 6);
		else
		{
			snprintf(error, error_size, "line %d: \"%s\" is neither claim=... nor admin", number, word);
			free_caller(caller);
			return NULL;
		}
	}
	return caller;
}

/* Are they lines of one token, or of one name in a certificate?  Which of their rights hold nobody could tell. */
static bool
same_caller(const Caller *a, const Caller *b)
{
	return a->has_token == b->has_token &&
		(a->has_token ? memcmp(a->token, b->token, sizeof(a->token)) == 0 : strcmp(a->name, b->name) == 0);
}

static Caller **
read_file(FILE *file, int *count, char *error, size_t error_size)
{
	Caller	  **read = NULL;
	char	   *line = NULL;
	size_t		size = 0;
	int			number = 0;
	int			i;

	error[0] = '\0';
	*count = 0;
	while (error[0] == '\0' && getline(&line, &size, file) >= 0)
	{
		Caller	   *caller = parse_line(line, ++number, error, error_size);

		if (caller == NULL)
			continue;
		for (i = 0; i < *count && !same_caller(read[i], caller); i++)
			;
		if (i < *count)
			snprintf(error, error_size, "line %d: there is a line of the same TOKEN above it", number);
		read = needed(realloc(read, sizeof(Caller *) * (size_t) (*count + 1)));
		read[(*count)++] = caller;
	}
	/* Half a file would be other rights. */
	if (error[0] == '\0' && !feof(file))
		snprintf(error, error_size, "line %d: %s", number + 1, strerror(errno));
	if (line != NULL)
		OPENSSL_cleanse(line, size);
	free(line);
	return read;
}

static void
free_callers(Caller **list, int count)
{
	while (count > 0)
		free_caller(list[--count]);
	free(list);
}

static void
replace_callers(Caller **list, int count)
{
	Superseded *old = needed(malloc(sizeof(Superseded)));

	old->callers = callers;
	old->next = superseded;
	superseded = old;
	callers = list;
	caller_count = count;
}

bool
callers_load(const char *token_file, bool certificates, char *error, size_t error_size)
{
	Caller	  **read = NULL;
	int			count = 0;
	char		why[256] = "";

	if (token_file != NULL)
	{
		FILE	   *file = fopen(token_file, "re");

		if (file == NULL)
		{
			snprintf(error, error_size, "--token-file %s: %s", token_file, strerror(errno));
			return false;
		}
		read = read_file(file, &count, why, sizeof(why));
		fclose(file);
		if (why[0] != '\0')
		{
			snprintf(error, error_size, "--token-file %s: %s", token_file, why);
			free_callers(read, count);
			return false;
		}
	}
	tokens_used = token_file != NULL;
	certificates_used = certificates;
	replace_callers(read, count);
	return true;
}

/* ---- who is it ---- */

static const Caller *
caller_of_token(const char *token)
{
	uint8_t		digest[SHA256_DIGEST_LENGTH];
	const Caller *found = NULL;
	int			i;

	if (SHA256((const unsigned char *) token, strlen(token), digest) == NULL)
		return NULL;
	for (i = 0; i < caller_count; i++)
	{
		if (callers[i]->has_token && CRYPTO_memcmp(callers[i]->token, digest, sizeof(digest)) == 0)
			found = callers[i];
	}
	return found;
}

/* An entry of that name, made when there is none: a certificate needs no line. */
static const Caller *
caller_of_certificate(const char *name)
{
	Caller	   *caller;
	Caller	  **grown;
	int			i;

	for (i = 0; i < caller_count; i++)
	{
		if (!callers[i]->has_token && strcmp(callers[i]->name, name) == 0)
			return callers[i];
	}
	caller = calloc(1, sizeof(Caller));
	grown = realloc(callers, sizeof(Caller *) * (size_t) (caller_count + 1));
	if (grown != NULL)
		callers = grown;
	if (caller == NULL || grown == NULL || (caller->name = strdup(name)) == NULL)
	{
		free(caller);
		return NULL;
	}
	callers[caller_count++] = caller;
	return caller;
}

bool
callers_authenticate(GrpcCall *call, GrpcIdentity *who)
{
	unsigned	flags = grpc_method(call)->flags;
	const char *header = grpc_header(call, "authorization");
	const char *certificate = certificates_used ? conn_certificate_name(grpc_conn(call)) : NULL;
	const Caller *found = NULL;

	who->asked = tokens_used || certificates_used;
	if (!who->asked || (flags & GRPC_PUBLIC))
		return true;
	if (tokens_used && header != NULL && strncasecmp(header, "bearer ", 7) == 0)
		found = caller_of_token(header + 7 + strspn(header + 7, " "));
	else if (certificate != NULL)
		found = caller_of_certificate(certificate);
	if (found == NULL)
	{
		grpc_fail(call, GRPC_UNAUTHENTICATED, !tokens_used ? "the client certificate has no name: neither DNS nor URI nor CN" :
				  header == NULL ? "a token is needed: send authorization: Bearer TOKEN" : "the token is not known");
		return false;
	}
	who->caller = found;
	who->name = found->name;
	if ((flags & GRPC_ADMIN) && !found->admin)
	{
		grpc_fail(call, GRPC_PERMISSION_DENIED, "%s may not do this: its line in the token file does not say admin", found->name);
		return false;
	}
	return true;
}

/* Has it all the rights that the other has? */
static bool
has_rights_of(const Caller *caller, const Caller *other)
{
	int			i,
				n;

	if (other->admin && !caller->admin)
		return false;
	for (i = 0; i < other->handler_count; i++)
	{
		for (n = 0; n < caller->handler_count; n++)
		{
			if (strcmp(caller->handlers[n], other->handlers[i]) == 0 || strcmp(caller->handlers[n], "*") == 0)
				break;
		}
		if (n == caller->handler_count)
			return false;
	}
	return true;
}

const void *
callers_judge(GrpcCall *call)
{
	const Caller *was = grpc_caller(call);
	const Caller *now = NULL;
	int			i;

	for (i = 0; i < caller_count; i++)
	{
		if (callers[i]->has_token == was->has_token && strcmp(callers[i]->name, was->name) == 0 &&
			(!was->has_token || CRYPTO_memcmp(callers[i]->token, was->token, sizeof(was->token)) == 0))
			now = callers[i];
	}
	/* A certificate needs no line, and has no right without one but to be somebody. */
	if (now == NULL && !was->has_token)
		now = caller_of_certificate(was->name);
	if (now == NULL)
		grpc_fail(call, GRPC_UNAUTHENTICATED, "the token has been taken away");
	else if (!has_rights_of(now, was))
		grpc_fail(call, GRPC_PERMISSION_DENIED, "rights of %.100s have been taken away: call again with what is left", was->name);
	return now;
}

/* ---- what it may ---- */

const char *
caller_name(const GrpcCall *call)
{
	const Caller *caller = grpc_caller(call);

	return caller != NULL ? caller->name : NULL;
}

bool
caller_owns(const GrpcCall *call, const char *service_id)
{
	const char *name = caller_name(call);
	size_t		len;

	if (name == NULL)
		return true;
	len = strlen(name);
	return strncmp(service_id, name, len) == 0 && (service_id[len] == '\0' || service_id[len] == '/');
}

bool
caller_acts_as(GrpcCall *call, const char *service_id)
{
	if (caller_owns(call, service_id))
		return true;
	grpc_fail(call, GRPC_PERMISSION_DENIED, "%s may not act as service \"%s\"", caller_name(call), service_id);
	return false;
}

int
caller_handlers(const GrpcCall *call, const char *const **handlers)
{
	const Caller *caller = grpc_caller(call);

	if (caller == NULL)
		return 0;
	*handlers = (const char *const *) caller->handlers;
	return caller->handler_count;
}

bool
caller_is_admin(const GrpcCall *call)
{
	const Caller *caller = grpc_caller(call);

	return caller != NULL && caller->admin;
}

bool
caller_claims(const GrpcCall *call, const char *handler)
{
	const Caller *caller = grpc_caller(call);
	int			i;

	if (caller == NULL)
		return true;
	for (i = 0; i < caller->handler_count; i++)
	{
		if (strcmp(caller->handlers[i], handler) == 0 || strcmp(caller->handlers[i], "*") == 0)
			return true;
	}
	return false;
}
