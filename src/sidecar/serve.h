/*
 * serve.h
 *		The command `serve`: start, reload, drain.
 */
#ifndef GT_SERVE_H
#define GT_SERVE_H

/* Run `garbagetruck serve ARGS`; the word serve is not among them. */
extern int	serve_main(int argc, char **argv);

#endif							/* GT_SERVE_H */
