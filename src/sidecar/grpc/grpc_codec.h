/*
 * grpc_codec.h
 *		What is between bytes and messages: frames, gzip, timeouts.
 */
#ifndef GT_GRPC_CODEC_H
#define GT_GRPC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc/grpc_status.h"
#include "net/party.h"

/* Collects frames of a stream; zeroed before its first use. */
typedef struct FrameReader
{
	uint8_t		prefix[5];
	size_t		prefix_len;
	uint8_t    *data;
	size_t		len;
	size_t		size;
	Party	   *party;			/* for whom; NULL: nobody is asked */
} FrameReader;

typedef struct Frame
{
	bool		compressed;
	const uint8_t *data;
	size_t		len;
} Frame;

/*
 * Take bytes from *data (advancing it) until a frame is whole: true, and it is
 * in *frame until frame_done().  False: more bytes are needed, or *code says
 * what is wrong, with *why.
 */
extern bool frame_read(FrameReader *reader, const uint8_t **data, size_t *len, size_t max_message,
					   Frame *frame, GrpcCode *code, const char **why);
extern void frame_done(FrameReader *reader);

/* Keep a whole frame for later, when frame_kept() gives it back. */
extern bool frame_keep(FrameReader *reader, const Frame *frame);
extern void frame_kept(const FrameReader *reader, Frame *frame);

/* Inside of a frame? */
extern bool frame_partial(const FrameReader *reader);

/* Why a call fails whose caller has its share of memory in use. */
extern const char grpc_too_much[];

/*
 * Inflate gzip into a buffer of its own, which the next call overwrites, and
 * which is to be no larger than what the party still has.  False: *code and *why.
 */
extern bool gzip_inflate(const uint8_t *data, size_t len, size_t max_message, const Party *party,
						 const uint8_t **out, size_t *out_len, GrpcCode *code, const char **why);

/* Deflate; false when that does not make it smaller.  Buffer as above. */
extern bool gzip_deflate(const uint8_t *data, size_t len, const uint8_t **out, size_t *out_len);

/* Microseconds of a grpc-timeout; false: it is none. */
extern bool parse_grpc_timeout(const char *text, int64_t *us);

/* Does a comma-separated list have this item? */
extern bool list_has(const char *list, const char *item);

#endif							/* GT_GRPC_CODEC_H */
