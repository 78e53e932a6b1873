/*
 * message.h
 *		Packed protobuf messages in, checked; what protobuf-c leaves open.
 */
#ifndef GT_MESSAGE_H
#define GT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

/*
 * Unpack a message.  Strings must be UTF-8 without NUL, and the whole must fit
 * a limited memory.  It lives until message_release(), and only one does at a
 * time.  NULL: `error` names what is wrong.
 */
extern ProtobufCMessage *message_unpack(const ProtobufCMessageDescriptor *type,
										const uint8_t *data, size_t len,
										char *error, size_t error_size);
extern void message_release(void);

/* Is this UTF-8, as PostgreSQL sees it, without NUL? */
extern bool valid_utf8(const uint8_t *data, size_t len);

#endif							/* GT_MESSAGE_H */
