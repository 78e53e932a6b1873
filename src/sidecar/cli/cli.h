/*
 * cli.h
 *		The command line: health, and what can be done to a lease.
 *
 * cli_main() is what main() calls for every command but `serve`.  The rest is
 * shared by the files of the command line: cli.c reads the arguments,
 * cli_lease.c and cli_hold.c carry the commands out, cli_print.c writes.
 */
#ifndef GT_CLI_H
#define GT_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <protobuf-c/protobuf-c.h>

#include "grpc/grpc_client.h"

/*
 * Exit codes; `lease hold` exits with its command's own.  CLI_NOT_GOT is
 * sysexits' EX_TEMPFAIL: somebody else has the lock.
 */
enum
{
	CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_NOT_GOT = 75
};

/*
 * Carry out a command line without `serve`: argv[0] is the program.  Returns
 * the exit code; results are on stdout, errors on stderr.
 */
extern int	cli_main(int argc, char **argv);

#define CLI_MAX_METADATA 64

/* The arguments, each from its flag or else from the environment. */
typedef struct Cli
{
	/* every command */
	const char *endpoint;
	const char *service_id;		/* NULL: not given, see cli_service() */
	const char *token_file;
	const char *tls_ca;
	const char *tls_cert;
	const char *tls_key;
	int64_t		timeout_ms;
	bool		json;
	bool		help;

	/* leases */
	const char *object_id;
	const char *object_type;
	const char *lease_id;
	const char *cleanup;
	const char *cleanup_endpoint;
	const char *payload;
	const char *parent;
	const char *request_key;
	const char *service;
	const char *metadata[CLI_MAX_METADATA];
	int			metadata_count;
	int64_t		duration_ms;	/* -1: the default */
	int64_t		kill_after_ms;	/* -1: the default */
	int64_t		wait_ms;
	int64_t		limit;
	bool		exclusive;
	bool		keep;
	char	  **command;		/* what follows "--"; NULL: nothing did */
	const char *admin;			/* URL of the admin port, or the address that serve takes */

	/* made when the first call needs it */
	GrpcClient *client;
	char	   *token;
} Cli;

/* The commands; each returns an exit code. */
extern int	cli_health(Cli *cli);
extern int	cli_lease_create(Cli *cli);
extern int	cli_lease_renew(Cli *cli);
extern int	cli_lease_get(Cli *cli);
extern int	cli_lease_release(Cli *cli);
extern int	cli_lease_list(Cli *cli);
extern int	cli_lease_hold(Cli *cli);

/*
 * What the calls share (cli_call.c).  cli_call() sends `request` to `path` and
 * unpacks the answer; NULL after a failure, which has been reported.
 * cli_call_quiet() reports nothing but returns the reply, for a caller that
 * tries again.  The answer is freed with protobuf_c_message_free_unpacked().
 */
extern bool cli_connect(Cli *cli);
extern ProtobufCMessage *cli_call(Cli *cli, const char *path,
								  const ProtobufCMessage *request,
								  const ProtobufCMessageDescriptor *type);
extern ProtobufCMessage *cli_call_quiet(Cli *cli, const char *path,
										const ProtobufCMessage *request,
										const ProtobufCMessageDescriptor *type,
										long timeout_ms, GrpcReply *reply);

/*
 * The service to act for: that of --service-id, else "" with a token or a
 * client certificate, whose own the server then takes, else "cli-client".
 */
extern const char *cli_service(const Cli *cli);

/* Report a failed reply, in one line with its remedy. */
extern void cli_report(const Cli *cli, const GrpcReply *reply);

/* Report in the given form: `code` is a gRPC status name. */
extern void cli_error(bool json, const char *code, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* From now on a report that stderr does not take at once is dropped: nothing waits for it. */
extern void cli_error_never_waits(void);

/* "database-row" is database_row on the wire; unknown types go as they are. */
extern char *cli_object_type(const char *given);

/*
 * One result, on stdout: "name: value" lines, or one JSON object.  The names
 * are the members' names.
 */
extern void out_begin(bool json);
extern void out_end(void);
extern void out_text(const char *name, const char *value);
extern void out_text_or_null(const char *name, const char *value);	/* "" is null */
extern void out_bool(const char *name, bool value);
extern void out_integer(const char *name, int64_t value);
extern void out_seconds(const char *name, int64_t seconds, int32_t nanos);
extern void out_time(const char *name, int64_t seconds, int32_t nanos);
extern void out_json(const char *name, const char *text);	/* JSON text or "" */
extern void out_open_array(const char *name);	/* JSON only, as are: */
extern void out_open_object(void);
extern void out_close_object(void);
extern void out_close_array(void);

/* "2026-11-23T21:30:00.123Z", into at least 32 bytes. */
extern void cli_format_time(int64_t seconds, int32_t nanos, char *buffer);

#endif							/* GT_CLI_H */
