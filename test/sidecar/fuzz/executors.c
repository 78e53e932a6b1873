/*
 * executors.c
 *		Fuzzing what the executors read from others: URL templates with the
 *		values of leases, URLs against the allow-list, redis' answers, pairs, XML
 *		and JSON.
 *
 * The first byte picks the target.  Besides not crashing: a value never
 * changes where the path of a URL begins, and a reply is never longer than
 * what was there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executors/util.h"
#include "executors/target.h"
#include "executors/allow.h"
#include "executors/context.h"
#include "executors/transfer.h"
#include "executors/redis.h"
#include "executors/documents.h"
#include "executors/executors.h"
#include "insist.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static AllowList *list;

static char *
text_of(const uint8_t *data, size_t size)
{
	char	   *text = exec_alloc(size + 1);

	memcpy(text, data, size);
	return text;
}

/* A value in a path leaves host, query and segments to the template. */
static void
fuzz_value(const char *value)
{
	Pair		pair = {"v", (char *) value};
	TargetValues values = {value, value, value, value, &pair, 1};
	Target		target;
	char		error[EXEC_ERROR_SIZE];

	if (target_expand("http://h.example/a/{payload.v}/z", TARGET_URL, &values, &target, error, sizeof(error)))
	{
		const char *text = target.text.data;
		size_t		len = strlen(text);

		insist(strncmp(text, "http://h.example/a/", 19) == 0 && len > 21 && strcmp(text + len - 2, "/z") == 0, "the template stays");
		insist(strcspn(text + 19, "/?#") == len - 21, "one segment");
		insist(!target.lease_host, "the host is the template's");
	}
	target_free(&target);
	if (target_expand("http://{object_id}/z", TARGET_URL, &values, &target, error, sizeof(error)))
		insist(target.lease_host && strcspn(target.text.data + 7, "/?#@\\") == strlen(value), "the host is all of the value");
	target_free(&target);
	if (target_expand("redis://h:1/{object_id}/k", TARGET_REDIS, &values, &target, error, sizeof(error)))
		insist(strspn(target.text.data + 12, "0123456789") == strlen(value), "a database is a number");
	target_free(&target);
}

static void
fuzz_template(const char *text)
{
	static Pair pairs[] = {{"url", "http://h.example/x?y"}, {"host", "h.example:81"}, {"s", "../a b/%"}, {"empty", ""}};
	TargetValues values = {"o/1 \xc3\xa9", "custom", "id", NULL, pairs, 4};
	int			form;

	for (form = TARGET_URL; form <= TARGET_FILE; form++)
	{
		Target		target;
		char		error[EXEC_ERROR_SIZE] = "";

		insist(target_expand(text, form, &values, &target, error, sizeof(error)) || error[0] != '\0', "a failure says why");
		target_free(&target);
	}
}

static void
fuzz_url(const char *text)
{
	char		error[EXEC_ERROR_SIZE];
	Call		call = {0};

	if (list == NULL)
	{
		list = allow_create();
		allow_add(list, "good.example", error, sizeof(error));
		allow_add(list, "*.good.example:8080", error, sizeof(error));
	}
	call.url = (char *) text;
	if (transfer_split_url(&call) && allow_host(list, call.host_name, call.port, error, sizeof(error)))
		insist(strcasestr(text, "good") != NULL || strchr(text, '%') != NULL || strpbrk(text, "\xe2\xef\xf0\xc2") != NULL,
			   "only what is listed");
	free(call.host_name);
}

static void
fuzz_document(const char *text)
{
	Buffer		value = {NULL, 0, 0};

	if (xml_value(text, strlen(text), "a/b", &value))
		insist(strstr(text, "<a") != NULL && strstr(text, "<b") != NULL, "there are such elements");
	buffer_free(&value);
	if (json_value(text, strlen(text), "a", &value))
		insist(value.data != NULL && strchr(text, '{') != NULL && strchr(text, '}') != NULL, "there is an object");
	buffer_free(&value);
}

static void
fuzz_entry(const char *text)
{
	AllowList  *entries = allow_create();
	char		error[EXEC_ERROR_SIZE];

	allow_add(entries, text, error, sizeof(error));
	allow_host(entries, text, 80, error, sizeof(error));
	insist(!allow_host(entries, "169.254.169.254", 80, error, sizeof(error)), "metadata is never allowed");
	allow_free(entries);
}

static void
fuzz_redis(const uint8_t *data, size_t size)
{
	char	   *copy = malloc(size > 0 ? size : 1);	/* without a NUL, so that reading on is noticed */
	RedisReply	reply;
	int			len;

	memcpy(copy, data, size);
	len = redis_parse(copy, size, &reply);
	insist(len <= (int) size, "a reply is within what came");
	if (len > 0 && reply.text_len > 0)
		insist(reply.text >= copy && reply.text + reply.text_len <= copy + len, "its text is within it");
	free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;
	Pair	   *pairs;
	int			count;

	if (size == 0 || size > 4096)
		return 0;
	text = text_of(data + 1, size - 1);
	switch (data[0] % 7)
	{
		case 0:
			fuzz_value(text);
			break;
		case 1:
			fuzz_template(text);
			break;
		case 2:
			fuzz_url(text);
			break;
		case 3:
			fuzz_entry(text);
			break;
		case 4:
			fuzz_redis(data + 1, size - 1);
			break;
		case 6:
			fuzz_document(text);
			break;
		case 5:
			count = pairs_parse(text, &pairs);
			pairs_free(pairs, count);
			exec_sanitize(text, size / 2);
			insist(strlen(text) <= size / 2, "no longer than allowed");
			break;
	}
	free(text);
	return 0;
}
