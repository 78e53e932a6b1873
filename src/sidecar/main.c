/*
 * main.c
 *		The program garbagetruck: `serve` is the server, all else the command
 *		line.
 */
#include "cli_flags.h"
#include "serve.h"

int
main(int argc, char **argv)
{
	int			serve_argc = cli_take_serve(argc, argv);

	return serve_argc > 0 ? serve_main(serve_argc, argv) : cli_main(argc, argv);
}
