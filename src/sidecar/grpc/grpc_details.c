/*
 * grpc_details.c
 *		See grpc_details.h. Of a google.rpc.Status only the hint is wanted: that is
 *		not worth the message's whole definition.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/grpc_details.h"

/* A protobuf message, or what is left of it. */
typedef struct Piece
{
	const uint8_t *at;
	size_t		len;
} Piece;

static bool
take_number(Piece *from, uint64_t *number)
{
	unsigned	shift = 0;

	*number = 0;
	while (from->len > 0 && shift < 64)
	{
		uint8_t		byte = *from->at++;

		from->len--;
		*number |= (uint64_t) (byte & 0x7F) << shift;
		if ((byte & 0x80) == 0)
			return true;
		shift += 7;
	}
	return false;
}

/*
 * Go on to the next field of text or of a message that has this number.  Only
 * numbers are known besides, which is all that a Status has.
 */
static bool
take_field(Piece *from, unsigned number, Piece *field)
{
	uint64_t	tag;
	uint64_t	value;

	while (take_number(from, &tag) && take_number(from, &value))
	{
		if ((tag & 7) == 0)
			continue;
		if ((tag & 7) != 2 || value > from->len)
			return false;
		field->at = from->at;
		field->len = (size_t) value;
		from->at += value;
		from->len -= (size_t) value;
		if (tag >> 3 == number)
			return true;
	}
	return false;
}

static bool
is_text(const Piece *piece, const char *text)
{
	return piece->len == strlen(text) && memcmp(piece->at, text, piece->len) == 0;
}

/* The value of a key in an ErrorInfo's metadata, allocated; NULL: it is not there. */
static char *
info_value(Piece info, const char *key)
{
	Piece		entry;

	while (take_field(&info, 3, &entry))
	{
		Piece		rest = entry;
		Piece		name;
		Piece		value;

		if (take_field(&entry, 1, &name) && is_text(&name, key) && take_field(&rest, 2, &value))
			return strndup((const char *) value.at, value.len);
	}
	return NULL;
}

static char *
hint_of_status(Piece status)
{
	Piece		detail;

	while (take_field(&status, 3, &detail))
	{
		Piece		rest = detail;
		Piece		type;
		Piece		info;

		if (take_field(&detail, 1, &type) && is_text(&type, "type.googleapis.com/google.rpc.ErrorInfo") &&
			take_field(&rest, 2, &info))
			return info_value(info, "hint");
	}
	return NULL;
}

static int
base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *found = c != '\0' ? strchr(digits, c) : NULL;

	return found != NULL ? (int) (found - digits) : -1;
}

char *
grpc_details_hint(const char *text, size_t len)
{
	uint8_t    *bytes = malloc(len + 1);
	size_t		n = 0;
	uint32_t	bits = 0;
	int			held = 0;
	char	   *hint;
	size_t		i;

	if (bytes == NULL)
		return NULL;
	for (i = 0; i < len && base64_digit(text[i]) >= 0; i++)
	{
		bits = bits << 6 | (uint32_t) base64_digit(text[i]);
		held += 6;
		if (held >= 8)
		{
			held -= 8;
			bytes[n++] = (uint8_t) (bits >> held);
		}
	}
	hint = hint_of_status((Piece) {bytes, n});
	free(bytes);
	return hint;
}
