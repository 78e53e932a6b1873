/*
 * service_reflection.c
 *		grpc.reflection.v1 and v1alpha: the same messages under two names, so
 *		one implementation.
 *
 * The descriptors are a FileDescriptorSet.  A file is answered with all that
 * it imports, so that no tool has to ask again.
 */
#include <stdlib.h>
#include <string.h>

#include "reflection_v1.pb-c.h"
#include "services/descriptors.h"
#include "services/services.h"

#define MAX_FILES 32
#define MAX_SERVICES 16

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

/* A FileDescriptorProto, as far as it is needed here. */
typedef struct File
{
	const uint8_t *data;
	size_t		len;
	const uint8_t *name;
	size_t		name_len;
} File;

static File files[MAX_FILES];
static int	file_count;

/* ---- reading descriptors ---- */

typedef struct Field
{
	unsigned	number;
	const uint8_t *data;		/* of a length-delimited one; else NULL */
	size_t		len;
} Field;

static bool
read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	int			shift;

	*value = 0;
	for (shift = 0; shift < 64 && *at < end; shift += 7)
	{
		*value |= (uint64_t) (**at & 0x7F) << shift;
		if (!(*(*at)++ & 0x80))
			return true;
	}
	return false;
}

/* The next field of a message that protoc wrote. */
static bool
next_field(const uint8_t **at, const uint8_t *end, Field *field)
{
	uint64_t	tag;
	uint64_t	value;

	if (*at >= end || !read_varint(at, end, &tag))
		return false;
	field->number = (unsigned) (tag >> 3);
	field->data = NULL;
	field->len = 0;
	switch (tag & 7)
	{
		case 0:
			return read_varint(at, end, &value);
		case 1:
			*at += 8;
			return *at <= end;
		case 5:
			*at += 4;
			return *at <= end;
		case 2:
			if (!read_varint(at, end, &value) || value > (uint64_t) (end - *at))
				return false;
			field->data = *at;
			field->len = (size_t) value;
			*at += value;
			return true;
		default:
			return false;
	}
}

static void
read_files(void)
{
	const uint8_t *at = descriptors;
	Field		field;

	while (file_count < MAX_FILES && next_field(&at, descriptors_end, &field))
	{
		File	   *file = &files[file_count++];
		const uint8_t *inside = field.data;
		Field		part;

		file->data = field.data;
		file->len = field.len;
		while (next_field(&inside, field.data + field.len, &part))
		{
			if (part.number == 1)
			{
				file->name = part.data;
				file->name_len = part.len;
			}
		}
	}
}

static int
find_file(const uint8_t *name, size_t len)
{
	int			i;

	for (i = 0; i < file_count; i++)
	{
		if (files[i].name_len == len && memcmp(files[i].name, name, len) == 0)
			return i;
	}
	return -1;
}

/*
 * Does a message, enum or service, `data`, which is called `prefix` and its
 * own name, or something inside of it, have the name `symbol`?  Field 1 is the
 * name in all of them.  Inside are methods (2, of services), fields (2), nested
 * messages (3) and enums (4, of messages).
 */
static bool
has_symbol(const Field *part, const char *prefix, size_t prefix_len, const char *symbol, int depth)
{
	const uint8_t *at = part->data;
	const uint8_t *end = part->data + part->len;
	char		full[256];
	size_t		len = prefix_len;
	Field		field;

	if (part->data == NULL || depth > 4 || !next_field(&at, end, &field) || field.number != 1 ||
		prefix_len + field.len + 2 > sizeof(full))
		return false;
	memcpy(full, prefix, prefix_len);
	if (len > 0)
		full[len++] = '.';
	memcpy(full + len, field.data, field.len);
	len += field.len;
	if (strlen(symbol) == len && memcmp(symbol, full, len) == 0)
		return true;
	if (strncmp(symbol, full, len) != 0 || symbol[len] != '.')
		return false;
	while (next_field(&at, end, &field))
	{
		if ((field.number == 2 || field.number == 3 || field.number == 4) &&
			has_symbol(&field, full, len, symbol, depth + 1))
			return true;
	}
	return false;
}

static bool
file_has(const File *file, const char *symbol)
{
	const uint8_t *at = file->data;
	const uint8_t *end = file->data + file->len;
	const char *package = "";
	size_t		package_len = 0;
	Field		field;

	while (next_field(&at, end, &field))
	{
		if (field.number == 2)
		{
			package = (const char *) field.data;
			package_len = field.len;
		}
		/* messages, enums, services */
		if (field.number >= 4 && field.number <= 6 && has_symbol(&field, package, package_len, symbol, 0))
			return true;
	}
	return false;
}

/* ---- answering ---- */

/* The file and what it imports, each once. */
static void
collect(int i, bool *seen, ProtobufCBinaryData *out, size_t *count)
{
	const uint8_t *at = files[i].data;
	Field		field;

	if (seen[i])
		return;
	seen[i] = true;
	out[*count].data = (uint8_t *) files[i].data;
	out[*count].len = files[i].len;
	(*count)++;
	while (next_field(&at, files[i].data + files[i].len, &field))
	{
		int			import;

		if (field.number == 3 && field.data != NULL && (import = find_file(field.data, field.len)) >= 0)
			collect(import, seen, out, count);
	}
}

static void
answer_file(GrpcCall *call, Response *response, int i)
{
	Grpc__Reflection__V1__FileDescriptorResponse answer = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
	ProtobufCBinaryData found[MAX_FILES];
	bool		seen[MAX_FILES] = {false};

	if (i < 0)
	{
		error.error_code = GRPC_NOT_FOUND;
		error.error_message = (char *) "there is no such file or symbol";
		response->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
		response->error_response = &error;
	}
	else
	{
		answer.file_descriptor_proto = found;
		collect(i, seen, found, &answer.n_file_descriptor_proto);
		response->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
		response->file_descriptor_response = &answer;
	}
	grpc_send(call, &response->base);
}

static void
answer_services(GrpcCall *call, Response *response)
{
	Grpc__Reflection__V1__ListServiceResponse answer = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
	Grpc__Reflection__V1__ServiceResponse services[MAX_SERVICES];
	Grpc__Reflection__V1__ServiceResponse *pointers[MAX_SERVICES];
	const GrpcMethod *method;
	int			i;

	/* Methods are sorted by service. */
	for (i = 0; (method = grpc_method_at(i)) != NULL && answer.n_service < MAX_SERVICES; i++)
	{
		size_t		n = answer.n_service;

		if (n > 0 && strcmp(services[n - 1].name, method->service) == 0)
			continue;
		grpc__reflection__v1__service_response__init(&services[n]);
		services[n].name = (char *) method->service;
		pointers[n] = &services[n];
		answer.n_service++;
	}
	answer.service = pointers;
	response->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
	response->list_services_response = &answer;
	grpc_send(call, &response->base);
}

static void
answer_unsupported(GrpcCall *call, Response *response)
{
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

	error.error_code = GRPC_NOT_FOUND;
	error.error_message = (char *) "proto3 has no extensions";
	response->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
	response->error_response = &error;
	grpc_send(call, &response->base);
}

static void
reflect(GrpcCall *call, const ProtobufCMessage *message)
{
	const Request *request = (const void *) message;
	Response	response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	int			i;

	if (file_count == 0)
		read_files();
	response.valid_host = request->host;
	response.original_request = (Request *) request;
	switch (request->message_request_case)
	{
		case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
			answer_file(call, &response, find_file((const uint8_t *) request->file_by_filename, strlen(request->file_by_filename)));
			break;
		case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
			for (i = 0; i < file_count && !file_has(&files[i], request->file_containing_symbol); i++)
				;
			answer_file(call, &response, i < file_count ? i : -1);
			break;
		case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
			answer_services(call, &response);
			break;
		default:
			answer_unsupported(call, &response);
	}
}

#define REFLECTION(package) \
	{package ".ServerReflection", "ServerReflectionInfo", \
	&grpc__reflection__v1__server_reflection_request__descriptor, \
	GRPC_CLIENT_STREAMS | GRPC_SERVER_STREAMS | GRPC_OPEN_ENDED, reflect, grpc_ok, NULL}

const GrpcMethod reflection_methods[] =
{
	REFLECTION("grpc.reflection.v1"),
	REFLECTION("grpc.reflection.v1alpha"),
	{NULL}
};
