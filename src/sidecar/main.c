/*
 * main.c
 *		The program garbagetruck: `serve` is the server, all else the command
 *		line.
 */
#include <fcntl.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/memory.h"
#include "cli/cli_flags.h"
#include "serve.h"

/* Whoever has closed one of the first three would have our messages in the next file that is opened. */
static void
fill_descriptors(void)
{
	int			fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int
main(int argc, char **argv)
{
	int			serve_argc = cli_take_serve(argc, argv);

	fill_descriptors();
	/* Whatever uses OpenSSL 3.0 first makes this, and crashes when there is no memory for it. */
	needed(OSSL_LIB_CTX_get0_global_default());
	return serve_argc > 0 ? serve_main(serve_argc, argv) : cli_main(argc, argv);
}
