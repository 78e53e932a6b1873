/*
 * transport.c
 *		Fuzzing what the transport reads of clients: frames, gzip, protobuf,
 *		header values; and what it makes of messages that it sends.
 *
 * The first byte picks the target, the second how the rest is cut into pieces.
 * Besides not crashing: what was unpacked has no NUL and packs again, and what
 * was encoded fits its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "distributed_gc.pb-c.h"
#include "garbagetruck_v1.pb-c.h"
#include "grpc/grpc_codec.h"
#include "insist.h"
#include "base/message.h"
#include "reflection_v1.pb-c.h"

#define MAX_MESSAGE 100000

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fuzz_frames(const uint8_t *data, size_t size, size_t piece)
{
	FrameReader reader = {0};
	GrpcCode	code = GRPC_OK;
	const char *why;

	while (size > 0 && code == GRPC_OK)
	{
		size_t		n = piece < size ? piece : size;
		const uint8_t *at = data;
		size_t		left = n;
		Frame		frame;

		while (left > 0 && frame_read(&reader, &at, &left, MAX_MESSAGE, &frame, &code, &why))
		{
			uint8_t		sum = 0;
			size_t		i;

			hold(frame.len <= MAX_MESSAGE);
			for (i = 0; i < frame.len; i++)
				sum ^= frame.data[i];
			hold(frame_keep(&reader, &frame));
			frame_kept(&reader, &frame);
			for (i = 0; i < frame.len; i++)
				sum ^= frame.data[i];
			hold(sum == 0);
			frame_done(&reader);
		}
		data += n;
		size -= n;
	}
	frame_done(&reader);
}

static void
fuzz_gzip(const uint8_t *data, size_t size)
{
	const uint8_t *out;
	size_t		len;
	GrpcCode	code;
	const char *why;

	if (gzip_inflate(data, size, MAX_MESSAGE, NULL, &out, &len, &code, &why))
		hold(len <= MAX_MESSAGE);
	if (size > 0 && gzip_deflate(data, size, &out, &len))
		hold(len <= size);
}

static void
fuzz_messages(const uint8_t *data, size_t size, unsigned which)
{
	static const ProtobufCMessageDescriptor *const types[] = {
		&distributed_gc__create_lease_request__descriptor, &distributed_gc__list_leases_request__descriptor,
		&garbagetruck__v1__create_batch_request__descriptor, &garbagetruck__v1__watch_request__descriptor,
		&garbagetruck__v1__update_request__descriptor, &garbagetruck__v1__handler_request__descriptor,
		&grpc__reflection__v1__server_reflection_request__descriptor
	};
	char		error[256];
	ProtobufCMessage *message = message_unpack(types[which % 7], which % 7 == 2, data, size, SIZE_MAX, error, sizeof(error));
	uint8_t    *packed;

	if (message == NULL)
	{
		hold(error[0] != '\0');
		return;
	}
	hold(message_fault(0) == NULL || (which % 7 == 2 && message_fault(0)[0] != '\0'));
	packed = malloc(protobuf_c_message_get_packed_size(message) + 1);
	protobuf_c_message_pack(message, packed);
	free(packed);
	message_release();
}

static void
fuzz_text(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);
	char		message[GRPC_ENCODED_MESSAGE];
	char		details[GRPC_ENCODED_DETAILS];
	int64_t		us;
	GrpcMore	more = {text, text, text, text};

	memcpy(text, data, size);
	text[size] = '\0';
	if (parse_grpc_timeout(text, &us))
		hold(us >= 0);
	list_has(text, "gzip");
	valid_utf8(data, size);
	hold(utf8_prefix(text, 10) <= 10);
	grpc_encode_message(text, message);
	hold(strlen(message) < sizeof(message));
	grpc_encode_details(GRPC_INVALID_ARGUMENT, text, "22023", &more, details);
	hold(strlen(details) < sizeof(details));
	hold(strlen(message) + strlen(details) < 7000);
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	switch (data[0] % 4)
	{
		case 0:
			fuzz_frames(data + 2, size - 2, (size_t) data[1] + 1);
			break;
		case 1:
			fuzz_gzip(data + 2, size - 2);
			break;
		case 2:
			fuzz_messages(data + 2, size - 2, data[1]);
			break;
		default:
			fuzz_text(data + 2, size - 2);
	}
	return 0;
}
