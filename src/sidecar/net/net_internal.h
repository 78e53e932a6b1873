/*
 * net_internal.h
 *		What net.c and listen.c share.
 */
#ifndef GT_NET_INTERNAL_H
#define GT_NET_INTERNAL_H

#include <netinet/in.h>

#include "net/net.h"
#include "net/party.h"
#include "net/tls.h"

#define MAX_ADDRESSES 8

struct Listener
{
	ListenOptions options;
	int			fds[MAX_ADDRESSES];
	LoopFd	   *watches[MAX_ADDRESSES];
	int			count;
	int			connections;
	Conn	   *first,			/* list of connections, the newest first */
			   *last;
	LoopTimer	resume;			/* accepting is paused while this runs */
	bool		stopped;
	char		address[128];
	char		unix_path[108];
};

typedef enum ConnState
{
	CONN_HANDSHAKE, CONN_OPEN, CONN_FINISHING, CONN_CLOSED
} ConnState;

struct Conn
{
	Listener   *listener;
	Conn	   *next,
			   *prev;
	int			fd;
	LoopFd	   *watch;
	uint32_t	events;			/* that are being watched */
	ConnState	state;
	bool		opened;
	bool		paused;
	bool		resting;		/* while others are read, see rest() */
	bool		write_blocked;
	SSL		   *ssl;
	char	   *out;			/* written, from out_start, not sent */
	size_t		out_start,
				out_len,
				out_size;
	bool		was_full;
	LoopTask	flush;
	LoopTask	destroy;
	LoopTimer	timer;			/* of the handshake, or of finishing */
	LoopTimer	rest;
	void	   *data;
	Party	   *party;			/* whose connection it is, where each peer has its share; else NULL */
	size_t		charged;		/* bytes reckoned for it */
	char	   *certificate_name;
	bool		foreign;
	char		peer[INET6_ADDRSTRLEN + 8];
	char		host[INET6_ADDRSTRLEN];
};

/* net.c: of the watch of a connection; begin and abandon one. */
extern void conn_handle_events(void *arg, uint32_t events);
extern void conn_opened(Conn *conn);
extern void conn_close_now(void *arg);

#endif							/* GT_NET_INTERNAL_H */
