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
 * a limited memory, of which `most` may be had.  It lives until
 * message_release(), and only one does at a time.  NULL: `error` names what is
 * wrong; "": it was more than `most`.  by_element: the message is one repeated
 * message, and what is wrong with the values of an element is told by
 * message_fault() instead.
 */
extern ProtobufCMessage *message_unpack(const ProtobufCMessageDescriptor *type, bool by_element,
										const uint8_t *data, size_t len, size_t most,
										char *error, size_t error_size);

/* The memory that it takes. */
extern size_t message_size(void);
extern void message_release(void);

/* Why an element must not be used; NULL: it may. */
extern const char *message_fault(size_t element);

/* Is this UTF-8, as PostgreSQL sees it, without NUL? */
extern bool valid_utf8(const uint8_t *data, size_t len);

#endif							/* GT_MESSAGE_H */
