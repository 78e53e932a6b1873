/*
 * cli_call.c
 *		Calling the server from the command line, and saying what went wrong.
 *
 * Runs in the command line's process.  Owns the one client, made at the first
 * call, and the table of remedies: every failure is one line that says what
 * happened and what to do about it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/cli.h"

/* What to do about a status that the server answered with. */
static const struct
{
	GrpcCode	status;
	const char *remedy;
}			remedies[] =
{
	{GRPC_INVALID_ARGUMENT, "correct that value and try again"},
	{GRPC_DEADLINE_EXCEEDED, "it may have been done all the same: look with \"garbagetruck lease list\", or try again with a longer --timeout"},
	{GRPC_NOT_FOUND, "it has ended or never was: \"garbagetruck lease list\" shows those that run"},
	{GRPC_ALREADY_EXISTS, "somebody else holds the object: try again when that lease has ended"},
	{GRPC_PERMISSION_DENIED, "name the lease's own service with --service-id, or use a token that may act for it (--token-file)"},
	{GRPC_RESOURCE_EXHAUSTED, "release what is no longer needed, or have the limit raised"},
	{GRPC_FAILED_PRECONDITION, "the lease is over: stop using the object, then create a new lease"},
	{GRPC_ABORTED, "try again in a moment"},
	{GRPC_UNIMPLEMENTED, "is that the gRPC address of a garbagetruck server, and not its admin port?"},
	{GRPC_UNAVAILABLE, "try again in a moment; \"garbagetruck health\" tells whether its database is back"},
	{GRPC_UNAUTHENTICATED, "give the token that the server knows with --token-file or GARBAGETRUCK_TOKEN_FILE"},
};

/* Who refused it knows best what would be allowed.  Of a lease that is not there, or in the way, it only knows what matters in SQL. */
static bool
has_hint(const GrpcReply *reply)
{
	return reply->hint != NULL && reply->hint[0] != '\0' && reply->status != GRPC_NOT_FOUND && reply->status != GRPC_ALREADY_EXISTS;
}

static const char *
remedy_for(const GrpcReply *reply)
{
	size_t		i;

	if (has_hint(reply))
		return reply->hint;
	if (reply->wants != NULL && strcmp(reply->wants, "https://") == 0)
		return "this port may want https://, or be no gRPC port: see --endpoint and --tls-ca";
	if (reply->wants != NULL)
		return "this port may want http://, or a certificate that it knows: see --endpoint, --tls-cert and --tls-key";
	if (reply->status == GRPC_INVALID_ARGUMENT && strstr(reply->message, "--allow-target") != NULL)
		return "that is an option of the server, whose operator can allow it";
	if (reply->status == GRPC_INVALID_ARGUMENT && strncmp(reply->message, "handler ", 8) == 0 && strstr(reply->message, "does not exist") != NULL)
		return "in SQL gt_handlers has those that there are, and gt_handler_create() registers another";
	if (!reply->reached && reply->status == GRPC_UNAVAILABLE)
		return "start one with \"garbagetruck serve --ephemeral\", or name the right one with --endpoint or GARBAGETRUCK_ENDPOINT";
	for (i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++)
		if (remedies[i].status == reply->status)
			return remedies[i].remedy;
	return NULL;
}

void
cli_report(const Cli *cli, const GrpcReply *reply)
{
	const char *code = grpc_code_name(reply->status);
	const char *remedy = remedy_for(reply);
	const char *what = reply->message[0] != '\0' ? reply->message : code;
	const char *prefix = reply->reached ? "" : "no answer from ";

	if (cli->json && has_hint(reply))
		cli_error(true, code, "%s: %s", what, reply->hint);
	else if (cli->json)
		cli_error(true, code, "%s%s", prefix, what);
	else if (remedy != NULL)
		cli_error(false, code, "%s%s (%s): %s", prefix, what, code, remedy);
	else
		cli_error(false, code, "%s%s (%s)", prefix, what, code);
}

/* The first word of the file's first line that is neither empty nor a comment. */
static char *
read_token(const Cli *cli)
{
	FILE	   *file = fopen(cli->token_file, "re");
	char	   *line = NULL;
	size_t		allocated = 0;
	char	   *token = NULL;

	if (file == NULL)
	{
		cli_error(cli->json, "UNAUTHENTICATED",
				  "cannot read the token file %s: %s: name a readable one with --token-file",
				  cli->token_file, strerror(errno));
		return NULL;
	}
	while (token == NULL && getline(&line, &allocated, file) >= 0)
	{
		char	   *start = line + strspn(line, " \t");

		start[strcspn(start, " \t\r\n")] = '\0';
		/* In a server's own file "-" stands for no token. */
		if (*start != '\0' && *start != '#' && strcmp(start, "-") != 0)
			token = needed(strdup(start));
	}
	if (token == NULL)
		cli_error(cli->json, "UNAUTHENTICATED",
				  "the token file %s is empty: write the token on its first line",
				  cli->token_file);
	free(line);
	fclose(file);
	return token;
}

const char *
cli_service(const Cli *cli)
{
	if (cli->service_id != NULL)
		return cli->service_id;
	return cli->token_file != NULL || cli->tls_cert != NULL ? "" : "cli-client";
}

static bool
readable(const Cli *cli, const char *flag, const char *path)
{
	if (path == NULL || access(path, R_OK) == 0)
		return true;
	cli_error(cli->json, "INVALID_ARGUMENT", "cannot read %s %s: %s", flag, path,
			  strerror(errno));
	return false;
}

bool
cli_connect(Cli *cli)
{
	GrpcClientOptions options = {0};
	const char *error;

	if (cli->client != NULL)
		return true;
	if (!readable(cli, "--tls-ca", cli->tls_ca) ||
		!readable(cli, "--tls-cert", cli->tls_cert) ||
		!readable(cli, "--tls-key", cli->tls_key))
		return false;
	if (cli->token_file != NULL)
	{
		cli->token = read_token(cli);
		if (cli->token == NULL)
			return false;
	}
	options.endpoint = cli->endpoint;
	options.token = cli->token;
	options.tls_ca = cli->tls_ca;
	options.tls_cert = cli->tls_cert;
	options.tls_key = cli->tls_key;
	cli->client = grpc_client_open(&options, &error);
	if (cli->client == NULL)
		cli_error(cli->json, "INVALID_ARGUMENT", "--endpoint %s %s",
				  cli->endpoint, error);
	return cli->client != NULL;
}

ProtobufCMessage *
cli_call_quiet(Cli *cli, const char *path, const ProtobufCMessage *request,
			   const ProtobufCMessageDescriptor *type, long timeout_ms,
			   GrpcReply *reply)
{
	size_t		len = protobuf_c_message_get_packed_size(request);
	uint8_t    *packed = needed(malloc(len + 1));
	ProtobufCMessage *answer = NULL;

	memset(reply, 0, sizeof(*reply));
	protobuf_c_message_pack(request, packed);
	grpc_client_call(cli->client, path, cli->request_key, packed, len,
					 timeout_ms, reply);
	free(packed);
	if (reply->status == GRPC_OK)
	{
		answer = protobuf_c_message_unpack(type, NULL, reply->len, reply->data);
		if (answer == NULL)
		{
			reply->status = GRPC_UNIMPLEMENTED;
			free(reply->message);
			reply->message = needed(strdup("the server's answer is of another make"));
		}
	}
	return answer;
}

ProtobufCMessage *
cli_call(Cli *cli, const char *path, const ProtobufCMessage *request,
		 const ProtobufCMessageDescriptor *type)
{
	GrpcReply	reply;
	ProtobufCMessage *answer;

	if (!cli_connect(cli))
		return NULL;
	answer = cli_call_quiet(cli, path, request, type, (long) cli->timeout_ms, &reply);
	if (answer == NULL)
		cli_report(cli, &reply);
	grpc_reply_free(&reply);
	return answer;
}
