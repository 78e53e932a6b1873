/*
 * documents.h
 *		What answers say in XML and JSON.
 */
#ifndef GT_EXECUTORS_DOCUMENTS_H
#define GT_EXECUTORS_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "executors/util.h"

/* The text of the first element at a path from the root, "Error/Code". */
extern bool xml_value(const char *text, size_t len, const char *path, Buffer *value);

/* A string that is a member of the object that the text is. */
extern bool json_value(const char *text, size_t len, const char *name, Buffer *value);

#endif							/* GT_EXECUTORS_DOCUMENTS_H */
