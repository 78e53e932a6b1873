/*
 * descriptors.h
 *		The compiled .proto files, a FileDescriptorSet, for reflection.
 */
#ifndef GT_DESCRIPTORS_H
#define GT_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t descriptors[];
extern const uint8_t descriptors_end[];

#endif							/* GT_DESCRIPTORS_H */
