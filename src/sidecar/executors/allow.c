/*
 * allow.c
 *		Which hosts a lease may name, and which addresses may be connected to.
 *
 * A URL from a lease would let its author reach whatever this machine can
 * reach.  So its host must match an entry of the list as it is written, and
 * the address that it resolves to is judged when the socket for that very
 * address is opened, so that no second look-up can give another one.
 *
 *	- a name matches entries that are names, an address those that are
 *	  addresses or networks
 *	- link-local, metadata, multicast and unspecified addresses never match,
 *	  in whatever notation of IPv6 they are wrapped
 *	- loopback only matches an entry that is itself loopback: "localhost", or
 *	  an address or network within it
 *
 * Filled before threads start, read-only afterwards: no lock.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "executors/allow.h"
#include "executors/executors.h"
#include "executors/util.h"

typedef struct Address
{
	bool		v6;
	uint8_t		bytes[16];
} Address;

typedef enum EntryType
{
	ENTRY_NAME, ENTRY_SUFFIX, ENTRY_NETWORK
} EntryType;

typedef struct Entry
{
	EntryType	type;
	char	   *name;			/* lower case; of a suffix: ".example.com" */
	Address		network;
	int			prefix;
	int			port;			/* 0: any */
} Entry;

struct AllowList
{
	Entry	   *entries;
	int			count;
};

typedef enum AddressClass
{
	CLASS_NEVER, CLASS_LOOPBACK, CLASS_ORDINARY
} AddressClass;

static bool
within(const Address *address, const Address *network, int prefix)
{
	int			whole = prefix / 8;
	int			rest = prefix % 8;

	if (address->v6 != network->v6 ||
		memcmp(address->bytes, network->bytes, (size_t) whole) != 0)
		return false;
	return rest == 0 ||
		((address->bytes[whole] ^ network->bytes[whole]) >> (8 - rest)) == 0;
}

static bool
parse_address(const char *text, Address *address)
{
	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, address->bytes) == 1)
		return true;
	address->v6 = true;
	return inet_pton(AF_INET6, text, address->bytes) == 1;
}

static bool
in_network(const Address *address, const char *network, int prefix)
{
	Address		parsed;

	return parse_address(network, &parsed) && within(address, &parsed, prefix);
}

/*
 * An IPv4 address within an IPv6 one; *mapped when both are the same host to
 * the socket, else it only is where a gateway would lead.
 */
static bool
embedded_address(const Address *address, Address *v4, bool *mapped)
{
	static const struct
	{
		const char *network;
		int			prefix;
		int			offset;
		bool		mapped;
	}			forms[] = {
		{"::ffff:0:0", 96, 12, true},
		{"::ffff:0:0:0", 96, 12, false},
		{"64:ff9b::", 96, 12, false},
		{"64:ff9b:1::", 48, 12, false},
		{"2002::", 16, 2, false},
		{"::", 96, 12, false},
	};
	size_t		i;

	memset(v4, 0, sizeof(*v4));
	*mapped = false;
	/* ISATAP: in the lower half, behind any network */
	if ((address->bytes[8] & ~2) == 0 && memcmp(address->bytes + 9, "\0\x5e\xfe", 3) == 0)
	{
		memcpy(v4->bytes, address->bytes + 12, 4);
		return true;
	}
	/* Teredo: the client's, its bits turned */
	if (in_network(address, "2001::", 32))
	{
		for (i = 0; i < 4; i++)
			v4->bytes[i] = address->bytes[12 + i] ^ 0xff;
		return true;
	}
	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
	{
		if (in_network(address, forms[i].network, forms[i].prefix))
		{
			memcpy(v4->bytes, address->bytes + forms[i].offset, 4);
			*mapped = forms[i].mapped;
			return true;
		}
	}
	return false;
}

static AddressClass
classify(const Address *address)
{
	static const struct
	{
		const char *network;
		int			prefix;
	}			never[] = {
		{"0.0.0.0", 8},			/* this host, by another name */
		{"169.254.0.0", 16},	/* link-local, and most clouds' metadata */
		{"100.100.100.200", 32},	/* metadata */
		{"168.63.129.16", 32},	/* metadata */
		{"192.0.0.192", 32},	/* metadata */
		{"224.0.0.0", 4},		/* multicast */
		{"240.0.0.0", 4},		/* reserved, broadcast */
		{"::", 128},
		{"fe80::", 10},
		{"fec0::", 10},
		{"ff00::", 8},
		{"fd00:ec2::254", 128}, /* metadata */
		{"fd20:ce::254", 128},	/* metadata */
		{"fd00:42::42", 128},	/* metadata */
	};
	Address		v4;
	bool		mapped;
	size_t		i;

	for (i = 0; i < sizeof(never) / sizeof(never[0]); i++)
	{
		if (in_network(address, never[i].network, never[i].prefix))
			return CLASS_NEVER;
	}
	if (in_network(address, "127.0.0.0", 8) || in_network(address, "::1", 128))
		return CLASS_LOOPBACK;
	if (address->v6 && embedded_address(address, &v4, &mapped))
	{
		AddressClass class = classify(&v4);

		/* a gateway's way to somebody's loopback is nobody's wish */
		return class == CLASS_LOOPBACK && !mapped ? CLASS_NEVER : class;
	}
	return CLASS_ORDINARY;
}

/* Does the entry name loopback and nothing else? */
static bool
names_loopback(const Entry *entry)
{
	if (entry->type == ENTRY_NETWORK)
		return classify(&entry->network) == CLASS_LOOPBACK &&
			entry->prefix >= (entry->network.v6 ? 128 : 8);
	return entry->type == ENTRY_NAME && strcmp(entry->name, "localhost") == 0;
}

AllowList *
allow_create(void)
{
	return exec_alloc(sizeof(AllowList));
}

void
allow_free(AllowList *list)
{
	int			i;

	if (list == NULL)
		return;
	for (i = 0; i < list->count; i++)
		free(list->entries[i].name);
	free(list->entries);
	free(list);
}

static bool
parse_number(const char *text, int max, int *number)
{
	char	   *end;
	long		value;

	if (!isdigit((unsigned char) text[0]))
		return false;
	value = strtol(text, &end, 10);
	if (*end != '\0' || value < 0 || value > max)
		return false;
	*number = (int) value;
	return true;
}

/* A lower-case copy without the dot that may end a name. */
static char *
normal_name(const char *name)
{
	char	   *copy = exec_strdup(name);
	size_t		len = strlen(copy);
	char	   *at;

	if (len > 1 && copy[len - 1] == '.')
		copy[len - 1] = '\0';
	for (at = copy; *at != '\0'; at++)
		*at = (char) tolower((unsigned char) *at);
	return copy;
}

static bool
is_name(const char *name)
{
	return name[0] != '\0' && name[0] != '.' && name[0] != '-' && strlen(name) <= 253 &&
		strstr(name, "..") == NULL &&
		name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-._")] == '\0';
}

/* Its last label is a number: resolvers take it for an address. */
static bool
looks_numeric(const char *name)
{
	const char *label = strrchr(name, '.');

	label = label != NULL ? label + 1 : name;
	if (strncmp(label, "0x", 2) == 0)
		return true;
	return label[strspn(label, "0123456789")] == '\0';
}

/* Fill an entry's host part. */
static bool
parse_entry_host(char *host, Entry *entry)
{
	char	   *slash = strchr(host, '/');
	bool		valid;

	if (slash != NULL)
		*slash = '\0';
	if (parse_address(host, &entry->network))
	{
		entry->type = ENTRY_NETWORK;
		entry->prefix = entry->network.v6 ? 128 : 32;
		return slash == NULL || parse_number(slash + 1, entry->prefix, &entry->prefix);
	}
	if (slash != NULL)
		return false;
	entry->type = strncmp(host, "*.", 2) == 0 ? ENTRY_SUFFIX : ENTRY_NAME;
	entry->name = normal_name(entry->type == ENTRY_SUFFIX ? host + 1 : host);
	valid = is_name(entry->type == ENTRY_SUFFIX ? entry->name + 1 : entry->name) &&
		!looks_numeric(entry->name);
	return valid;
}

/* Split "HOST[:PORT]", "[HOST]:PORT" or an IPv6 address without port. */
static bool
parse_entry(char *text, Entry *entry)
{
	char	   *port = NULL;
	char	   *close;

	if (text[0] == '[')
	{
		char	   *slash;

		close = strchr(text, ']');
		if (close == NULL)
			return false;
		port = strchr(close, ':');
		if (port != NULL)
			*port++ = '\0';
		slash = close + 1;
		if (*slash != '\0' && *slash != '/')
			return false;
		memmove(close, slash, strlen(slash) + 1);
		text++;
	}
	else if (strchr(text, ':') == strrchr(text, ':') && (port = strchr(text, ':')) != NULL)
		*port++ = '\0';
	if (port != NULL && (!parse_number(port, 65535, &entry->port) || entry->port == 0))
		return false;
	return parse_entry_host(text, entry);
}

bool
allow_add(AllowList *list, const char *text, char *error, size_t error_size)
{
	Entry		entry;
	char	   *copy = exec_strdup(text);
	bool		valid;

	memset(&entry, 0, sizeof(entry));
	valid = parse_entry(copy, &entry);
	free(copy);
	if (!valid)
	{
		free(entry.name);
		snprintf(error, error_size, "\"%.200s\" is no target: expected HOST[:PORT], where HOST is a name, *.name, an address or a network", text);
		return false;
	}
	list->entries = exec_realloc(list->entries, ((size_t) list->count + 1) * sizeof(Entry));
	list->entries[list->count++] = entry;
	return true;
}

static bool
entry_names_host(const Entry *entry, const char *name)
{
	size_t		len = strlen(name);

	if (entry->type == ENTRY_NAME)
		return strcmp(entry->name, name) == 0;
	return entry->type == ENTRY_SUFFIX && len > strlen(entry->name) &&
		strcmp(name + len - strlen(entry->name), entry->name) == 0;
}

/* Does an entry of the list hold the address? */
static bool
address_listed(const AllowList *list, const Address *address, int port)
{
	AddressClass class = classify(address);
	Address		v4;
	bool		mapped = false;
	int			i;

	if (class == CLASS_NEVER)
		return false;
	if (address->v6 && embedded_address(address, &v4, &mapped) && mapped)
		address = &v4;
	for (i = 0; i < list->count; i++)
	{
		const Entry *entry = &list->entries[i];

		if (entry->type == ENTRY_NETWORK && (entry->port == 0 || entry->port == port) &&
			within(address, &entry->network, entry->prefix) &&
			(class != CLASS_LOOPBACK || names_loopback(entry)))
			return true;
	}
	return false;
}

/* Does an entry of the list name the host?  Then it may be ... */
static bool
name_listed(const AllowList *list, const char *host, int port, bool loopback)
{
	char	   *name = normal_name(host);
	bool		found = false;
	int			i;

	for (i = 0; i < list->count && !found && is_name(name) && !looks_numeric(name); i++)
	{
		const Entry *entry = &list->entries[i];

		found = (entry->port == 0 || entry->port == port) &&
			(!loopback || names_loopback(entry)) && entry_names_host(entry, name);
	}
	free(name);
	return found;
}

bool
allow_host(const AllowList *list, const char *host, int port, char *error, size_t error_size)
{
	Address		address;
	bool		allowed = false;

	if (list != NULL && parse_address(host, &address))
		allowed = address_listed(list, &address, port);
	else if (list != NULL)
		allowed = name_listed(list, host, port, false);
	if (!allowed)
		snprintf(error, error_size, "target host \"%.200s\" port %d comes from a lease and is not allowed by --allow-target",
				 host, port);
	return allowed;
}

bool
allow_address(const AllowList *list, const char *host, int port,
			  const struct sockaddr *socket_address, bool lease_host)
{
	Address		address;
	Address		written;
	AddressClass class;

	memset(&address, 0, sizeof(address));
	if (socket_address->sa_family == AF_INET)
		memcpy(address.bytes, &((const struct sockaddr_in *) socket_address)->sin_addr, 4);
	else if (socket_address->sa_family == AF_INET6)
	{
		address.v6 = true;
		memcpy(address.bytes, &((const struct sockaddr_in6 *) socket_address)->sin6_addr, 16);
	}
	else
		return false;
	class = classify(&address);
	if (class == CLASS_NEVER)
		return false;
	if (!lease_host)
		return true;
	if (list == NULL)
		return false;
	if (parse_address(host, &written))
		return address_listed(list, &address, port);
	if (class == CLASS_LOOPBACK)
		return name_listed(list, host, port, true) ||
			(name_listed(list, host, port, false) && address_listed(list, &address, port));
	return name_listed(list, host, port, false);
}
