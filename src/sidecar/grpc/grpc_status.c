/*
 * grpc_status.c
 *		gRPC statuses and how they travel.
 *
 * Some clients stop reading at 8 kB of trailers, and the message is in there
 * twice, percent-coded and in the details: both are kept below 4 kB together.
 */
#include <stdio.h>
#include <string.h>

#include "grpc/grpc_status.h"

static const char *const code_names[GRPC_CODES] =
{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
	"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
	"ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED"
};

/*
 * A whole SQLSTATE, or its class followed by nothing.  The first that fits
 * counts.
 */
static const struct
{
	const char *sqlstate;
	GrpcCode	code;
}			sqlstates[] =
{
	{"GT001", GRPC_NOT_FOUND},
	{"GT002", GRPC_FAILED_PRECONDITION},
	{"GT003", GRPC_PERMISSION_DENIED},
	{"GT004", GRPC_ABORTED},
	{"GT005", GRPC_ALREADY_EXISTS},
	{"GT006", GRPC_RESOURCE_EXHAUSTED},
	{"GT007", GRPC_INVALID_ARGUMENT},
	{"40001", GRPC_ABORTED},
	{"40P01", GRPC_ABORTED},
	{"42501", GRPC_PERMISSION_DENIED},
	{"42883", GRPC_UNAVAILABLE},	/* no such function: the extension is not there */
	{"3F000", GRPC_UNAVAILABLE},
	{"2BP01", GRPC_FAILED_PRECONDITION},
	{"55000", GRPC_FAILED_PRECONDITION},
	{"55P03", GRPC_DEADLINE_EXCEEDED},	/* a lock did not come in time */
	{"57014", GRPC_DEADLINE_EXCEEDED},
	{"57P01", GRPC_UNAVAILABLE},	/* shutdown, crash, cannot connect, gone */
	{"57P02", GRPC_UNAVAILABLE},
	{"57P03", GRPC_UNAVAILABLE},
	{"57P04", GRPC_UNAVAILABLE},
	{"25006", GRPC_UNAVAILABLE},	/* read-only: a standby, for now */
	{"08", GRPC_UNAVAILABLE},
	{"22", GRPC_INVALID_ARGUMENT},
	{"23", GRPC_INVALID_ARGUMENT},
	{"53", GRPC_RESOURCE_EXHAUSTED},
	{"54", GRPC_INVALID_ARGUMENT},
	{"0A", GRPC_FAILED_PRECONDITION},
	{"28", GRPC_UNAVAILABLE},
	{"3D", GRPC_UNAVAILABLE},
	{"58", GRPC_UNAVAILABLE},
};

const char *
grpc_code_name(GrpcCode code)
{
	return (unsigned) code < GRPC_CODES ? code_names[code] : "UNKNOWN";
}

GrpcCode
grpc_code_of_sqlstate(const char *sqlstate)
{
	size_t		i;

	for (i = 0; i < sizeof(sqlstates) / sizeof(sqlstates[0]); i++)
	{
		if (strncmp(sqlstate, sqlstates[i].sqlstate, strlen(sqlstates[i].sqlstate)) == 0)
			return sqlstates[i].code;
	}
	return GRPC_INTERNAL;
}

const char *
grpc_sqlstate_of_code(GrpcCode code)
{
	switch (code)
	{
		case GRPC_INVALID_ARGUMENT:
		case GRPC_OUT_OF_RANGE:
			return "22023";
		case GRPC_NOT_FOUND:
			return "GT001";
		case GRPC_PERMISSION_DENIED:
			return "42501";
		case GRPC_UNAUTHENTICATED:
			return "28000";
		case GRPC_RESOURCE_EXHAUSTED:
			return "54000";
		case GRPC_DEADLINE_EXCEEDED:
		case GRPC_CANCELLED:
			return "57014";
		case GRPC_UNAVAILABLE:
			return "08006";
		case GRPC_UNIMPLEMENTED:
			return "0A000";
		default:
			return "XX000";
	}
}

size_t
utf8_prefix(const char *text, size_t max)
{
	size_t		len = strnlen(text, max + 1);

	if (len <= max)
		return len;
	len = max;
	while (len > 0 && ((unsigned char) text[len] & 0xC0) == 0x80)
		len--;
	return len;
}

void
utf8_mend(char *text)
{
	unsigned char *at = (unsigned char *) text;

	while (*at != '\0')
	{
		int			more = *at >= 0xF0 ? 3 : *at >= 0xE0 ? 2 : *at >= 0xC0 ? 1 : 0;
		int			len = 1;

		while (len <= more && (at[len] & 0xC0) == 0x80)
			len++;
		/* Cut, or nothing that UTF-8 has: longer than need be, of UTF-16, or beyond. */
		if (len <= more || (*at & 0xC0) == 0x80 || (*at & 0xFE) == 0xC0 || *at > 0xF4 ||
			(*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) ||
			(*at == 0xF0 && at[1] < 0x90) || (*at == 0xF4 && at[1] > 0x8F))
			*at++ = '?';
		else
			at += len;
	}
}

void
grpc_encode_message(const char *message, char *out)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t		len = utf8_prefix(message, GRPC_MAX_MESSAGE);
	size_t		n = 0;
	size_t		whole = 0;		/* end of the last whole character in out */
	size_t		i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) message[i];

		if ((c & 0xC0) != 0x80)
			whole = n;
		if (n + 4 > GRPC_ENCODED_MESSAGE)
		{
			n = whole;
			break;
		}
		if (c >= 0x20 && c <= 0x7E && c != '%')
			out[n++] = (char) c;
		else
		{
			out[n++] = '%';
			out[n++] = hex[c >> 4];
			out[n++] = hex[c & 15];
		}
	}
	out[n] = '\0';
}

/* Unpadded base64 of `len` bytes; out has room for (len + 2) / 3 * 4 + 1. */
static void
base64_encode(const uint8_t *data, size_t len, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t		i;

	for (i = 0; i < len; i += 3)
	{
		uint32_t	bits = (uint32_t) data[i] << 16;

		if (i + 1 < len)
			bits |= (uint32_t) data[i + 1] << 8;
		if (i + 2 < len)
			bits |= data[i + 2];
		*out++ = digits[bits >> 18];
		*out++ = digits[(bits >> 12) & 63];
		if (i + 1 < len)
			*out++ = digits[(bits >> 6) & 63];
		if (i + 2 < len)
			*out++ = digits[bits & 63];
	}
	*out = '\0';
}

/* ---- a little protobuf, for messages that nobody else needs ---- */

typedef struct Bytes
{
	size_t		len;
	uint8_t		data[2900];
} Bytes;

static void
put_byte(Bytes *bytes, unsigned byte)
{
	if (bytes->len < sizeof(bytes->data))
		bytes->data[bytes->len++] = (uint8_t) byte;
}

static void
put_number(Bytes *bytes, uint64_t number)
{
	while (number >= 0x80)
	{
		put_byte(bytes, (unsigned) (number & 0x7F) | 0x80);
		number >>= 7;
	}
	put_byte(bytes, (unsigned) number);
}

/* A field of text or of a packed message. */
static void
put_bytes(Bytes *bytes, unsigned field, const void *data, size_t len)
{
	size_t		i;

	if (bytes->len + len + 8 > sizeof(bytes->data))
		return;
	put_number(bytes, field << 3 | 2);
	put_number(bytes, len);
	for (i = 0; i < len; i++)
		put_byte(bytes, ((const uint8_t *) data)[i]);
}

static void
put_text(Bytes *bytes, unsigned field, const char *text, size_t max)
{
	put_bytes(bytes, field, text, utf8_prefix(text, max));
}

static void
put_any(Bytes *status, const char *type, const Bytes *value)
{
	Bytes		any = {0};
	char		url[64];

	snprintf(url, sizeof(url), "type.googleapis.com/%s", type);
	put_text(&any, 1, url, sizeof(url) - 1);
	put_bytes(&any, 2, value->data, value->len);
	put_bytes(status, 3, any.data, any.len);
}

static void
put_pair(Bytes *info, const char *key, const char *value)
{
	Bytes		entry = {0};

	if (value == NULL || value[0] == '\0')
		return;
	put_text(&entry, 1, key, 64);
	put_text(&entry, 2, value, 255);
	put_bytes(info, 3, entry.data, entry.len);
}

/* How much of a message, which begins with what it is about, is the name of a field; 0: none. */
static size_t
field_length(const char *message)
{
	static const char *const fields[] = {
		"attempt", "cleanup", "cleanup_config", "cleanup_endpoint", "cleanup_http_endpoint", "credit", "delay", "duration", "error",
		"extend_duration_seconds", "fence", "final", "handler", "handlers", "horizon", "lease_duration_seconds", "lease_id", "lease_ids",
		"limit", "max_attempts", "max_items", "max_retries", "metadata", "object_id", "object_type", "page_token", "parent", "payload",
		"regrant_delay", "request_key", "requests", "retry_delay", "retry_delay_seconds", "service_id", "state", "visibility", "wait"
	};
	size_t		len = strspn(message, "abcdefghijklmnopqrstuvwxyz_");
	size_t		i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		if (strlen(fields[i]) == len && memcmp(fields[i], message, len) == 0)
			return len;
	}
	return 0;
}

static void
put_bad_request(Bytes *status, const char *message)
{
	Bytes		violation = {0};
	Bytes		bad = {0};
	size_t		len = field_length(message);

	if (len > 0)
		put_bytes(&violation, 1, message, len);
	/* The message itself is in the status. */
	put_text(&violation, 2, message, 100);
	put_bytes(&bad, 1, violation.data, violation.len);
	put_any(status, "google.rpc.BadRequest", &bad);
}

static void
put_retry_info(Bytes *status)
{
	Bytes		delay = {0};
	Bytes		retry = {0};

	put_number(&delay, 1 << 3);
	put_number(&delay, 1);		/* second */
	put_bytes(&retry, 1, delay.data, delay.len);
	put_any(status, "google.rpc.RetryInfo", &retry);
}

void
grpc_encode_details(GrpcCode code, const char *message, const char *sqlstate,
					const GrpcMore *more, char *out)
{
	Bytes		status = {0};
	Bytes		info = {0};

	put_number(&status, 1 << 3);
	put_number(&status, (uint64_t) code);
	put_text(&status, 2, message, GRPC_MAX_MESSAGE);
	put_text(&info, 1, sqlstate, 5);
	put_text(&info, 2, "garbagetruck", 20);
	put_pair(&info, "sqlstate", sqlstate);
	put_pair(&info, "holder", more->holder);
	put_pair(&info, "retry_after", more->retry_after);
	put_pair(&info, "detail", more->detail);
	put_pair(&info, "hint", more->hint);
	put_any(&status, "google.rpc.ErrorInfo", &info);
	if (code == GRPC_INVALID_ARGUMENT)
		put_bad_request(&status, message);
	if (code == GRPC_RESOURCE_EXHAUSTED || code == GRPC_UNAVAILABLE)
		put_retry_info(&status);
	base64_encode(status.data, status.len, out);
}
