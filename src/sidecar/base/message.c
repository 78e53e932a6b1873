/*
 * message.c
 *		Unpacking of messages that may come from anybody.
 *
 * protobuf-c ends strings at a NUL byte and does not look at their encoding,
 * and what a message of a given size takes in memory is up to its sender.  So
 * the bytes are walked once before they are unpacked, and unpacking takes its
 * memory from an arena with an end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/message.h"

#define FIRST_CHUNK (64 * 1024)
#define ARENA_LIMIT (32 * 1024 * 1024)
#define MAX_DEPTH 16
#define MAX_FIELDS 100000		/* of a message and those in it: each takes time, and compressed hardly a byte */

/* ---- the arena ---- */

typedef struct Chunk
{
	struct Chunk *next;
	char		data[] __attribute__((aligned(16)));
} Chunk;

static char first_chunk[FIRST_CHUNK] __attribute__((aligned(16)));
static char *arena_at = first_chunk;
static size_t arena_left = FIRST_CHUNK;
static size_t arena_total;
static size_t arena_most;
static bool arena_full;			/* that was not enough */
static Chunk *chunks;

static void *
arena_alloc(void *ignored, size_t size)
{
	void	   *result;

	size = (size + 15) & ~(size_t) 15;
	if (size > arena_left)
	{
		size_t		chunk_size = size > FIRST_CHUNK ? size : FIRST_CHUNK * 4;
		Chunk	   *chunk;

		arena_full = arena_full || arena_total + chunk_size > arena_most;
		if (arena_full || arena_total + chunk_size > ARENA_LIMIT ||
			(chunk = malloc(sizeof(Chunk) + chunk_size)) == NULL)
			return NULL;
		arena_total += chunk_size;
		chunk->next = chunks;
		chunks = chunk;
		arena_at = chunk->data;
		arena_left = chunk_size;
	}
	result = arena_at;
	arena_at += size;
	arena_left -= size;
	return result;
}

static void
arena_free(void *ignored, void *pointer)
{
}

typedef struct Fault
{
	struct Fault *next;
	size_t		element;
	char		text[];
} Fault;

/* Of the message in the arena, where they are too; in the elements' order. */
static Fault *faults;
static Fault **last_fault;
static size_t elements;			/* met so far */

void
message_release(void)
{
	while (chunks != NULL)
	{
		Chunk	   *next = chunks->next;

		free(chunks);
		chunks = next;
	}
	arena_at = first_chunk;
	arena_left = FIRST_CHUNK;
	arena_total = 0;
	faults = NULL;
	elements = 0;
}

/* ---- what is wrong with elements ---- */

/* Only this element is to be refused.  False: there is no room to note it. */
static bool
note_fault(const char *text)
{
	Fault	   *fault = arena_alloc(NULL, sizeof(Fault) + strlen(text) + 1);

	if (fault == NULL)
		return false;
	fault->next = NULL;
	fault->element = elements;
	strcpy(fault->text, text);
	*last_fault = fault;
	last_fault = &fault->next;
	return true;
}

const char *
message_fault(size_t element)
{
	const Fault *fault = faults;

	while (fault != NULL && fault->element < element)
		fault = fault->next;
	return fault != NULL && fault->element == element ? fault->text : NULL;
}

/* ---- the check ---- */

static size_t fields;			/* met so far */

static const char malformed[] = "the message is malformed, or too much of it";

bool
valid_utf8(const uint8_t *s, size_t len)
{
	size_t		i = 0;

	while (i < len)
	{
		uint8_t		c = s[i];
		size_t		more;
		uint32_t	point;

		if (c == 0)
			return false;
		if (c < 0x80)
		{
			i++;
			continue;
		}
		if (c >= 0xC2 && c <= 0xDF)
			more = 1, point = c & 0x1F;
		else if (c >= 0xE0 && c <= 0xEF)
			more = 2, point = c & 0x0F;
		else if (c >= 0xF0 && c <= 0xF4)
			more = 3, point = c & 0x07;
		else
			return false;
		if (i + more >= len)
			return false;
		for (i++; more > 0; more--, i++)
		{
			if ((s[i] & 0xC0) != 0x80)
				return false;
			point = point << 6 | (s[i] & 0x3F);
		}
		if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF) ||
			(c >= 0xF0 && point < 0x10000) || (c >= 0xE0 && c <= 0xEF && point < 0x800))
			return false;
	}
	return true;
}

static bool
read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	int			shift;

	*value = 0;
	for (shift = 0; shift < 64 && *at < end; shift += 7)
	{
		uint8_t		byte = *(*at)++;

		*value |= (uint64_t) (byte & 0x7F) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool check_message(const ProtobufCMessageDescriptor *type, const uint8_t *at,
						  const uint8_t *end, int depth, char *error, size_t error_size);

/* A value of a field within a field is named by both: an entry of a map by itself says "key". */
static bool
name_outer_field(const ProtobufCFieldDescriptor *field, char *error, size_t error_size)
{
	char		inner[200];

	snprintf(inner, sizeof(inner), "%s", error);
	if (strcmp(inner, malformed) != 0)
		snprintf(error, error_size, "%s.%s", field->name, inner);
	return false;
}

static bool
check_bytes(const ProtobufCFieldDescriptor *field, const uint8_t *data, size_t len,
			int depth, char *error, size_t error_size)
{
	if (field == NULL)
		return true;
	if (field->type == PROTOBUF_C_TYPE_STRING && !valid_utf8(data, len))
	{
		snprintf(error, error_size, memchr(data, '\0', len) != NULL ? "%s contains a NUL byte" : "%s is not valid UTF-8",
				 field->name);
		return false;
	}
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
	{
		bool		good = check_message(field->descriptor, data, data + len, depth + 1, error, error_size) ||
			(depth == 0 && last_fault != NULL ? note_fault(error) : name_outer_field(field, error, error_size));

		elements += depth == 0;
		return good;
	}
	return true;
}

/* Numbers wider than their field are an error, not cut. */
static bool
check_number(const ProtobufCFieldDescriptor *field, uint64_t value, char *error, size_t error_size)
{
	bool		fits = true;

	if (field != NULL && field->type == PROTOBUF_C_TYPE_UINT32)
		fits = value <= UINT32_MAX;
	else if (field != NULL && (field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_ENUM))
		fits = (int64_t) value >= INT32_MIN && (int64_t) value <= INT32_MAX;
	if (!fits)
		snprintf(error, error_size, "%s: the number does not fit", field->name);
	return fits;
}

static bool
check_message(const ProtobufCMessageDescriptor *type, const uint8_t *at, const uint8_t *end,
			  int depth, char *error, size_t error_size)
{
	snprintf(error, error_size, "%s", malformed);
	if (depth > MAX_DEPTH)
		return false;
	while (at < end)
	{
		const ProtobufCFieldDescriptor *field;
		uint64_t	tag;
		uint64_t	value;

		if (!read_varint(&at, end, &tag) || tag >> 3 == 0 || tag >> 3 > 536870911 || ++fields > MAX_FIELDS)
			return false;
		field = protobuf_c_message_descriptor_get_field(type, (unsigned) (tag >> 3));
		switch (tag & 7)
		{
			case 0:
				if (!read_varint(&at, end, &value) || !check_number(field, value, error, error_size))
					return false;
				break;
			case 1:
			case 5:
				value = (tag & 7) == 1 ? 8 : 4;
				if ((uint64_t) (end - at) < value)
					return false;
				at += value;
				break;
			case 2:
				if (!read_varint(&at, end, &value) || value > (uint64_t) (end - at) ||
					!check_bytes(field, at, (size_t) value, depth, error, error_size))
					return false;
				at += value;
				break;
			default:
				return false;
		}
	}
	return true;
}

ProtobufCMessage *
message_unpack(const ProtobufCMessageDescriptor *type, bool by_element, const uint8_t *data, size_t len, size_t most,
			   char *error, size_t error_size)
{
	static ProtobufCAllocator allocator = {arena_alloc, arena_free, NULL};
	ProtobufCMessage *message = NULL;
	bool		good;

	last_fault = by_element ? &faults : NULL;
	fields = 0;
	arena_most = most;
	arena_full = false;
	good = check_message(type, data, data + len, 0, error, error_size);
	if (good)
		message = protobuf_c_message_unpack(type, &allocator, len, data);
	if (message != NULL)
		return message;
	message_release();
	if (good || arena_full)
		snprintf(error, error_size, "%s", arena_full ? "" : malformed);
	return NULL;
}

size_t
message_size(void)
{
	return arena_total;
}
