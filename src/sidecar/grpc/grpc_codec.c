/*
 * grpc_codec.c
 *		Frames, gzip and timeouts of gRPC.  No state but buffers.
 */
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "grpc/grpc_codec.h"

const char	grpc_too_much[] = "too much is in progress for this caller";

#define ALL_READERS_LIMIT ((size_t) 256 * 1024 * 1024)
#define FIRST_SIZE (64 * 1024)	/* a frame's word on its length is not trusted beyond */
#define KEEP_BUFFER (256 * 1024)

/* Bytes that all readers hold: clients can not fill the memory together. */
static size_t all_readers;

/* Small messages are let in whoever has large ones; a party's large ones leave room for others'. */
static bool
may_grow(const FrameReader *reader, size_t wanted)
{
	const Party *party = reader->party;
	size_t		more = wanted - reader->size;

	if (!party_fits(party, more))
		return false;
	if (wanted <= FIRST_SIZE)
		return true;
	return all_readers + more <= ALL_READERS_LIMIT &&
		(party == NULL || party_may_take((int64_t) (party->unfinished + more), (int64_t) (all_readers + more), (int64_t) ALL_READERS_LIMIT));
}

static void
reckon(FrameReader *reader, size_t size)
{
	size_t		held = reader->size;

	all_readers += size - held;
	if (reader->party == NULL)
		return;
	party_recharge(reader->party, &held, size);
	reader->party->unfinished += size - reader->size;
}

static void
drop_data(FrameReader *reader)
{
	reckon(reader, 0);
	free(reader->data);
	reader->data = NULL;
	reader->size = 0;
	reader->len = 0;
}

static bool
grow(FrameReader *reader, size_t wanted)
{
	uint8_t    *grown;

	if (!may_grow(reader, wanted) || (grown = realloc(reader->data, wanted)) == NULL)
		return false;
	reckon(reader, wanted);
	reader->data = grown;
	reader->size = wanted;
	return true;
}

static size_t
frame_length(const FrameReader *reader)
{
	return (size_t) reader->prefix[1] << 24 | (size_t) reader->prefix[2] << 16 |
		(size_t) reader->prefix[3] << 8 | reader->prefix[4];
}

static bool
read_prefix(FrameReader *reader, const uint8_t **data, size_t *len)
{
	while (reader->prefix_len < 5 && *len > 0)
	{
		reader->prefix[reader->prefix_len++] = *(*data)++;
		(*len)--;
	}
	return reader->prefix_len == 5;
}

bool
frame_read(FrameReader *reader, const uint8_t **data, size_t *len, size_t max_message,
		   Frame *frame, GrpcCode *code, const char **why)
{
	size_t		whole;
	size_t		n;

	*code = GRPC_OK;
	if (!read_prefix(reader, data, len))
		return false;
	whole = frame_length(reader);
	if (reader->prefix[0] > 1)
	{
		*code = GRPC_INTERNAL;
		*why = "the frame's flags are not known";
		return false;
	}
	if (whole > max_message)
	{
		*code = GRPC_RESOURCE_EXHAUSTED;
		*why = "the message is larger than --max-message allows";
		return false;
	}
	frame->compressed = reader->prefix[0] == 1;
	frame->len = whole;

	/* All of it at hand, which is the rule: no copy. */
	if (reader->len == 0 && *len >= whole)
	{
		frame->data = *data;
		*data += whole;
		*len -= whole;
		return true;
	}
	n = whole - reader->len < *len ? whole - reader->len : *len;
	if (reader->len + n > reader->size)
	{
		size_t		size = reader->size == 0 ? FIRST_SIZE : reader->size * 2;

		while (size < reader->len + n)
			size *= 2;
		if (!grow(reader, size < whole ? size : whole))
		{
			*code = GRPC_RESOURCE_EXHAUSTED;
			*why = "the server has too many unfinished messages";
			return false;
		}
	}
	if (n > 0)
		memcpy(reader->data + reader->len, *data, n);
	reader->len += n;
	*data += n;
	*len -= n;
	frame->data = reader->data;
	return reader->len == whole;
}

void
frame_done(FrameReader *reader)
{
	reader->prefix_len = 0;
	if (reader->data != NULL)
		drop_data(reader);
}

bool
frame_keep(FrameReader *reader, const Frame *frame)
{
	if (reader->data == frame->data || frame->len == 0)
		return true;
	if (!grow(reader, frame->len))
		return false;
	memcpy(reader->data, frame->data, frame->len);
	return true;
}

void
frame_kept(const FrameReader *reader, Frame *frame)
{
	frame->compressed = reader->prefix[0] == 1;
	/* An empty one has no buffer. */
	frame->data = reader->data != NULL ? reader->data : reader->prefix;
	frame->len = frame_length(reader);
}

bool
frame_partial(const FrameReader *reader)
{
	return reader->prefix_len > 0;
}

/* ---- gzip ---- */

static uint8_t *work;
static size_t work_size;

static bool
work_buffer(size_t size)
{
	if (work_size < size || work_size > KEEP_BUFFER)
	{
		free(work);
		work = malloc(size);
		work_size = work == NULL ? 0 : size;
	}
	return work != NULL;
}

static bool
grow_work(size_t most)
{
	size_t		size = work_size * 2 < most ? work_size * 2 : most;
	uint8_t    *grown = size > work_size ? realloc(work, size) : NULL;

	if (grown == NULL)
		return false;
	work = grown;
	work_size = size;
	return true;
}

bool
gzip_inflate(const uint8_t *data, size_t len, size_t max_message, const Party *party,
			 const uint8_t **out, size_t *out_len, GrpcCode *code, const char **why)
{
	z_stream	stream = {0};
	int			result = Z_OK;
	size_t		most = party_fits(party, max_message + 1) ? max_message + 1 : party_room(party);

	*code = GRPC_INTERNAL;
	*why = "the message is no gzip";
	if (!work_buffer(FIRST_SIZE) || inflateInit2(&stream, 15 + 16) != Z_OK)
		return false;
	stream.next_in = (uint8_t *) data;
	stream.avail_in = (unsigned) len;
	while (result == Z_OK)
	{
		if (stream.total_out > max_message)
			break;
		if (stream.total_out == work_size && !grow_work(most))
		{
			*code = GRPC_RESOURCE_EXHAUSTED;
			*why = grpc_too_much;
			break;
		}
		stream.next_out = work + stream.total_out;
		stream.avail_out = (unsigned) (work_size - stream.total_out);
		result = inflate(&stream, Z_NO_FLUSH);
		if (result == Z_BUF_ERROR && stream.avail_out == 0)
			result = Z_OK;
	}
	inflateEnd(&stream);
	if (stream.total_out > max_message)
	{
		*code = GRPC_RESOURCE_EXHAUSTED;
		*why = "the inflated message is larger than --max-message allows";
		return false;
	}
	*out = work;
	*out_len = stream.total_out;
	return result == Z_STREAM_END;
}

bool
gzip_deflate(const uint8_t *data, size_t len, const uint8_t **out, size_t *out_len)
{
	z_stream	stream = {0};
	bool		fits;

	if (!work_buffer(len) || deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return false;
	stream.next_in = (uint8_t *) data;
	stream.avail_in = (unsigned) len;
	stream.next_out = work;
	stream.avail_out = (unsigned) len;
	fits = deflate(&stream, Z_FINISH) == Z_STREAM_END;
	*out = work;
	*out_len = stream.total_out;
	deflateEnd(&stream);
	return fits;
}

/* ---- header values ---- */

bool
parse_grpc_timeout(const char *text, int64_t *us)
{
	static const struct
	{
		char		unit;
		int64_t		micros;
	}			units[] = {{'H', 3600000000LL}, {'M', 60000000}, {'S', 1000000}, {'m', 1000}, {'u', 1}};
	int64_t		value = 0;
	int			digits = 0;
	size_t		i;

	for (; *text >= '0' && *text <= '9' && digits < 8; text++, digits++)
		value = value * 10 + (*text - '0');
	if (digits == 0 || text[0] == '\0' || text[1] != '\0')
		return false;
	if (*text == 'n')
	{
		*us = value / 1000;
		return true;
	}
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (units[i].unit == *text)
		{
			*us = value * units[i].micros;
			return true;
		}
	}
	return false;
}

bool
list_has(const char *list, const char *item)
{
	size_t		len = strlen(item);

	while (list != NULL && *list != '\0')
	{
		size_t		n;

		list += strspn(list, " ,");
		n = strcspn(list, " ,");
		if (n == len && strncmp(list, item, len) == 0)
			return true;
		list += n;
	}
	return false;
}
